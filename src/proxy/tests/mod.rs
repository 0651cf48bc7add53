//! Requests through real traffic threads in this process, byte by byte.
//!
//! Sockets on port 0 at both ends. What the node as a whole does with requests is tested with the
//! binary; here stand the claims that need the proxy's own counters, bounds and state.

mod bed;
mod blame;

mod announced;
mod bounds;
mod changing;
mod connections;
mod counting;
mod dialling;
mod framing;
mod hostile;
mod http2;
mod http2_ends;
mod http2_limits;
mod leaving;
mod limits;
mod lines;
mod lingering;
mod logging;
mod own;
mod policies;
mod repeats;
mod resting;
mod secure;
mod targets;
mod targets_tls;
mod timing;
mod tunnels;
mod uploads;
