//! The one loop that owns the node's mind.
//!
//! Inputs come in through one bounded mailbox; effects are carried out by tasks whose ends become
//! inputs again. After every input a snapshot is published for those who only look. Nothing of
//! the request path ever enters here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::activation::Activator;
use super::address_policy::PeerPolicy;
use super::disk::Disk;
use super::metrics::NodeMetrics;
use super::start::Links;
use super::subscriber;
use crate::engine::Engine;
use crate::engine::config::Status;
use crate::engine::port::{Effect, Event, HandWrite, Input, Ticket, WriteRefused, Written};
use crate::model::digest::{Digest, DigestReply};
use crate::model::exchange::FromNode;
use crate::model::head::Beacon;
use crate::model::ids::{PeerAddr, RuleId};
use crate::model::key::KeyLink;
use crate::model::moment::Moment;
use crate::model::peer::Neighbour;
use crate::telemetry::clock::Clock;

/// What reaches the loop.
pub(crate) enum Note {
    /// Something happened.
    Input(Box<Input>),
    /// A peer announced itself and waits for the reply.
    Digest { digest: Box<Digest>, reply: oneshot::Sender<DigestReply> },
    /// Somebody wrote by hand, no orchestrator could be reached, and they wait.
    Write { writes: Vec<HandWrite>, reply: oneshot::Sender<Result<Vec<Written>, WriteRefused>> },
    /// Somebody set overlays, or ended them, and they wait.
    Overlays {
        overlays: Vec<(RuleId, Option<(Bytes, Moment)>)>,
        reply: oneshot::Sender<Result<Vec<Written>, WriteRefused>>,
    },
    /// Somebody waits until what was said before is in force.
    Settled(oneshot::Sender<()>),
    /// The node ends.
    End(oneshot::Sender<()>),
}

impl Note {
    /// Something happened.
    pub(crate) fn input(input: Input) -> Note {
        Note::Input(Box::new(input))
    }
}

/// What those who only look can see.
pub(crate) struct View {
    pub(crate) at: Moment,
    pub(crate) status: Status,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) beacon: Option<Beacon>,
    pub(crate) links: Vec<KeyLink>,
}

/// What the loop works with.
pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) mailbox: mpsc::Receiver<Note>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) view: Arc<ArcSwap<View>>,
    pub(crate) activator: Activator,
    pub(crate) disk: Disk,
    pub(crate) policy: Arc<PeerPolicy>,
    pub(crate) links: Links,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) events: broadcast::Sender<Arc<str>>,
    pub(crate) waiting: Waiting,
}

/// Whoever waits for an answer of the mind, and the open stream.
#[derive(Default)]
pub(crate) struct Waiting {
    tickets: u64,
    digests: BTreeMap<Ticket, oneshot::Sender<DigestReply>>,
    writes: BTreeMap<Ticket, oneshot::Sender<Result<Vec<Written>, WriteRefused>>>,
    stream: Option<OpenStream>,
}

struct OpenStream {
    ticket: Ticket,
    said: mpsc::Sender<FromNode>,
    task: JoinHandle<()>,
}

impl View {
    /// What the mind looks like now.
    pub(crate) fn of(engine: &Engine, now: Moment) -> View {
        let keep = engine.keep();
        View {
            at: now,
            status: engine.status(now),
            neighbours: engine.neighbours(),
            beacon: keep.beacon,
            links: keep.trust.links().to_vec(),
        }
    }
}

impl Driver {
    /// Runs until somebody ends it.
    pub(crate) async fn run(mut self) {
        self.carry_out();
        loop {
            let deadline = self.engine.deadline().map(|at| self.clock.instant(at));
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let note = tokio::select! {
                note = self.mailbox.recv() => note,
                () = sleep => Some(Note::input(Input::Tick)),
            };
            match note {
                None => return self.end(None).await,
                Some(Note::End(done)) => return self.end(Some(done)).await,
                Some(note) => self.take(note),
            }
            // What waits already is taken before anything is published.
            for _ in 0..BATCH {
                match self.mailbox.try_recv() {
                    Ok(Note::End(done)) => return self.end(Some(done)).await,
                    Ok(note) => self.take(note),
                    Err(_) => break,
                }
            }
            self.view.store(Arc::new(View::of(&self.engine, self.clock.now())));
        }
    }

    /// Ends the stream, and the disk once it holds what it was given.
    async fn end(mut self, done: Option<oneshot::Sender<()>>) {
        if let Some(stream) = self.waiting.stream.take() {
            stream.task.abort();
        }
        // A disk that hangs must not keep the process: what was acknowledged is on it already.
        let _ = tokio::time::timeout(DISK_PATIENCE, self.disk.end()).await;
        if let Some(done) = done {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn take(&mut self, note: Note) {
        let now = self.clock.now();
        let input = match note {
            Note::Input(input) => *input,
            Note::Digest { digest, reply } => {
                let ticket = self.waiting.ticket();
                self.waiting.digests.insert(ticket, reply);
                Input::DigestReceived { ticket, digest: *digest }
            }
            Note::Write { writes, reply } => {
                let ticket = self.waiting.ticket();
                self.waiting.writes.insert(ticket, reply);
                Input::WriteByHand { ticket, writes, wall: self.clock.wall() }
            }
            Note::Overlays { overlays, reply } => {
                let ticket = self.waiting.ticket();
                self.waiting.writes.insert(ticket, reply);
                Input::SetOverlays { ticket, overlays }
            }
            Note::Settled(done) => return self.activator.tell_settled(done),
            Note::End(_) => return,
        };
        self.engine.handle(now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll() {
            match effect {
                Effect::OpenStream { ticket, orchestrator, hello } => {
                    self.open_stream(ticket, orchestrator, FromNode::Hello(Box::new(hello)));
                }
                Effect::CloseStream { ticket } => {
                    let open = self.waiting.stream.take_if(|open| open.ticket == ticket);
                    if let Some(open) = open {
                        open.task.abort();
                    }
                }
                Effect::SendReport(report) => self.say(FromNode::Report(Box::new(report))),
                Effect::HandIn(overrides) => self.say(FromNode::HandIn(overrides)),
                Effect::SendLedger(ledger) => self.say(FromNode::Ledger(ledger.replacement())),
                Effect::SendDigest { to, digest } => self.send_digest(to, digest),
                Effect::ReplyDigest { ticket, reply } => {
                    if let Some(waiting) = self.waiting.digests.remove(&ticket) {
                        // The peer may have gone.
                        let _ = waiting.send(reply);
                    }
                }
                Effect::Pull { ticket, from, what } => self.pull(ticket, from, what),
                Effect::FetchNeighbours { from } => self.fetch_neighbours(from),
                Effect::Activate { changed } => {
                    self.activator.activate(self.engine.rule_set().clone(), changed);
                }
                Effect::Store { ticket, extra } => {
                    self.disk.store(self.engine.keep(), extra, ticket);
                }
                Effect::AnswerWrite { ticket, result } => {
                    if let Some(waiting) = self.waiting.writes.remove(&ticket) {
                        let _ = waiting.send(result);
                    }
                }
                Effect::Tell(event) => self.tell(&event),
            }
        }
    }

    fn open_stream(&mut self, ticket: Ticket, orchestrator: usize, hello: FromNode) {
        let Some((url, token)) = self.links.orchestrators.at(orchestrator) else { return };
        let (said, words) = mpsc::channel(64);
        // The channel is new and has room.
        let _ = said.try_send(hello);
        let (heard, mut inputs) = mpsc::channel(64);
        let notes = self.notes.clone();
        let stream =
            subscriber::run(ticket, url, token, self.links.connector.clone(), words, heard);
        let task = tokio::spawn(async move {
            let forward = async {
                while let Some(input) = inputs.recv().await {
                    if notes.send(Note::input(input)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(stream, forward);
        });
        if let Some(old) = self.waiting.stream.replace(OpenStream { ticket, said, task }) {
            old.task.abort();
        }
    }

    /// A stream that does not take words is as good as closed; the mind says it again later.
    fn say(&mut self, word: FromNode) {
        if let Some(stream) = &self.waiting.stream
            && stream.said.try_send(word).is_err()
        {
            tracing::debug!("the stream is full; a word is left out");
        }
    }

    fn send_digest(&self, to: PeerAddr, digest: Digest) {
        let (peers, notes) = (self.links.peers.clone(), self.notes.clone());
        tokio::spawn(async move {
            let input = match peers.digest(to, &digest).await {
                Ok((reply, rtt)) => Input::DigestAnswered { to, reply, rtt },
                Err(_) => Input::DigestFailed { to },
            };
            let _ = notes.send(Note::input(input)).await;
        });
    }

    fn pull(&self, ticket: Ticket, from: PeerAddr, what: crate::engine::port::PullWhat) {
        let (peers, notes) = (self.links.peers.clone(), self.notes.clone());
        tokio::spawn(async move {
            let input = match peers.pull(from, &what).await {
                Ok(pulled) => Input::PullAnswered { ticket, pulled },
                Err(error) => {
                    tracing::debug!(%from, %error, "a pull failed");
                    Input::PullFailed { ticket }
                }
            };
            let _ = notes.send(Note::input(input)).await;
        });
    }

    fn fetch_neighbours(&self, from: PeerAddr) {
        let (peers, notes) = (self.links.peers.clone(), self.notes.clone());
        let policy = self.policy.clone();
        tokio::spawn(async move {
            let input = match peers.neighbours(from).await {
                Ok((list, card, rtt)) => {
                    let list = list.into_iter().filter(|card| policy.allows(card.address));
                    Input::NeighboursAnswered { from, card, list: list.collect(), rtt }
                }
                Err(_) => Input::NeighboursFailed { from },
            };
            let _ = notes.send(Note::input(input)).await;
        });
    }

    fn tell(&self, event: &Event) {
        self.metrics.count(event);
        match event {
            Event::Alarm(alarm) => tracing::error!(%alarm, "alarm"),
            Event::Refused { reason, from } => {
                tracing::warn!(reason, from = ?from, "something that arrived is not believed");
            }
            Event::Trusted(key, source) => tracing::info!(%key, ?source, "a key is trusted now"),
            Event::Feed(state) => tracing::info!(state = state.as_str(), "the feed changed"),
            Event::Applied { position, rules, path, replaced } => tracing::debug!(
                epoch = position.epoch.0,
                revision = position.revision.0,
                rules,
                path = path.as_str(),
                replaced,
                "applied"
            ),
            other => tracing::debug!(event = ?other, "event"),
        }
        let line = super::peer_server::event_json(event);
        // Nobody may be listening.
        let _ = self.events.send(Arc::from(line));
    }
}

impl Waiting {
    fn ticket(&mut self) -> Ticket {
        // The mind counts from 1; the shell's tickets never meet them.
        self.tickets += 1;
        self.digests.retain(|_, waiting| !waiting.is_closed());
        Ticket(u64::MAX / 2 + self.tickets)
    }
}

/// Inputs taken before a snapshot is published.
const BATCH: usize = 64;
/// How long the last words to the disk may take.
const DISK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
