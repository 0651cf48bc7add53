//! Settings that more than one role reads.
//!
//! Flags, variables and their defaults are declared where the commands are; what stands here is
//! what several of them need in typed form.

pub(crate) mod distances;
