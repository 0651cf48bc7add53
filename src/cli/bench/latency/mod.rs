//! `tradewind bench latency`: what choosing by latency is worth, with real processes.
//!
//! Eight targets at different distances, served by this process, one of them in trouble; each
//! proxy has eight of its own, and clients that come when they are due. Read in this order:

mod targets;

mod clients;
mod figures;
mod schedule;

mod proxies;

mod cold;
mod scenario;

pub(crate) mod command;
mod report;
