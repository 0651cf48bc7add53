//! Claims about an orchestrator over real sockets: each starts its own, at free ports.

mod bed;

mod following;
mod mending;
mod ports;
mod writing;
