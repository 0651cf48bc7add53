//! Tradewind: a global HTTP proxy that keeps steering when its control plane is gone.
//!
//! The house has floors; a module uses floors below its own, never above or beside:
//!
//! ```text
//!  roof      main.rs, cli/                 roles and commands
//!  4  roles  node/      orchestrator/      tasks, sockets, disk
//!  3  path   proxy/                        one request, end to end
//!  2  words  wire/                         bytes <-> model: protobuf, JSON
//!  1  mind   engine/    routing/           decisions: no IO, no clock, seeded randomness
//!  0  ground model/                        nouns and their algebra
//!  walls     config/    telemetry/         seen by floors 3, 4 and the roof
//! ```

#![forbid(unsafe_code)]

pub mod model;

pub mod engine;
pub mod routing;

pub mod wire;

pub mod proxy;

pub mod node;
pub mod orchestrator;

pub mod config;
pub mod telemetry;

pub mod cli;
