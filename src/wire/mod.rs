//! Bytes to model and back: the only floor that names generated types.

pub(crate) mod quantity;
pub(crate) mod rule_document;
pub(crate) mod rule_problems;
pub(crate) mod rule_schema;
pub(crate) mod rule_support;
pub(crate) mod rule_unknown;

mod rule_text;
mod rule_tree;
mod tree;

pub mod error;
pub(crate) mod field;

pub(crate) mod admin_proto;
pub(crate) mod delta_parts;
pub(crate) mod fleet_proto;
pub(crate) mod follow_proto;
pub(crate) mod follow_words;
pub(crate) mod grpc_health;
pub(crate) mod head_proto;
pub(crate) mod ledger_proto;
pub(crate) mod override_proto;
pub(crate) mod pull;

pub(crate) mod peer_json;
pub(crate) mod problem_document;
pub(crate) mod write_proto;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
pub(crate) mod samples;

/// The generated protobuf messages and services of `proto/tradewind/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("tradewind.v1");

    /// Everything in `proto/`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/tradewind_descriptors.bin"));
}
