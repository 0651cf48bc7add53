//! What is in force at a node: ledger, overrides, overlays and the rules file, merged.
//!
//! Persistent maps all through, so a copy for readers costs a few pointers. Whether a node can
//! *activate* a rule is not known here.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::ids::{NodeId, RuleId, Version};
use super::ledger::Ledger;
use super::manual::OverrideSet;
use super::moment::{Moment, WallTime};
use super::record::{Body, Record};

/// Everything a node holds about rules.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The fleet's rules, once a valid head was seen.
    pub ledger: Option<Ledger>,
    /// What was written by hand without an orchestrator. Invariant: none is void beside `ledger`.
    pub overrides: OverrideSet,
    /// What was set by hand for this node only.
    pub overlays: OrdMap<RuleId, Overlay>,
    /// What the rules file says; below everything else.
    pub file: OrdMap<RuleId, FileRule>,
    /// Counts changes of overlays and file, which no fingerprint covers.
    pub local_changes: u64,
}

/// A rule set by hand for one node only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The rule's data.
    pub data: Bytes,
    /// When it ends.
    pub until: Moment,
}

/// A rule from the rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRule {
    /// Counts the changes of this rule in the file, from 1, in one life of the process.
    pub version: Version,
    /// The rule's data.
    pub data: Bytes,
    /// When this process first read it.
    pub created: WallTime,
}

/// The version of a rule that is in force, apart from overlays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Which rule.
    pub id: RuleId,
    /// Its version.
    pub version: Version,
    /// Who wrote it.
    pub origin: Origin,
    /// What it says.
    pub body: Body,
    /// When the rule began to live.
    pub created: WallTime,
    /// When this version was written.
    pub changed: WallTime,
}

/// Where an effective version comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The orchestrator's ledger.
    Ledger,
    /// An override by this node.
    Override(NodeId),
    /// The rules file.
    File,
}

impl RuleSet {
    /// The version of a rule that is in force, apart from overlays; retired ones included.
    pub fn effective(&self, id: &RuleId) -> Option<Effective> {
        let record = self.ledger.as_ref().and_then(|ledger| ledger.record(id));
        let by_hand = self.overrides.of(id);
        match (record, by_hand) {
            (Some(record), Some(by_hand)) if by_hand.version <= record.version => {
                Some(from_record(record))
            }
            (record, Some(by_hand)) => Some(Effective {
                id: id.clone(),
                version: by_hand.version,
                origin: Origin::Override(by_hand.node.clone()),
                body: by_hand.body.clone(),
                created: record
                    .filter(|record| !record.body.is_retired())
                    .map_or(by_hand.written, |record| record.created),
                changed: by_hand.written,
            }),
            (Some(record), None) => Some(from_record(record)),
            (None, None) => self.file.get(id).map(|rule| Effective {
                id: id.clone(),
                version: rule.version,
                origin: Origin::File,
                body: Body::Live(rule.data.clone()),
                created: rule.created,
                changed: rule.created,
            }),
        }
    }

    /// What requests should be served by: the overlay, else the effective version, if it lives.
    pub fn serving(&self, id: &RuleId) -> Option<Serving> {
        let effective = self.effective(id);
        let version = effective.as_ref().map(|effective| effective.version);
        let created = effective.as_ref().map_or(WallTime(0), |effective| effective.created);
        if let Some(overlay) = self.overlays.get(id) {
            let data = overlay.data.clone();
            return Some(Serving { id: id.clone(), version, data, created, overlay: true });
        }
        let data = effective?.body.data()?.clone();
        Some(Serving { id: id.clone(), version, data, created, overlay: false })
    }

    /// Every id that anything is known about, in order.
    pub fn ids(&self) -> Vec<RuleId> {
        let ledger = self.ledger.iter().flat_map(|ledger| ledger.records().map(|r| r.id.clone()));
        let mut ids: Vec<RuleId> = ledger
            .chain(self.overrides.iter().map(|by_hand| by_hand.id.clone()))
            .chain(self.overlays.keys().cloned())
            .chain(self.file.keys().cloned())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Changes with whatever is in force.
    pub fn tag(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        if let Some(ledger) = &self.ledger {
            hasher.update(&ledger.head().fingerprint.0);
            hasher.update(&ledger.head().epoch.0.to_le_bytes());
        }
        hasher.update(&self.overrides.summary().hash);
        hasher.update(&self.local_changes.to_le_bytes());
        hasher.finalize().to_hex()[..24].to_string()
    }
}

/// What requests are served by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Which rule.
    pub id: RuleId,
    /// The version in force; none where an overlay stands alone.
    pub version: Option<Version>,
    /// The rule's data.
    pub data: Bytes,
    /// When the rule began to live.
    pub created: WallTime,
    /// Whether an overlay is in force.
    pub overlay: bool,
}

fn from_record(record: &Arc<Record>) -> Effective {
    Effective {
        id: record.id.clone(),
        version: record.version,
        origin: Origin::Ledger,
        body: record.body.clone(),
        created: record.created,
        changed: record.changed,
    }
}

#[cfg(test)]
mod tests;
