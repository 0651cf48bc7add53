//! The single point where writes become history: preconditions, versions, write ids.
//!
//! Holds the ledger and what was answered lately. Does not sign each commit (a group is sealed
//! once, by its last head), does not store, does not know what a body says. Invariants: a refused
//! write changes nothing; a repeat of a write gets the first answer; a copy is cheap, so that a
//! group that could not be stored is taken back whole.

use std::collections::BTreeSet;

use imbl::OrdMap;

use super::fence::Fence;
use super::write_error::{Fault, FaultKind, Faults, WriteError};
use super::write_memory::{Remembered, WriteMemory, WritePrint};
use crate::model::delta::Refusal;
use crate::model::head::{Head, Position, SignedHead};
use crate::model::ids::{NodeId, RuleId, Version, WriteId};
use crate::model::key::{PrivateKey, PublicKey, Signature};
use crate::model::ledger::{Change, Ledger};
use crate::model::limits;
use crate::model::moment::WallTime;
use crate::model::record::{Body, Record};
use crate::model::trust::Trust;

/// The orchestrator's ledger and its memory of writes.
#[derive(Clone, Debug)]
pub struct Commits {
    pub(super) ledger: Ledger,
    pub(super) key: PublicKey,
    pub(super) trust: Trust,
    pub(super) fence: Option<Fence>,
    pub(super) memory: WriteMemory,
    // Authors that handed in without a certificate while there was no history.
    pub(super) pinned: OrdMap<NodeId, PublicKey>,
    pub(super) adopted: super::adoption::AdoptedMemory,
}

/// A write as somebody asked for it: all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What a repeat is known by.
    pub write_id: Option<WriteId>,
    /// One per rule.
    pub intents: Vec<Intent>,
    /// Answer as if, and change nothing.
    pub dry_run: bool,
}

/// What should become of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Which rule.
    pub id: RuleId,
    /// What it should say.
    pub body: Body,
    /// Only if this is its live version; 0 means that it must not exist.
    pub expected: Option<u64>,
    /// A version at or above the next one.
    pub version: Option<Version>,
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One per intent, in order.
    pub results: Vec<IntentResult>,
    /// Where the ledger stood after it.
    pub position: Position,
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentResult {
    /// Which rule.
    pub id: RuleId,
    /// Its version after the commit.
    pub version: u64,
    /// Its live version before; 0 when there was none.
    pub previous: u64,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It has a new version.
    Written,
    /// It said so already.
    Unchanged,
    /// It is gone.
    Retired,
}

impl Commits {
    /// A mind that goes on from a ledger. `key` is the public half of what signs.
    pub fn new(ledger: Ledger, key: PublicKey, fence: Option<Fence>) -> Commits {
        Commits {
            ledger,
            key,
            trust: Trust::configured(vec![key]),
            fence,
            memory: WriteMemory::default(),
            pinned: OrdMap::new(),
            adopted: super::adoption::AdoptedMemory::default(),
        }
    }

    /// Remembers an answer from before the start; oldest first.
    pub fn remember(&mut self, id: WriteId, remembered: Remembered) {
        self.memory.insert(id, remembered);
    }

    /// Pins an author from before the start.
    pub fn pin(&mut self, node: NodeId, key: PublicKey) {
        if self.pinned.len() < limits::PINNED_AUTHORS {
            self.pinned.insert(node, key);
        }
    }

    /// The authors that may write without a certificate.
    pub fn pinned(&self) -> impl Iterator<Item = (&NodeId, &PublicKey)> {
        self.pinned.iter()
    }

    /// The ledger; its head is signed only after `seal`.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whose signatures count here.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Why no writes are taken, if so.
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// Takes no more writes. The first reason stands.
    pub fn raise_fence(&mut self, fence: Fence) -> bool {
        let fresh = self.fence.is_none();
        self.fence.get_or_insert(fence);
        fresh
    }

    /// Decides one write; on success the ledger has moved, if there was anything to change.
    ///
    /// # Errors
    /// Says why the write was refused; nothing changed then.
    pub fn decide(&mut self, write: &Write, now: WallTime) -> Result<Decision, WriteError> {
        let print = write.write_id.is_some().then(|| WritePrint::of(&write.intents));
        if let Some(id) = &write.write_id
            && let Some(before) = self.memory.recall(id)
        {
            if before.print.is_some() && before.print != print {
                return Err(WriteError::OtherWrite(id.clone()));
            }
            let answer = before.answer.clone();
            return Ok(Decision { answer, repeated: true, ..Decision::default() });
        }
        if let Some(fence) = &self.fence {
            return Err(WriteError::Fenced(fence.clone()));
        }
        let (changes, results) = self.plan(&write.intents)?;
        let ledger = match changes.is_empty() {
            true => self.ledger.clone(),
            // The plan was checked against the same ledger: only the number of rules is left.
            false => self.commit(&changes, now).map_err(|_| WriteError::TooMany)?,
        };
        let answer = Answer { results, position: ledger.position() };
        if write.dry_run {
            return Ok(Decision { answer, repeated: true, ..Decision::default() });
        }
        let written = changes.iter().filter_map(|change| ledger.record(&change.id));
        let filed = written.map(|record| Filed::committed((**record).clone())).collect();
        self.ledger = ledger;
        let mut decision = Decision { answer, filed, ..Decision::default() };
        if let Some(id) = write.write_id.clone() {
            let remembered = Remembered { answer: decision.answer.clone(), print };
            decision.forgotten = self.memory.insert(id.clone(), remembered.clone());
            decision.remembered = Some((id, remembered));
        }
        Ok(decision)
    }

    /// Signs the head of the last commit; before anybody sees it.
    pub fn seal(&mut self, key: &PrivateKey) {
        assert!(key.public() == self.key, "the key that this ledger was opened with");
        if !is_sealed(self.ledger.signed()) {
            self.ledger = self.ledger.signed_again(|head| head.sign(key));
        }
    }

    /// The ledger after these changes, with an empty signature.
    pub(super) fn commit(&self, changes: &[Change], now: WallTime) -> Result<Ledger, Refusal> {
        self.ledger.commit(changes, now, |head| unsigned(head, self.key))
    }

    /// What would change and what the writer would be told, or everything that is wrong.
    fn plan(&self, intents: &[Intent]) -> Result<(Vec<Change>, Vec<IntentResult>), WriteError> {
        if intents.is_empty() {
            return Err(WriteError::Empty);
        }
        if intents.len() > limits::COMMIT_RULES {
            return Err(WriteError::TooMany);
        }
        let mut seen = BTreeSet::new();
        let mut faults = Vec::new();
        let mut changes = Vec::new();
        let mut results = Vec::with_capacity(intents.len());
        for (at, intent) in intents.iter().enumerate() {
            let mut fault = |kind| faults.push(Fault { at, id: intent.id.clone(), kind });
            if !seen.insert(&intent.id) {
                fault(FaultKind::Duplicate);
            } else if let Some((change, result)) = self.plan_one(intent, &mut fault) {
                changes.extend(change);
                results.push(result);
            }
        }
        match Faults::found(faults) {
            Some(faults) => Err(WriteError::Faults(faults)),
            None => Ok((changes, results)),
        }
    }

    /// Nothing where there is a fault.
    fn plan_one(
        &self,
        intent: &Intent,
        fault: &mut impl FnMut(FaultKind),
    ) -> Option<(Option<Change>, IntentResult)> {
        let id = intent.id.clone();
        let live = self.ledger.record(&id).filter(|record| !record.body.is_retired());
        let current = live.map_or(0, |record| record.version.get());
        let mismatch = intent.expected.filter(|expected| *expected != current);
        if let Some(expected) = mismatch {
            fault(FaultKind::Mismatch { expected, current });
        } else if intent.body.is_retired() && live.is_none() {
            fault(FaultKind::NotFound);
            return None;
        }
        let same = live.is_some_and(|record| record.body == intent.body);
        if same && intent.version.is_none_or(|named| named.get() == current) {
            let outcome = Outcome::Unchanged;
            let result = IntentResult { id, version: current, previous: current, outcome };
            return mismatch.is_none().then_some((None, result));
        }
        let Some(next) = self.ledger.next_version(&id) else {
            fault(FaultKind::Exhausted);
            return None;
        };
        let version = intent.version.unwrap_or(next);
        let highest = next.get().saturating_add(limits::VERSION_JUMP - 1).min(Version::MAX.get());
        if version < next || version.get() > highest {
            let (named, lowest) = (version.get(), next.get());
            fault(FaultKind::VersionRange { named, lowest, highest });
            return None;
        }
        let retired = intent.body.is_retired();
        let outcome = if retired { Outcome::Retired } else { Outcome::Written };
        let result =
            IntentResult { id: id.clone(), version: version.get(), previous: current, outcome };
        let change = Change { id, version, body: intent.body.clone() };
        mismatch.is_none().then_some((Some(change), result))
    }
}

/// What a decided write leads to.
#[derive(Clone, Debug)]
pub struct Decision {
    /// For the writer, once everything is stored.
    pub answer: Answer,
    /// For the rules' histories.
    pub filed: Vec<Filed>,
    /// There is nothing to store: the answer was given before, or it was a dry run.
    pub repeated: bool,
    /// What a repeat will be answered.
    pub remembered: Option<(WriteId, Remembered)>,
    /// How many of the oldest remembered answers were dropped for this one.
    pub forgotten: usize,
}

impl Default for Decision {
    fn default() -> Decision {
        let epoch = crate::model::ids::Epoch(1);
        let position = Position { epoch, revision: crate::model::ids::Revision(0) };
        let answer = Answer { results: Vec::new(), position };
        Decision { answer, filed: Vec::new(), repeated: false, remembered: None, forgotten: 0 }
    }
}

/// One line in the history of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// The version, as it was or would have been.
    pub record: Record,
    /// How it came there.
    pub kind: FiledKind,
    /// The node that wrote it by hand.
    pub node: Option<NodeId>,
}

/// How a version came into a rule's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FiledKind {
    /// By a write.
    Written,
    /// By a write that retired the rule.
    Retired,
    /// From a node that wrote it by hand.
    Adopted,
    /// From a node, but the ledger had moved on: not in force.
    Conflict,
    /// It lay beyond the point that a recovery went on from.
    Orphaned,
}

impl FiledKind {
    /// All of them, in order.
    pub const ALL: [FiledKind; 5] = [
        FiledKind::Written,
        FiledKind::Retired,
        FiledKind::Adopted,
        FiledKind::Conflict,
        FiledKind::Orphaned,
    ];

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FiledKind::Written => "written",
            FiledKind::Retired => "retired",
            FiledKind::Adopted => "adopted",
            FiledKind::Conflict => "conflict",
            FiledKind::Orphaned => "orphaned",
        }
    }
}

impl Filed {
    /// A version that a write made.
    pub fn committed(record: Record) -> Filed {
        let retired = record.body.is_retired();
        let kind = if retired { FiledKind::Retired } else { FiledKind::Written };
        Filed { record, kind, node: None }
    }
}

impl Outcome {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Written => "written",
            Outcome::Unchanged => "unchanged",
            Outcome::Retired => "retired",
        }
    }
}

pub(super) fn unsigned(head: Head, key: PublicKey) -> SignedHead {
    SignedHead { head, key, signature: UNSIGNED }
}

fn is_sealed(signed: &SignedHead) -> bool {
    signed.signature != UNSIGNED
}

const UNSIGNED: Signature = Signature([0; 64]);

#[cfg(test)]
#[path = "tests/commits.rs"]
pub(super) mod tests;
