//! HTTP/1.1 to a target: one exchange at a time over one connection.
//!
//! `connection` is what the pool keeps, `request` writes what goes to the target, `response` and
//! `decoder` understand what comes back, and `upload` goes on sending while nobody listens.
//! Parsing is httparse's. Why this is not hyper's client: docs/decisions/0009.

pub(super) mod connection;
pub(super) mod request;
pub(super) mod upload;

mod decoder;
mod response;
