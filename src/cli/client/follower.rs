//! Followers for measurements: the stream and the ledger of a node, and nothing else.
//!
//! A careful one verifies and applies exactly as a node does, and reports what is active. Beside
//! it a naive broadcast to compare with: a queue per follower on the one side, a map of what was
//! said on the other; no signature is checked, no history kept, nothing reported.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::model::delta::{Basis, Delta};
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::model::follow::{FeedState, Hello, Path, Report, Welcome};
use crate::model::ids::{NodeId, RuleId};
use crate::model::key::{PrivateKey, PublicKey};
use crate::model::ledger::Ledger;
use crate::model::record::Record;
use crate::model::trust::{Trust, TrustSource};
use crate::wire::follow_proto::{OrchestratorReader, follow_requests, follow_responses};
use crate::wire::proto;
use crate::wire::proto::follow_service_client::FollowServiceClient;
use crate::wire::proto::follow_service_server::{FollowService, FollowServiceServer};

/// A revision was applied by some follower.
pub(crate) struct Arrival {
    pub(crate) revision: u64,
    pub(crate) at: Instant,
}

/// Follows an orchestrator until it is aborted; tells of every revision it applies.
pub(crate) fn follow(
    url: String,
    number: usize,
    care: Care,
    arrivals: mpsc::UnboundedSender<Arrival>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = run(&url, number, care, &arrivals).await {
            eprintln!("follower {number}: {error}");
        }
    })
}

/// What a follower does with a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// What a node does: signature, history, fingerprint; then it reports.
    Verify,
    /// It puts the rules into a map.
    Believe,
}

async fn run(
    url: &str,
    number: usize,
    care: Care,
    arrivals: &mpsc::UnboundedSender<Arrival>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = FollowServiceClient::connect(url.to_string())
        .await?
        .max_decoding_message_size(MESSAGE_BYTES);
    let (said, words) = mpsc::channel(16);
    for message in follow_requests(&FromNode::Hello(Box::new(hello(number)))) {
        said.send(message).await?;
    }
    let mut messages = client.follow(ReceiverStream::new(words)).await?.into_inner();
    let mut reader = OrchestratorReader::default();
    let mut trust = Trust::default();
    let mut ledger: Option<Ledger> = None;
    let mut believed = BTreeMap::new();
    while let Some(message) = messages.next().await {
        match reader.push(&message?)? {
            Some(FromOrchestrator::Welcome(welcome)) => {
                trust.learn(welcome.key, TrustSource::Pinned);
            }
            Some(FromOrchestrator::Delta(delta)) if care == Care::Believe => {
                let revision = delta.to.head.revision.0;
                believe(&mut believed, delta);
                arrivals.send(Arrival { revision, at: Instant::now() })?;
            }
            Some(FromOrchestrator::Delta(delta)) => {
                let next = match &ledger {
                    Some(held) => held.apply(&delta, &trust)?,
                    None => Ledger::from_replace(&delta, &trust)?,
                };
                let position = next.position();
                ledger = Some(next);
                arrivals.send(Arrival { revision: position.revision.0, at: Instant::now() })?;
                let report = Report {
                    accepted: Some(position),
                    active: Some(position),
                    path: Path::Stream,
                    rejected: Vec::new(),
                    feed: FeedState::Live,
                    overrides: 0,
                    draining: false,
                    requests: 0,
                    alarm: String::new(),
                };
                for message in follow_requests(&FromNode::Report(Box::new(report))) {
                    said.send(message).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn believe(rules: &mut BTreeMap<RuleId, Arc<Record>>, delta: Delta) {
    if delta.basis == Basis::Nothing {
        rules.clear();
    }
    rules.extend(delta.records.into_iter().map(|record| (record.id.clone(), record)));
}

fn hello(number: usize) -> Hello {
    let mut seed = [7u8; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Hello {
        node: NodeId::parse(&format!("follower-{number}")).expect("digits and letters are a name"),
        region: String::new(),
        labels: Default::default(),
        traffic_addresses: Vec::new(),
        peer_address: None,
        head: None,
        key: PrivateKey::from_seed(seed).public(),
        program_version: env!("CARGO_PKG_VERSION").to_string(),
        link_serial: 0,
    }
}

/// The naive broadcast: every follower has a queue, and every push is encoded for each.
#[derive(Clone, Default)]
pub(crate) struct Naive {
    followers: Arc<Mutex<Vec<Queue>>>,
}

type Queue = mpsc::UnboundedSender<Result<proto::FollowResponse, Status>>;

impl Naive {
    /// As a service to be served.
    pub(crate) fn service(&self) -> FollowServiceServer<Naive> {
        FollowServiceServer::new(self.clone()).max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Names the key that signs to everybody.
    pub(crate) fn welcome(&self, key: PublicKey) {
        let (cluster, certificate, fenced) = (key.cluster(), None, false);
        let beacon_interval = Duration::from_secs(1);
        let welcome = Welcome { cluster, key, certificate, fenced, beacon_interval };
        self.send(&FromOrchestrator::Welcome(Box::new(welcome)));
    }

    /// Pushes to everybody.
    pub(crate) fn push(&self, delta: &Delta) {
        self.send(&FromOrchestrator::Delta(delta.clone()));
    }

    fn send(&self, word: &FromOrchestrator) {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in followers.iter() {
            for message in follow_responses(word) {
                // A follower that is gone is nobody's loss here.
                let _ = queue.send(Ok(message));
            }
        }
    }

    /// How many follow.
    pub(crate) fn count(&self) -> usize {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[tonic::async_trait]
impl FollowService for Naive {
    type FollowStream = UnboundedReceiverStream<Result<proto::FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut words = request.into_inner();
        // Reports are read and thrown away.
        tokio::spawn(async move { while let Some(Ok(_)) = words.next().await {} });
        let (queue, waiting) = mpsc::unbounded_channel();
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
        Ok(Response::new(UnboundedReceiverStream::new(waiting)))
    }
}

/// A whole configuration in one message.
const MESSAGE_BYTES: usize = 64 << 20;
