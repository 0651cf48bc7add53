//! An orchestrator in a directory of its own, and followers that hold a ledger.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::model::delta::{Delta, Refusal};
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::model::follow::{FeedState, Hello, Path as Way, RejectedRule, Report, Welcome};
use crate::model::head::Position;
use crate::model::ids::NodeId;
use crate::model::key::PrivateKey;
use crate::model::ledger::Ledger;
use crate::model::trust::Trust;
use crate::orchestrator::{Orchestrator, OrchestratorOptions};
use crate::wire::follow_proto::{OrchestratorReader, follow_requests};
use crate::wire::proto;
use crate::wire::proto::follow_service_client::FollowServiceClient;
use crate::wire::proto::rule_service_client::RuleServiceClient;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn start(home: &Path) -> Orchestrator {
    let beacon_interval = Duration::from_millis(50);
    let options = OrchestratorOptions { beacon_interval, ..OrchestratorOptions::local(home) };
    Orchestrator::start(options).await.unwrap()
}

pub(super) async fn channel(orchestrator: &Orchestrator) -> Channel {
    let url = format!("http://{}", orchestrator.grpc_addr());
    // A small window, so that who does not read stalls its stream soon.
    let endpoint = Channel::from_shared(url).unwrap().initial_stream_window_size(65_535);
    endpoint.connect().await.unwrap()
}

pub(super) async fn rules(orchestrator: &Orchestrator) -> RuleServiceClient<Channel> {
    RuleServiceClient::new(channel(orchestrator).await)
}

pub(super) fn rule(id: &str, port: u16) -> proto::Rule {
    let data = serde_json::json!({
        "match": { "hosts": ["shop.example.com"] },
        "targets": [{ "url": format!("http://127.0.0.1:{port}") }],
    });
    let parsed = crate::wire::rule_document::rule_data_from_json(id, &data).unwrap();
    crate::wire::rule_document::rule_to_proto(&parsed.id, &parsed.data).unwrap()
}

pub(super) fn put(id: &str, port: u16) -> proto::PutRuleRequest {
    proto::PutRuleRequest { rule: Some(rule(id, port)), ..proto::PutRuleRequest::default() }
}

pub(super) async fn eventually<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it took too long")
}

pub(super) fn node_key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

/// A node without anything but a ledger.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) ledger: Option<Ledger>,
    pub(super) welcome: Welcome,
    pub(super) deltas: Vec<Delta>,
    out: mpsc::Sender<proto::FollowRequest>,
    inbound: Streaming<proto::FollowResponse>,
    reader: OrchestratorReader,
    trust: Trust,
}

impl Node {
    pub(super) async fn join(
        orchestrator: &Orchestrator,
        name: &str,
        ledger: Option<Ledger>,
    ) -> Node {
        Node::try_join(orchestrator, name, ledger).await.unwrap()
    }

    pub(super) async fn try_join(
        orchestrator: &Orchestrator,
        name: &str,
        ledger: Option<Ledger>,
    ) -> Result<Node, Status> {
        Node::try_join_with(orchestrator, name, ledger, node_key(9)).await
    }

    /// With a key of its own.
    pub(super) async fn try_join_with(
        orchestrator: &Orchestrator,
        name: &str,
        ledger: Option<Ledger>,
        key: PrivateKey,
    ) -> Result<Node, Status> {
        let (out, requests) = mpsc::channel(64);
        let id = NodeId::parse(name).unwrap();
        let hello = Hello {
            node: id.clone(),
            region: "eu".to_owned(),
            labels: BTreeMap::new(),
            traffic_addresses: Vec::new(),
            peer_address: None,
            head: ledger.as_ref().map(|ledger| *ledger.signed()),
            key: key.public(),
            program_version: "test".to_owned(),
            link_serial: 0,
        };
        say(&out, &FromNode::Hello(Box::new(hello))).await;
        let mut client = FollowServiceClient::new(channel(orchestrator).await);
        let inbound = client.follow(ReceiverStream::new(requests)).await?.into_inner();
        let trust = Trust::configured(vec![orchestrator.public_key()]);
        let (mut inbound, mut reader) = (inbound, OrchestratorReader::default());
        let first = eventually(inbound.message()).await?;
        let first = first.ok_or_else(|| Status::cancelled("no welcome"))?;
        let Some(FromOrchestrator::Welcome(welcome)) = reader.push(&first).unwrap() else {
            panic!("welcome comes first");
        };
        let (welcome, deltas) = (*welcome, Vec::new());
        Ok(Node { id, ledger, welcome, deltas, out, inbound, reader, trust })
    }

    /// The next thing said; deltas are applied on the way.
    pub(super) async fn next(&mut self) -> Result<FromOrchestrator, Status> {
        loop {
            let message = eventually(self.inbound.message()).await?;
            let message = message.ok_or_else(|| Status::cancelled("the stream ended"))?;
            let Some(said) = self.reader.push(&message).unwrap() else { continue };
            if let FromOrchestrator::Delta(delta) = &said {
                self.apply(delta).unwrap();
                self.deltas.push(delta.clone());
            }
            return Ok(said);
        }
    }

    fn apply(&mut self, delta: &Delta) -> Result<(), Refusal> {
        let next = match &self.ledger {
            None => Ledger::from_replace(delta, &self.trust),
            Some(ledger) => ledger.apply(delta, &self.trust),
        };
        self.ledger = Some(next?);
        Ok(())
    }

    pub(super) fn revision(&self) -> u64 {
        self.ledger.as_ref().map_or(0, |ledger| ledger.head().revision.0)
    }

    /// Listens until the ledger is at a revision.
    pub(super) async fn reach(&mut self, revision: u64) {
        while self.ledger.is_none() || self.revision() < revision {
            self.next().await.unwrap();
        }
    }

    /// Listens until something is said.
    pub(super) async fn hear<T>(
        &mut self,
        wanted: impl Fn(&FromOrchestrator) -> Option<T>,
    ) -> Result<T, Status> {
        loop {
            if let Some(found) = wanted(&self.next().await?) {
                return Ok(found);
            }
        }
    }

    pub(super) async fn say(&self, said: &FromNode) {
        say(&self.out, said).await;
    }

    /// Says that what it holds is active.
    pub(super) async fn report(&self) {
        self.report_rejecting(Vec::new()).await;
    }

    /// The same, but for these rules.
    pub(super) async fn report_rejecting(&self, rejected: Vec<RejectedRule>) {
        self.report_with(rejected, "").await;
    }

    /// The same with an alarm.
    pub(super) async fn report_with(&self, rejected: Vec<RejectedRule>, alarm: &str) {
        let position: Option<Position> = self.ledger.as_ref().map(Ledger::position);
        let report = Report {
            accepted: position,
            active: position,
            path: Way::Stream,
            rejected,
            feed: FeedState::Live,
            overrides: 0,
            draining: false,
            requests: 0,
            alarm: alarm.to_owned(),
        };
        self.say(&FromNode::Report(Box::new(report))).await;
    }
}

async fn say(out: &mpsc::Sender<proto::FollowRequest>, said: &FromNode) {
    for message in follow_requests(said) {
        out.send(message).await.unwrap();
    }
}
