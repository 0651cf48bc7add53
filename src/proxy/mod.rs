//! One request, end to end.
//!
//! `listener` owns the traffic threads, `connection` one client, `forward` the way of one request;
//! the control side hands in immutable `routes` and never anything else.

pub(crate) mod listener;
pub(crate) mod routes;
pub(crate) mod running;
pub(crate) mod sockets;

mod access;
mod activity;
mod alarm;
mod announced;
mod attempt;
pub(crate) mod certificates;
mod checks;
mod closing;
mod connection;
pub(crate) mod control_port;
pub(crate) mod dial;
mod first_line;
mod first_word;
mod forward;

mod authority;
mod body;
mod broken;
pub(crate) mod distance;
mod grpc;
mod headers;
mod http1_target;
mod http2;
mod http2_frames;
mod http2_target;
mod last_call;
mod lingering;
mod noted;
mod onward;
pub(crate) mod pool;
pub(crate) mod prober;
mod racing;
mod repeats;
mod reply;
pub(crate) mod resolve;
mod rewound;
pub(crate) mod shedding;
pub(crate) mod stall;
pub(crate) mod target_tls;
mod terms;
mod tunnel;
mod underway;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;
