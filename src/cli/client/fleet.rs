//! FleetService.

use super::Client;
use crate::cli::failure::Failure;
use crate::wire::proto;
use crate::wire::proto::control_service_client::ControlServiceClient;
use crate::wire::proto::fleet_service_client::FleetServiceClient;

/// One node of the fleet.
pub(crate) struct NodeRow {
    pub(crate) node: String,
    pub(crate) region: String,
    pub(crate) peer_address: String,
    pub(crate) traffic: Vec<String>,
    pub(crate) connected: bool,
    pub(crate) last_seen_ms: u64,
    pub(crate) behind_ms: u64,
    pub(crate) active: Option<u64>,
    pub(crate) feed: String,
    pub(crate) rejected: Vec<(String, u64, String)>,
    pub(crate) overrides: u64,
    pub(crate) draining: bool,
    pub(crate) requests: u64,
    pub(crate) alarm: String,
}

/// The fleet as one orchestrator sees it.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    /// Why it takes no writes; empty when it does.
    pub(crate) fenced: String,
}

/// How far a commit has come.
#[derive(Default)]
pub(crate) struct Propagation {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    pub(crate) connected: u32,
    pub(crate) reached: u32,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) last_ms: f64,
    pub(crate) last_node: String,
    pub(crate) by_stream: u32,
    pub(crate) by_peer: u32,
    pub(crate) waiting: Vec<String>,
    pub(crate) unreachable: Vec<NodeRow>,
    pub(crate) rejections: Vec<(String, String, String)>,
    pub(crate) timed: bool,
}

impl Client {
    fn fleet(&self) -> FleetServiceClient<tonic::transport::Channel> {
        FleetServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// Every node that the orchestrator knows.
    pub(crate) async fn nodes(&self) -> Result<Fleet, Failure> {
        let answer = self
            .fleet()
            .list_nodes(self.request(proto::ListNodesRequest {}))
            .await
            .map_err(|status| self.failed("the nodes cannot be listed", &status))?
            .into_inner();
        let head = answer.head.and_then(|signed| signed.head);
        Ok(Fleet {
            nodes: answer.nodes.into_iter().map(row).collect(),
            epoch: head.as_ref().map_or(0, |head| head.epoch),
            revision: head.as_ref().map_or(0, |head| head.revision),
            fenced: answer.fenced,
        })
    }

    /// How far a revision (0: the newest), or a rule's newest version, has come.
    pub(crate) async fn propagation(
        &self,
        revision: u64,
        rule: &str,
    ) -> Result<Propagation, Failure> {
        let rule = rule.to_string();
        let answer = self
            .fleet()
            .get_propagation(self.request(proto::GetPropagationRequest { revision, rule }))
            .await
            .map_err(|status| self.failed("the propagation is not known", &status))?
            .into_inner();
        let position = answer.position.unwrap_or_default();
        Ok(Propagation {
            epoch: position.epoch,
            revision: position.revision,
            connected: answer.connected,
            reached: answer.reached,
            p50_ms: answer.p50_ms,
            p99_ms: answer.p99_ms,
            last_ms: answer.last_ms,
            last_node: answer.last_node,
            by_stream: answer.by_stream,
            by_peer: answer.by_peer,
            waiting: answer.waiting,
            unreachable: answer.unreachable.into_iter().map(row).collect(),
            rejections: answer
                .rejections
                .into_iter()
                .map(|one| {
                    let rejected = one.rejected.unwrap_or_default();
                    (one.node, rejected.id, rejected.why)
                })
                .collect(),
            timed: answer.timed,
        })
    }
}

fn row(status: proto::NodeStatus) -> NodeRow {
    let report = status.report.unwrap_or_default();
    NodeRow {
        node: status.node,
        region: status.region,
        peer_address: status.peer_address,
        traffic: status.traffic_addresses,
        connected: status.connected,
        last_seen_ms: status.last_seen_ms_ago,
        behind_ms: status.behind_ms,
        active: report.active.map(|at| at.revision),
        feed: report.feed,
        rejected: report.rejected.into_iter().map(|one| (one.id, one.version, one.why)).collect(),
        overrides: report.overrides,
        draining: report.draining,
        requests: report.requests,
        alarm: report.alarm,
    }
}

impl Client {
    /// Has a fenced orchestrator take the fleet's rules back.
    pub(crate) async fn recover(
        &self,
        from: Vec<String>,
        new_fleet: bool,
    ) -> Result<String, Failure> {
        let mut client = ControlServiceClient::new(self.channel.clone());
        let answer = client
            .recover(self.request(proto::RecoverRequest { from, new_fleet }))
            .await
            .map_err(|status| self.failed("nothing was recovered", &status))?
            .into_inner();
        let position = answer.position.unwrap_or_default();
        let branch = answer.branch.unwrap_or_default();
        let mut text = format!(
            "recovered {} rules: epoch {} goes on at revision {} (left epoch {} at revision {})",
            answer.rules, position.epoch, position.revision, branch.epoch, branch.revision
        );
        if answer.orphaned > 0 {
            text.push_str(&format!("\n{} versions lay beyond and are filed", answer.orphaned));
        }
        for failure in answer.failures {
            text.push_str(&format!("\n{} did not help: {}", failure.from, failure.why));
        }
        Ok(text)
    }
}
