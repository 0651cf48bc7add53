//! Moves messages between minds under one virtual clock: distance, loss, cuts, crashes, disks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tradewind::engine::Engine;
use tradewind::engine::config::{EngineConfig, Keep, Pace, Topology};
use tradewind::engine::port::{
    Event as Told, HandWrite, Input, PullWhat, Pulled, StreamMessage, Ticket, WriteRefused, Written,
};
use tradewind::model::delta::Changes;
use tradewind::model::head::Position;
use tradewind::model::ids::{NodeId, PeerAddr, RuleId};
use tradewind::model::key::PrivateKey;
use tradewind::model::moment::{Moment, WallTime};

use super::authority::{Authority, Follower};
use super::checks::Checks;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

pub struct World {
    pub now: Moment,
    pub nodes: Vec<Node>,
    pub authority: Authority,
    pub checks: Checks,
    pub faults: Faults,
    pub options: Options,
    pub counts: Counts,
    pub answers: BTreeMap<Ticket, Result<Vec<Written>, WriteRefused>>,
    pub(super) queue: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    tickets: u64,
    pub(super) rng: ChaCha8Rng,
    pub(super) questions: BTreeMap<Ticket, (usize, Moment, u32)>,
}

pub struct Node {
    pub engine: Option<Engine>,
    pub disk: Keep,
    pub config: EngineConfig,
    pub city: usize,
    pub life: u32,
    pub told: Vec<(Moment, Told)>,
    /// The position last put in force, and when.
    pub active: Option<(Position, Moment)>,
    pub(super) tick_at: Option<Moment>,
    stream_free_at: Moment,
}

#[derive(Clone)]
pub struct Options {
    pub nodes: usize,
    pub cities: usize,
    pub near: usize,
    pub far: usize,
    pub pace: Pace,
    pub orchestrators: usize,
    pub seeds_per_node: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: 30,
            cities: 6,
            near: 5,
            far: 2,
            pace: Pace::default(),
            orchestrators: 1,
            seeds_per_node: 1,
        }
    }
}

/// What goes wrong, at the moment.
#[derive(Default)]
pub struct Faults {
    /// Of messages between peers that are lost.
    pub loss: f64,
    /// Ordered pairs that cannot reach each other.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Nodes that the orchestrator's words do not reach, though the stream looks open.
    pub black_holes: BTreeSet<usize>,
    /// Nodes that cannot reach the orchestrator at all.
    pub no_stream: BTreeSet<usize>,
    /// Of pulled deltas that arrive with something changed.
    pub flips: f64,
}

/// What really happened; a fault test asserts on these.
#[derive(Default, Debug, Clone)]
pub struct Counts {
    pub digests: u64,
    pub pulls: u64,
    pub lost: u64,
    pub flipped: u64,
    pub refused: u64,
    pub swallowed: u64,
    pub crashes: u64,
}

pub(super) enum Happening {
    Input { node: usize, life: u32, input: Input },
    Tick { node: usize },
    Ask { to: usize, question: Ticket, input: Box<Input> },
    Pulled { to: usize, question: Ticket, ticket: Ticket, what: PullWhat },
    Neighbours { to: usize, question: Ticket },
    Hello { node: usize, life: u32, ticket: Ticket, hello: Box<tradewind::model::follow::Hello> },
    HandIn { node: usize, life: u32, overrides: Vec<tradewind::model::manual::Override> },
    Stored { node: usize, life: u32, ticket: Ticket, keep: Box<Keep> },
    Beacon,
}

impl World {
    pub fn new(options: Options, seed: u64) -> World {
        let authority = Authority::new(1);
        let mut world = World {
            now: Moment::START + SECOND,
            nodes: Vec::new(),
            authority,
            checks: Checks::default(),
            faults: Faults::default(),
            options: options.clone(),
            counts: Counts::default(),
            answers: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            tickets: 1 << 40,
            rng: ChaCha8Rng::seed_from_u64(seed),
            questions: BTreeMap::new(),
        };
        world.checks.head(world.authority.ledger.head());
        for index in 0..options.nodes {
            let node = world.make_node(index);
            world.nodes.push(node);
        }
        world.at(SECOND, Happening::Beacon);
        world
    }

    fn make_node(&mut self, index: usize) -> Node {
        let city = index % self.options.cities;
        let mut seeds = Vec::new();
        for _ in 0..self.options.seeds_per_node {
            seeds.push(address(self.rng.random_range(0..self.options.nodes)));
        }
        if index > 0 {
            // A chain back to the first node: whoever starts can reach everybody in the end.
            seeds.push(address(self.rng.random_range(0..index)));
        }
        let config = EngineConfig {
            node: NodeId::parse(&format!("n{index}")).unwrap(),
            region: format!("c{city}"),
            labels: BTreeMap::new(),
            peer_address: address(index),
            traffic_addresses: Vec::new(),
            program_version: "sim".to_string(),
            key: PrivateKey::from_seed(*blake3_seed(index).as_bytes()),
            trusted: if self.options.orchestrators > 0 {
                vec![self.authority.key.public()]
            } else {
                Vec::new()
            },
            orchestrators: self.options.orchestrators,
            seeds,
            topology: Topology::Discover { near: self.options.near, far: self.options.far },
            pace: self.options.pace.clone(),
        };
        Node {
            engine: None,
            disk: Keep::default(),
            config,
            city,
            life: 0,
            told: Vec::new(),
            active: None,
            tick_at: None,
            stream_free_at: Moment::START,
        }
    }

    pub fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.now.as_nanos() / 1_000_000)
    }

    /// Starts every node, spread over a second.
    pub fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.start(index);
        }
    }

    pub fn start(&mut self, index: usize) {
        let seed = self.rng.random();
        let node = &mut self.nodes[index];
        node.life += 1;
        node.engine = Some(Engine::new(node.config.clone(), node.disk.clone(), seed, self.now));
        node.tick_at = None;
        self.drain(index);
    }

    /// Ends a node without a word; its disk keeps what was stored.
    pub fn crash(&mut self, index: usize) {
        self.counts.crashes += 1;
        // The disk may be a moment behind: what was not stored yet does not bind the next life.
        self.checks.wiped(index);
        let node = &mut self.nodes[index];
        node.engine = None;
        node.life += 1;
        node.active = None;
        self.authority.followers.remove(&index);
    }

    pub fn wipe(&mut self, index: usize) {
        self.nodes[index].disk = Keep::default();
        self.checks.wiped(index);
    }

    /// The orchestrator ends, or begins again; streams break.
    pub fn set_authority(&mut self, up: bool) {
        self.authority.up = up;
        if !up {
            self.break_streams();
        }
    }

    pub fn break_streams(&mut self) {
        let followers = std::mem::take(&mut self.authority.followers);
        for (index, follower) in followers {
            let delay = self.distance_to_authority(index);
            let input = Input::StreamClosed { ticket: follower.ticket };
            self.input_later(index, delay, input);
        }
    }

    pub fn put(&mut self, id: &str, body: &str) -> Position {
        let wall = self.wall();
        let position = self.authority.put(id, body, wall);
        self.published();
        position
    }

    pub fn retire(&mut self, id: &str) -> Position {
        let wall = self.wall();
        let position = self.authority.retire(id, wall);
        self.published();
        position
    }

    /// The authority's ledger moved: remember its head, send it on.
    pub fn published(&mut self) {
        self.checks.head(self.authority.ledger.head());
        self.checks.bodies(&self.authority.ledger);
        if self.authority.up {
            let followers: Vec<usize> = self.authority.followers.keys().copied().collect();
            for index in followers {
                self.stream_to(index);
            }
        }
    }

    fn stream_to(&mut self, index: usize) {
        if let Some((ticket, delta)) = self.authority.next_for(index) {
            self.stream_message(index, ticket, StreamMessage::Delta(delta));
        }
    }

    fn stream_message(&mut self, index: usize, ticket: Ticket, message: StreamMessage) {
        if self.faults.black_holes.contains(&index) {
            self.counts.swallowed += 1;
            return;
        }
        // A stream keeps its order, whatever the distance does.
        let arrives = self.now + self.distance_to_authority(index);
        let arrives = arrives.max(self.nodes[index].stream_free_at);
        self.nodes[index].stream_free_at = arrives;
        let delay = arrives.since(self.now);
        self.input_later(index, delay, Input::Stream { ticket, message });
    }

    /// Writes by hand at a node; the answer appears in `answers`.
    pub fn write_at(&mut self, index: usize, writes: Vec<HandWrite>) -> Ticket {
        let ticket = self.ticket();
        let wall = self.wall();
        self.give(index, Input::WriteByHand { ticket, writes, wall });
        ticket
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Runs until the claim is true or the time is over; returns how long it took.
    pub fn run_until(
        &mut self,
        most: Duration,
        claim: impl Fn(&World) -> bool,
    ) -> Option<Duration> {
        let begun = self.now;
        let step = MS * 10;
        while !claim(self) {
            if self.now.since(begun) >= most {
                return None;
            }
            self.run(step);
        }
        Some(self.now.since(begun))
    }

    pub fn alive(&self) -> impl Iterator<Item = (usize, &Engine)> {
        self.nodes.iter().enumerate().filter_map(|(i, n)| n.engine.as_ref().map(|e| (i, e)))
    }

    pub fn all_at(&self, position: Position) -> bool {
        self.alive().all(|(_, engine)| {
            engine.rule_set().ledger.as_ref().map(|l| l.position()) == Some(position)
        })
    }

    /// Whether every living node has this rule at this version in force.
    pub fn all_have(&self, id: &str, version: u64) -> bool {
        let id = RuleId::parse(id).unwrap();
        self.alive().all(|(_, engine)| {
            engine.rule_set().effective(&id).is_some_and(|rule| rule.version.get() == version)
        })
    }

    /// Every living node holds exactly the same.
    pub fn all_equal(&self) -> bool {
        let mut tags = self.alive().map(|(_, engine)| {
            let set = engine.rule_set();
            (set.ledger.as_ref().map(|l| *l.head()), set.overrides.summary())
        });
        let first = tags.next();
        tags.all(|tag| Some(tag) == first)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input { node, life, input } => {
                if self.nodes[node].life == life {
                    self.give(node, input);
                }
            }
            Happening::Tick { node } => {
                if self.nodes[node].tick_at.is_some_and(|at| at <= self.now) {
                    self.nodes[node].tick_at = None;
                    self.give(node, Input::Tick);
                }
            }
            Happening::Ask { to, question, input } => {
                if self.nodes[to].engine.is_some() {
                    self.give(to, *input);
                } else {
                    self.fail(question);
                }
            }
            Happening::Pulled { to, question, ticket, what } => {
                self.answer_pull(to, question, ticket, &what);
            }
            Happening::Neighbours { to, question } => self.answer_neighbours(to, question),
            Happening::Hello { node, life, ticket, hello } => {
                self.hello(node, life, ticket, &hello);
            }
            Happening::HandIn { node, life, overrides } => self.hand_in(node, life, overrides),
            Happening::Stored { node, life, ticket, keep } => {
                if self.nodes[node].life == life {
                    self.nodes[node].disk = *keep;
                    self.give(node, Input::Stored { ticket, done: true });
                }
            }
            Happening::Beacon => self.beacon(),
        }
    }

    fn beacon(&mut self) {
        self.at(SECOND, Happening::Beacon);
        if !self.authority.up {
            return;
        }
        let beacon = self.authority.beacon();
        let followers: Vec<(usize, Ticket)> =
            self.authority.followers.iter().map(|(index, f)| (*index, f.ticket)).collect();
        for (index, ticket) in followers {
            self.stream_message(index, ticket, StreamMessage::Beacon(beacon));
        }
    }

    fn hello(
        &mut self,
        node: usize,
        life: u32,
        ticket: Ticket,
        hello: &tradewind::model::follow::Hello,
    ) {
        if self.nodes[node].life != life {
            return;
        }
        let delay = self.distance_to_authority(node);
        if !self.authority.up || self.faults.no_stream.contains(&node) {
            self.input_later(node, delay, Input::StreamClosed { ticket });
            return;
        }
        let welcome = self.authority.welcome(hello);
        let cursor = hello.head.as_ref().map(|head| head.position());
        self.authority.followers.insert(node, Follower { ticket, cursor });
        self.nodes[node].stream_free_at = self.now + delay;
        self.input_later(node, delay, Input::StreamOpened { ticket, welcome });
        self.stream_to(node);
        let beacon = self.authority.beacon();
        self.stream_message(node, ticket, StreamMessage::Beacon(beacon));
    }

    fn hand_in(
        &mut self,
        node: usize,
        life: u32,
        overrides: Vec<tradewind::model::manual::Override>,
    ) {
        let ticket = self.authority.followers.get(&node).map(|follower| follower.ticket);
        let (true, Some(ticket)) = (self.authority.up && self.nodes[node].life == life, ticket)
        else {
            return;
        };
        let wall = self.wall();
        let settled = self.authority.adopt(overrides, wall);
        self.stream_message(node, ticket, StreamMessage::Settled(settled));
        self.published();
    }

    fn answer_pull(&mut self, to: usize, question: Ticket, ticket: Ticket, what: &PullWhat) {
        let Some(engine) = &self.nodes[to].engine else { return self.fail(question) };
        let set = engine.rule_set();
        let mut pulled = Pulled { beacon: engine.keep().beacon, ..Pulled::default() };
        match what {
            PullWhat::Since(since) => {
                if let Some(Changes::Delta(delta)) =
                    set.ledger.as_ref().map(|ledger| ledger.changes_since(*since))
                {
                    pulled.delta = Some(delta);
                }
            }
            PullWhat::Overrides(ids) | PullWhat::Plain(ids) => {
                let held = ids.iter().filter_map(|id| set.overrides.of(id));
                pulled.overrides = held.map(|held| (**held).clone()).collect();
            }
        }
        if self.faults.flips > 0.0 && self.rng.random_bool(self.faults.flips) {
            self.counts.flipped += u64::from(super::checks::flip(&mut pulled, &mut self.rng));
        }
        self.answer(question, to, Input::PullAnswered { ticket, pulled });
    }

    fn answer_neighbours(&mut self, to: usize, question: Ticket) {
        let Some(engine) = &self.nodes[to].engine else { return self.fail(question) };
        let list = engine.neighbours().into_iter().map(|neighbour| neighbour.card).collect();
        let card = Some(engine.card().clone());
        let Some((_, asked, _)) = self.questions.get(&question).copied() else { return };
        let one_way = self.now.since(asked);
        let rtt = one_way * 2;
        let from = address(to);
        self.answer(question, to, Input::NeighboursAnswered { from, card, list, rtt });
    }

    /// Brings an answer back to whoever asked.
    pub(super) fn answer(&mut self, question: Ticket, from: usize, input: Input) {
        let Some((asker, _, life)) = self.questions.get(&question).copied() else { return };
        let reaches = self.reaches(from, asker);
        if !reaches {
            return;
        }
        self.questions.remove(&question);
        let delay = self.distance(from, asker);
        self.at(delay, Happening::Input { node: asker, life, input });
    }

    /// The connection was refused.
    fn fail(&mut self, question: Ticket) {
        let Some((asker, asked, life)) = self.questions.remove(&question) else { return };
        let delay = self.now.since(asked);
        let input = match self.checks.failure(question) {
            Some(input) => input,
            None => return,
        };
        self.at(delay, Happening::Input { node: asker, life, input });
    }

    pub fn give(&mut self, index: usize, input: Input) {
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle(self.now, input);
            self.drain(index);
        }
    }

    pub(super) fn input_later(&mut self, node: usize, delay: Duration, input: Input) {
        let life = self.nodes[node].life;
        self.at(delay, Happening::Input { node, life, input });
    }

    pub(super) fn at(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), happening);
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// One way, with a little jitter: cities on a circle, 15 ms a step, 0.2 ms within one.
    pub(super) fn distance(&mut self, a: usize, b: usize) -> Duration {
        let (a, b) = (self.nodes[a].city, self.nodes[b].city);
        let steps = a.abs_diff(b).min(self.options.cities - a.abs_diff(b));
        let base = Duration::from_micros(200) + MS * 15 * u32::try_from(steps).unwrap();
        base.mul_f64(self.rng.random_range(1.0..1.1))
    }

    pub(super) fn distance_to_authority(&mut self, a: usize) -> Duration {
        let steps = self.nodes[a].city.min(self.options.cities - self.nodes[a].city);
        MS + MS * 15 * u32::try_from(steps).unwrap()
    }
}

pub fn address(index: usize) -> PeerAddr {
    let [a, b] = u16::try_from(index).unwrap().to_be_bytes();
    PeerAddr(SocketAddr::from((Ipv4Addr::new(10, 0, a, b), 7500)))
}

pub fn index_of(address: PeerAddr) -> usize {
    match address.0 {
        SocketAddr::V4(at) => {
            usize::from(u16::from_be_bytes([at.ip().octets()[2], at.ip().octets()[3]]))
        }
        SocketAddr::V6(_) => unreachable!("the simulated fleet has IPv4 addresses"),
    }
}

fn blake3_seed(index: usize) -> blake3::Hash {
    blake3::hash(format!("node {index}").as_bytes())
}
