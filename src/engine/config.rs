//! What a node's mind is told once, at its start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use crate::model::head::{Beacon, Position};
use crate::model::ids::{NodeId, PeerAddr, RuleId, Version};
use crate::model::key::{PrivateKey, PublicKey};
use crate::model::ledger::Ledger;
use crate::model::manual::{AuthorCertificate, Override, OverrideSet};
use crate::model::rule_set::RuleSet;
use crate::model::trust::Trust;

/// Who the node is and whom it is to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Its name.
    pub node: NodeId,
    /// Where it stands; empty when not said.
    pub region: String,
    /// What rules may select it by.
    pub labels: BTreeMap<String, String>,
    /// Where peers reach it.
    pub peer_address: PeerAddr,
    /// Where clients reach it; shown to people only.
    pub traffic_addresses: Vec<String>,
    /// The release of its program.
    pub program_version: String,
    /// Its own key, for overrides.
    pub key: PrivateKey,
    /// Cluster keys from configuration; none to learn them.
    pub trusted: Vec<PublicKey>,
    /// How many orchestrators are configured; streams are opened by index.
    pub orchestrators: usize,
    /// Peers to begin with; never forgotten.
    pub seeds: Vec<PeerAddr>,
    /// Whom to gossip with.
    pub topology: Topology,
    /// The pace of everything.
    pub pace: Pace,
}

/// Whom to gossip with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Find out: this many close ones, and this many random ones.
    Discover {
        /// Closest by measured round trip.
        near: usize,
        /// Random, to hold the overlay together.
        far: usize,
    },
    /// These, always.
    Fixed(Vec<PeerAddr>),
}

/// The pace of everything that happens by itself.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Comparison with one neighbour while all is equal.
    pub compare_calm: Duration,
    /// The same while something differs or the stream is not live.
    pub compare_busy: Duration,
    /// How long a lazy announcement may wait.
    pub lazy: Duration,
    /// After which an unanswered pull is given to another peer.
    pub pull_deadline: Duration,
    /// Neighbour lists are exchanged and neighbours reconsidered, once settled.
    pub explore: Duration,
    /// Far neighbours are drawn anew, at least.
    pub redraw: Duration,
    /// The least time between two returns to the bootstrap addresses.
    pub bootstrap: Duration,
    /// The first and the longest wait before a stream is opened again.
    pub reopen: (Duration, Duration),
    /// From one report to the next while nothing changes.
    pub report: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            compare_calm: Duration::from_secs(5),
            compare_busy: Duration::from_millis(500),
            lazy: Duration::from_millis(500),
            pull_deadline: Duration::from_secs(2),
            explore: Duration::from_secs(20),
            redraw: Duration::from_secs(90),
            bootstrap: Duration::from_secs(30),
            reopen: (Duration::from_millis(100), Duration::from_secs(5)),
            report: Duration::from_secs(1),
        }
    }
}

/// What a node keeps on its disk, and finds there at its start.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// The fleet's rules.
    pub ledger: Option<Ledger>,
    /// The highest position ever applied; the ledger may be below it only when it was damaged.
    pub high_water: Option<Position>,
    /// The winning overrides, verified before they were kept.
    pub overrides: OverrideSet,
    /// This node's own overrides that no orchestrator has acknowledged yet.
    pub authored: OrdMap<(RuleId, Version), Arc<Override>>,
    /// Why this node may write overrides.
    pub certificate: Option<AuthorCertificate>,
    /// Whose signature counts.
    pub trust: Trust,
    /// In open mode: which key each author was first seen with.
    pub pins: BTreeMap<NodeId, PublicKey>,
    /// The newest beacon seen.
    pub beacon: Option<Beacon>,
}

/// A look into the mind, for status pages and reports.
#[derive(Clone, Debug)]
pub struct Status {
    /// Stored here.
    pub accepted: Option<Position>,
    /// In use by requests.
    pub active: Option<Position>,
    /// The highest position that a valid signature vouches for.
    pub known: Option<Position>,
    /// How long the node has known of something that it lacks; zero when it lacks nothing.
    pub behind: Duration,
    /// Since a higher tick first arrived, by whatever path; none when no beacon ever came.
    pub staleness: Option<Duration>,
    /// How the node sees its stream.
    pub feed: crate::model::follow::FeedState,
    /// Whether the ledger was confirmed by a live beacon or by enough peers.
    pub confirmed: bool,
    /// Where trust comes from.
    pub trust: crate::model::trust::TrustSource,
    /// What needs an operator; empty when all is well.
    pub alarm: String,
    /// Rules not in force here at their newest version.
    pub rejected: Vec<crate::model::follow::RejectedRule>,
    /// Everything that is held about rules.
    pub rule_set: RuleSet,
    /// Whether this node is being taken out of service.
    pub draining: bool,
}
