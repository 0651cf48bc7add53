//! Why a write was refused: everything that is wrong with it, rule by rule.
//!
//! Only words; what is judged stands in `commits`. Invariant: `Faults` are never empty and name at
//! most `limits::PROBLEMS`; the rest are counted.

use std::fmt;

use super::fence::Fence;
use crate::model::ids::{RuleId, WriteId};
use crate::model::limits;

/// Why a write was refused. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The orchestrator takes no writes.
    Fenced(Fence),
    /// The write id stands for other changes already.
    OtherWrite(WriteId),
    /// Some of its rules cannot be written as asked.
    Faults(Faults),
    /// Nothing is asked for.
    Empty,
    /// More rules than one commit, or the ledger, can hold.
    TooMany,
}

/// All that is wrong with the rules of one write, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    first: Fault,
    others: Vec<Fault>,
    more: usize,
}

/// One thing that is wrong with one rule of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which of the write's rules, from 0.
    pub at: usize,
    /// Its id.
    pub id: RuleId,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong with one rule of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is not at the version that the writer expected.
    Mismatch {
        /// What the writer thought.
        expected: u64,
        /// Its live version; 0 when there is none.
        current: u64,
    },
    /// There is no such rule to retire.
    NotFound,
    /// The version named cannot be taken.
    VersionRange {
        /// What was named.
        named: u64,
        /// The least that can be.
        lowest: u64,
        /// The most that can be.
        highest: u64,
    },
    /// It is at the end of the numbers.
    Exhausted,
    /// It stands in the write already.
    Duplicate,
}

impl Faults {
    /// All that was found, if anything was.
    pub(super) fn found(faults: Vec<Fault>) -> Option<Faults> {
        let all = faults.len();
        let mut faults = faults.into_iter().take(limits::PROBLEMS);
        let first = faults.next()?;
        let others: Vec<Fault> = faults.collect();
        let more = all - 1 - others.len();
        Some(Faults { first, others, more })
    }

    /// The first one.
    pub fn first(&self) -> &Fault {
        &self.first
    }

    /// Those that are named.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// How many there are, named or not.
    pub fn count(&self) -> usize {
        1 + self.others.len() + self.more
    }
}

impl FaultKind {
    /// As it stands in answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            FaultKind::Mismatch { .. } => "version_mismatch",
            FaultKind::NotFound => "rule_not_found",
            FaultKind::VersionRange { .. } => "version_range",
            FaultKind::Exhausted => "versions_exhausted",
            FaultKind::Duplicate => "duplicate",
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Fenced(fence) => write!(f, "no writes are taken: {fence}"),
            WriteError::OtherWrite(id) => write!(
                f,
                "write id {id} was used for other changes: a repeat says the same, and another \
                 write has an id of its own"
            ),
            WriteError::Faults(faults) => match faults.count() {
                1 => faults.first.fmt(f),
                count => write!(f, "{count} problems; the first: {}", faults.first),
            },
            WriteError::Empty => f.write_str("there is nothing to write"),
            WriteError::TooMany => f.write_str("these are more rules than can be held"),
        }
    }
}

impl std::error::Error for WriteError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        match &self.kind {
            FaultKind::Mismatch { expected: 0, current } => {
                write!(f, "rule {id} exists already, at v{current}")
            }
            FaultKind::Mismatch { expected, current: 0 } => {
                write!(f, "rule {id} is not at v{expected}: it does not exist")
            }
            FaultKind::Mismatch { expected, current } => {
                write!(f, "rule {id} is at v{current}, not at v{expected}")
            }
            FaultKind::NotFound => write!(f, "there is no rule {id}"),
            FaultKind::VersionRange { named, lowest, highest } => {
                write!(f, "rule {id} cannot take v{named}: v{lowest} to v{highest} are possible")
            }
            FaultKind::Exhausted => write!(f, "rule {id} is at the highest version there is"),
            FaultKind::Duplicate => write!(f, "rule {id} stands twice in this write"),
        }
    }
}
