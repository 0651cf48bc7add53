//! The mind and what is in force: deltas and overrides taken, overlays, the file, writes by hand.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt;

use crate::model::delta::Delta;
use crate::model::follow::{Path, RejectedRule};
use crate::model::head::{Head, Position};
use crate::model::ids::{ClusterId, PeerAddr, RuleId, Version};
use crate::model::key::{PublicKey, Signature};
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::manual::Override;
use crate::model::moment::{Moment, WallTime};
use crate::model::record::Body;
use crate::model::rule_set::{FileRule, Overlay};

use super::super::hand::{self, Storing};
use super::super::port::{Changed, Effect, Event, Ticket, WriteRefused};
use super::super::replica::{Applied, Taken};
use super::Engine;

impl Engine {
    /// The ledger has moved: put it in force, keep it, pass it on.
    pub(super) fn applied(
        &mut self,
        applied: Applied,
        delta: &Delta,
        path: Path,
        from: Option<PeerAddr>,
        now: Moment,
    ) {
        self.tell_event(Event::Applied {
            position: delta.to.position(),
            rules: applied.rules,
            path,
            replaced: delta.is_replace(),
        });
        for (id, version) in applied.void {
            self.tell_event(Event::OverrideVoid(id, version));
        }
        let ids = match &applied.changed {
            Changed::Rules(ids) if ids.len() <= limits::DIGEST_VERSIONS => ids.clone(),
            Changed::Rules(_) | Changed::Everything => Vec::new(),
        };
        self.effects.push_back(Effect::Activate { changed: applied.changed });
        self.store();
        self.spread(&ids, path, from, now);
    }

    fn spread(&mut self, ids: &[RuleId], path: Path, from: Option<PeerAddr>, now: Moment) {
        if !self.is_lazy(path) {
            self.tell_all(ids, from, now);
            return;
        }
        if self.lazy_ids.len() + ids.len() <= limits::DIGEST_VERSIONS {
            self.lazy_ids.extend(ids.iter().cloned());
        }
        if self.lazy_at.is_none() {
            let wait = self.config.pace.lazy.mul_f64(self.rng.random_range(0.2..1.0));
            self.lazy_at = Some(now + wait);
        }
    }

    pub(super) fn store(&mut self) {
        self.effects.push_back(Effect::Store { ticket: None, extra: Vec::new() });
    }

    /// Overrides that a peer holds.
    pub(super) fn take_overrides(
        &mut self,
        offered: Vec<Override>,
        from: Option<PeerAddr>,
        now: Moment,
    ) {
        let mut won = Vec::new();
        for one in offered {
            let mark = one.mark();
            match self.replica.take_override(one) {
                Taken::Won => {
                    let event = Event::OverrideTaken(mark.id.clone(), mark.version, mark.node);
                    self.tell_event(event);
                    won.push(mark.id);
                }
                Taken::Nothing => {}
                Taken::Refused(reason) => self.refused(reason, from),
            }
        }
        self.overrides_won(won, from, now);
    }

    fn overrides_won(&mut self, won: Vec<RuleId>, from: Option<PeerAddr>, now: Moment) {
        if won.is_empty() {
            return;
        }
        let changed = Changed::Rules(won.clone());
        self.effects.push_back(Effect::Activate { changed });
        self.store();
        self.tell_all(&won, from, now);
        if self.feed.open_ticket().is_some() {
            let some = won.iter().filter_map(|id| self.replica.set.overrides.of(id));
            let handed: Vec<Override> = some.map(|held| (**held).clone()).collect();
            self.effects.push_back(Effect::HandIn(handed));
        }
        self.report_due = true;
    }

    /// In open mode a plain peer's word is taken, as an override of this node at its version.
    pub(super) fn take_plain(
        &mut self,
        rules: Vec<(RuleId, Version, Body)>,
        from: PeerAddr,
        now: Moment,
    ) {
        if rules.is_empty() || !self.replica.open_mode() {
            return;
        }
        let mut overrides = Vec::new();
        for (id, version, body) in rules.into_iter().take(limits::PULL_RULES) {
            let held = self.replica.set.effective(&id).map(|rule| rule.version);
            if held >= Some(version) {
                continue;
            }
            let unsigned = Override {
                cluster: ClusterId([0; 32]),
                id,
                version,
                base: 0,
                body,
                node: self.config.node.clone(),
                // A plain peer knows no times, and equal words must make equal overrides.
                written: WallTime(0),
                key: PublicKey([0; 32]),
                signature: Signature([0; 64]),
                certificate: None,
            };
            overrides.push(unsigned.sign(&self.config.key));
        }
        let won = hand::ids(&overrides);
        for own in overrides {
            self.replica.author(own);
        }
        self.overrides_won(won, Some(from), now);
    }

    /// Sets and ends them all, or none if they would be too many.
    pub(super) fn set_overlays(
        &mut self,
        ticket: Ticket,
        overlays: Vec<(RuleId, Option<(Bytes, Moment)>)>,
    ) {
        let held = &self.replica.set.overlays;
        let fresh =
            |(id, overlay): &&(RuleId, Option<_>)| overlay.is_some() && !held.contains_key(id);
        if held.len() + overlays.iter().filter(fresh).count() > limits::OVERLAYS {
            return self.answer(ticket, Err(WriteRefused::TooManyOverlays));
        }
        self.put_overlays(overlays);
        self.answer(ticket, Ok(Vec::new()));
    }

    /// The caller knows that there is room.
    pub(super) fn put_overlays(&mut self, changes: Vec<(RuleId, Option<(Bytes, Moment)>)>) {
        let overlays = &mut self.replica.set.overlays;
        let mut changed = Vec::new();
        for (id, overlay) in changes {
            let news = match overlay {
                Some((data, until)) => {
                    overlays.insert(id.clone(), Overlay { data, until });
                    true
                }
                None => overlays.remove(&id).is_some(),
            };
            if news {
                changed.push(id);
            }
        }
        if changed.is_empty() {
            return;
        }
        self.replica.set.local_changes += 1;
        self.effects.push_back(Effect::Activate { changed: Changed::Rules(changed) });
    }

    pub(super) fn file_read(&mut self, rules: BTreeMap<RuleId, Bytes>, wall: WallTime) {
        let file = &mut self.replica.set.file;
        let mut changed = Vec::new();
        let gone: Vec<RuleId> = file.keys().filter(|id| !rules.contains_key(id)).cloned().collect();
        for id in gone {
            file.remove(&id);
            changed.push(id);
        }
        for (id, data) in rules {
            let held = file.get(&id);
            if held.is_some_and(|held| held.data == data) {
                continue;
            }
            let version = held.and_then(|held| held.version.next()).unwrap_or(Version::FIRST);
            let created = held.map_or(wall, |held| held.created);
            file.insert(id.clone(), FileRule { version, data, created });
            changed.push(id);
        }
        if !changed.is_empty() {
            self.replica.set.local_changes += 1;
            self.effects.push_back(Effect::Activate { changed: Changed::Rules(changed) });
        }
    }

    pub(super) fn activated(&mut self, position: Option<Position>, rejected: Vec<RejectedRule>) {
        let news = self.active != position || self.rejected != rejected;
        self.active = position;
        self.rejected = rejected;
        self.report_due |= news;
    }

    /// Begins the next batch of writes by hand, when the disk is done with the one before.
    pub(super) fn write_next(&mut self) {
        while self.hand.storing.is_none() {
            let Some(batch) = self.hand.waiting.pop_front() else { return };
            let answer = batch.ticket;
            let decided = hand::decide(&self.replica, &self.config.key, &self.config.node, &batch);
            match decided {
                Err(refused) => self.answer(answer, Err(refused)),
                Ok((overrides, written)) if overrides.is_empty() => {
                    self.answer(answer, Ok(written));
                }
                Ok((overrides, written)) => {
                    let store = self.ticket();
                    let extra = overrides.clone();
                    self.effects.push_back(Effect::Store { ticket: Some(store), extra });
                    self.hand.storing = Some(Storing { answer, store, overrides, written });
                }
            }
        }
    }

    pub(super) fn stored(&mut self, ticket: Ticket, done: bool, now: Moment) {
        let Some(storing) = self.hand.storing.take_if(|storing| storing.store == ticket) else {
            return;
        };
        if !done {
            self.answer(storing.answer, Err(WriteRefused::NotStored));
            return;
        }
        let won = hand::ids(&storing.overrides);
        for own in storing.overrides {
            let mark = own.mark();
            self.tell_event(Event::OverrideTaken(mark.id, mark.version, mark.node));
            self.replica.author(own);
        }
        self.overrides_won(won, None, now);
        self.answer(storing.answer, Ok(storing.written));
    }

    fn answer(
        &mut self,
        ticket: Ticket,
        result: Result<Vec<super::super::port::Written>, WriteRefused>,
    ) {
        self.effects.push_back(Effect::AnswerWrite { ticket, result });
    }

    /// Somebody vouches for other content at this very position.
    pub(super) fn contradicted(&mut self) {
        let head = self.replica.set.ledger.as_ref().map(|ledger: &Ledger| *ledger.head());
        if let Some(head) = head
            && !self.doubt_oneself()
        {
            self.replica.resync = false;
            self.fork(&head);
        }
    }

    /// Looks whether this node's own content is damaged; if so asks for it anew.
    pub(super) fn doubt_oneself(&mut self) -> bool {
        let damaged = self.replica.doubt_oneself();
        if damaged {
            let alarm = "the ledger held here was damaged; asking for it anew".to_string();
            self.tell_event(Event::Alarm(alarm));
        }
        damaged
    }

    /// Two signed histories that cannot both be: keeps this one and waits for a higher epoch.
    pub(super) fn fork(&mut self, other: &Head) {
        let Some(mine) = self.replica.set.ledger.as_ref().map(|ledger: &Ledger| *ledger.head())
        else {
            return;
        };
        let alarm = format!(
            "fork: epoch {} revision {} has content {:?} here and {:?} (revision {}) elsewhere",
            mine.epoch, mine.revision, mine.fingerprint, other.fingerprint, other.revision
        );
        if self.replica.alarm != alarm {
            self.replica.alarm.clone_from(&alarm);
            self.report_due = true;
            self.tell_event(Event::Alarm(alarm));
        }
    }
}

#[cfg(test)]
#[path = "../tests/overlays.rs"]
mod tests;
