//! The one thread that owns the commits: it decides, stores, signs, publishes, and then answers.
//!
//! What waits is taken as a group: decided one after another, stored once, signed once. Invariant:
//! nobody is answered, and no follower sees anything, before it is on disk.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use super::store::{Group, Opened, Store};
use crate::engine::adoption::Adoption;
use crate::engine::commits::{Answer, Commits, Filed, Write};
use crate::engine::fence::Fence;
use crate::engine::followers::Gate;
use crate::engine::recovery::{RecoverError, Recovered};
use crate::engine::write_error::WriteError;
use crate::engine::write_memory::Remembered;
use crate::model::follow::{Hello, Settled};
use crate::model::head::{Beacon, Position};
use crate::model::ids::{NodeId, WriteId};
use crate::model::ledger::Ledger;
use crate::model::manual::Override;

/// What the driver is asked for.
pub(super) enum Command {
    /// A write.
    Write(Write, oneshot::Sender<Result<Answer, DriverError>>),
    /// Overrides from a node; no answer behind a fence.
    HandIn(Vec<Override>, oneshot::Sender<Vec<Settled>>),
    /// A node said hello; with what is to be remembered, if that is new. Whatever its head says
    /// against this orchestrator was sent before.
    Greeted(NodeId, Option<Box<Hello>>),
    /// A follower knows more, or something else.
    Fence(Fence),
    /// Time for a beacon.
    Beat,
    /// Followers are to be asked for their ledgers.
    AskLedgers(oneshot::Sender<()>),
    /// Go on from the best of these.
    Recover(Vec<Ledger>, Otherwise, oneshot::Sender<Result<Outcome, RecoverError>>),
    /// The end.
    Stop,
}

/// What to do where there is no ledger to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Stay fenced.
    Wait,
    /// Begin with no rules, unless a node was seen with some.
    BeginAnew,
}

/// What a recovery led to.
pub(super) struct Outcome {
    pub(super) recovered: Recovered,
    pub(super) position: Position,
    pub(super) rules: usize,
}

/// Why the driver did not do as asked.
#[derive(Clone, Debug)]
pub(super) enum DriverError {
    /// The write was refused; nothing was touched.
    Write(WriteError),
    /// The store failed: whether the write is on disk is not known.
    Unknown(String),
    /// Too many writes wait already; nothing was touched.
    Busy,
    /// The orchestrator is going down.
    Stopped,
}

/// The thread, to be waited for.
pub(super) struct Driver {
    thread: JoinHandle<()>,
}

struct Loop {
    shared: Arc<Shared>,
    store: Arc<Store>,
    commits: Commits,
    gate: Option<Gate>,
    // Writes and hand-ins that wait for the gate; bounded by HELD.
    held: Vec<Command>,
    tick: u64,
    reserved: u64,
    asked: u64,
}

/// What one group has come to so far.
#[derive(Default)]
struct Turn {
    filed: Vec<Filed>,
    answers: Vec<(WriteId, Remembered)>,
    forgotten: usize,
    hellos: Vec<Hello>,
    tick: Option<u64>,
    beacon: bool,
    dirty: bool,
    commits: u64,
    adopted: u64,
    conflicts: u64,
    replies: Vec<Reply>,
}

enum Reply {
    Write(oneshot::Sender<Result<Answer, DriverError>>, Result<Answer, DriverError>),
    HandIn(oneshot::Sender<Vec<Settled>>, Vec<Settled>),
    Recover(oneshot::Sender<Result<Outcome, RecoverError>>, Result<Outcome, RecoverError>),
    Asked(oneshot::Sender<()>),
}

impl Driver {
    /// Starts the thread.
    pub(super) fn spawn(
        shared: Arc<Shared>,
        commits: Commits,
        tick: u64,
        commands: mpsc::Receiver<Command>,
    ) -> std::io::Result<Driver> {
        let revision = commits.ledger().head().revision.0;
        let gate = Gate::after_start(revision, &shared.followers(), shared.clock.now());
        let store = shared.store.clone();
        let (held, gate) = (Vec::new(), Some(gate));
        let reserved = tick;
        let state = Loop { shared, store, commits, gate, held, tick, reserved, asked: 0 };
        let builder = std::thread::Builder::new().name("tradewind-commits".to_owned());
        Ok(Driver { thread: builder.spawn(move || state.run(commands))? })
    }

    /// Waits for the thread's end.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that owns the commits has panicked");
        }
    }
}

impl Opened {
    /// The newest tick and the rest, as the driver wants them.
    pub(super) fn parts(self) -> (Store, Commits, Vec<Hello>, u64) {
        (self.store, self.commits, self.followers, self.tick)
    }
}

impl Loop {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.publish(&Turn::default());
        while let Some(first) = commands.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = commands.try_recv()
            {
                group.push(next);
            }
            if !self.turn(group) {
                break;
            }
        }
        self.store.close();
    }

    /// One group; `false` at the end.
    fn turn(&mut self, group: Vec<Command>) -> bool {
        let before = self.commits.clone();
        let mut turn = Turn::default();
        let mut goes_on = true;
        for command in group {
            if matches!(command, Command::Stop) {
                goes_on = false;
                break;
            }
            self.take(command, &mut turn);
        }
        if self.gate_opens() {
            for command in std::mem::take(&mut self.held) {
                self.decide(command, &mut turn);
            }
        }
        self.commits.seal(&self.shared.key);
        let stored = if turn.dirty { self.write(&before, &turn) } else { Ok(()) };
        if let Err(why) = stored {
            tracing::error!(error = %why, "the store failed; no more writes are taken");
            self.commits = before;
            self.commits.raise_fence(Fence::StoreFailed(why.clone()));
            turn = turn.failed(&why);
        }
        self.publish(&turn);
        turn.replies.into_iter().for_each(Reply::send);
        goes_on
    }

    fn gate_opens(&mut self) -> bool {
        let now = self.shared.clock.now();
        let open = self.gate.as_ref().is_none_or(|gate| gate.is_open(now));
        if open {
            self.gate = None;
        }
        open
    }

    fn take(&mut self, command: Command, turn: &mut Turn) {
        // A fence answers at once; nothing is to be waited for.
        let waits = self.commits.fence().is_none() && !self.gate_opens();
        match command {
            Command::Write(_, reply) if waits && self.held.len() >= HELD => {
                turn.replies.push(Reply::Write(reply, Err(DriverError::Busy)));
            }
            // Dropping the reply makes the node hand in again.
            Command::HandIn(..) if waits && self.held.len() >= HELD => {}
            Command::Write(..) | Command::HandIn(..) if waits => self.held.push(command),
            command => self.decide(command, turn),
        }
    }

    fn decide(&mut self, command: Command, turn: &mut Turn) {
        let now = self.shared.clock.wall();
        match command {
            Command::Write(write, reply) => {
                let answer = self.decide_write(&write, turn);
                turn.replies.push(Reply::Write(reply, answer));
            }
            Command::HandIn(overrides, reply) => {
                let revision = self.commits.ledger().head().revision.0;
                let adoption = self.commits.adopt(&overrides, now);
                turn.commits += self.commits.ledger().head().revision.0 - revision;
                turn.take_adoption(&adoption);
                turn.replies.push(Reply::HandIn(reply, adoption.settled));
            }
            Command::Greeted(node, hello) => {
                if let Some(gate) = &mut self.gate {
                    gate.greeted(&node);
                }
                turn.dirty |= hello.is_some();
                turn.hellos.extend(hello.map(|hello| *hello));
            }
            Command::Fence(fence) => {
                // Greetings are judged beside the published ledger; this one may be newer.
                let overtaken = fence.is_overtaken_by(self.commits.ledger().position());
                if !overtaken && self.commits.raise_fence(fence.clone()) {
                    tracing::error!(%fence, "no more writes are taken");
                    turn.dirty = true;
                }
            }
            Command::Beat => self.beat(turn),
            Command::AskLedgers(reply) => {
                self.asked += 1;
                turn.replies.push(Reply::Asked(reply));
            }
            Command::Recover(offers, otherwise, reply) => {
                let outcome = self.recover(offers, otherwise, turn);
                turn.replies.push(Reply::Recover(reply, outcome));
            }
            Command::Stop => {}
        }
    }

    fn decide_write(&mut self, write: &Write, turn: &mut Turn) -> Result<Answer, DriverError> {
        let revision = self.commits.ledger().head().revision.0;
        let decision = self.commits.decide(write, self.shared.clock.wall()).map_err(|error| {
            self.shared.metrics.refused_writes.inc();
            DriverError::Write(error)
        })?;
        turn.commits += self.commits.ledger().head().revision.0 - revision;
        if !decision.repeated {
            turn.filed.extend(decision.filed);
            turn.forgotten += decision.forgotten;
            turn.answers.extend(decision.remembered);
            turn.dirty = true;
        }
        Ok(decision.answer)
    }

    fn recover(
        &mut self,
        offers: Vec<Ledger>,
        otherwise: Otherwise,
        turn: &mut Turn,
    ) -> Result<Outcome, RecoverError> {
        let seen = self.commits.fence().and_then(Fence::seen);
        let known = self.shared.offers.known().max(seen);
        let now = self.shared.clock.wall();
        let recovered = match self.commits.recover(offers, known, &self.shared.key, now) {
            Err(RecoverError::NothingFound) if otherwise == Otherwise::BeginAnew => {
                self.commits.begin_anew(known)?
            }
            recovered => recovered?,
        };
        turn.dirty = true;
        turn.filed.extend(recovered.orphaned.iter().chain(&recovered.filed).cloned());
        let ledger = self.commits.ledger();
        tracing::info!(position = ?ledger.position(), "recovered");
        Ok(Outcome { recovered, position: ledger.position(), rules: ledger.live_count() })
    }

    /// The next tick; a rise above what is reserved goes to disk first.
    fn beat(&mut self, turn: &mut Turn) {
        if self.commits.fence().is_some() {
            return;
        }
        self.tick = (self.tick + 1).max(self.shared.clock.wall().0);
        turn.beacon = true;
        if self.tick > self.reserved {
            self.reserved = self.tick + RESERVED;
            turn.tick = Some(self.reserved);
            turn.dirty = true;
        }
    }

    fn write(&self, before: &Commits, turn: &Turn) -> Result<(), String> {
        let group = Group {
            before: before.ledger(),
            commits: &self.commits,
            filed: &turn.filed,
            answers: &turn.answers,
            forgotten: turn.forgotten,
            hellos: &turn.hellos,
            tick: turn.tick,
        };
        self.store.write(&group).map_err(|error| error.to_string())
    }

    fn publish(&self, turn: &Turn) {
        let (ledger, fence) = (self.commits.ledger().clone(), self.commits.fence().cloned());
        let metrics = &self.shared.metrics;
        metrics.commits.inc_by(turn.commits);
        metrics.adopted.inc_by(turn.adopted);
        metrics.conflicts.inc_by(turn.conflicts);
        metrics.revision.set(i64::try_from(ledger.head().revision.0).unwrap_or(i64::MAX));
        metrics.live_rules.set(i64::try_from(ledger.live_count()).unwrap_or(i64::MAX));
        metrics.fenced.set(i64::from(fence.is_some()));
        let last = self.shared.published.load();
        let moved = *last.ledger.signed() != *ledger.signed() || last.fence != fence;
        if !moved && !turn.beacon && last.asked == self.asked {
            // Every follower wakes for a view: there must be something in it.
            return;
        }
        let now = self.shared.clock.now();
        let signed = *ledger.signed();
        let beacon = turn.beacon.then(|| Beacon::sign(signed.head, self.tick, &self.shared.key));
        let (view, bytes) = last.advance(ledger, fence, beacon, self.asked);
        metrics.frame_bytes.inc_by(bytes as u64);
        let at = (turn.commits > 0).then_some(now);
        self.shared.followers().propagation.committed(signed, at);
        self.shared.published.publish(view);
    }
}

impl Turn {
    fn take_adoption(&mut self, adoption: &Adoption) {
        use crate::model::follow::SettledOutcome::Adopted;
        let adopted = adoption.settled.iter().filter(|settled| settled.outcome == Adopted);
        self.adopted += adopted.count() as u64;
        self.conflicts += adoption.conflicts.len() as u64;
        for rule in &adoption.conflicts {
            tracing::warn!(%rule, "a rule was written at a node and here: see its history");
        }
        self.dirty |= !adoption.filed.is_empty() || adoption.pinned;
        self.filed.extend(adoption.filed.iter().cloned());
    }

    /// What is left of a group that could not be stored: nobody is told that it was.
    fn failed(self, why: &str) -> Turn {
        let told = |reply| match reply {
            Reply::Write(reply, Ok(_)) => {
                Some(Reply::Write(reply, Err(DriverError::Unknown(why.to_owned()))))
            }
            // Its node hands in again; and a recovery that failed is seen by its caller.
            Reply::HandIn(..) | Reply::Recover(_, Ok(_)) => None,
            other => Some(other),
        };
        Turn { replies: self.replies.into_iter().filter_map(told).collect(), ..Turn::default() }
    }
}

impl Reply {
    /// Who does not wait any more is not told.
    fn send(self) {
        match self {
            Reply::Write(reply, answer) => drop(reply.send(answer)),
            Reply::HandIn(reply, settled) => drop(reply.send(settled)),
            Reply::Recover(reply, outcome) => drop(reply.send(outcome)),
            Reply::Asked(reply) => drop(reply.send(())),
        }
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::Write(error) => error.fmt(f),
            DriverError::Unknown(why) => {
                write!(f, "whether this was written is not known: the store failed: {why}")
            }
            DriverError::Busy => f.write_str("too many writes wait for the fleet to report"),
            DriverError::Stopped => f.write_str("the orchestrator is going down"),
        }
    }
}

impl std::error::Error for DriverError {}

/// Commands in one group: bounds how long the first of them waits.
const GROUP: usize = 256;
/// Writes that wait for the gate.
const HELD: usize = 1_024;
/// Ticks reserved at once; ticks are milliseconds, so that the disk is written once a minute.
const RESERVED: u64 = 60_000;
