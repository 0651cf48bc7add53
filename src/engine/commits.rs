//! The single point where writes become history: preconditions, versions, write ids.
//!
//! Holds the ledger and what was answered lately. Does not sign each commit (a group is sealed
//! once, by its last head), does not store, does not know what a body says. Invariants: a refused
//! write changes nothing; a repeat of a write id gets the first answer; a copy is cheap, so that
//! a group that could not be stored is taken back whole.

use std::collections::BTreeSet;
use std::fmt;

use imbl::{OrdMap, Vector};

use super::fence::Fence;
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

/// Why a write was refused. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The orchestrator takes no writes.
    Fenced(Fence),
    /// The rule is not at the version that the writer expected.
    Mismatch {
        /// Which rule.
        id: RuleId,
        /// What the writer thought.
        expected: u64,
        /// Its live version; 0 when there is none.
        current: u64,
    },
    /// There is no such rule to retire.
    NotFound(RuleId),
    /// The version named cannot be taken.
    VersionRange {
        /// Which rule.
        id: RuleId,
        /// What was named.
        named: u64,
        /// The least that can be.
        lowest: u64,
        /// The most that can be.
        highest: u64,
    },
    /// The rule is at the end of the numbers.
    Exhausted(RuleId),
    /// The rule stands twice in one write.
    Duplicate(RuleId),
    /// Nothing is asked for.
    Empty,
    /// More rules than one commit, or the ledger, can hold.
    TooMany,
}

/// Answers by write id, the oldest forgotten first.
#[derive(Clone, Debug, Default)]
pub struct WriteMemory {
    answers: OrdMap<WriteId, Answer>,
    // Invariant: exactly the keys of `answers`, oldest first.
    order: Vector<WriteId>,
    // Invariant: the results of all answers.
    results: usize,
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
    pub fn remember(&mut self, id: WriteId, answer: Answer) {
        self.memory.insert(id, answer);
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
        if let Some(answer) = write.write_id.as_ref().and_then(|id| self.memory.answer(id)) {
            return Ok(Decision { answer: answer.clone(), repeated: true, ..Decision::default() });
        }
        if let Some(fence) = &self.fence {
            return Err(WriteError::Fenced(fence.clone()));
        }
        let (changes, results) = self.plan(&write.intents)?;
        let ledger = match changes.is_empty() {
            true => self.ledger.clone(),
            false => self.commit(&changes, now).map_err(|refusal| refused(&refusal))?,
        };
        let answer = Answer { results, position: ledger.position() };
        if write.dry_run {
            return Ok(Decision { answer, repeated: true, ..Decision::default() });
        }
        let written = changes.iter().filter_map(|change| ledger.record(&change.id));
        let filed = written.map(|record| Filed::committed((**record).clone())).collect();
        self.ledger = ledger;
        let remembered = write.write_id.clone();
        let forgotten = remembered.map_or(0, |id| self.memory.insert(id, answer.clone()));
        Ok(Decision { answer, filed, repeated: false, forgotten })
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

    /// What would change, and what the writer would be told.
    fn plan(&self, intents: &[Intent]) -> Result<(Vec<Change>, Vec<IntentResult>), WriteError> {
        if intents.is_empty() {
            return Err(WriteError::Empty);
        }
        if intents.len() > limits::COMMIT_RULES {
            return Err(WriteError::TooMany);
        }
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        let mut results = Vec::with_capacity(intents.len());
        for intent in intents {
            if !seen.insert(&intent.id) {
                return Err(WriteError::Duplicate(intent.id.clone()));
            }
            let (change, result) = self.plan_one(intent)?;
            changes.extend(change);
            results.push(result);
        }
        Ok((changes, results))
    }

    fn plan_one(&self, intent: &Intent) -> Result<(Option<Change>, IntentResult), WriteError> {
        let id = intent.id.clone();
        let live = self.ledger.record(&id).filter(|record| !record.body.is_retired());
        let current = live.map_or(0, |record| record.version.get());
        if let Some(expected) = intent.expected.filter(|expected| *expected != current) {
            return Err(WriteError::Mismatch { id, expected, current });
        }
        if intent.body.is_retired() && live.is_none() {
            return Err(WriteError::NotFound(id));
        }
        let same = live.is_some_and(|record| record.body == intent.body);
        if same && intent.version.is_none_or(|named| named.get() == current) {
            let outcome = Outcome::Unchanged;
            let result = IntentResult { id, version: current, previous: current, outcome };
            return Ok((None, result));
        }
        let next = self.ledger.next_version(&id);
        let next = next.ok_or_else(|| WriteError::Exhausted(id.clone()))?;
        let version = intent.version.unwrap_or(next);
        let highest = next.get().saturating_add(limits::VERSION_JUMP - 1).min(Version::MAX.get());
        if version < next || version.get() > highest {
            let (named, lowest) = (version.get(), next.get());
            return Err(WriteError::VersionRange { id, named, lowest, highest });
        }
        let retired = intent.body.is_retired();
        let outcome = if retired { Outcome::Retired } else { Outcome::Written };
        let result =
            IntentResult { id: id.clone(), version: version.get(), previous: current, outcome };
        Ok((Some(Change { id, version, body: intent.body.clone() }), result))
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
    /// How many of the oldest remembered answers were dropped for this one.
    pub forgotten: usize,
}

impl Default for Decision {
    fn default() -> Decision {
        let epoch = crate::model::ids::Epoch(1);
        let position = Position { epoch, revision: crate::model::ids::Revision(0) };
        let answer = Answer { results: Vec::new(), position };
        Decision { answer, filed: Vec::new(), repeated: false, forgotten: 0 }
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

impl WriteMemory {
    fn answer(&self, id: &WriteId) -> Option<&Answer> {
        self.answers.get(id)
    }

    /// Gives how many of the oldest were forgotten for it.
    fn insert(&mut self, id: WriteId, answer: Answer) -> usize {
        let results = answer.results.len();
        if let Some(old) = self.answers.insert(id.clone(), answer) {
            self.results += results;
            self.results -= old.results.len();
            return 0;
        }
        self.results += results;
        self.order.push_back(id);
        let mut forgotten = 0;
        while self.order.len() > limits::WRITE_IDS
            || (self.results > limits::WRITE_RESULTS && self.order.len() > 1)
        {
            let Some(oldest) = self.order.pop_front() else { break };
            let answer = self.answers.remove(&oldest);
            self.results -= answer.map_or(0, |answer| answer.results.len());
            forgotten += 1;
        }
        forgotten
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

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Fenced(fence) => write!(f, "no writes are taken: {fence}"),
            WriteError::Mismatch { id, expected: 0, current } => {
                write!(f, "rule {id} exists already, at v{current}")
            }
            WriteError::Mismatch { id, expected, current: 0 } => {
                write!(f, "rule {id} is not at v{expected}: it does not exist")
            }
            WriteError::Mismatch { id, expected, current } => {
                write!(f, "rule {id} is at v{current}, not at v{expected}")
            }
            WriteError::NotFound(id) => write!(f, "there is no rule {id}"),
            WriteError::VersionRange { id, named, lowest, highest } => {
                write!(f, "rule {id} cannot take v{named}: v{lowest} to v{highest} are possible")
            }
            WriteError::Exhausted(id) => write!(f, "rule {id} is at the highest version there is"),
            WriteError::Duplicate(id) => write!(f, "rule {id} stands twice in this write"),
            WriteError::Empty => f.write_str("there is nothing to write"),
            WriteError::TooMany => f.write_str("these are more rules than can be held"),
        }
    }
}

impl std::error::Error for WriteError {}

/// The plan was checked against the same ledger, so that only the number of rules is left.
fn refused(refusal: &Refusal) -> WriteError {
    match refusal {
        Refusal::Contradiction(id, _) => WriteError::Exhausted(id.clone()),
        _ => WriteError::TooMany,
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
