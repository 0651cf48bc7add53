//! How often strangers are asked: addresses that others named and that never answered.
//!
//! Peers can name any address, and many peers the same one: without this a fleet could be made to
//! knock at a door of somebody's choice. An address that has answered once is no stranger any
//! more. Decides; asks nobody. Invariants: a stranger is asked again only after a wait that doubles
//! up to `LONGEST_WAIT`, all strangers together at most `BURST` times and then at `PACE`, and a
//! peer is believed about at most `limits::NEW_ADDRESSES_PER_LIST` of them and then at its pace.
//! Every map is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::ids::PeerAddr;
use crate::model::limits;
use crate::model::moment::Moment;

/// What is remembered of strangers and of those who name them.
#[derive(Default)]
pub(super) struct Courtesy {
    /// Who named how many lately.
    sources: BTreeMap<PeerAddr, Bucket>,
    strangers: BTreeMap<PeerAddr, Stranger>,
    answered: BTreeSet<PeerAddr>,
    asks: Bucket,
}

#[derive(Clone, Copy)]
struct Stranger {
    asked: u32,
    last: Moment,
    not_before: Moment,
}

/// What was taken lately, drained by time.
#[derive(Clone, Copy, Default)]
struct Bucket {
    taken: f64,
    at: Moment,
}

impl Courtesy {
    /// Whether an address that `source` names shall be remembered.
    pub(super) fn may_learn(&mut self, source: PeerAddr, named: PeerAddr, now: Moment) -> bool {
        if self.must_wait(named, now) {
            return false;
        }
        if self.sources.len() >= limits::COURTESY && !self.sources.contains_key(&source) {
            let idle = self.sources.iter().min_by_key(|(_, bucket)| bucket.at).map(|(at, _)| *at);
            idle.map(|idle| self.sources.remove(&idle));
        }
        let bucket = self.sources.entry(source).or_default();
        bucket.take(now, limits::NEW_ADDRESSES_PER_LIST as f64, NAMES_PER_SECOND)
    }

    /// Whether this address is a stranger that was asked a short time ago.
    pub(super) fn must_wait(&self, address: PeerAddr, now: Moment) -> bool {
        !self.answered.contains(&address)
            && self.strangers.get(&address).is_some_and(|stranger| now < stranger.not_before)
    }

    /// Whether it may be asked now; then it counts as asked.
    pub(super) fn may_ask(&mut self, address: PeerAddr, now: Moment) -> bool {
        if self.answered.contains(&address) {
            return true;
        }
        if self.must_wait(address, now) || !self.asks.take(now, BURST, PACE) {
            return false;
        }
        if self.strangers.len() >= limits::COURTESY && !self.strangers.contains_key(&address) {
            let next = self.strangers.iter().min_by_key(|(_, s)| s.not_before).map(|(at, _)| *at);
            next.map(|next| self.strangers.remove(&next));
        }
        let known = self.strangers.get(&address).map_or(0, |stranger| stranger.asked);
        let wait = FIRST_WAIT * 2u32.pow(known.min(16));
        let not_before = now + wait.min(LONGEST_WAIT);
        let asked = known.saturating_add(1);
        self.strangers.insert(address, Stranger { asked, last: now, not_before });
        true
    }

    /// Whether what it announced may be pulled from it: part of the same question as being told
    /// of this node, or one of its own.
    pub(super) fn may_pull(&mut self, address: PeerAddr, now: Moment) -> bool {
        let just_asked = self.strangers.get(&address).is_some_and(|s| s.last == now);
        just_asked || self.may_ask(address, now)
    }

    /// It answered as a peer does.
    pub(super) fn answered(&mut self, address: PeerAddr) {
        if self.answered.contains(&address) {
            return;
        }
        self.strangers.remove(&address);
        if self.answered.len() >= limits::COURTESY {
            self.answered.pop_first();
        }
        self.answered.insert(address);
    }
}

impl Bucket {
    fn take(&mut self, now: Moment, most: f64, per_second: f64) -> bool {
        let drained = now.since(self.at).as_secs_f64() * per_second;
        self.taken = (self.taken - drained).max(0.0);
        self.at = now;
        let room = self.taken + 1.0 <= most;
        if room {
            self.taken += 1.0;
        }
        room
    }
}

/// Before a stranger that did not answer is asked again; doubled each time.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(4);
/// The longest such wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(256);
/// Strangers asked in one go: a node that has just started looks around.
pub(super) const BURST: f64 = 32.0;
/// Strangers asked per second after that.
pub(super) const PACE: f64 = 2.0;
/// Addresses believed from one source per second, after its first list.
const NAMES_PER_SECOND: f64 = 0.1;

#[cfg(test)]
#[path = "tests/courtesy.rs"]
mod tests;
