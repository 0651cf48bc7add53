//! Takes writes, orders them, signs and streams them.
//!
//! A write goes through a service to the driver, which decides, stores, signs and publishes it;
//! every follower's session takes it from there. Several orchestrators may run in one process.

mod driver;
mod key_file;
mod mend;
mod metrics;
mod service;
mod shared;
mod store;
mod view;

mod http;
pub mod keeping;
pub mod server;
pub mod store_error;

pub use server::{Orchestrator, OrchestratorError, OrchestratorOptions};

#[cfg(test)]
mod tests;
