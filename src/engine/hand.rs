//! Rules written by hand at a node while no orchestrator could be reached.
//!
//! Turns writes into signed overrides. They take effect only once the disk holds them, and one
//! batch at a time: the next is decided on what the one before it made.

use std::collections::VecDeque;

use crate::model::ids::{ClusterId, RuleId, Version};
use crate::model::key::{PrivateKey, PublicKey, Signature};
use crate::model::limits;
use crate::model::manual::Override;
use crate::model::moment::WallTime;
use crate::model::rule_set::{Effective, Origin};

use super::port::{Expected, HandWrite, Ticket, WriteRefused, Written};
use super::replica::Replica;

/// Writes by hand that wait, and the batch that the disk is busy with.
#[derive(Default)]
pub(super) struct Hand {
    pub(super) waiting: VecDeque<Batch>,
    pub(super) storing: Option<Storing>,
}

/// One call's writes.
pub(super) struct Batch {
    pub(super) ticket: Ticket,
    pub(super) writes: Vec<HandWrite>,
    pub(super) wall: WallTime,
}

/// What the disk is asked to hold.
pub(super) struct Storing {
    pub(super) answer: Ticket,
    pub(super) store: Ticket,
    pub(super) overrides: Vec<Override>,
    pub(super) written: Vec<Written>,
}

impl Hand {
    /// Takes a batch in; `false` when too many wait.
    pub(super) fn queue(&mut self, batch: Batch) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        self.waiting.push_back(batch);
        true
    }
}

/// Decides a batch: the overrides it makes, and the answer once they are stored.
pub(super) fn decide(
    replica: &Replica,
    key: &PrivateKey,
    node: &crate::model::ids::NodeId,
    batch: &Batch,
) -> Result<(Vec<Override>, Vec<Written>), WriteRefused> {
    let open = replica.open_mode();
    let certificate = replica.certificate.clone().filter(|own| own.key == key.public());
    if !open && certificate.is_none() {
        return Err(WriteRefused::NotCertified);
    }
    let certificate = certificate.filter(|_| !open);
    let cluster = certificate.as_ref().map_or(ClusterId([0; 32]), |own| own.cluster);
    let mut overrides = Vec::new();
    let mut written = Vec::new();
    for write in &batch.writes {
        let held = replica.set.effective(&write.id).filter(|rule| rule.origin != Origin::File);
        check(write, held.as_ref())?;
        let current = held.as_ref().map(|rule| rule.version);
        let same = held.as_ref().is_some_and(|rule| rule.body == write.body);
        let raised = write.version.is_some_and(|named| Some(named) > current);
        if same && !raised {
            let version = current.unwrap_or(Version::FIRST);
            written.push(Written { id: write.id.clone(), version, unchanged: true });
            continue;
        }
        let version = next_version(replica, write, current)?;
        let base = replica
            .set
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.record(&write.id))
            .map_or(0, |record| record.version.get());
        let unsigned = Override {
            cluster,
            id: write.id.clone(),
            version,
            base,
            body: write.body.clone(),
            node: node.clone(),
            written: batch.wall,
            key: PublicKey([0; 32]),
            signature: Signature([0; 64]),
            certificate: certificate.clone(),
        };
        overrides.push(unsigned.sign(key));
        written.push(Written { id: write.id.clone(), version, unchanged: false });
    }
    if replica.set.overrides.len() + overrides.len() > limits::OVERRIDES {
        return Err(WriteRefused::TooMany);
    }
    Ok((overrides, written))
}

fn check(write: &HandWrite, held: Option<&Effective>) -> Result<(), WriteRefused> {
    let id = || write.id.clone();
    let current = held.map(|rule| rule.version);
    let lives = held.is_some_and(|rule| !rule.body.is_retired());
    let met = match &write.expected {
        Expected::Anything => true,
        Expected::Absent => !lives,
        Expected::Version(version, author) => held.is_some_and(|rule| {
            let by = match &rule.origin {
                Origin::Override(node) => Some(node),
                Origin::Ledger | Origin::File => None,
            };
            rule.version == *version && by == author.as_ref()
        }),
    };
    if !met {
        return Err(WriteRefused::Precondition(id(), current));
    }
    if write.body.is_retired() && !lives {
        return Err(WriteRefused::NotFound(id()));
    }
    if write.version.is_some_and(|named| Some(named) < current) {
        return Err(WriteRefused::VersionTooLow(id(), current));
    }
    Ok(())
}

fn next_version(
    replica: &Replica,
    write: &HandWrite,
    current: Option<Version>,
) -> Result<Version, WriteRefused> {
    let too_high = || WriteRefused::VersionTooHigh(write.id.clone(), current);
    let floor = current.map_or(0, Version::get).max(
        replica
            .set
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.next_version(&write.id))
            .map_or(0, |next| next.get() - 1),
    );
    let named = write.version.filter(|named| named.get() > floor);
    let version = match named {
        Some(named) => named,
        None => Version::new(floor + 1).ok_or_else(too_high)?,
    };
    if version.get() - floor > limits::VERSION_JUMP { Err(too_high()) } else { Ok(version) }
}

/// The ids that a batch writes, for bounds and reports.
pub(super) fn ids(overrides: &[Override]) -> Vec<RuleId> {
    overrides.iter().map(|one| one.id.clone()).collect()
}

/// Batches that may wait for the disk.
const WAITING: usize = 1_024;
