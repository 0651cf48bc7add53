//! Ground floor: the nouns and their algebra.
//!
//! No IO, no clock, no randomness, no serialisation framework: values in, values out.

pub mod ids;
pub mod moment;
pub mod rule;
