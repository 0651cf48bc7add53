//! Ground floor: the nouns and their algebra.
//!
//! No IO, no clock, no randomness, no serialisation framework: values in, values out.

pub mod ids;
pub mod limits;
pub mod moment;
pub mod network;
pub mod rule;

pub mod fingerprint;
pub mod head;
pub mod key;
pub mod record;
pub mod trust;

pub mod delta;
pub mod ledger;
pub mod manual;
pub mod rule_set;

pub mod digest;
pub mod exchange;
pub mod follow;
pub mod latency;
pub mod peer;
