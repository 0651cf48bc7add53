//! What nodes tell each other about what they hold: never rule data.

use super::head::{Beacon, SignedHead};
use super::ids::{ClusterId, RuleId, Version};
use super::manual::{OverrideMark, OverrideSummary};
use super::peer::PeerCard;

/// An announcement: what the sender holds and what just changed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Where the receiver may pull from; who says so.
    pub from: PeerCard,
    /// The sender's fleet, if it knows one.
    pub cluster: Option<ClusterId>,
    /// The sender's ledger.
    pub head: Option<SignedHead>,
    /// The newest beacon the sender holds.
    pub beacon: Option<Beacon>,
    /// The sender's overrides; a plain peer has no word for them.
    pub overrides: Option<OverrideSummary>,
    /// The effective versions of what just changed; at most `limits::DIGEST_VERSIONS`.
    pub versions: Vec<(RuleId, Version)>,
    /// Names of overrides, sent when the last exchange showed a difference.
    pub marks: Vec<OverrideMark>,
}

/// What the receiver of a digest answers in the same round trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestReply {
    /// The receiver's ledger.
    pub head: Option<SignedHead>,
    /// The newest beacon the receiver holds.
    pub beacon: Option<Beacon>,
    /// The receiver's overrides.
    pub overrides: Option<OverrideSummary>,
    /// What the receiver is going to pull.
    pub want: Vec<RuleId>,
    /// What the sender lacks.
    pub newer: Vec<(RuleId, Version)>,
    /// Names of the receiver's overrides, where the summaries differ.
    pub marks: Vec<OverrideMark>,
}
