//! The orchestrator of the simulated fleet: one key, one ledger, a cursor per follower.
//!
//! Only what nodes can see of an orchestrator; the real one's store and services have tests of
//! their own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tradewind::engine::port::Ticket;
use tradewind::model::delta::{Changes, Delta};
use tradewind::model::follow::{Hello, Settled, SettledOutcome, Welcome};
use tradewind::model::head::{Beacon, Branch, Head, Position};
use tradewind::model::ids::{Epoch, RuleId};
use tradewind::model::key::PrivateKey;
use tradewind::model::ledger::{Change, Ledger};
use tradewind::model::manual::{AuthorCertificate, Override};
use tradewind::model::moment::WallTime;
use tradewind::model::record::Body;
use tradewind::model::trust::Trust;

pub struct Authority {
    pub key: PrivateKey,
    pub ledger: Ledger,
    pub up: bool,
    pub conflicts: Vec<RuleId>,
    pub followers: BTreeMap<usize, Follower>,
    tick: u64,
}

pub struct Follower {
    pub ticket: Ticket,
    pub cursor: Option<Position>,
}

impl Authority {
    pub fn new(seed: u8) -> Authority {
        let key = PrivateKey::from_seed([seed; 32]);
        let ledger = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
        let followers = BTreeMap::new();
        Authority { key, ledger, up: true, conflicts: Vec::new(), followers, tick: 0 }
    }

    pub fn trust(&self) -> Trust {
        Trust::configured(vec![self.key.public()])
    }

    pub fn put(&mut self, id: &str, body: &str, now: WallTime) -> Position {
        self.write(id, Body::Live(Bytes::copy_from_slice(body.as_bytes())), now)
    }

    pub fn retire(&mut self, id: &str, now: WallTime) -> Position {
        self.write(id, Body::Retired, now)
    }

    fn write(&mut self, id: &str, body: Body, now: WallTime) -> Position {
        let id = RuleId::parse(id).unwrap();
        let version = self.ledger.next_version(&id).unwrap();
        self.commit(&[Change { id, version, body }], now)
    }

    pub fn commit(&mut self, changes: &[Change], now: WallTime) -> Position {
        let key = &self.key;
        self.ledger = self.ledger.commit(changes, now, |head: Head| head.sign(key)).unwrap();
        self.ledger.position()
    }

    pub fn beacon(&mut self) -> Beacon {
        self.tick += 1;
        Beacon::sign(*self.ledger.head(), self.tick, &self.key)
    }

    pub fn welcome(&self, hello: &Hello) -> Welcome {
        let cluster = self.ledger.head().cluster;
        let certificate =
            AuthorCertificate::sign(cluster, hello.node.clone(), hello.key, &self.key);
        Welcome {
            cluster,
            key: self.key.public(),
            certificate: Some(certificate),
            fenced: false,
            beacon_interval: Duration::from_secs(1),
        }
    }

    /// What a follower lacks; moves its cursor.
    pub fn next_for(&mut self, node: usize) -> Option<(Ticket, Delta)> {
        let follower = self.followers.get_mut(&node)?;
        let changes = self.ledger.changes_since(follower.cursor);
        follower.cursor = Some(self.ledger.position());
        match changes {
            Changes::Current => None,
            Changes::Delta(delta) => Some((follower.ticket, delta)),
        }
    }

    /// Takes over what was written by hand while nobody ordered writes.
    pub fn adopt(&mut self, handed: Vec<Override>, now: WallTime) -> Vec<Settled> {
        let mut settled = Vec::new();
        for one in handed {
            let cluster = self.ledger.head().cluster;
            let certified = one
                .certificate
                .as_ref()
                .is_some_and(|own| self.trust().accepts_certificate(own, cluster));
            let open = one.certificate.is_none();
            let held = self.ledger.record(&one.id).map_or(0, |record| record.version.get());
            let outcome = if !one.holds() || !(certified || open) {
                SettledOutcome::Refused
            } else if one.void_beside(Some(&self.ledger)).is_some() {
                let same = self
                    .ledger
                    .record(&one.id)
                    .is_some_and(|r| r.version == one.version && r.body == one.body);
                if !same && held != one.base {
                    self.file_conflict(&one.id);
                    SettledOutcome::Conflict
                } else {
                    SettledOutcome::Void
                }
            } else {
                if held != one.base {
                    self.file_conflict(&one.id);
                }
                let change =
                    Change { id: one.id.clone(), version: one.version, body: one.body.clone() };
                self.commit(&[change], now);
                SettledOutcome::Adopted
            };
            settled.push(Settled { mark: one.mark(), outcome, why: String::new() });
        }
        settled
    }

    /// Several nodes may hand the same override in; it is filed once.
    fn file_conflict(&mut self, id: &RuleId) {
        if !self.conflicts.contains(id) {
            self.conflicts.push(id.clone());
        }
    }

    /// Lost its ledger: takes the most advanced one of the fleet and opens a new epoch.
    pub fn recover(&mut self, from: &Ledger) {
        let epoch = Epoch(from.head().epoch.0 + 1);
        let key = &self.key;
        self.ledger = from.open_epoch(
            epoch,
            |parent| Branch::sign(parent, epoch, key),
            |head: Head| head.sign(key),
        );
        self.tick += 1_000_000;
    }
}
