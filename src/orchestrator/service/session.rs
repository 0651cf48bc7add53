//! One follower's stream, from hello to its end.
//!
//! Two loops side by side: one listens, one speaks. The speaker is a cursor over what is
//! published: whoever is slow skips to the newest versions and costs no memory. Invariant: nothing
//! of the ledger goes out behind a fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::status;
use crate::engine::fence::{Fence, HeadVerdict, judge_head};
use crate::engine::followers::StreamId;
use crate::engine::recovery::offered_ledger;
use crate::model::delta::Delta;
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::model::follow::{Hello, Settled, SettledOutcome, Welcome};
use crate::model::head::Position;
use crate::model::ids::NodeId;
use crate::model::limits;
use crate::model::manual::{AuthorCertificate, Override};
use crate::orchestrator::driver::Command;
use crate::orchestrator::shared::Shared;
use crate::orchestrator::view::{Next, View};
use crate::wire::follow_proto::{NodeReader, delta_frames, follow_frames};
use crate::wire::proto::FollowRequest;
use crate::wire::proto::follow_request::Kind;
use crate::wire::rule_document::rule_to_proto;

type Out = mpsc::Sender<Result<Bytes, Status>>;

/// A stream before its hello.
pub(super) struct Session {
    shared: Arc<Shared>,
    inbound: Streaming<FollowRequest>,
    reader: NodeReader,
    out: Out,
}

/// A stream after its hello.
struct Following {
    shared: Arc<Shared>,
    node: NodeId,
    stream: StreamId,
    /// Where the follower stands; none where it needs everything.
    cursor: Option<Position>,
    /// What it proved to hold.
    proven: Option<Position>,
    /// It holds another history.
    forked: bool,
    /// Its ledger was asked for, and has not come.
    awaits_ledger: AtomicBool,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, inbound: Streaming<FollowRequest>, out: Out) -> Session {
        Session { shared, inbound, reader: NodeReader::default(), out }
    }

    pub(super) async fn run(mut self) {
        let (shared, out) = (self.shared.clone(), self.out.clone());
        let ended = tokio::select! {
            ended = self.follow() => ended,
            () = out.closed() => Ok(()),
            () = shared.stopping.cancelled() => {
                Err(Status::unavailable("the orchestrator is going down"))
            }
        };
        if let Err(status) = ended {
            tracing::debug!(%status, "a stream ended");
            // Whoever does not read does not need to know why.
            drop(timeout(LAST_WORD, out.send(Err(status))).await);
        }
    }

    async fn follow(&mut self) -> Result<(), Status> {
        let hello = timeout(HELLO, self.hello()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("hello did not come"))??;
        let following = Following::admit(&self.shared, hello, &self.out).await?;
        let (words, mut spoken) = mpsc::channel(1);
        tokio::select! {
            ended = following.listen(&mut self.inbound, &mut self.reader, &words) => ended,
            ended = following.speak(&self.out, &mut spoken) => ended,
        }
    }

    async fn hello(&mut self) -> Result<Hello, Status> {
        let Some(message) = self.inbound.message().await? else {
            return Err(Status::invalid_argument("a stream begins with hello"));
        };
        match message.kind {
            Some(Kind::Hello(_)) => {}
            _ => return Err(Status::invalid_argument("a stream begins with hello")),
        }
        match self.reader.push(&message).map_err(status::malformed)? {
            Some(FromNode::Hello(hello)) => Ok(*hello),
            _ => Err(Status::invalid_argument("a stream begins with hello")),
        }
    }
}

impl Following {
    async fn admit(shared: &Arc<Shared>, hello: Hello, out: &Out) -> Result<Following, Status> {
        let verdict = judge(shared, &hello)?;
        let (node, key) = (hello.node.clone(), hello.key);
        let position = hello.head.map(|head| head.position());
        let (fence, forked) = match (&verdict, position) {
            (HeadVerdict::Ahead, Some(position)) => {
                shared.offers.saw(position);
                (Some(Fence::Ahead { node: node.clone(), position }), false)
            }
            (HeadVerdict::Forked, Some(position)) => {
                (Some(Fence::Forked { node: node.clone(), position }), true)
            }
            _ => (None, false),
        };
        let is_fenced = fence.is_some() || shared.published.load().fence.is_some();
        if let Some(fence) = fence {
            // Before it counts as greeted: no write may slip between the two.
            tell(shared, Command::Fence(fence)).await;
        }
        let entry = shared.followers().hello(hello.clone(), shared.clock.now());
        let (stream, is_new) =
            entry.ok_or_else(|| Status::resource_exhausted("too many nodes are connected"))?;
        if shared.followers().is_contested(&node, shared.clock.now()) {
            tracing::warn!(%node, "two nodes go by this name: give one of them another --id");
        }
        shared.metrics.followers.inc();
        let unfounded = verdict == HeadVerdict::Unfounded;
        let following = Following {
            shared: shared.clone(),
            node: node.clone(),
            stream,
            cursor: position.filter(|_| !forked && !unfounded),
            proven: position.filter(|_| !unfounded),
            forked,
            awaits_ledger: AtomicBool::new(false),
        };
        let news = is_new.then(|| Box::new(hello));
        tell(shared, Command::Greeted(node.clone(), news)).await;
        let certificate = AuthorCertificate::sign(shared.cluster, node, key, &shared.key);
        let welcome = FromOrchestrator::Welcome(Box::new(Welcome {
            cluster: shared.cluster,
            key: shared.key.public(),
            certificate: Some(certificate),
            fenced: is_fenced,
            beacon_interval: shared.beacon_interval,
        }));
        send(out, follow_frames(&welcome)).await?;
        Ok(following)
    }

    async fn listen(
        &self,
        inbound: &mut Streaming<FollowRequest>,
        reader: &mut NodeReader,
        words: &mpsc::Sender<Vec<Bytes>>,
    ) -> Result<(), Status> {
        // What was handed in behind a fence, until the fence falls.
        let mut waiting: Vec<Override> = Vec::new();
        let mut changed = self.shared.published.subscribe();
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let is_ledger = matches!(message.kind, Some(Kind::Ledger(_)));
                    if is_ledger && !self.awaits_ledger.load(Ordering::Relaxed) {
                        return Err(Status::invalid_argument("nobody asked for the ledger"));
                    }
                    let Some(said) = reader.push(&message).map_err(status::malformed)? else {
                        continue;
                    };
                    if let FromNode::HandIn(overrides) = said {
                        if waiting.len() + overrides.len() > limits::OVERRIDES {
                            return Err(Status::resource_exhausted("too many overrides wait"));
                        }
                        waiting.extend(overrides);
                    } else {
                        self.heard(said).await?;
                    }
                }
                _ = self.fence_moves(&mut changed), if !waiting.is_empty() => {}
            }
            if !waiting.is_empty() && self.shared.published.load().fence.is_none() {
                self.settle(std::mem::take(&mut waiting), words).await?;
            }
        }
    }

    async fn fence_moves(&self, changed: &mut watch::Receiver<()>) {
        while self.shared.published.load().fence.is_some() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn heard(&self, said: FromNode) -> Result<(), Status> {
        match said {
            FromNode::Hello(_) => Err(Status::invalid_argument("hello comes once")),
            FromNode::HandIn(_) => Ok(()),
            FromNode::Report(report) => {
                let head = self.shared.published.load().ledger.position();
                let now = self.shared.clock.now();
                let took =
                    self.shared.followers().report(&self.node, self.stream, *report, head, now);
                if let Some(took) = took {
                    self.shared.metrics.propagation_seconds.observe(took.as_secs_f64());
                }
                Ok(())
            }
            FromNode::Ledger(delta) => {
                let shared = self.shared.clone();
                let read = tokio::task::spawn_blocking(move || {
                    offered_ledger(&delta, shared.cluster, &shared.trust)
                });
                let ledger = read.await.ok().and_then(Result::ok);
                if self.awaits_ledger.swap(false, Ordering::Relaxed) {
                    self.shared.offers.settle(ledger);
                }
                Ok(())
            }
        }
    }

    async fn settle(
        &self,
        overrides: Vec<Override>,
        words: &mpsc::Sender<Vec<Bytes>>,
    ) -> Result<(), Status> {
        let (rules, others): (Vec<_>, Vec<_>) = overrides.into_iter().partition(says_a_rule);
        let mut settled: Vec<Settled> = others.iter().map(no_rule).collect();
        if !rules.is_empty() {
            let adopted = self.shared.ask(|reply| Command::HandIn(rules, reply)).await;
            // Without an answer the node has to hand in again, on another stream.
            let adopted = adopted.map_err(|_| Status::unavailable("hand in again"))?;
            if adopted.is_empty() {
                return Err(Status::unavailable("hand in again"));
            }
            settled.extend(adopted);
        }
        let frames = follow_frames(&FromOrchestrator::Settled(settled));
        drop(words.send(frames).await);
        Ok(())
    }

    async fn speak(
        &self,
        out: &Out,
        spoken: &mut mpsc::Receiver<Vec<Bytes>>,
    ) -> Result<(), Status> {
        let mut changed = self.shared.published.subscribe();
        let (mut cursor, mut tick) = (self.cursor, 0);
        let mut asked = self.shared.published.load().asked;
        // A recovery that is under way asks those who come while it lasts.
        self.ask_ledger(out).await?;
        loop {
            changed.borrow_and_update();
            let view = self.shared.published.load();
            if !self.shared.followers().is_current(&self.node, self.stream) {
                return Err(Status::aborted("this node has opened another stream"));
            }
            if view.fence.is_some() {
                if view.asked != asked {
                    asked = view.asked;
                    self.ask_ledger(out).await?;
                }
            } else if self.catch_up(&view, &mut cursor, &mut tick, out).await? {
                // Something may have come while that was sent.
                continue;
            }
            drop(view);
            tokio::select! {
                next = changed.changed() => {
                    next.map_err(|_| Status::unavailable("the orchestrator is going down"))?;
                }
                Some(frames) = spoken.recv() => send(out, frames).await?,
            }
        }
    }

    /// Asks for the follower's ledger, if that may help a recovery that is under way.
    async fn ask_ledger(&self, out: &Out) -> Result<(), Status> {
        let asked = self.awaits_ledger.load(Ordering::Relaxed);
        if asked || !self.shared.offers.claim(self.proven, self.forked) {
            return Ok(());
        }
        self.awaits_ledger.store(true, Ordering::Relaxed);
        send(out, follow_frames(&FromOrchestrator::LedgerRequest)).await
    }

    /// Sends what one view holds; whether anything of the ledger was sent.
    async fn catch_up(
        &self,
        view: &View,
        cursor: &mut Option<Position>,
        tick: &mut u64,
        out: &Out,
    ) -> Result<bool, Status> {
        match view.next(*cursor) {
            Next::Current => {
                self.beacon(view, tick, out).await?;
                return Ok(false);
            }
            Next::Frame(frame) => {
                send(out, frame.parts.iter().cloned()).await?;
                *cursor = Some(frame.to);
                // Whoever never catches up must not think that the stream is dead.
                self.beacon(view, tick, out).await?;
            }
            Next::Large(delta) => {
                self.send_large(&delta, tick, out).await?;
                *cursor = Some(delta.to.position());
            }
        }
        Ok(true)
    }

    /// Piece by piece, with beacons between: a node must not think that the stream is dead.
    async fn send_large(&self, delta: &Delta, tick: &mut u64, out: &Out) -> Result<(), Status> {
        for part in delta_frames(delta) {
            send(out, [part]).await?;
            self.beacon(&self.shared.published.load(), tick, out).await?;
        }
        Ok(())
    }

    async fn beacon(&self, view: &View, tick: &mut u64, out: &Out) -> Result<(), Status> {
        let Some(beacon) = view.beacon.as_ref().filter(|beacon| beacon.tick > *tick) else {
            return Ok(());
        };
        *tick = beacon.tick;
        send(out, [beacon.bytes.clone()]).await
    }
}

impl Drop for Following {
    /// However the stream ends, even when nobody polls it any more: the node is gone.
    fn drop(&mut self) {
        self.shared.metrics.followers.dec();
        if self.awaits_ledger.swap(false, Ordering::Relaxed) {
            self.shared.offers.settle(None);
        }
        self.shared.followers().gone(&self.node, self.stream, self.shared.clock.now());
    }
}

/// Whether these are the bytes of a rule, of this release or a later one: only such bytes may
/// become history, for nobody could ever show or edit others.
fn says_a_rule(by_hand: &Override) -> bool {
    by_hand.body.data().is_none_or(|data| rule_to_proto(&by_hand.id, data).is_ok())
}

fn no_rule(by_hand: &Override) -> Settled {
    let why = "its body is not a rule".to_owned();
    Settled { mark: by_hand.mark(), outcome: SettledOutcome::Refused, why }
}

/// What the follower's head says of this orchestrator.
fn judge(shared: &Shared, hello: &Hello) -> Result<HeadVerdict, Status> {
    let Some(signed) = &hello.head else { return Ok(HeadVerdict::Behind) };
    if signed.head.cluster != shared.cluster {
        return Err(Status::failed_precondition("the node belongs to another cluster"));
    }
    let recent = shared.followers().propagation.recent(signed.position());
    let view = shared.published.load();
    Ok(judge_head(signed, &view.ledger, &shared.trust, |_| recent))
}

async fn tell(shared: &Shared, command: Command) {
    // A driver that is gone ends the stream by other ways.
    drop(shared.commands.send(command).await);
}

async fn send(out: &Out, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Status> {
    for frame in frames {
        out.send(Ok(frame)).await.map_err(|_| Status::cancelled("the node is gone"))?;
    }
    Ok(())
}

/// How long a new stream may stay silent.
const HELLO: Duration = Duration::from_secs(10);
/// How long a stalled follower may take to be told why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(1);
