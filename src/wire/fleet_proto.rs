//! The messages of the fleet service: what the orchestrator knows of its nodes.

use super::follow_proto::hello_message;
use super::{follow_words, proto};
use crate::engine::followers::{Follower, Followers};
use crate::engine::propagation::Spread;
use crate::model::head::{Position, SignedHead};
use crate::model::ledger::Ledger;
use crate::model::moment::Moment;

/// One row of the fleet table.
pub(crate) fn node_status(follower: &Follower, head: Position, now: Moment) -> proto::NodeStatus {
    let hello = hello_message(&follower.hello);
    let seen = follower.last_seen.map_or(now.since(Moment::START), |seen| now.since(seen));
    proto::NodeStatus {
        node: hello.node,
        region: hello.region,
        labels: hello.labels,
        traffic_addresses: hello.traffic_addresses,
        peer_address: hello.peer_address,
        program_version: hello.program_version,
        connected: follower.stream.is_some(),
        last_seen_ms_ago: millis(seen),
        report: follower.report.as_ref().map(|report| {
            let mut message = follow_words::report_message(report);
            if follower.is_contested(now) {
                let own = std::mem::take(&mut message.alarm);
                let between = if own.is_empty() { "" } else { "; " };
                message.alarm = format!("another node goes by the same name{between}{own}");
            }
            message
        }),
        behind_ms: millis(follower.behind(head, now)),
    }
}

/// The fleet table.
pub(crate) fn nodes_response(
    followers: &Followers,
    head: &SignedHead,
    fenced: String,
    now: Moment,
) -> proto::ListNodesResponse {
    let nodes = followers.iter().map(|follower| node_status(follower, head.position(), now));
    proto::ListNodesResponse { nodes: nodes.collect(), head: Some(head.into()), fenced }
}

/// How far a commit has come: every connected node has it in force, rejects some of it, or waits.
pub(crate) fn propagation_response(
    followers: &Followers,
    ledger: &Ledger,
    position: Position,
    now: Moment,
) -> proto::GetPropagationResponse {
    let head = ledger.position();
    let connected: Vec<&Follower> = followers.iter().filter(|f| f.stream.is_some()).collect();
    let mut rejections = Vec::new();
    let mut willing = Vec::with_capacity(connected.len());
    for follower in &connected {
        let node = &follower.hello.node;
        let before = rejections.len();
        rejections.extend(follower.rejects(ledger, position.revision).map(|rejected| {
            let rejected = Some(follow_words::rejected_message(rejected));
            proto::NodeRejection { node: node.to_string(), rejected }
        }));
        if rejections.len() == before {
            willing.push(node);
        }
    }
    let spread = followers.propagation.spread(position, willing.iter().copied());
    let Spread { timed, reached, p50, p99, last, last_node, by_stream, by_peer } = spread;
    let waiting = willing.iter().filter(|node| reached.binary_search(node).is_err());
    let waiting: Vec<String> = waiting.map(ToString::to_string).collect();
    let gone = followers.iter().filter(|follower| follower.stream.is_none());
    proto::GetPropagationResponse {
        position: Some((&position).into()),
        connected: count(connected.len()),
        reached: count(reached.len()),
        p50_ms: p50.as_secs_f64() * 1e3,
        p99_ms: p99.as_secs_f64() * 1e3,
        last_ms: last.as_secs_f64() * 1e3,
        last_node: last_node.map_or_else(String::new, |node| node.to_string()),
        by_stream,
        by_peer,
        rejected: count(connected.len() - willing.len()),
        unreached: count(waiting.len()),
        waiting,
        unreachable: gone.map(|follower| node_status(follower, head, now)).collect(),
        rejections,
        timed,
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
