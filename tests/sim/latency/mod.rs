//! Choosing targets by latency in a world of seeds and virtual time.
//!
//! `world` has regions, targets with queues and service times, and nodes that send; `steering`
//! holds what is promised of the latency policy there, beside baselines in the same world.

mod beside;
mod steering;
mod world;
