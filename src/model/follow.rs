//! What a node and an orchestrator say to each other on the stream, apart from deltas.
//!
//! Nouns only; their bytes are `wire`'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use super::head::{Position, SignedHead};
use super::ids::{ClusterId, NodeId, PeerAddr, RuleId, Version};
use super::key::PublicKey;
use super::manual::{AuthorCertificate, OverrideMark};

/// The first message of a stream: who the node is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The node's name.
    pub node: NodeId,
    /// Where it stands; empty when not said.
    pub region: String,
    /// What rules may select it by.
    pub labels: BTreeMap<String, String>,
    /// Where clients reach it.
    pub traffic_addresses: Vec<String>,
    /// Where peers reach it.
    pub peer_address: Option<PeerAddr>,
    /// What it holds; none on an empty disk.
    pub head: Option<SignedHead>,
    /// Its own key, for its author certificate.
    pub key: PublicKey,
    /// The release of its program.
    pub program_version: String,
    /// Serial of the last key link it follows; 0 for none.
    pub link_serial: u64,
}

/// The orchestrator's answer to hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The fleet.
    pub cluster: ClusterId,
    /// The key that signs now.
    pub key: PublicKey,
    /// The orchestrator's word that this node may write overrides.
    pub certificate: Option<AuthorCertificate>,
    /// The orchestrator knows less than its followers and takes no writes.
    pub fenced: bool,
    /// From one beacon to the next.
    pub beacon_interval: Duration,
}

/// What a node has done; sent when it changes and about once a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Stored here.
    pub accepted: Option<Position>,
    /// In use by requests.
    pub active: Option<Position>,
    /// Which way the accepted position came.
    pub path: Path,
    /// Rules that are not in force here at their newest version.
    pub rejected: Vec<RejectedRule>,
    /// How the node sees its stream.
    pub feed: FeedState,
    /// How many overrides it holds.
    pub overrides: u64,
    /// Whether it is being taken out of service.
    pub draining: bool,
    /// Requests since its start.
    pub requests: u64,
    /// What needs an operator; empty when all is well.
    pub alarm: String,
}

/// A rule that a node could not put in force; the version before it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRule {
    /// Which rule.
    pub id: RuleId,
    /// The version that was rejected.
    pub version: Version,
    /// Why, for people.
    pub why: String,
}

/// Which way a revision came to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// From the orchestrator.
    Stream,
    /// From a peer.
    Peer,
    /// From its own disk.
    Disk,
}

/// How a node sees its stream from the orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedState {
    /// Nothing newer is known than what has arrived.
    Live,
    /// Something newer is known, and it should have arrived.
    Lagging,
    /// No stream, or a silent one.
    Lost,
}

/// What became of an override that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which override.
    pub mark: OverrideMark,
    /// What became of it.
    pub outcome: SettledOutcome,
    /// For people; may be empty.
    pub why: String,
}

/// What became of an override that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettledOutcome {
    /// It is in the ledger now, at its own version.
    Adopted,
    /// The ledger was at or past its version.
    Void,
    /// The ledger had moved on from its base: filed in the rule's history, not in force.
    Conflict,
    /// It does not hold.
    Refused,
}

impl Path {
    /// As it stands in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Stream => "stream",
            Path::Peer => "peer",
            Path::Disk => "disk",
        }
    }
}

impl FeedState {
    /// As it stands in reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FeedState::Live => "live",
            FeedState::Lagging => "lagging",
            FeedState::Lost => "lost",
        }
    }
}

impl SettledOutcome {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            SettledOutcome::Adopted => "adopted",
            SettledOutcome::Void => "void",
            SettledOutcome::Conflict => "conflict",
            SettledOutcome::Refused => "refused",
        }
    }
}
