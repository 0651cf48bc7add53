//! Whole things that are said: over a node's stream, and in a peer's answer to a pull.
//!
//! How they are cut into messages is `wire`'s business; what they are about is in `follow`,
//! `delta`, `head` and `manual`. Every list is bounded where it enters and where it leaves.

use super::delta::Delta;
use super::follow::{Hello, Report, Settled, Welcome};
use super::head::Beacon;
use super::key::KeyLink;
use super::manual::Override;

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "made once per message and moved once")]
pub enum FromNode {
    /// The first message of a stream.
    Hello(Box<Hello>),
    /// What the node has done.
    Report(Box<Report>),
    /// Overrides for the orchestrator to adopt.
    HandIn(Vec<Override>),
    /// The node's whole ledger, asked for by `LedgerRequest`.
    Ledger(Delta),
}

/// What the orchestrator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromOrchestrator {
    /// The answer to hello.
    Welcome(Box<Welcome>),
    /// What the node lacks.
    Delta(Delta),
    /// Proof of freshness.
    Beacon(Beacon),
    /// A rotation of the cluster key.
    Link(KeyLink),
    /// What became of overrides that were handed in.
    Settled(Vec<Settled>),
    /// Asks for the node's whole ledger.
    LedgerRequest,
}

/// One thing in a peer's answer to a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullFrame {
    /// A rotation of the cluster key; before what needs it.
    Link(KeyLink),
    /// What the asker lacks of the ledger.
    Delta(Delta),
    /// The newest beacon the answerer holds.
    Beacon(Beacon),
    /// An override that the asker asked for.
    Override(Override),
    /// The answerer's ledger is not ahead of the asker's.
    Current,
}
