//! Claims about ledgers: what a delta can and cannot do to one.

mod altered;
mod history;
mod regressions;
mod work;

use super::*;
use crate::model::key::PrivateKey;

/// An orchestrator that commits at random, with everything that it ever signed.
pub(super) struct History {
    pub(super) key: PrivateKey,
    pub(super) trust: Trust,
    /// Every ledger from the first revision on, in order.
    pub(super) ledgers: Vec<Ledger>,
}

pub(super) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

pub(super) fn id(number: u8) -> RuleId {
    RuleId::parse(&format!("rule-{number}")).unwrap()
}

pub(super) fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(super) fn live(text: &str) -> Body {
    Body::Live(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn position(epoch: u64, revision: u64) -> Position {
    Position { epoch: Epoch(epoch), revision: Revision(revision) }
}

pub(super) fn delta_of(changes: Changes) -> Delta {
    match changes {
        Changes::Delta(delta) => delta,
        Changes::Current => panic!("nothing newer"),
    }
}

impl History {
    pub(super) fn new() -> History {
        let key = key(1);
        let genesis = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
        let trust = Trust::configured(vec![key.public()]);
        History { key, trust, ledgers: vec![genesis] }
    }

    pub(super) fn last(&self) -> &Ledger {
        self.ledgers.last().unwrap()
    }

    /// Writes or retires rules at their next version plus a jump.
    pub(super) fn commit(&mut self, kept: usize, writes: &[(u8, Option<&str>, u64)]) {
        let mut changes: Vec<Change> = Vec::new();
        for (number, text, jump) in writes {
            let id = id(*number);
            if changes.iter().any(|change| change.id == id) {
                continue;
            }
            let next = self.last().next_version(&id).unwrap().get() + jump;
            let body = text.map_or(Body::Retired, live);
            changes.push(Change { id, version: version(next), body });
        }
        let now = WallTime(1000 + self.ledgers.len() as u64);
        let sign = |head: Head| head.sign(&self.key);
        let next = self.last().commit_keeping(kept, &changes, now, sign).unwrap();
        self.ledgers.push(next);
    }

    /// Leaves the history at its end.
    pub(super) fn open_epoch(&mut self) {
        let epoch = Epoch(self.last().head().epoch.0 + 1);
        let next = self.last().open_epoch(
            epoch,
            |parent| Branch::sign(parent, epoch, &self.key),
            |head| head.sign(&self.key),
        );
        self.ledgers.push(next);
    }

    /// Some of everything: writes, retirements, rules written anew, floor moves, two epochs.
    pub(super) fn eventful() -> History {
        let mut history = History::new();
        for round in 0..30u8 {
            let text = format!("body {round}");
            let body = |dead: bool| if dead { None } else { Some(text.as_str()) };
            let writes = [
                (round % 5, body(round % 3 == 0), u64::from(round % 4)),
                (7 + round % 7, body(round % 2 == 0), 0),
            ];
            history.commit(3, &writes);
            if round == 11 || round == 21 {
                history.open_epoch();
            }
        }
        history
    }
}

/// Same head, same rules, same branch points, same indexes.
pub(super) fn assert_same(one: &Ledger, other: &Ledger) {
    assert_eq!(one.signed, other.signed);
    assert_eq!(one.branches, other.branches);
    assert!(one.records().eq(other.records()));
    assert_eq!(one.content.by_revision, other.content.by_revision);
    assert_eq!(one.content.retired, other.content.retired);
    assert_eq!(one.content.top, other.content.top);
    assert_consistent(one);
}

/// What the indexes and the head say is what the rules are.
pub(super) fn assert_consistent(ledger: &Ledger) {
    assert!(ledger.is_intact());
    let head = ledger.head();
    assert_eq!(ledger.content.top, head.top);
    let by_revision = ledger.records().map(|r| (r.revision, r.id.clone())).collect();
    assert_eq!(ledger.content.by_revision, by_revision);
    let retired = ledger.records().filter(|r| r.body.is_retired());
    let retired = retired.map(|r| (r.revision, r.id.clone())).collect();
    assert_eq!(ledger.content.retired, retired);
    assert!(ledger.records().all(|r| r.revision <= head.revision));
    assert!(ledger.content.retired.iter().all(|(at, _)| *at > head.floor));
    assert_eq!(ledger.live_count() + ledger.retired_count(), ledger.records().count());
}
