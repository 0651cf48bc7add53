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

/// The generated protobuf messages and services of `proto/tradewind/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("tradewind.v1");

    /// Everything in `proto/`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/tradewind_descriptors.bin"));
}
