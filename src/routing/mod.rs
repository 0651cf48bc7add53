//! Which rule and which target a request goes to: no IO, no clock, seeded randomness.

pub mod matcher;
pub mod table;

pub mod budget;
pub mod cell;
mod ejection;
pub mod estimate;
pub mod hash;
pub mod pick;
pub mod prior;
pub mod selector;

#[cfg(test)]
mod tests;
