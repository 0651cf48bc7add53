//! Nodes that send requests, targets that take their time, and the distance between them.
//!
//! Each target has a number of servers and log-normal service times; what does not fit waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tradewind::model::moment::Moment;
use tradewind::model::rule::{Balance, Outlier};
use tradewind::routing::cell::{Attempt, Outcome, TargetCell};
use tradewind::routing::pick::{Candidate, How, Picked, pick};
use tradewind::routing::prior::{PeerWord, triangulate};
use tradewind::routing::selector::Selector;

/// How a node chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The real thing.
    Latency,
    /// Peak-EWMA of the latency times the queue, the better of two drawn from all.
    PeakEwma,
    /// The least estimate of all, by exponentially weighted mean and queue.
    LeastTime,
    /// The one with fewer requests outstanding of two drawn: nginx's `random two least_conn`.
    RandomTwo,
    /// The one with the fewest requests outstanding: HAProxy's `leastconn`.
    LeastConn,
    /// Everybody in turn.
    RoundRobin,
}

pub struct Target {
    pub region: usize,
    pub mean_ms: f64,
    pub servers: usize,
    /// Times the service takes.
    pub slowness: f64,
    /// Milliseconds added to every service.
    pub added_ms: f64,
    /// Answers 500 after a tenth of a millisecond.
    pub failing: bool,
    busy: usize,
    waiting: VecDeque<Job>,
}

struct Node {
    region: usize,
    cells: Vec<TargetCell>,
    selector: Selector,
    ewma: Vec<(f64, u32)>,
    turn: usize,
}

struct Job {
    node: usize,
    attempt: Attempt,
    sent: Moment,
}

pub struct Done {
    pub node: usize,
    pub target: usize,
    pub sent: Moment,
    pub took_ms: f64,
    pub failed: bool,
}

enum Happening {
    Send(usize),
    Arrive(usize, Job),
    Served(usize, Job, bool),
    Answered(usize, Job, bool),
}

pub struct World {
    pub now: Moment,
    pub targets: Vec<Target>,
    pub done: Vec<Done>,
    rtt_ms: Vec<Vec<f64>>,
    nodes: Vec<Node>,
    policy: Policy,
    pub per_second: f64,
    queue: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    rng: ChaCha8Rng,
}

impl Node {
    fn new(region: usize, targets: usize, turn: usize) -> Node {
        Node {
            region,
            cells: (0..targets).map(|_| TargetCell::new(None)).collect(),
            selector: Selector::default(),
            ewma: vec![(0.0, 0); targets],
            turn,
        }
    }
}

fn ms(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds.max(0.0) / 1e3)
}

impl World {
    /// `per_region` nodes and targets in each region of the matrix; `mean_ms` of service.
    pub fn new(
        policy: Policy,
        rtt_ms: Vec<Vec<f64>>,
        per_region: (usize, usize),
        per_second: f64,
        service: (f64, usize),
        seed: u64,
    ) -> World {
        let nodes = (0..rtt_ms.len() * per_region.0).map(|index| index / per_region.0).collect();
        World::with_nodes(policy, rtt_ms, (nodes, per_region.1), per_second, service, seed)
    }

    /// One node, and two targets at each of these distances.
    pub fn one_node(
        policy: Policy,
        distances_ms: &[f64],
        per_second: f64,
        service: (f64, usize),
        seed: u64,
    ) -> World {
        let rtt_ms = vec![distances_ms.to_vec(); distances_ms.len()];
        World::with_nodes(policy, rtt_ms, (vec![0], 2), per_second, service, seed)
    }

    fn with_nodes(
        policy: Policy,
        rtt_ms: Vec<Vec<f64>>,
        (nodes, targets_per_region): (Vec<usize>, usize),
        per_second: f64,
        service: (f64, usize),
        seed: u64,
    ) -> World {
        let regions = rtt_ms.len();
        let count = regions * targets_per_region;
        let targets = (0..count)
            .map(|index| Target {
                region: index / targets_per_region,
                mean_ms: service.0,
                servers: service.1,
                slowness: 1.0,
                added_ms: 0.0,
                failing: false,
                busy: 0,
                waiting: VecDeque::new(),
            })
            .collect();
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(index, region)| Node::new(region, count, index))
            .collect();
        let mut world = World {
            now: Moment::START + Duration::from_secs(1),
            targets,
            done: Vec::new(),
            rtt_ms,
            nodes,
            policy,
            per_second,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        for node in 0..world.nodes.len() {
            let first = world.pause();
            world.at(first, Happening::Send(node));
        }
        world
    }

    /// Another node beside this one, which tells it what it has measured, or does not.
    pub fn join(&mut self, beside: usize, told: bool) -> usize {
        let number = self.nodes.len();
        let old = &self.nodes[beside];
        let new = Node::new(old.region, old.cells.len(), number);
        let mut typical = Vec::new();
        for (cell, measured) in new.cells.iter().zip(&old.cells) {
            let Some(readings) = measured.readings(self.now).filter(|_| told) else { continue };
            let row = readings.row(String::new());
            let words = [PeerWord { row: &row, rtt: ms(NEXT_DOOR_MS) }];
            if let Some(prior) = triangulate(&words) {
                assert!(cell.import(&prior, self.now));
                typical.push(prior.svc_ms);
            }
        }
        if !typical.is_empty() {
            new.selector.import(typical.iter().sum::<f64>() / typical.len() as f64);
        }
        self.nodes.push(new);
        let first = self.pause();
        self.at(first, Happening::Send(number));
        number
    }

    pub fn run(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Requests of one second on average apart, as independent clients send them.
    fn pause(&mut self) -> Duration {
        let unit: f64 = self.rng.random_range(1e-9..1.0);
        Duration::from_secs_f64(-unit.ln() / self.per_second)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Send(node) => {
                let next = self.pause();
                self.at(next, Happening::Send(node));
                self.send(node);
            }
            Happening::Arrive(target, job) => self.arrive(target, job),
            Happening::Served(target, job, failed) => {
                if !failed {
                    self.targets[target].busy -= 1;
                    if let Some(next) = self.targets[target].waiting.pop_front() {
                        self.serve(target, next);
                    }
                }
                let delay = self.one_way(job.node, target);
                self.at(delay, Happening::Answered(target, job, failed));
            }
            Happening::Answered(target, job, failed) => self.answered(target, &job, failed),
        }
    }

    fn send(&mut self, node: usize) {
        let Some(target) = self.choose(node) else { return };
        let attempt = self.nodes[node].cells[target].begin(self.now);
        self.nodes[node].ewma[target].1 += 1;
        let job = Job { node, attempt, sent: self.now };
        let delay = self.one_way(node, target);
        self.at(delay, Happening::Arrive(target, job));
    }

    fn choose(&mut self, node: usize) -> Option<usize> {
        let node = &mut self.nodes[node];
        let count = node.cells.len();
        match self.policy {
            Policy::Latency => {
                let candidates: Vec<Candidate<'_>> = node
                    .cells
                    .iter()
                    .map(|cell| Candidate { cell, weight: 1, identity: 0, down: false })
                    .collect();
                let (balance, outlier) = (&Balance::Latency, &Outlier::default());
                let how = How { balance, outlier, key: None };
                match pick(how, &candidates, &node.selector, self.now, &mut self.rng, &[]) {
                    Picked::Target(index) => Some(index),
                    Picked::NoneReady(_) => None,
                }
            }
            Policy::RoundRobin => {
                node.turn += 1;
                Some(node.turn % count)
            }
            Policy::PeakEwma => {
                let (one, other) =
                    (self.rng.random_range(0..count), self.rng.random_range(0..count));
                let load = |at: usize| node.ewma[at].0 * f64::from(node.ewma[at].1 + 1);
                Some(if load(one) <= load(other) { one } else { other })
            }
            Policy::RandomTwo => {
                let one = self.rng.random_range(0..count);
                let other = (one + self.rng.random_range(1..count)) % count;
                Some(if node.ewma[one].1 <= node.ewma[other].1 { one } else { other })
            }
            Policy::LeastConn => {
                node.turn += 1;
                (0..count).map(|step| (node.turn + step) % count).min_by_key(|at| node.ewma[*at].1)
            }
            Policy::LeastTime => (0..count).min_by(|a, b| {
                let load = |at: usize| node.ewma[at].0 * f64::from(node.ewma[at].1 + 4) / 4.0;
                load(*a).total_cmp(&load(*b))
            }),
        }
    }

    fn arrive(&mut self, target: usize, job: Job) {
        if self.targets[target].failing {
            self.at(ms(0.1), Happening::Served(target, job, true));
        } else if self.targets[target].busy < self.targets[target].servers {
            self.serve(target, job);
        } else {
            self.targets[target].waiting.push_back(job);
        }
    }

    fn serve(&mut self, target: usize, job: Job) {
        let unit = |rng: &mut ChaCha8Rng| -> f64 { rng.random_range(1e-9..1.0) };
        let (a, b) = (unit(&mut self.rng), unit(&mut self.rng));
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        let one = &mut self.targets[target];
        one.busy += 1;
        let took = one.mean_ms * (SIGMA * normal - SIGMA * SIGMA / 2.0).exp();
        let took = took * one.slowness + one.added_ms;
        self.at(ms(took), Happening::Served(target, job, false));
    }

    fn answered(&mut self, target: usize, job: &Job, failed: bool) {
        let took = self.now.since(job.sent);
        let took_ms = took.as_secs_f64() * 1e3;
        let outcome =
            if failed { Outcome::ServerFailure { retry_after: None } } else { Outcome::Success };
        let unit = self.rng.random_range(0.0..1.0);
        let node = &mut self.nodes[job.node];
        let outlier = Outlier::default();
        node.cells[target].finish(job.attempt, self.now, outcome, &node.selector, &outlier, unit);
        let (mean, in_flight) = &mut node.ewma[target];
        *in_flight -= 1;
        // A peak counts at once, and is forgotten slowly.
        *mean = if took_ms > *mean { took_ms } else { *mean + 0.1 * (took_ms - *mean) };
        self.done.push(Done { node: job.node, target, sent: job.sent, took_ms, failed });
    }

    fn one_way(&self, node: usize, target: usize) -> Duration {
        ms(self.rtt_ms[self.nodes[node].region][self.targets[target].region] / 2.0)
    }

    fn at(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), happening);
    }
}

/// Spread of the service times: a squared coefficient of variation of about 0.65.
const SIGMA: f64 = 0.7;
/// Between two nodes in the same house.
const NEXT_DOOR_MS: f64 = 0.5;
