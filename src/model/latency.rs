//! What a node tells its peers about the targets it has measured.
//!
//! Raw numbers and their age: the reader clamps, decays and weighs them. Nothing here has been
//! judged, so any number may be absurd.

/// What one node knows about the latency of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyInfoRow {
    /// The target's address as `TargetAddress` shows it.
    pub target: String,
    /// Time to the response head, in milliseconds.
    pub latency_ms: f64,
    /// The part of it that is the wire, in milliseconds.
    pub net_ms: f64,
    /// The part of it that is the target, in milliseconds.
    pub svc_ms: f64,
    /// Share of failures, 0 to 1.
    pub err: f64,
    /// How far the numbers can be relied on, 0 to 1.
    pub confidence: f64,
    /// How many samples went in.
    pub samples: u64,
    /// Milliseconds since the last sample, when this was said.
    pub age_ms: u64,
    /// Where the numbers come from.
    pub source: LatencySource,
}

/// Where an estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LatencySource {
    /// From this node's own requests.
    Measured,
    /// From peers.
    Peer,
    /// From the rule's hint or the default.
    Default,
}
