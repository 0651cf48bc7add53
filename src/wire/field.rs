//! Single fields on the way in: lengths, grammars and ranges.
//!
//! Knows no messages. Invariant: what passes here satisfies the model's own constructors.

use bytes::Bytes;

use super::error::WireError;
use crate::model::fingerprint::Fingerprint;
use crate::model::ids::{ClusterId, Epoch, NodeId, Revision, RuleId, Version};
use crate::model::key::{PublicKey, Signature};
use crate::model::limits;
use crate::model::record::Body;

/// Exactly `N` bytes.
pub(crate) fn exact<const N: usize>(
    bytes: &[u8],
    field: &'static str,
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Invalid(field))
}

/// A cluster id.
pub(crate) fn cluster(bytes: &[u8]) -> Result<ClusterId, WireError> {
    exact(bytes, "cluster").map(ClusterId)
}

/// A public key.
pub(crate) fn key(bytes: &[u8], field: &'static str) -> Result<PublicKey, WireError> {
    exact(bytes, field).map(PublicKey)
}

/// A signature.
pub(crate) fn signature(bytes: &[u8]) -> Result<Signature, WireError> {
    exact(bytes, "signature").map(Signature)
}

/// A fingerprint.
pub(crate) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, WireError> {
    exact(bytes, "fingerprint").map(Fingerprint)
}

/// A number that JSON holds exactly, so that both forms of a message carry the same.
pub(crate) fn number(number: u64, field: &'static str) -> Result<u64, WireError> {
    if number <= Version::MAX.get() { Ok(number) } else { Err(WireError::Invalid(field)) }
}

/// A version.
pub(crate) fn version(number: u64) -> Result<Version, WireError> {
    Version::new(number).ok_or(WireError::Invalid("version"))
}

/// A revision; 0 is before the first commit.
pub(crate) fn revision(revision: u64, field: &'static str) -> Result<Revision, WireError> {
    number(revision, field).map(Revision)
}

/// An epoch, from 1.
pub(crate) fn epoch(epoch: u64, field: &'static str) -> Result<Epoch, WireError> {
    if epoch == 0 {
        return Err(WireError::Invalid(field));
    }
    number(epoch, field).map(Epoch)
}

/// A rule id.
pub(crate) fn rule_id(text: &str) -> Result<RuleId, WireError> {
    RuleId::parse(text).ok_or(WireError::Invalid("id"))
}

/// A node's name.
pub(crate) fn node_id(text: &str) -> Result<NodeId, WireError> {
    NodeId::parse(text).ok_or(WireError::Invalid("node"))
}

/// A rule's data, or none where it is retired.
///
/// Copied: a slice would keep the frame it came in alive for as long as the rule lives.
pub(crate) fn body(data: Option<&Bytes>) -> Result<Body, WireError> {
    match data {
        None => Ok(Body::Retired),
        Some(data) if data.len() > limits::RULE_BYTES => Err(WireError::TooLarge("data")),
        Some(data) => Ok(Body::Live(Bytes::copy_from_slice(data))),
    }
}

/// A short text that somebody else chose.
pub(crate) fn word(text: String, field: &'static str) -> Result<String, WireError> {
    if text.len() > limits::WORD_BYTES { Err(WireError::TooLarge(field)) } else { Ok(text) }
}

/// At most `most` entries.
pub(crate) fn at_most(count: usize, most: usize, field: &'static str) -> Result<(), WireError> {
    if count > most { Err(WireError::TooLarge(field)) } else { Ok(()) }
}

/// A reason for people, cut on a character where it is too long: it decides nothing.
pub(crate) fn reason(mut text: String) -> String {
    if text.len() > limits::REASON_BYTES {
        let end = (0..=limits::REASON_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// What must be there.
pub(crate) fn required<T>(field: Option<T>, name: &'static str) -> Result<T, WireError> {
    field.ok_or(WireError::Missing(name))
}
