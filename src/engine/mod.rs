//! The mind of a node and of an orchestrator, as deterministic state machines.
//!
//! No IO, no clock, no tasks; randomness is seeded. The shells (`node`, `orchestrator`, the
//! simulator) feed inputs and carry out effects.

pub mod config;
pub mod port;

mod mind;
pub use mind::Engine;

pub mod adoption;
pub mod commits;
pub mod fence;
pub mod followers;
pub mod propagation;
pub mod recovery;
pub mod write_error;
pub mod write_memory;

mod courtesy;
mod feed;
mod gossip;
mod hand;
mod neighbourhood;
mod replica;
