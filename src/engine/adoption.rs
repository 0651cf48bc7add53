//! Taking overrides into the ledger: what nodes wrote by hand while there was no orchestrator.
//!
//! An override that is not void goes in at its own version with its own bytes, so that nothing
//! changes in force. Invariants: what does not hold changes nothing; the same override handed in
//! twice is adopted once; a body that loses is filed, never dropped in silence.

use imbl::{OrdMap, OrdSet, Vector};

use super::commits::{Commits, Filed, FiledKind};
use crate::model::follow::{Settled, SettledOutcome};
use crate::model::ids::{ClusterId, NodeId, RuleId, Version};
use crate::model::ledger::Change;
use crate::model::limits;
use crate::model::manual::{Override, Void};
use crate::model::moment::WallTime;
use crate::model::record::Record;

/// What became of overrides that were handed in.
#[derive(Clone, Debug, Default)]
pub struct Adoption {
    /// One per override, in the order of the hand-in.
    pub settled: Vec<Settled>,
    /// For the rules' histories.
    pub filed: Vec<Filed>,
    /// An author was pinned.
    pub pinned: bool,
    /// Rules whose history went two ways: for an operator's eyes.
    pub conflicts: Vec<RuleId>,
}

/// Hashes of overrides settled lately, so that a second hand-in is not a conflict.
#[derive(Clone, Debug, Default)]
pub struct AdoptedMemory {
    hashes: OrdSet<[u8; 32]>,
    // Invariant: exactly `hashes`, oldest first.
    order: Vector<[u8; 32]>,
    /// Of each rule adopted lately: at which version, by whom, and what the author stood on.
    bases: OrdMap<RuleId, (Version, u64, NodeId)>,
}

impl Commits {
    /// Settles what a node handed in. The ledger has moved if anything was adopted.
    ///
    /// Of several for one rule the greatest goes first, as at the nodes. Behind a fence nothing
    /// is settled: an answer of any kind would let the author forget what it wrote.
    pub fn adopt(&mut self, handed_in: &[Override], now: WallTime) -> Adoption {
        let mut adoption = Adoption::default();
        if self.fence.is_some() {
            return adoption;
        }
        let mut order: Vec<usize> = (0..handed_in.len()).collect();
        order.sort_by(|a, b| {
            let rank = |at: &usize| {
                let by_hand = &handed_in[*at];
                (std::cmp::Reverse(by_hand.version), &by_hand.node, by_hand.hash())
            };
            rank(a).cmp(&rank(b))
        });
        let mut settled: Vec<Option<Settled>> = vec![None; handed_in.len()];
        for at in order {
            settled[at] = Some(self.settle(&handed_in[at], now, &mut adoption));
        }
        adoption.settled = settled.into_iter().flatten().collect();
        adoption
    }

    fn settle(&mut self, by_hand: &Override, now: WallTime, adoption: &mut Adoption) -> Settled {
        let mark = by_hand.mark();
        let answer = |outcome, why: &str| Settled { mark, outcome, why: why.to_owned() };
        if let Some(why) = self.doubt(by_hand) {
            return answer(SettledOutcome::Refused, why);
        }
        let held = self.ledger.record(&by_hand.id).cloned();
        let known = held.as_ref().map_or(0, |record| record.version.get());
        // Two edits of one author in one outage stand on the same base; the later one replaced the
        // earlier by intent. Of two authors nobody knows: both are filed.
        let moved_on = known != by_hand.base && !self.adopted.stands_on(by_hand, known);
        match by_hand.void_beside(Some(&self.ledger)) {
            Some(Void::TooFar) => {
                return answer(SettledOutcome::Refused, "its version is too far above the ledger");
            }
            Some(Void::Overtaken) => {
                let same = held.as_ref().is_some_and(|record| {
                    record.version == by_hand.version && record.body == by_hand.body
                });
                if same || self.adopted.knows(by_hand) || !moved_on {
                    return answer(SettledOutcome::Void, "");
                }
                self.adopted.insert(by_hand);
                adoption.filed.push(self.filed(by_hand, FiledKind::Conflict, now));
                adoption.conflicts.push(by_hand.id.clone());
                return answer(SettledOutcome::Conflict, "the ledger had moved on from its base");
            }
            None => {}
        }
        if by_hand.certificate.is_none() {
            self.pin(by_hand.node.clone(), by_hand.key);
            adoption.pinned = true;
        }
        let change =
            Change { id: by_hand.id.clone(), version: by_hand.version, body: by_hand.body.clone() };
        match self.commit(&[change], now) {
            Ok(ledger) => self.ledger = ledger,
            Err(_) => return answer(SettledOutcome::Refused, "the ledger cannot hold more rules"),
        }
        self.adopted.insert(by_hand);
        self.adopted.note_base(by_hand);
        adoption.filed.push(self.filed(by_hand, FiledKind::Adopted, now));
        if !moved_on {
            return answer(SettledOutcome::Adopted, "");
        }
        // It is in force at the nodes whatever is said here, so that it has to be adopted; the
        // version it displaced stands in the history beside it.
        adoption.conflicts.push(by_hand.id.clone());
        answer(SettledOutcome::Adopted, "the ledger had moved on from its base: see its history")
    }

    /// Why an override does not count, if so.
    ///
    /// One without a certificate comes from a fleet that had no orchestrator: its author is taken
    /// at its first key. Nodes that hold a ledger refuse such overrides, so only the authors'
    /// own fleet can hand them in, over streams that were let in.
    fn doubt(&self, by_hand: &Override) -> Option<&'static str> {
        if !by_hand.holds() {
            return Some("its signature does not hold");
        }
        if let Some(certificate) = &by_hand.certificate {
            let believed = self.trust.accepts_certificate(certificate, self.ledger.head().cluster);
            return (!believed).then_some("its certificate is not of this cluster");
        }
        if by_hand.cluster != ClusterId([0; 32]) {
            return Some("it has no certificate, and is not from before the first orchestrator");
        }
        match self.pinned.get(&by_hand.node) {
            Some(key) if *key == by_hand.key => None,
            Some(_) => Some("another key is pinned for its author"),
            None if self.pinned.len() < limits::PINNED_AUTHORS => None,
            None => Some("too many authors without a certificate"),
        }
    }

    fn filed(&self, by_hand: &Override, kind: FiledKind, now: WallTime) -> Filed {
        let adopted = (kind == FiledKind::Adopted).then(|| self.ledger.record(&by_hand.id));
        let record = match adopted.flatten() {
            Some(record) => (**record).clone(),
            None => Record {
                id: by_hand.id.clone(),
                version: by_hand.version,
                revision: self.ledger.head().revision,
                created: by_hand.written,
                changed: now,
                body: by_hand.body.clone(),
            },
        };
        Filed { record, kind, node: Some(by_hand.node.clone()) }
    }

    /// Remembers that this version by this node was settled before the start.
    pub fn settled_before(&mut self, hash: [u8; 32]) {
        self.adopted.insert_hash(hash);
    }

    /// What `settled_before` wants to know of this override.
    pub fn settled_hash(id: &RuleId, version: Version, node: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(id.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(&version.get().to_le_bytes());
        hasher.update(node.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl AdoptedMemory {
    fn knows(&self, by_hand: &Override) -> bool {
        let node = by_hand.node.as_str();
        self.hashes.contains(&Commits::settled_hash(&by_hand.id, by_hand.version, node))
    }

    fn insert(&mut self, by_hand: &Override) {
        let node = by_hand.node.as_str();
        self.insert_hash(Commits::settled_hash(&by_hand.id, by_hand.version, node));
    }

    /// Whether the ledger's version of the rule is the same author's, adopted from the same base.
    fn stands_on(&self, by_hand: &Override, known: u64) -> bool {
        self.bases.get(&by_hand.id).is_some_and(|(version, base, node)| {
            version.get() == known && *base == by_hand.base && *node == by_hand.node
        })
    }

    fn note_base(&mut self, by_hand: &Override) {
        if self.bases.len() >= limits::OVERRIDES {
            self.bases.clear();
        }
        let adopted = (by_hand.version, by_hand.base, by_hand.node.clone());
        self.bases.insert(by_hand.id.clone(), adopted);
    }

    fn insert_hash(&mut self, hash: [u8; 32]) {
        if self.hashes.insert(hash).is_some() {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > limits::WRITE_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[path = "tests/adoption.rs"]
mod tests;
