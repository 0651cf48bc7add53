//! What is being told to whom, and what is being pulled from whom.
//!
//! Bookkeeping of conversations only: what is held is `replica`'s, whom there is to talk to is
//! `neighbourhood`'s. Invariants: one digest at a time to a peer, one ledger pull at a time in
//! all, and every conversation has a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::head::Position;
use crate::model::ids::{PeerAddr, RuleId};
use crate::model::limits;
use crate::model::manual::OverrideSummary;
use crate::model::moment::Moment;

use super::port::Ticket;

/// Conversations with neighbours.
#[derive(Default)]
pub(super) struct Gossip {
    links: BTreeMap<PeerAddr, Link>,
    ledger_pull: Option<LedgerPull>,
    rule_pulls: BTreeMap<Ticket, RulePull>,
    /// Peers that a ledger pull was lost with, and until when they are not asked again.
    avoid: BTreeMap<PeerAddr, Moment>,
}

/// What is known of one neighbour's knowledge.
#[derive(Default)]
pub(super) struct Link {
    pub(super) known: Option<Position>,
    pub(super) overrides: Option<OverrideSummary>,
    /// Send names of overrides next time.
    pub(super) send_marks: bool,
    in_flight: Option<Moment>,
    again: bool,
    pending: BTreeSet<RuleId>,
}

struct LedgerPull {
    ticket: Ticket,
    from: PeerAddr,
    until: Moment,
}

struct RulePull {
    from: PeerAddr,
    ids: Vec<RuleId>,
    asked: Moment,
}

impl Gossip {
    /// What is known of a peer; a stranger takes the place of another when there are too many.
    pub(super) fn link(&mut self, peer: PeerAddr) -> &mut Link {
        if self.links.len() >= LINKS && !self.links.contains_key(&peer) {
            self.links.pop_first();
        }
        self.links.entry(peer).or_default()
    }

    pub(super) fn known(&self, peer: PeerAddr) -> Option<Position> {
        self.links.get(&peer).and_then(|link| link.known)
    }

    pub(super) fn overrides(&self, peer: PeerAddr) -> Option<OverrideSummary> {
        self.links.get(&peer).and_then(|link| link.overrides)
    }

    /// Everybody that said something, with where they stand.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerAddr, Option<Position>)> {
        self.links.iter().map(|(peer, link)| (*peer, link.known))
    }

    pub(super) fn forget(&mut self, peer: PeerAddr) {
        self.links.remove(&peer);
    }

    /// Something is to be told to a peer. Returns whether a digest may go now.
    pub(super) fn want_to_tell(&mut self, peer: PeerAddr, ids: &[RuleId]) -> bool {
        let link = self.link(peer);
        if link.pending.len() + ids.len() <= limits::DIGEST_VERSIONS {
            link.pending.extend(ids.iter().cloned());
        }
        if link.in_flight.is_some() {
            link.again = true;
            return false;
        }
        true
    }

    /// A digest goes out: which rules it names.
    pub(super) fn telling(&mut self, peer: PeerAddr, now: Moment) -> (Vec<RuleId>, bool) {
        let link = self.link(peer);
        link.in_flight = Some(now);
        link.again = false;
        let marks = std::mem::take(&mut link.send_marks);
        (std::mem::take(&mut link.pending).into_iter().collect(), marks)
    }

    /// A digest was answered, or came to nothing. Returns whether another is to go at once.
    pub(super) fn told(&mut self, peer: PeerAddr) -> bool {
        match self.links.get_mut(&peer) {
            Some(link) => {
                link.in_flight = None;
                std::mem::take(&mut link.again)
            }
            None => false,
        }
    }

    pub(super) fn pulls_ledger(&self) -> bool {
        self.ledger_pull.is_some()
    }

    pub(super) fn pull_ledger(&mut self, ticket: Ticket, from: PeerAddr, until: Moment) {
        self.ledger_pull = Some(LedgerPull { ticket, from, until });
    }

    /// Whether rules may be pulled now; which of them are not under way already.
    pub(super) fn may_pull_rules(&self, ids: &[RuleId]) -> Vec<RuleId> {
        if self.rule_pulls.len() >= RULE_PULLS {
            return Vec::new();
        }
        let under_way = |id: &RuleId| self.rule_pulls.values().any(|pull| pull.ids.contains(id));
        ids.iter().filter(|id| !under_way(id)).take(limits::PULL_RULES).cloned().collect()
    }

    pub(super) fn pull_rules(
        &mut self,
        ticket: Ticket,
        from: PeerAddr,
        ids: Vec<RuleId>,
        now: Moment,
    ) {
        self.rule_pulls.insert(ticket, RulePull { from, ids, asked: now });
    }

    /// A pull ended; whom it was from, if it was still awaited.
    pub(super) fn pulled(&mut self, ticket: Ticket) -> Option<PeerAddr> {
        if self.ledger_pull.as_ref().is_some_and(|pull| pull.ticket == ticket) {
            return self.ledger_pull.take().map(|pull| pull.from);
        }
        self.rule_pulls.remove(&ticket).map(|pull| pull.from)
    }

    /// The next ledger pull shall go elsewhere.
    pub(super) fn avoid(&mut self, peer: PeerAddr, until: Moment) {
        if self.avoid.len() >= limits::NEIGHBOURS * 2 {
            self.avoid.pop_first();
        }
        self.avoid.insert(peer, until);
    }

    pub(super) fn is_avoided(&self, peer: PeerAddr, now: Moment) -> bool {
        self.avoid.get(&peer).is_some_and(|until| now < *until)
    }

    /// Gives up what has taken too long. Returns the peers that let a pull wait.
    pub(super) fn expire(&mut self, now: Moment, pull_deadline: Duration) -> Vec<PeerAddr> {
        let mut slow = Vec::new();
        if let Some(pull) = self.ledger_pull.take_if(|pull| now >= pull.until) {
            slow.push(pull.from);
        }
        self.rule_pulls.retain(|_, pull| {
            let late = now.since(pull.asked) >= pull_deadline;
            if late {
                slow.push(pull.from);
            }
            !late
        });
        for link in self.links.values_mut() {
            if link.in_flight.is_some_and(|sent| now.since(sent) >= DIGEST_DEADLINE) {
                link.in_flight = None;
            }
        }
        self.avoid.retain(|_, until| now < *until);
        slow
    }

    pub(super) fn deadline(&self, pull_deadline: Duration) -> Option<Moment> {
        let ledger = self.ledger_pull.iter().map(|pull| pull.until);
        let rules = self.rule_pulls.values().map(|pull| pull.asked + pull_deadline);
        let digests =
            self.links.values().filter_map(|link| link.in_flight).map(|at| at + DIGEST_DEADLINE);
        ledger.chain(rules).chain(digests).min()
    }
}

/// Peers remembered: neighbours, and as many that only passed by.
const LINKS: usize = limits::NEIGHBOURS * 2;
/// Pulls of single rules at a time.
const RULE_PULLS: usize = 8;
/// A digest whose answer is this late is as good as lost.
const DIGEST_DEADLINE: Duration = Duration::from_secs(10);
