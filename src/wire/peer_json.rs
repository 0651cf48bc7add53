//! The JSON of the peer port: digests, replies, neighbour lists and latency info.
//!
//! Not the configuration itself, which is rules. Binary fields are base64 (RFC 4648, padded).
//! Unknown keys are ignored, so that releases can differ within a fleet; known keys are read
//! strictly. The JSON types are private: nobody above sees anything but the model.

mod digest;
mod latency_info;
mod neighbour_list;
mod parts;

pub(crate) use digest::{digest_from_json, digest_to_json, reply_from_json, reply_to_json};
pub(crate) use latency_info::{latency_info_from_json, latency_info_to_json, source_word};
pub(crate) use neighbour_list::{
    ListedNeighbour, neighbour_list_from_json, neighbour_list_to_json,
};

#[cfg(test)]
mod tests;
