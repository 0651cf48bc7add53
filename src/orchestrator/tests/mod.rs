//! Claims about an orchestrator over real sockets: each starts its own, at free ports.

mod bed;

mod crashing;
mod crowds;
mod following;
mod keeping;
mod mending;
mod ports;
mod writing;
