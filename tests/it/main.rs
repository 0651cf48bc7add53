//! The integration tests, in one binary so that they link once.
//!
//! Each module below opens with what it proves. Real sockets use port 0; nothing here sleeps to
//! synchronise.

#![allow(unreachable_pub, reason = "modules of one test binary share freely")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod cli;
mod fleet;
mod harness;
mod health;
mod leaving;
mod priors;
mod proxy;
mod starting;
mod tidy;
mod wire;
