//! Watches every step of a simulated fleet; apart from the scenarios, so that none can forget.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tradewind::engine::port::{Changed, Input, Pulled, Ticket};
use tradewind::model::fingerprint::Fingerprint;
use tradewind::model::head::{Head, Position};
use tradewind::model::ids::{RuleId, Version};
use tradewind::model::ledger::Ledger;
use tradewind::model::limits;
use tradewind::model::record::Body;
use tradewind::model::rule_set::{RuleSet, Serving};

#[derive(Default)]
pub struct Checks {
    heads: BTreeMap<Position, Fingerprint>,
    /// What each version of each rule in a ledger said, ever.
    bodies: BTreeMap<(RuleId, Version), Body>,
    positions: BTreeMap<usize, Position>,
    versions: BTreeMap<(usize, RuleId), Version>,
    failures: BTreeMap<Ticket, Input>,
    pub activations: u64,
}

impl Checks {
    /// The authority has signed this.
    pub fn head(&mut self, head: &Head) {
        let held = self.heads.insert(head.position(), head.fingerprint);
        assert!(held.is_none_or(|held| held == head.fingerprint), "one content per position");
    }

    /// No version is ever used for another body.
    pub fn bodies(&mut self, ledger: &Ledger) {
        for record in ledger.changed_after(tradewind::model::ids::Revision(
            ledger.head().revision.0.saturating_sub(1),
        )) {
            let key = (record.id.clone(), record.version);
            let held = self.bodies.insert(key, record.body.clone());
            assert!(held.is_none_or(|held| held == record.body), "{} reused", record.id);
        }
    }

    /// A life ended: what the node knew and had not stored does not bind the next.
    pub fn wiped(&mut self, node: usize) {
        self.positions.remove(&node);
        self.versions.retain(|(of, _), _| *of != node);
    }

    pub fn activated(&mut self, node: usize, set: &RuleSet, changed: &Changed) {
        self.activations += 1;
        if let Some(ledger) = &set.ledger {
            let position = ledger.position();
            let signed = self.heads.get(&position);
            assert_eq!(signed, Some(&ledger.head().fingerprint), "n{node} is at an exact revision");
            let before = self.positions.insert(node, position);
            assert!(before.is_none_or(|before| before <= position), "n{node} went back");
        }
        assert!(set.overrides.len() <= limits::OVERRIDES);
        let ids = match changed {
            Changed::Rules(ids) => ids.clone(),
            Changed::Everything => set.ids(),
        };
        for id in ids {
            let Some(effective) = set.effective(&id) else { continue };
            let before = self.versions.insert((node, id.clone()), effective.version);
            assert!(
                before.is_none_or(|before| before <= effective.version),
                "n{node}: {id} fell from {before:?} to {}",
                effective.version
            );
        }
    }

    pub fn asked(&mut self, ticket: Ticket, failure: Input) {
        self.failures.insert(ticket, failure);
        while self.failures.len() > 100_000 {
            self.failures.pop_first();
        }
    }

    pub fn failure(&mut self, ticket: Ticket) -> Option<Input> {
        self.failures.remove(&ticket)
    }
}

/// Changes something in what was pulled; returns whether there was anything to change.
pub fn flip(pulled: &mut Pulled, rng: &mut ChaCha8Rng) -> bool {
    if let Some(delta) = &mut pulled.delta {
        if !delta.records.is_empty() && rng.random_bool(0.7) {
            let index = rng.random_range(0..delta.records.len());
            let mut record = (*delta.records[index]).clone();
            match rng.random_range(0..3) {
                0 => record.body = Body::Live(Bytes::from_static(b"poison")),
                1 => record.version = record.version.next().unwrap(),
                _ => record.changed.0 += 1,
            }
            delta.records[index] = Arc::new(record);
        } else {
            let byte = rng.random_range(0..32usize);
            delta.to.head.fingerprint.0[byte] ^= 1 << rng.random_range(0..8u8);
        }
        return true;
    }
    if let Some(one) = pulled.overrides.first_mut() {
        one.body = Body::Live(Bytes::from_static(b"poison"));
        return true;
    }
    false
}

/// Whether anything at a node says "poison".
pub fn poisoned(set: &RuleSet) -> bool {
    let poison = Bytes::from_static(b"poison");
    set.ids().iter().filter_map(|id| set.serving(id)).any(|Serving { data, .. }| data == poison)
}
