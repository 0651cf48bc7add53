//! The changes between two points of the fleet's history, and why a ledger may refuse them.

use std::fmt;
use std::sync::Arc;

use super::head::{Branch, Position, SignedHead};
use super::ids::{RuleId, Version};
use super::record::Record;

/// The newest version of every rule that changed, with the head that it leads to.
///
/// The same value travels from the orchestrator, between peers and to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// What it builds on.
    pub basis: Basis,
    /// The head of the ledger that results.
    pub to: SignedHead,
    /// The branch points since the basis, oldest first; all of them with a replacement.
    pub branches: Vec<Branch>,
    /// Invariant, checked on apply: strictly rising by (revision, id), no id twice.
    pub records: Vec<Arc<Record>>,
}

/// What a delta builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A ledger at this position or later, up to the delta's head.
    After(Position),
    /// Nothing: the records are the whole ledger, and what is absent is retired.
    Nothing,
}

/// What a ledger answers to somebody who stands at some position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "made once per answer and moved once")]
pub enum Changes {
    /// The asker is where this ledger is, or beyond.
    Current,
    /// What the asker lacks.
    Delta(Delta),
}

/// Why a ledger refused a delta. None of these touches the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It leads to where the ledger is already, or before.
    NotNewer,
    /// It builds on something that this ledger has not reached, or not on this history.
    NeedsReplace,
    /// It belongs to another fleet.
    OtherCluster,
    /// Its head or a branch point is not signed by a key that counts.
    BadSignature,
    /// Its records are not in order, out of range, or too many.
    Malformed,
    /// A record that should be known differs, or a version falls.
    Contradiction(RuleId, Version),
    /// The result is not what the head says. The ledger's own content may be damaged, or this is
    /// a fork, or a Replace that does not match its own head.
    WrongFingerprint,
}

impl Delta {
    /// Whether it brings a whole ledger.
    pub fn is_replace(&self) -> bool {
        self.basis == Basis::Nothing
    }

    /// Bytes it takes, about.
    pub fn size(&self) -> usize {
        256 + self.branches.len() * 200 + self.records.iter().map(|r| r.size()).sum::<usize>()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotNewer => f.write_str("leads nowhere new"),
            Refusal::NeedsReplace => f.write_str("does not build on this ledger's history"),
            Refusal::OtherCluster => f.write_str("belongs to another cluster"),
            Refusal::BadSignature => f.write_str("is not signed by a trusted key"),
            Refusal::Malformed => f.write_str("is malformed"),
            Refusal::Contradiction(id, version) => {
                write!(f, "contradicts what is known of rule {id} at {version}")
            }
            Refusal::WrongFingerprint => f.write_str("does not lead to the content it promises"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A stable word for metrics and reports.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NotNewer => "not_newer",
            Refusal::NeedsReplace => "needs_replace",
            Refusal::OtherCluster => "other_cluster",
            Refusal::BadSignature => "bad_signature",
            Refusal::Malformed => "malformed",
            Refusal::Contradiction(..) => "contradiction",
            Refusal::WrongFingerprint => "wrong_fingerprint",
        }
    }
}
