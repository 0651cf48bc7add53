//! Why an orchestrator takes no writes, and which words of its followers tell it so.
//!
//! Only the verdicts; who raises a fence and who mends it is decided elsewhere. Invariant: only a
//! head with a signature that counts ever fences anybody.

use std::fmt;

use crate::model::head::{Position, SignedHead};
use crate::model::ids::{Epoch, NodeId, Revision};
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

impl Fence {
    /// Words that `parse` takes; none where a restart begins anew.
    pub fn words(&self) -> Option<String> {
        let at = |kind: &str, node: &NodeId, position: &Position| {
            Some(format!("{kind} {node} {} {}", position.epoch, position.revision))
        };
        match self {
            Fence::LostStore => Some("lost".to_owned()),
            Fence::Ahead { node, position } => at("ahead", node, position),
            Fence::Forked { node, position } => at("forked", node, position),
            Fence::StoreFailed(_) => None,
        }
    }

    /// The fence with these words.
    pub fn parse(words: &str) -> Option<Fence> {
        let parts: Vec<&str> = words.split(' ').collect();
        let [kind, node, epoch, revision] = parts[..] else {
            return (words == "lost").then_some(Fence::LostStore);
        };
        let node = NodeId::parse(node)?;
        let (epoch, revision) = (Epoch(epoch.parse().ok()?), Revision(revision.parse().ok()?));
        let position = Position { epoch, revision };
        match kind {
            "ahead" => Some(Fence::Ahead { node, position }),
            "forked" => Some(Fence::Forked { node, position }),
            _ => None,
        }
    }

    /// Whether a ledger at `own` has left what was seen behind it: the verdict was reached beside
    /// an older ledger, before a recovery.
    pub fn is_overtaken_by(&self, own: Position) -> bool {
        match self {
            Fence::Ahead { position, .. } => *position <= own,
            Fence::Forked { position, .. } => position.epoch < own.epoch,
            Fence::LostStore | Fence::StoreFailed(_) => false,
        }
    }

    /// What a node was seen with.
    pub fn seen(&self) -> Option<Position> {
        match self {
            Fence::Ahead { position, .. } | Fence::Forked { position, .. } => Some(*position),
            Fence::LostStore | Fence::StoreFailed(_) => None,
        }
    }
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
                 run `tradewind orchestrator recover`, with `--new-fleet` where there is no fleet",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_from_before_a_recovery_fences_nobody() {
        let at = |epoch, revision| Position { epoch: Epoch(epoch), revision: Revision(revision) };
        let node = NodeId::parse("a").unwrap();
        let ahead = Fence::Ahead { node: node.clone(), position: at(1, 5) };
        assert!(!ahead.is_overtaken_by(at(1, 4)));
        assert!(ahead.is_overtaken_by(at(2, 2)));
        let forked = Fence::Forked { node, position: at(1, 5) };
        assert!(!forked.is_overtaken_by(at(1, 9)));
        assert!(forked.is_overtaken_by(at(2, 6)));
        assert!(!Fence::LostStore.is_overtaken_by(at(9, 9)));
    }

    #[test]
    fn a_fence_survives_its_words() {
        let node = NodeId::parse("fra2").unwrap();
        let position = Position { epoch: Epoch(2), revision: Revision(17) };
        let ahead = Fence::Ahead { node: node.clone(), position };
        for fence in [Fence::LostStore, ahead, Fence::Forked { node, position }] {
            assert_eq!(Fence::parse(&fence.words().unwrap()), Some(fence));
        }
        assert_eq!(Fence::parse("ahead fra2 two 17"), None);
    }
}
