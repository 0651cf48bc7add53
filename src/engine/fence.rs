//! Why an orchestrator takes no writes, and which words of its followers tell it so.
//!
//! Only the verdicts; who raises a fence and who mends it is decided elsewhere. Invariant: only a
//! head with a signature that counts ever fences anybody.

use std::fmt;

use crate::model::head::{Position, SignedHead};
use crate::model::ids::NodeId;
use crate::model::ledger::Ledger;
use crate::model::trust::Trust;

/// Why an orchestrator takes no writes until it has recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The key is there, but the store is not.
    LostStore,
    /// A node knows more than this orchestrator.
    Ahead {
        /// Which node.
        node: NodeId,
        /// Where it stands.
        position: Position,
    },
    /// A node holds a signed history that is not this one.
    Forked {
        /// Which node.
        node: NodeId,
        /// Where it stands.
        position: Position,
    },
    /// The store failed, and what it holds is not known.
    StoreFailed(String),
}

/// What a follower's head says about this orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// It lies on this history, as far as can be told.
    Behind,
    /// It is not signed by a key that counts, or of another cluster: it says nothing.
    Unfounded,
    /// It is beyond this history.
    Ahead,
    /// It contradicts this history.
    Forked,
}

/// Judges a follower's head. `recent` knows the head at a recent position of this history.
pub fn judge_head(
    signed: &SignedHead,
    ledger: &Ledger,
    trust: &Trust,
    recent: impl FnOnce(Position) -> Option<SignedHead>,
) -> HeadVerdict {
    let own = ledger.head();
    let theirs = &signed.head;
    if theirs == own {
        return HeadVerdict::Behind;
    }
    if theirs.cluster != own.cluster || !trust.accepts_head(signed) {
        return HeadVerdict::Unfounded;
    }
    if theirs.position() > own.position() {
        return HeadVerdict::Ahead;
    }
    let known = if theirs.position() == own.position() {
        Some(*ledger.signed())
    } else {
        recent(theirs.position())
    };
    match known {
        Some(known) if known.head != *theirs => HeadVerdict::Forked,
        _ => HeadVerdict::Behind,
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fence::LostStore => f.write_str(
                "the cluster key is here, but the store is lost; \
                 run `tradewind orchestrator recover`",
            ),
            Fence::Ahead { node, position } => write!(
                f,
                "node {node} holds revision {} of epoch {}, which is beyond this store; \
                 run `tradewind orchestrator recover`",
                position.revision, position.epoch
            ),
            Fence::Forked { node, position } => write!(
                f,
                "node {node} holds another history at revision {} of epoch {}; \
                 run `tradewind orchestrator recover`",
                position.revision, position.epoch
            ),
            Fence::StoreFailed(why) => {
                write!(f, "the store failed ({why}); mend the disk and start again")
            }
        }
    }
}
