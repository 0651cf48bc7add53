//! The mind and its peers: digests out and in, pulls, comparisons.

use std::cmp::Reverse;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::model::digest::{Digest, DigestReply};
use crate::model::follow::{FeedState, Path};
use crate::model::head::{Beacon, Position, SignedHead};
use crate::model::ids::{PeerAddr, RuleId, Version};
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::manual::{OverrideMark, OverrideSummary};
use crate::model::moment::Moment;

use super::super::port::{Effect, PullWhat, Pulled, Ticket};
use super::super::replica::HeadNews;
use super::Engine;

/// What a peer said about itself, in a digest or in the answer to one.
struct Word<'a> {
    peer: PeerAddr,
    head: Option<&'a SignedHead>,
    beacon: Option<&'a Beacon>,
    overrides: Option<OverrideSummary>,
    versions: &'a [(RuleId, Version)],
    marks: &'a [OverrideMark],
}

/// What follows for the one who said it.
#[derive(Default)]
struct Heard {
    want: Vec<RuleId>,
    newer: Vec<(RuleId, Version)>,
}

impl Engine {
    pub(super) fn digest_received(&mut self, ticket: Ticket, digest: Digest, now: Moment) {
        let peer = digest.from.address;
        let turnover = self.hood.heard(&digest.from, now);
        let plain = digest.head.is_none() && digest.overrides.is_none();
        let heard = self.hear(
            &Word {
                peer,
                head: digest.head.as_ref(),
                beacon: digest.beacon.as_ref(),
                overrides: digest.overrides,
                versions: &digest.versions,
                marks: &digest.marks,
            },
            now,
        );
        let mine = self.replica.set.overrides.summary();
        let differs = digest.overrides.is_some_and(|theirs| theirs != mine);
        // An announcement names what is new by itself; only a comparison needs the lists.
        let compare = digest.versions.is_empty() || !digest.marks.is_empty();
        let marks = if differs && compare && !plain { self.marks() } else { Vec::new() };
        let reply = DigestReply {
            head: self.replica.set.ledger.as_ref().map(|ledger| *ledger.signed()),
            beacon: self.replica.beacon().copied(),
            overrides: Some(mine),
            want: heard.want,
            newer: heard.newer,
            marks,
        };
        self.effects.push_back(Effect::ReplyDigest { ticket, reply });
        self.turn_over(turnover, now);
    }

    pub(super) fn digest_answered(
        &mut self,
        to: PeerAddr,
        reply: DigestReply,
        rtt: Duration,
        now: Moment,
    ) {
        self.hood.measured(to, rtt, now);
        let again = self.gossip.told(to);
        self.hear(
            &Word {
                peer: to,
                head: reply.head.as_ref(),
                beacon: reply.beacon.as_ref(),
                overrides: reply.overrides,
                versions: &reply.newer,
                marks: &reply.marks,
            },
            now,
        );
        let mine = self.replica.set.overrides.summary();
        if reply.overrides.is_some_and(|theirs| theirs != mine) {
            self.gossip.link(to).send_marks = true;
        }
        if again {
            self.tell(to, &[], now);
        }
    }

    /// Takes in what a peer says of itself.
    fn hear(&mut self, word: &Word<'_>, now: Moment) -> Heard {
        let mut heard = Heard::default();
        if let Some(beacon) = word.beacon {
            match self.replica.offer_beacon(beacon, now) {
                Ok(true) => self.replica.note_beacon_head(beacon, now),
                Ok(false) => {}
                Err(()) => self.refused("bad_beacon", Some(word.peer)),
            }
        }
        let news = word.head.map(|head| self.replica.offer_head(head, now));
        if word.overrides.is_some() {
            self.gossip.link(word.peer).overrides = word.overrides;
        }
        match news {
            Some(HeadNews::Ahead(position)) => {
                self.gossip.link(word.peer).known = Some(position);
                heard.want.extend(word.versions.iter().map(|(id, _)| id.clone()));
            }
            Some(HeadNews::Same) => {
                self.gossip.link(word.peer).known = self.replica.position();
                let needed = self.hood.seed_count();
                self.replica.note_agreement(word.peer, needed);
            }
            Some(HeadNews::Behind(position)) => {
                self.gossip.link(word.peer).known = Some(position);
                heard.newer = self.replica.newer_than(Some(position));
            }
            Some(HeadNews::Contradicts) => self.contradicted(),
            Some(HeadNews::Unbelieved) => self.refused("bad_signature", Some(word.peer)),
            None => {}
        }
        let ahead = matches!(news, Some(HeadNews::Ahead(_)));
        let plain = word.head.is_none() && word.overrides.is_none();
        self.hear_rules(word, ahead, plain, &mut heard, now);
        heard
    }

    /// Which rules the peer has that are not in any ledger, and which it lacks.
    fn hear_rules(
        &mut self,
        word: &Word<'_>,
        ahead: bool,
        plain: bool,
        heard: &mut Heard,
        now: Moment,
    ) {
        let mut wanted = Vec::new();
        for (id, version) in word.versions.iter().take(limits::DIGEST_VERSIONS) {
            let mine = self.replica.set.effective(id).map(|rule| rule.version);
            if mine < Some(*version) && !ahead {
                wanted.push(id.clone());
            } else if let Some(mine) = mine.filter(|mine| plain && mine > version) {
                heard.newer.push((id.clone(), mine));
            }
        }
        for mark in word.marks.iter().take(limits::OVERRIDE_MARKS) {
            if self.lacks(mark) {
                wanted.push(mark.id.clone());
            }
        }
        let what: fn(Vec<RuleId>) -> PullWhat = match (plain, self.replica.open_mode()) {
            (true, false) => return,
            (true, true) => PullWhat::Plain,
            (false, _) => PullWhat::Overrides,
        };
        let ids = self.gossip.may_pull_rules(&wanted);
        if ids.is_empty()
            || self.gossip.is_avoided(word.peer, now)
            || !self.hood.may_pull(word.peer, now)
        {
            return;
        }
        heard.want.extend(ids.iter().cloned());
        let ticket = self.ticket();
        self.gossip.pull_rules(ticket, word.peer, ids.clone(), now);
        self.effects.push_back(Effect::Pull { ticket, from: word.peer, what: what(ids) });
    }

    /// Whether an override of which only the name is known would beat what is held.
    fn lacks(&self, mark: &OverrideMark) -> bool {
        let held = self.replica.set.overrides.of(&mark.id);
        let rank = (mark.version, Reverse(&mark.node));
        let beaten = held.is_none_or(|held| (held.version, Reverse(&held.node)) < rank);
        let known = self.replica.set.ledger.as_ref().map_or(0, |ledger: &Ledger| {
            ledger.record(&mark.id).map_or(ledger.head().top, |record| record.version.get())
        });
        beaten && mark.version.get() > known
    }

    fn marks(&mut self) -> Vec<OverrideMark> {
        const FIRST: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let from = FIRST.choose(&mut self.rng).map_or('0', |letter| char::from(*letter));
        let from = RuleId::parse(from.encode_utf8(&mut [0; 4]));
        from.map_or_else(Vec::new, |from| {
            self.replica.set.overrides.marks(&from, limits::OVERRIDE_MARKS)
        })
    }

    /// Sends a digest to a peer, now or as soon as the one under way is answered.
    pub(super) fn tell(&mut self, peer: PeerAddr, ids: &[RuleId], now: Moment) {
        if !self.gossip.want_to_tell(peer, ids) {
            return;
        }
        let (ids, with_marks) = self.gossip.telling(peer, now);
        let versions = ids
            .into_iter()
            .filter_map(|id| self.replica.set.effective(&id).map(|rule| (id, rule.version)))
            .take(limits::DIGEST_VERSIONS)
            .collect();
        let digest = Digest {
            from: self.card.clone(),
            cluster: self.replica.cluster(),
            head: self.replica.set.ledger.as_ref().map(|ledger| *ledger.signed()),
            beacon: self.replica.beacon().copied(),
            overrides: Some(self.replica.set.overrides.summary()),
            versions,
            marks: if with_marks { self.marks() } else { Vec::new() },
        };
        self.effects.push_back(Effect::SendDigest { to: peer, digest });
    }

    /// Tells every neighbour but the one it came from.
    pub(super) fn tell_all(&mut self, ids: &[RuleId], except: Option<PeerAddr>, now: Moment) {
        let neighbours: Vec<PeerAddr> = self.hood.addresses().collect();
        for peer in neighbours.into_iter().filter(|peer| Some(*peer) != except) {
            self.tell(peer, ids, now);
        }
    }

    /// The lazy announcement: to those who are not known to be here already.
    pub(super) fn tell_lazily(&mut self, now: Moment) {
        self.lazy_at = None;
        let ids: Vec<RuleId> = std::mem::take(&mut self.lazy_ids).into_iter().collect();
        let mine = self.replica.position();
        let neighbours: Vec<PeerAddr> = self.hood.addresses().collect();
        for peer in neighbours {
            if self.gossip.known(peer) < mine {
                self.tell(peer, &ids, now);
            }
        }
    }

    /// Compares with one neighbour, one that seems to differ if there is any.
    pub(super) fn compare(&mut self, now: Moment) {
        let neighbours: Vec<PeerAddr> = self.hood.addresses().collect();
        let mine = (self.replica.position(), Some(self.replica.set.overrides.summary()));
        let differing: Vec<PeerAddr> = neighbours
            .iter()
            .filter(|peer| (self.gossip.known(**peer), self.gossip.overrides(**peer)) != mine)
            .copied()
            .collect();
        let one = if self.rng.random_bool(0.75) { differing.choose(&mut self.rng) } else { None };
        if let Some(peer) = one.or_else(|| neighbours.choose(&mut self.rng)).copied() {
            self.tell(peer, &[], now);
        }
        let busy = !differing.is_empty() || self.replica.behind_since().is_some();
        let pace = &self.config.pace;
        let alone = self.feed.state == FeedState::Lost && self.config.orchestrators > 0;
        let wait = match (busy, alone) {
            (true, _) => pace.compare_busy,
            (false, true) => pace.compare_busy * 2,
            (false, false) => pace.compare_calm,
        };
        self.compare_at = now + wait.mul_f64(self.rng.random_range(0.8..1.2));
        let stale = self.replica.staleness(now).is_none_or(|age| age > STALE);
        if alone && stale || neighbours.is_empty() {
            self.hood.return_to_seeds(now, &mut self.rng);
        }
    }

    /// Pulls the ledger from a peer when something newer exists and the stream does not bring it.
    pub(super) fn pull_if_behind(&mut self, now: Moment) {
        let behind = self.replica.behind_since().is_some() || self.replica.resync;
        let stream_will = self.feed.state == FeedState::Live;
        if !behind || stream_will || self.gossip.pulls_ledger() {
            return;
        }
        let Some(from) = self.best_source(now) else { return };
        let since = self.replica.position().filter(|_| !self.replica.resync);
        let ticket = self.ticket();
        // A whole ledger takes its time; a delta that does is better asked for elsewhere.
        let deadline = self.config.pace.pull_deadline * if since.is_none() { WHOLE } else { 1 };
        self.gossip.pull_ledger(ticket, from, now + deadline);
        self.effects.push_back(Effect::Pull { ticket, from, what: PullWhat::Since(since) });
    }

    /// The peer that has the most, and of those the closest.
    fn best_source(&self, now: Moment) -> Option<PeerAddr> {
        let mine = self.replica.position();
        let resync = self.replica.resync;
        let useful = |known: Option<Position>| known > mine || resync && known.is_some();
        self.gossip
            .peers()
            .filter(|(peer, known)| useful(*known) && !self.gossip.is_avoided(*peer, now))
            .max_by_key(|(peer, known)| {
                (*known, Reverse(self.hood.rtt(*peer).unwrap_or(FAR)), Reverse(*peer))
            })
            .map(|(peer, _)| peer)
    }

    pub(super) fn pulled(&mut self, ticket: Ticket, pulled: Pulled, now: Moment) {
        let Some(from) = self.gossip.pulled(ticket) else { return };
        self.hood.pulled(from);
        for link in &pulled.links {
            self.replica.follow(link);
        }
        if let Some(beacon) = &pulled.beacon {
            match self.replica.offer_beacon(beacon, now) {
                Ok(true) => self.replica.note_beacon_head(beacon, now),
                Ok(false) => {}
                Err(()) => self.refused("bad_beacon", Some(from)),
            }
        }
        match &pulled.delta {
            Some(delta) => self.apply(delta, Path::Peer, Some(from), now),
            // It has nothing after all: whoever says so is not asked again at once.
            None if pulled.overrides.is_empty() && pulled.plain.is_empty() => {
                self.gossip.link(from).known = None;
                self.gossip.avoid(from, now + super::AVOID);
            }
            None => {}
        }
        self.take_overrides(pulled.overrides, Some(from), now);
        self.take_plain(pulled.plain, from, now);
    }
}

/// No beacon for this long: the node may be cut off.
const STALE: Duration = Duration::from_secs(3);
/// How much longer a whole ledger may take than a delta.
const WHOLE: u32 = 10;
/// Stands for a round trip that was not measured.
const FAR: Duration = Duration::from_secs(1);
