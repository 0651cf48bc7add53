//! How an orchestrator that knows less than its fleet, or something else, goes on.
//!
//! Takes the most advanced history that can be had, opens a new epoch on it, and files what lay
//! beyond. Invariants: the fleet is never overwritten with less than a node was seen to hold; no
//! version falls, as far as both histories are known here.

use std::collections::BTreeMap;
use std::fmt;

use super::commits::{Commits, Filed, FiledKind, unsigned};
use super::fence::Fence;
use crate::model::delta::{Delta, Refusal};
use crate::model::head::{Branch, Position};
use crate::model::ids::{ClusterId, Epoch, RuleId};
use crate::model::key::PrivateKey;
use crate::model::ledger::{Change, Ledger};
use crate::model::limits;
use crate::model::moment::WallTime;
use crate::model::record::{Body, Record};
use crate::model::trust::Trust;

/// What was recovered.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where the history was left, or begun.
    pub branch: Position,
    /// Versions that lay beyond.
    pub orphaned: Vec<Filed>,
    /// For the rules' histories: what had to be written anew so that no version falls.
    pub filed: Vec<Filed>,
}

/// Why nothing was recovered. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// There is nothing to mend.
    NotFenced,
    /// Nobody answered with a ledger that holds.
    NothingFound,
    /// A node was seen with more than anybody answered with.
    Less {
        /// The best that was found.
        found: Position,
        /// What a node was seen with.
        known: Position,
    },
    /// The new epoch could not be written.
    Refused(Refusal),
}

impl Commits {
    /// Goes on from the most advanced of what was offered and what is held. `known` is the most
    /// advanced position that any node proved to hold.
    ///
    /// # Errors
    /// Says why nothing was recovered.
    pub fn recover(
        &mut self,
        offers: Vec<Ledger>,
        known: Option<Position>,
        key: &PrivateKey,
        now: WallTime,
    ) -> Result<Recovered, RecoverError> {
        if self.fence.is_none() {
            return Err(RecoverError::NotFenced);
        }
        let own = self.ledger.clone();
        let empty = own.head().revision.0 == 0;
        let best = offers.iter().max_by_key(|offer| offer.position()).cloned();
        let base = match best {
            Some(best) if best.position() > own.position() || empty => best,
            _ if empty => return Err(RecoverError::NothingFound),
            _ => own.clone(),
        };
        if let Some(known) = known.filter(|known| *known > base.position()) {
            return Err(RecoverError::Less { found: base.position(), known });
        }
        let others = offers.iter().chain([&own]);
        let orphans = orphans(&base, others.clone());
        let highest = others.map(|ledger| ledger.head().epoch).chain(known.map(|k| k.epoch)).max();
        let epoch = Epoch(highest.map_or(base.head().epoch.0, |epoch| epoch.0) + 1);
        let branch = base.position();
        let opened = base.open_epoch(
            epoch,
            |parent| Branch::sign(parent, epoch, key),
            |head| unsigned(head, self.key),
        );
        let mut next = Commits { ledger: opened, fence: None, ..self.clone() };
        let filed = next.lift(&orphans, now).map_err(RecoverError::Refused)?;
        next.seal(key);
        *self = next;
        let orphaned = orphans.into_values().map(|record| Filed {
            record,
            kind: FiledKind::Orphaned,
            node: None,
        });
        Ok(Recovered { branch, orphaned: orphaned.collect(), filed })
    }

    /// Begins with no rules after the store was lost, on the word that there is no fleet to lose.
    ///
    /// The history is the one that a first start begins: a node that holds more of it, or another
    /// one, is ahead or a fork, and fences this orchestrator again before anything is overwritten.
    ///
    /// # Errors
    /// Something is held here, or a node was seen with something. Nothing was touched.
    pub fn begin_anew(&mut self, known: Option<Position>) -> Result<Recovered, RecoverError> {
        let own = self.ledger.position();
        match (&self.fence, known) {
            (None, _) => Err(RecoverError::NotFenced),
            (_, Some(known)) if known > own => Err(RecoverError::Less { found: own, known }),
            (Some(Fence::LostStore), _) if own.revision.0 == 0 => {
                self.fence = None;
                Ok(Recovered { branch: own, orphaned: Vec::new(), filed: Vec::new() })
            }
            _ => Err(RecoverError::NothingFound),
        }
    }

    /// Writes what is in force anew above each orphaned version that would otherwise stand above
    /// it: nodes may have seen that version.
    fn lift(
        &mut self,
        orphans: &BTreeMap<RuleId, Record>,
        now: WallTime,
    ) -> Result<Vec<Filed>, Refusal> {
        let mut changes = Vec::new();
        for (id, orphan) in orphans {
            let held = self.ledger.record(id);
            let known = held.map_or(self.ledger.head().top, |record| record.version.get());
            if known > orphan.version.get() {
                continue;
            }
            let body = held.map_or(Body::Retired, |record| record.body.clone());
            changes.extend(orphan.version.next().map(|version| Change {
                id: id.clone(),
                version,
                body,
            }));
        }
        let mut filed = Vec::new();
        for some in changes.chunks(limits::COMMIT_RULES) {
            self.ledger = self.commit(some, now)?;
            let written = some.iter().filter_map(|change| self.ledger.record(&change.id));
            filed.extend(written.map(|record| Filed::committed((**record).clone())));
        }
        Ok(filed)
    }
}

/// Reads a ledger that somebody offered.
///
/// # Errors
/// It does not hold, or is not of this cluster.
pub fn offered_ledger(
    offered: &Delta,
    cluster: ClusterId,
    trust: &Trust,
) -> Result<Ledger, Refusal> {
    if offered.to.head.cluster != cluster {
        return Err(Refusal::OtherCluster);
    }
    Ledger::from_replace(offered, trust)
}

/// The highest version of each rule that stands elsewhere, but not in `base` or its past.
fn orphans<'a>(
    base: &Ledger,
    others: impl Iterator<Item = &'a Ledger>,
) -> BTreeMap<RuleId, Record> {
    let mut orphans: BTreeMap<RuleId, Record> = BTreeMap::new();
    for record in others.flat_map(Ledger::records) {
        let held = base.record(&record.id);
        let beyond = match held {
            Some(held) if held.version == record.version => held != record,
            Some(held) => record.version > held.version,
            None => record.version.get() > base.head().top,
        };
        let higher = orphans.get(&record.id).is_none_or(|known| known.version < record.version);
        if beyond && higher {
            orphans.insert(record.id.clone(), (**record).clone());
        }
    }
    orphans
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::NotFenced => {
                f.write_str("there is nothing to recover: this orchestrator takes writes")
            }
            RecoverError::NothingFound => f.write_str(
                "no node answered with a ledger of this cluster; \
                 name nodes that may hold one with `--from URL`, or say `--new-fleet` where there \
                 is no fleet to lose",
            ),
            RecoverError::Less { found, known } => write!(
                f,
                "the best ledger found is at revision {} of epoch {}, but a node holds \
                 revision {} of epoch {}; name it with `--from URL`",
                found.revision, found.epoch, known.revision, known.epoch
            ),
            RecoverError::Refused(refusal) => write!(f, "the recovered ledger {refusal}"),
        }
    }
}

impl std::error::Error for RecoverError {}

#[cfg(test)]
#[path = "tests/recovery.rs"]
mod tests;
