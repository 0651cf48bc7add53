//! One request, end to end.
//!
//! `listener` owns the traffic threads, `forward` the way of one request; the control side hands
//! in immutable `routes` and never anything else.

pub(crate) mod listener;
pub(crate) mod routes;

mod attempt;
mod forward;

mod authority;
mod body;
pub(crate) mod distance;
mod headers;
pub(crate) mod pool;
mod reply;
pub(crate) mod resolve;
mod stall;

#[cfg(test)]
mod tests;
