//! The proxy process: tasks, sockets, disk.
