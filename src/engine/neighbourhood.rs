//! Whom to gossip with: a few close peers, a few random ones, and those that chose this node.
//!
//! Keeping only the closest splits a fleet into islands as soon as a site has more nodes than
//! that; the random ones hold it together. Decides from round trips it is told; sends nothing
//! itself. Invariant: at most `limits::NEIGHBOURS` neighbours, `limits::PASSIVE_VIEW` candidates.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::model::ids::PeerAddr;
use crate::model::limits;
use crate::model::moment::Moment;
use crate::model::peer::{Neighbour, NeighbourKind, PeerCard};

use super::config::{Pace, Topology};
use super::courtesy::Courtesy;

/// Neighbours, candidates, and when to look again.
pub(super) struct Neighbourhood {
    own: PeerCard,
    topology: Topology,
    seeds: Vec<PeerAddr>,
    pace: Pace,
    active: BTreeMap<PeerAddr, Active>,
    passive: BTreeMap<PeerAddr, Candidate>,
    asking: BTreeMap<PeerAddr, Moment>,
    courtesy: Courtesy,
    explore_at: Moment,
    explore_wait: Duration,
    redraw_at: Moment,
    bootstrapped_at: Option<Moment>,
}

struct Active {
    card: PeerCard,
    kind: NeighbourKind,
    rtt: Option<Duration>,
    since: Moment,
    heard: Moment,
    failures: u32,
}

struct Candidate {
    card: PeerCard,
    rtt: Option<Duration>,
    failures: u32,
}

/// Who came and who went.
#[derive(Default)]
pub(super) struct Turnover {
    pub(super) up: Vec<PeerAddr>,
    pub(super) down: Vec<PeerAddr>,
}

impl Neighbourhood {
    pub(super) fn new(
        own: PeerCard,
        topology: Topology,
        seeds: Vec<PeerAddr>,
        pace: Pace,
        now: Moment,
    ) -> Neighbourhood {
        let mut active = BTreeMap::new();
        if let Topology::Fixed(list) = &topology {
            for address in list.iter().filter(|address| **address != own.address) {
                let card = PeerCard::unknown(*address);
                active.insert(*address, Active::new(card, NeighbourKind::Fixed, None, now));
            }
        }
        let seeds: Vec<PeerAddr> = seeds.into_iter().filter(|at| *at != own.address).collect();
        let mut passive = BTreeMap::new();
        for seed in seeds.iter().take(limits::PASSIVE_VIEW) {
            passive.insert(*seed, Candidate::new(PeerCard::unknown(*seed)));
        }
        Neighbourhood {
            own,
            topology,
            seeds,
            explore_wait: FIRST_EXPLORE,
            redraw_at: now + pace.redraw,
            pace,
            active,
            passive,
            asking: BTreeMap::new(),
            courtesy: Courtesy::default(),
            explore_at: now,
            bootstrapped_at: None,
        }
    }

    pub(super) fn seed_count(&self) -> usize {
        self.seeds.len()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = PeerAddr> {
        self.active.keys().copied()
    }

    pub(super) fn rtt(&self, address: PeerAddr) -> Option<Duration> {
        self.active.get(&address).and_then(|active| active.rtt)
    }

    /// The longest round trip to a neighbour: what news from here may take to arrive.
    pub(super) fn longest_rtt(&self) -> Duration {
        self.active.values().filter_map(|active| active.rtt).max().unwrap_or_default()
    }

    pub(super) fn neighbours(&self) -> Vec<Neighbour> {
        self.active
            .values()
            .map(|active| Neighbour {
                card: active.card.clone(),
                kind: active.kind,
                rtt: active.rtt,
                since: active.since,
            })
            .collect()
    }

    pub(super) fn deadline(&self) -> Moment {
        let asked = self.asking.values().min().map(|at| *at + ASK_DEADLINE);
        let explore = self.explore_at.min(asked.unwrap_or(self.explore_at));
        if self.discovers().is_some() { explore.min(self.redraw_at) } else { explore }
    }

    /// A peer said something: it is alive, and here is who it is.
    pub(super) fn heard(&mut self, card: &PeerCard, now: Moment) -> Turnover {
        let mut turnover = Turnover::default();
        if card.address == self.own.address {
            return turnover;
        }
        if let Some(active) = self.active.get_mut(&card.address) {
            // Anybody can speak in its name: only its own answers undo failures.
            active.heard = now;
            active.card = card.clone();
            return turnover;
        }
        if self.discovers().is_none() {
            return turnover;
        }
        let inbound = self.count(NeighbourKind::Inbound);
        let room = inbound < self.inbound_cap() && self.active.len() < limits::NEIGHBOURS;
        if room && (self.is_given(card.address) || self.courtesy.may_ask(card.address, now)) {
            let rtt = self.passive.remove(&card.address).and_then(|candidate| candidate.rtt);
            let active = Active::new(card.clone(), NeighbourKind::Inbound, rtt, now);
            self.active.insert(card.address, active);
            turnover.up.push(card.address);
        }
        turnover
    }

    /// Whether what a peer announced may be pulled from it.
    pub(super) fn may_pull(&mut self, address: PeerAddr, now: Moment) -> bool {
        self.is_given(address) || self.courtesy.may_pull(address, now)
    }

    /// A pull was answered.
    pub(super) fn pulled(&mut self, address: PeerAddr) {
        self.courtesy.answered(address);
    }

    /// A peer answered a digest or a question in this time.
    pub(super) fn measured(&mut self, address: PeerAddr, rtt: Duration, now: Moment) {
        self.courtesy.answered(address);
        if let Some(active) = self.active.get_mut(&address) {
            active.heard = now;
            active.failures = 0;
            active.rtt = Some(smooth(active.rtt, rtt));
        } else if let Some(candidate) = self.passive.get_mut(&address) {
            candidate.failures = 0;
            candidate.rtt = Some(smooth(candidate.rtt, rtt));
        }
    }

    /// A peer did not answer. Returns whether it is given up as a neighbour.
    pub(super) fn failed(&mut self, address: PeerAddr) -> bool {
        if let Some(active) = self.active.get_mut(&address) {
            active.failures += 1;
            if active.kind == NeighbourKind::Fixed || active.failures < FAILURES {
                return false;
            }
            self.active.remove(&address);
            return true;
        }
        if let Some(candidate) = self.passive.get_mut(&address) {
            candidate.failures += 1;
            candidate.rtt = None;
            if candidate.failures >= FAILURES && !self.seeds.contains(&address) {
                self.passive.remove(&address);
            }
        }
        false
    }

    /// A peer told whom it knows.
    pub(super) fn answered(
        &mut self,
        from: PeerAddr,
        list: Vec<PeerCard>,
        rtt: Duration,
        now: Moment,
        rng: &mut ChaCha8Rng,
    ) {
        self.asking.remove(&from);
        self.measured(from, rtt, now);
        let mut fresh = 0;
        for card in list.into_iter().take(limits::NEIGHBOUR_LIST) {
            let known = card.address == self.own.address
                || self.active.contains_key(&card.address)
                || self.passive.contains_key(&card.address);
            if known || !self.courtesy.may_learn(from, card.address, now) {
                continue;
            }
            fresh += 1;
            self.remember(Candidate::new(card), rng);
        }
        if fresh > 0 {
            self.explore_wait = FIRST_EXPLORE;
            self.explore_at = self.explore_at.min(now + FIRST_EXPLORE);
        }
    }

    /// A peer said who it is.
    pub(super) fn introduce(&mut self, card: &PeerCard) {
        if let Some(active) = self.active.get_mut(&card.address) {
            active.card = card.clone();
        } else if let Some(candidate) = self.passive.get_mut(&card.address) {
            candidate.card = card.clone();
        }
    }

    pub(super) fn unanswered(&mut self, from: PeerAddr) -> bool {
        self.asking.remove(&from);
        self.failed(from)
    }

    /// The operator's names were looked up: these are the seeds now, and the fixed neighbours.
    pub(super) fn resolved(
        &mut self,
        own: &PeerCard,
        seeds: Vec<PeerAddr>,
        fixed: Vec<PeerAddr>,
        now: Moment,
        rng: &mut ChaCha8Rng,
    ) -> Turnover {
        let mut turnover = Turnover::default();
        self.own = own.clone();
        let others = |list: Vec<PeerAddr>| list.into_iter().filter(|at| *at != own.address);
        self.seeds = others(seeds).take(limits::PASSIVE_VIEW).collect();
        if let Topology::Fixed(list) = &mut self.topology {
            let fixed: Vec<PeerAddr> = others(fixed).collect();
            for gone in list.iter().filter(|at| !fixed.contains(at)) {
                turnover.down.extend(self.active.remove(gone).map(|_| *gone));
            }
            for come in &fixed {
                if self.active.contains_key(come) {
                    continue;
                }
                let card = PeerCard::unknown(*come);
                self.active.insert(*come, Active::new(card, NeighbourKind::Fixed, None, now));
                turnover.up.push(*come);
            }
            *list = fixed;
            return turnover;
        }
        for seed in self.seeds.clone() {
            if !self.active.contains_key(&seed) && !self.passive.contains_key(&seed) {
                self.remember(Candidate::new(PeerCard::unknown(seed)), rng);
            }
        }
        self.explore_wait = FIRST_EXPLORE;
        self.explore_at = self.explore_at.min(now);
        turnover
    }

    /// This node may be cut off: ask where it began, but not too often.
    pub(super) fn return_to_seeds(&mut self, now: Moment, rng: &mut ChaCha8Rng) {
        let jitter = self.pace.bootstrap.mul_f64(rng.random_range(0.0..0.5));
        let soon = self.bootstrapped_at.is_some_and(|at| now.since(at) < self.pace.bootstrap);
        if soon || self.discovers().is_none() {
            return;
        }
        self.bootstrapped_at = Some(now + jitter);
        for seed in self.seeds.clone() {
            if !self.active.contains_key(&seed) {
                self.remember(Candidate::new(PeerCard::unknown(seed)), rng);
            }
        }
        self.explore_wait = FIRST_EXPLORE;
        self.explore_at = self.explore_at.min(now + jitter);
    }

    /// Looks around when it is time: whom to ask now, and who came and went.
    pub(super) fn tick(&mut self, now: Moment, rng: &mut ChaCha8Rng) -> (Vec<PeerAddr>, Turnover) {
        let mut turnover = Turnover::default();
        self.asking.retain(|_, asked| now.since(*asked) < ASK_DEADLINE);
        if let Some((near, far)) = self.discovers() {
            self.drop_silent(now, &mut turnover);
            self.fill_near(near, now, &mut turnover);
            self.fill_far(far, now, rng, &mut turnover);
        }
        if now < self.explore_at {
            return (Vec::new(), turnover);
        }
        self.explore_wait = (self.explore_wait * 2).min(self.pace.explore);
        self.explore_at = now + self.explore_wait.mul_f64(rng.random_range(0.8..1.2));
        let ask = self.whom_to_ask(now, rng);
        for address in &ask {
            self.asking.insert(*address, now);
        }
        (ask, turnover)
    }

    fn whom_to_ask(&mut self, now: Moment, rng: &mut ChaCha8Rng) -> Vec<PeerAddr> {
        if self.discovers().is_none() {
            return Vec::new();
        }
        if self.active.is_empty() {
            for seed in self.seeds.clone() {
                if !self.passive.contains_key(&seed) {
                    self.remember(Candidate::new(PeerCard::unknown(seed)), rng);
                }
            }
        }
        let (asking, courtesy) = (&self.asking, &self.courtesy);
        let unmeasured: Vec<PeerAddr> = self
            .passive
            .iter()
            .filter(|(at, candidate)| candidate.rtt.is_none() && !asking.contains_key(at))
            .map(|(at, _)| *at)
            .filter(|at| self.is_given(*at) || !courtesy.must_wait(*at, now))
            .collect();
        let mut ask: Vec<PeerAddr> = unmeasured.sample(rng, ASK_AT_ONCE).copied().collect();
        ask.retain(|at| self.seeds.contains(at) || self.courtesy.may_ask(*at, now));
        let known: Vec<PeerAddr> =
            self.active.keys().filter(|at| !asking.contains_key(at)).copied().collect();
        ask.extend(known.choose(rng));
        ask
    }

    fn drop_silent(&mut self, now: Moment, turnover: &mut Turnover) {
        let limit = INBOUND_SILENCE;
        let gone: Vec<PeerAddr> = self
            .active
            .iter()
            .filter(|(_, a)| a.kind == NeighbourKind::Inbound && now.since(a.heard) > limit)
            .map(|(at, _)| *at)
            .collect();
        for address in gone {
            self.active.remove(&address);
            turnover.down.push(address);
        }
    }

    /// Keeps the closest, but moves only for a clear gain.
    fn fill_near(&mut self, near: usize, now: Moment, turnover: &mut Turnover) {
        loop {
            let best = self
                .active
                .iter()
                .filter(|(_, a)| a.kind == NeighbourKind::Inbound)
                .filter_map(|(at, a)| a.rtt.map(|rtt| (rtt, *at)))
                .chain(self.passive.iter().filter_map(|(at, c)| c.rtt.map(|rtt| (rtt, *at))))
                .min();
            let Some((rtt, address)) = best else { return };
            if self.count(NeighbourKind::Near) < near {
                self.promote(address, NeighbourKind::Near, now, turnover);
                continue;
            }
            let worst = self
                .active
                .iter()
                .filter(|(_, a)| a.kind == NeighbourKind::Near)
                .map(|(at, a)| (a.rtt.unwrap_or(UNMEASURED), *at))
                .max();
            let Some((worst_rtt, worst)) = worst else { return };
            if rtt + STICKY > worst_rtt.mul_f64(0.8) {
                return;
            }
            self.demote(worst, turnover);
            self.promote(address, NeighbourKind::Near, now, turnover);
        }
    }

    /// Random ones, in other regions first, one of them drawn anew from time to time.
    fn fill_far(&mut self, far: usize, now: Moment, rng: &mut ChaCha8Rng, turnover: &mut Turnover) {
        if now >= self.redraw_at {
            self.redraw_at = now + self.pace.redraw.mul_f64(rng.random_range(1.0..1.5));
            let held: Vec<PeerAddr> = self.of_kind(NeighbourKind::Far);
            let reserve = self.passive.values().any(|candidate| candidate.rtt.is_some());
            if let Some(old) = held.choose(rng).filter(|_| reserve && held.len() >= far) {
                self.demote(*old, turnover);
            }
        }
        while self.count(NeighbourKind::Far) < far {
            let regions: Vec<&str> = self
                .active
                .values()
                .filter(|a| a.kind != NeighbourKind::Inbound)
                .map(|a| a.card.region.as_str())
                .chain([self.own.region.as_str()])
                .collect();
            let usable = || self.passive.iter().filter(|(_, c)| c.rtt.is_some());
            let elsewhere: Vec<PeerAddr> = usable()
                .filter(|(_, c)| !regions.contains(&c.card.region.as_str()))
                .map(|(at, _)| *at)
                .collect();
            let anywhere: Vec<PeerAddr> = usable().map(|(at, _)| *at).collect();
            let drawn = elsewhere.choose(rng).or_else(|| anywhere.choose(rng)).copied();
            let Some(address) = drawn else { return };
            self.promote(address, NeighbourKind::Far, now, turnover);
        }
    }

    fn promote(
        &mut self,
        address: PeerAddr,
        kind: NeighbourKind,
        now: Moment,
        turnover: &mut Turnover,
    ) {
        if let Some(active) = self.active.get_mut(&address) {
            active.kind = kind;
        } else if let Some(candidate) = self.passive.remove(&address) {
            let active = Active::new(candidate.card, kind, candidate.rtt, now);
            self.active.insert(address, active);
            turnover.up.push(address);
        }
    }

    /// Back among the candidates, its round trip remembered.
    fn demote(&mut self, address: PeerAddr, turnover: &mut Turnover) {
        if let Some(active) = self.active.remove(&address) {
            let candidate = Candidate { card: active.card, rtt: active.rtt, failures: 0 };
            if self.passive.len() < limits::PASSIVE_VIEW {
                self.passive.insert(address, candidate);
            }
            turnover.down.push(address);
        }
    }

    /// Takes a candidate in; a random one makes room.
    fn remember(&mut self, candidate: Candidate, rng: &mut ChaCha8Rng) {
        if self.passive.len() >= limits::PASSIVE_VIEW {
            let held: Vec<PeerAddr> = self.passive.keys().copied().collect();
            if let Some(evicted) = held.choose(rng) {
                self.passive.remove(evicted);
            }
        }
        self.passive.insert(candidate.card.address, candidate);
    }

    fn discovers(&self) -> Option<(usize, usize)> {
        match self.topology {
            Topology::Discover { near, far } => Some((near, far)),
            Topology::Fixed(_) => None,
        }
    }

    /// Named by the operator.
    fn is_given(&self, address: PeerAddr) -> bool {
        self.seeds.contains(&address)
            || matches!(&self.topology, Topology::Fixed(list) if list.contains(&address))
    }

    fn inbound_cap(&self) -> usize {
        self.discovers().map_or(0, |(near, far)| 2 * (near + far))
    }

    fn count(&self, kind: NeighbourKind) -> usize {
        self.active.values().filter(|active| active.kind == kind).count()
    }

    fn of_kind(&self, kind: NeighbourKind) -> Vec<PeerAddr> {
        let of_kind = self.active.iter().filter(|(_, active)| active.kind == kind);
        of_kind.map(|(at, _)| *at).collect()
    }
}

impl Active {
    fn new(card: PeerCard, kind: NeighbourKind, rtt: Option<Duration>, now: Moment) -> Active {
        Active { card, kind, rtt, since: now, heard: now, failures: 0 }
    }
}

impl Candidate {
    fn new(card: PeerCard) -> Candidate {
        Candidate { card, rtt: None, failures: 0 }
    }
}

/// An eighth of the new sample, as TCP smooths its round trips (RFC 6298, section 2).
fn smooth(old: Option<Duration>, sample: Duration) -> Duration {
    old.map_or(sample, |old| (old * 7 + sample) / 8)
}

/// The pace of a new node; doubles until it reaches the configured one.
const FIRST_EXPLORE: Duration = Duration::from_millis(100);
/// Unmeasured candidates asked in one go.
const ASK_AT_ONCE: usize = 4;
/// A question that is not answered by then is forgotten.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// Failures in a row after which a peer is given up.
const FAILURES: u32 = 3;
/// A peer that chose this node and was not heard for this long has moved on.
const INBOUND_SILENCE: Duration = Duration::from_secs(180);
/// Round trips closer than this are equal.
const STICKY: Duration = Duration::from_micros(200);
/// Stands for "not measured yet": farther than anything.
const UNMEASURED: Duration = Duration::from_secs(60);
