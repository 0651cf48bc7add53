//! The node's mind: takes inputs, keeps what is believed, asks for effects.
//!
//! Deterministic: the same configuration, seed, moments and inputs give the same effects. After
//! each `handle`, drain `poll` to `None`, then read `deadline` and hand in `Tick` when it comes.
//! Cost: an input costs O(what it changes + neighbours); an idle node of a large fleet wakes for
//! its beacon, its comparison and its report, a few times a second at most.

mod changing;
mod gossiping;
mod streaming;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::follow::{FeedState, Path, RejectedRule, Report};
use crate::model::head::Position;
use crate::model::ids::{PeerAddr, RuleId};
use crate::model::moment::Moment;
use crate::model::peer::{Neighbour, PeerCard};
use crate::model::rule_set::RuleSet;

use super::config::{EngineConfig, Keep, Status};
use super::feed::Feed;
use super::gossip::Gossip;
use super::hand::{Batch, Hand};
use super::neighbourhood::{Neighbourhood, Turnover};
use super::port::{Changed, Effect, Event, Input, Ticket, WriteRefused};
use super::replica::Replica;

/// The mind of one node.
pub struct Engine {
    config: EngineConfig,
    card: PeerCard,
    rng: ChaCha8Rng,
    replica: Replica,
    feed: Feed,
    gossip: Gossip,
    hood: Neighbourhood,
    hand: Hand,
    effects: VecDeque<Effect>,
    tickets: u64,
    compare_at: Moment,
    lazy_at: Option<Moment>,
    lazy_ids: BTreeSet<RuleId>,
    report_at: Moment,
    report_due: bool,
    active: Option<Position>,
    rejected: Vec<RejectedRule>,
    draining: bool,
    served: u64,
}

impl Engine {
    /// A mind with what its disk held; everything on the disk was verified when it was kept, and
    /// signatures are checked against today's trust once more.
    pub fn new(config: EngineConfig, keep: Keep, seed: u64, now: Moment) -> Engine {
        let card = PeerCard {
            address: config.peer_address,
            node: Some(config.node.clone()),
            region: config.region.clone(),
        };
        let replica = Replica::new(keep, config.trusted.clone(), now);
        let hood = Neighbourhood::new(
            card.clone(),
            config.topology.clone(),
            config.seeds.clone(),
            config.pace.clone(),
            now,
        );
        let feed = Feed::new(config.orchestrators, config.pace.reopen, now);
        let mut engine = Engine {
            card,
            rng: ChaCha8Rng::seed_from_u64(seed),
            replica,
            feed,
            gossip: Gossip::default(),
            hood,
            hand: Hand::default(),
            effects: VecDeque::new(),
            tickets: 0,
            compare_at: now,
            lazy_at: None,
            lazy_ids: BTreeSet::new(),
            report_at: now,
            report_due: false,
            active: None,
            rejected: Vec::new(),
            draining: false,
            served: 0,
            config,
        };
        engine.effects.push_back(Effect::Activate { changed: Changed::Everything });
        engine.settle(now);
        engine
    }

    /// Takes in what happened at `now`. Moments never go back.
    pub fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::Tick => {}
            Input::StreamOpened { ticket, welcome } => self.stream_opened(ticket, welcome, now),
            Input::StreamClosed { ticket } => {
                if self.feed.closed(ticket, now, &mut self.rng) {
                    self.compare_at = now;
                }
            }
            Input::Stream { ticket, message } => self.streamed(ticket, message, now),
            Input::DigestReceived { ticket, digest } => self.digest_received(ticket, digest, now),
            Input::DigestAnswered { to, reply, rtt } => self.digest_answered(to, reply, rtt, now),
            Input::DigestFailed { to } => {
                self.gossip.told(to);
                self.peer_failed(to);
            }
            Input::PullAnswered { ticket, pulled } => self.pulled(ticket, pulled, now),
            Input::PullFailed { ticket } => {
                if let Some(from) = self.gossip.pulled(ticket) {
                    self.gossip.avoid(from, now + AVOID);
                    self.peer_failed(from);
                }
            }
            Input::NeighboursAnswered { from, card, list, rtt } => {
                self.hood.answered(from, list, rtt, now, &mut self.rng);
                if let Some(card) = card {
                    self.hood.introduce(&card);
                }
            }
            Input::NeighboursFailed { from } => {
                if self.hood.unanswered(from) {
                    self.neighbour_down(from);
                }
            }
            Input::WriteByHand { ticket, writes, wall } => {
                if !self.hand.queue(Batch { ticket, writes, wall }) {
                    let result = Err(WriteRefused::TooMany);
                    self.effects.push_back(Effect::AnswerWrite { ticket, result });
                }
            }
            Input::SetOverlays { ticket, overlays } => self.set_overlays(ticket, overlays),
            Input::FileRead { rules, wall } => self.file_read(rules, wall),
            Input::Activated { position, rejected } => self.activated(position, rejected),
            Input::Stored { ticket, done } => self.stored(ticket, done, now),
            Input::Resolved { seeds, fixed, own } => self.resolved(seeds, fixed, own, now),
            Input::Drain(draining) => {
                self.draining = draining;
                self.report_due = true;
            }
            Input::Served(requests) => self.served = requests,
        }
        self.settle(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to hand in `Tick` if nothing else happens before.
    pub fn deadline(&self) -> Option<Moment> {
        let behind = self.replica.behind_since();
        let overlays = self.replica.set.overlays.values().map(|overlay| overlay.until).min();
        let report = self.feed.open_ticket().map(|_| self.report_at);
        [
            Some(self.compare_at),
            Some(self.hood.deadline()),
            self.lazy_at,
            overlays,
            report,
            self.feed.deadline(behind, self.allowance()),
            self.gossip.deadline(self.config.pace.pull_deadline),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the disk shall hold; shares everything large with the mind.
    pub fn keep(&self) -> Keep {
        self.replica.keep()
    }

    /// Everything that is held about rules.
    pub fn rule_set(&self) -> &RuleSet {
        &self.replica.set
    }

    /// Whom this node gossips with, by address.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.hood.neighbours()
    }

    /// Who this node is to its peers.
    pub fn card(&self) -> &PeerCard {
        &self.card
    }

    /// A look inside.
    pub fn status(&self, now: Moment) -> Status {
        let behind = self.replica.behind_since();
        Status {
            accepted: self.replica.position(),
            active: self.active,
            known: self.replica.known(),
            behind: behind.map_or(Duration::ZERO, |since| now.since(since)),
            staleness: self.replica.staleness(now),
            feed: self.feed.state,
            confirmed: self.replica.confirmed,
            trust: self.replica.trust.source(),
            alarm: self.replica.alarm.clone(),
            rejected: self.rejected.clone(),
            rule_set: self.replica.set.clone(),
            draining: self.draining,
        }
    }

    /// What follows from the passing of time and from whatever was just handled.
    fn settle(&mut self, now: Moment) {
        self.expire(now);
        self.judge_feed(now);
        let (ask, turnover) = self.hood.tick(now, &mut self.rng);
        for from in ask {
            self.effects.push_back(Effect::FetchNeighbours { from });
        }
        self.turn_over(turnover, now);
        self.pull_if_behind(now);
        if now >= self.compare_at {
            self.compare(now);
        }
        if self.lazy_at.is_some_and(|at| now >= at) {
            self.tell_lazily(now);
        }
        self.write_next();
        if self.feed.open_ticket().is_some() && (self.report_due || now >= self.report_at) {
            self.report(now);
        }
    }

    fn expire(&mut self, now: Moment) {
        for slow in self.gossip.expire(now, self.config.pace.pull_deadline) {
            self.gossip.avoid(slow, now + AVOID);
            self.peer_failed(slow);
        }
        let ended = self
            .replica
            .set
            .overlays
            .iter()
            .filter(|(_, overlay)| now >= overlay.until)
            .map(|(id, _)| (id.clone(), None))
            .collect();
        self.put_overlays(ended);
    }

    fn report(&mut self, now: Moment) {
        self.report_due = false;
        self.report_at = now + self.config.pace.report.mul_f64(self.rng.random_range(0.9..1.1));
        self.effects.push_back(Effect::SendReport(Report {
            accepted: self.replica.position(),
            active: self.active,
            path: self.replica.path,
            rejected: self.rejected.clone(),
            feed: self.feed.state,
            overrides: self.replica.set.overrides.len() as u64,
            draining: self.draining,
            requests: self.served,
            alarm: self.replica.alarm.clone(),
        }));
    }

    fn resolved(
        &mut self,
        seeds: Vec<PeerAddr>,
        fixed: Vec<PeerAddr>,
        own: Option<PeerAddr>,
        now: Moment,
    ) {
        if let Some(own) = own.filter(|own| *own != self.card.address) {
            self.card.address = own;
            self.config.peer_address = own;
            // The orchestrator was told another address; it is told at the beginning of a stream.
            if let Some(ticket) = self.feed.ticket() {
                self.effects.push_back(Effect::CloseStream { ticket });
                self.feed.closed(ticket, now, &mut self.rng);
            }
        }
        let turnover = self.hood.resolved(&self.card, seeds, fixed, now, &mut self.rng);
        self.turn_over(turnover, now);
    }

    fn turn_over(&mut self, turnover: Turnover, now: Moment) {
        for peer in turnover.down {
            self.neighbour_down(peer);
        }
        for peer in turnover.up {
            self.tell_event(Event::NeighbourUp(peer));
            self.tell(peer, &[], now);
        }
    }

    fn peer_failed(&mut self, peer: PeerAddr) {
        if self.hood.failed(peer) {
            self.neighbour_down(peer);
        }
    }

    fn neighbour_down(&mut self, peer: PeerAddr) {
        self.gossip.forget(peer);
        self.tell_event(Event::NeighbourDown(peer));
    }

    fn tell_event(&mut self, event: Event) {
        self.effects.push_back(Effect::Tell(event));
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// How long news may be known before its lack counts as lag.
    fn allowance(&self) -> Duration {
        if self.feed.state == FeedState::Lost {
            return Duration::ZERO;
        }
        LEAST_LAG.max(self.hood.longest_rtt() * 2).min(MOST_LAG)
    }

    /// Whether what was just learnt came while the stream works: the neighbours have theirs too.
    fn is_lazy(&self, path: Path) -> bool {
        path == Path::Stream && self.feed.state == FeedState::Live
    }
}

/// A peer that failed a pull is not asked again for this long while others can be.
const AVOID: Duration = Duration::from_secs(3);
/// Below this nothing counts as lag.
const LEAST_LAG: Duration = Duration::from_millis(50);
/// Above this everything does.
const MOST_LAG: Duration = Duration::from_secs(2);
