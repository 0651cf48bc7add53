//! Simulations: the real decisions in worlds made of seeds and virtual time.

#![allow(unreachable_pub, reason = "modules of one test binary share freely")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::large_enum_variant, reason = "events of a simulation live briefly")]

mod fleet;
mod latency;
