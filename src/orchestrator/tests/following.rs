//! Claims about streams.

use tonic::Code;

use super::bed::{Node, channel, eventually, node_key, put, rules, start};
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::model::follow::{RejectedRule, SettledOutcome};
use crate::model::ids::{RuleId, Version};
use crate::model::key::Signature;
use crate::model::ledger::Ledger;
use crate::model::manual::Override;
use crate::model::moment::WallTime;
use crate::model::record::Body;
use crate::wire::proto::fleet_service_client::FleetServiceClient;
use crate::wire::proto::{
    GetPropagationRequest, GetPropagationResponse, GetRuleHistoryRequest, ListNodesRequest,
};

fn tick(said: &FromOrchestrator) -> Option<u64> {
    match said {
        FromOrchestrator::Beacon(beacon) => Some(beacon.tick),
        _ => None,
    }
}

#[tokio::test]
async fn a_follower_gets_what_it_lacks_then_every_commit_and_beacons_that_rise() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    client.put_rule(put("a", 9001)).await.unwrap();
    let mut node = Node::join(&orchestrator, "n1", None).await;
    assert!(!node.welcome.fenced && node.welcome.certificate.is_some());
    node.reach(1).await;
    assert!(node.deltas[0].is_replace());
    client.put_rule(put("b", 9001)).await.unwrap();
    node.reach(2).await;
    assert!(!node.deltas.last().unwrap().is_replace());
    let first = node.hear(tick).await.unwrap();
    assert!(node.hear(tick).await.unwrap() > first);
    // Who comes back gets only what is new.
    let held = node.ledger.clone();
    drop(node);
    client.put_rule(put("c", 9001)).await.unwrap();
    let mut node = Node::join(&orchestrator, "n1", held).await;
    node.reach(3).await;
    assert_eq!(node.deltas[0].records.len(), 1);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn beacons_rise_across_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut orchestrator = start(home.path()).await;
    let mut last = 0;
    for _ in 0..3 {
        let mut node = Node::join(&orchestrator, "n1", None).await;
        let next = node.hear(tick).await.unwrap();
        assert!(next > last);
        last = next;
        orchestrator.shutdown().await;
        orchestrator = start(home.path()).await;
    }
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_slow_follower_skips_to_the_newest_and_slows_nobody() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut slow = Node::join(&orchestrator, "slow", None).await;
    let mut quick = Node::join(&orchestrator, "quick", None).await;
    slow.reach(0).await;
    // More than all windows and buffers on the way hold, while `slow` reads nothing.
    let commits = 600;
    let writing = async {
        for number in 0..commits {
            let mut request = put("a", 9001);
            // A hundred targets: 600 bodies are several times what a stream has under way.
            let targets = &mut request.rule.as_mut().unwrap().data.as_mut().unwrap().targets;
            let first = targets[0].clone();
            targets.clear();
            for port in 0..100 {
                let url = format!("http://127.0.0.{}:{}", 1 + number % 200, 9000 + port);
                targets.push(crate::wire::proto::Target { url, ..first.clone() });
            }
            targets[0].url = format!("http://127.0.0.1:{}", 20_000 + number);
            client.put_rule(request).await.unwrap();
        }
    };
    tokio::join!(writing, quick.reach(commits));
    slow.reach(commits).await;
    assert!(slow.deltas.len() < quick.deltas.len(), "nothing was skipped");
    let held = slow.ledger.as_ref().map(Ledger::signed);
    assert_eq!(held, quick.ledger.as_ref().map(Ledger::signed));
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn an_override_is_adopted_at_its_version_and_settled_with_its_author() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    client.put_rule(put("a", 9001)).await.unwrap();
    let mut node = Node::join(&orchestrator, "n1", None).await;
    node.reach(1).await;
    let record = node.ledger.as_ref().unwrap().record(&RuleId::parse("a").unwrap()).cloned();
    let by_hand = Override {
        cluster: orchestrator.cluster(),
        id: RuleId::parse("a").unwrap(),
        version: Version::new(2).unwrap(),
        base: 1,
        body: record.unwrap().body.clone(),
        node: node.id.clone(),
        written: WallTime(1),
        key: node_key(9).public(),
        signature: Signature([0; 64]),
        certificate: node.welcome.certificate.clone(),
    };
    let retired = Override { body: Body::Retired, ..by_hand }.sign(&node_key(9));
    node.say(&FromNode::HandIn(vec![retired.clone()])).await;
    let settled = node.hear(|said| match said {
        FromOrchestrator::Settled(settled) => Some(settled.clone()),
        _ => None,
    });
    let settled = settled.await.unwrap();
    assert_eq!(settled[0].outcome, SettledOutcome::Adopted);
    assert_eq!(settled[0].mark, retired.mark());
    node.reach(2).await;
    let held = node.ledger.as_ref().unwrap().record(&retired.id).unwrap();
    assert!(held.body.is_retired() && held.version == retired.version);
    let history = GetRuleHistoryRequest { id: "a".into() };
    let history = client.get_rule_history(history).await.unwrap().into_inner().versions;
    assert_eq!((history[0].kind.as_str(), history[0].node.as_str()), ("adopted", "n1"));
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn the_fleet_view_counts_who_has_what() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut fleet = FleetServiceClient::new(channel(&orchestrator).await);
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        nodes.push(Node::join(&orchestrator, name, None).await);
    }
    client.put_rule(put("a", 9001)).await.unwrap();
    for node in &mut nodes[..2] {
        node.reach(1).await;
        node.report().await;
    }
    drop(nodes.pop());
    let mut spread = async || -> GetPropagationResponse {
        let request = GetPropagationRequest { rule: "a".into(), ..Default::default() };
        fleet.get_propagation(request).await.unwrap().into_inner()
    };
    let settled = eventually(async {
        loop {
            let spread = spread().await;
            if spread.reached == 2 && spread.connected == 2 {
                return spread;
            }
            tokio::task::yield_now().await;
        }
    });
    let settled = settled.await;
    assert!(settled.timed && settled.last_ms > 0.0 && settled.by_stream == 2);
    assert_eq!(settled.unreachable[0].node, "n3");
    let table = FleetServiceClient::new(channel(&orchestrator).await)
        .list_nodes(ListNodesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(table.nodes.len(), 3);
    assert!(table.fenced.is_empty());
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_node_that_rejects_a_commit_is_not_counted_as_reached() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut fleet = FleetServiceClient::new(channel(&orchestrator).await);
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        nodes.push(Node::join(&orchestrator, name, None).await);
    }
    let rejected = |version| {
        let (id, why) = (RuleId::parse("a").unwrap(), "no such region".to_owned());
        vec![RejectedRule { id, version: Version::new(version).unwrap(), why }]
    };
    // Active, rejected and unreached; then a commit of another rule; then the rule again.
    client.put_rule(put("a", 9001)).await.unwrap();
    for node in &mut nodes[..2] {
        node.reach(1).await;
    }
    nodes[0].report().await;
    nodes[1].report_rejecting(rejected(1)).await;
    let mut settles = async |revision: u64, wanted: (u32, u32, u32)| -> GetPropagationResponse {
        let request = GetPropagationRequest { revision, ..Default::default() };
        eventually(async {
            loop {
                let spread = fleet.get_propagation(request.clone()).await.unwrap().into_inner();
                if (spread.reached, spread.rejected, spread.unreached) == wanted {
                    return spread;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    let spread = settles(1, (1, 1, 1)).await;
    assert_eq!((spread.connected, spread.waiting.as_slice()), (3, &["n3".to_owned()][..]));
    assert_eq!((spread.rejections.len(), spread.rejections[0].node.as_str()), (1, "n2"));
    assert_eq!((spread.by_stream, spread.last_node.as_str()), (1, "n1"));
    client.put_rule(put("b", 9001)).await.unwrap();
    nodes[1].reach(2).await;
    nodes[1].report_rejecting(rejected(1)).await;
    let spread = settles(2, (1, 0, 2)).await;
    assert!(spread.rejections.is_empty(), "it rejects another commit");
    settles(1, (1, 1, 1)).await;
    client.put_rule(put("a", 9002)).await.unwrap();
    nodes[1].reach(3).await;
    nodes[1].report_rejecting(rejected(2)).await;
    settles(3, (0, 1, 2)).await;
    nodes[1].report().await;
    settles(3, (1, 0, 2)).await;
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_turned_away() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let orchestrator = start(home.path()).await;
    let stranger = start(other.path()).await;
    let mut node = Node::join(&stranger, "n1", None).await;
    node.reach(0).await;
    let refused = Node::try_join(&orchestrator, "n1", node.ledger.clone()).await;
    assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    stranger.shutdown().await;
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut first = Node::join(&orchestrator, "n1", None).await;
    let _second = Node::join(&orchestrator, "n1", None).await;
    let ended = first.hear(|_| None::<()>).await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn two_nodes_of_one_name_are_shown_beside_whatever_alarm_stands() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut fleet = FleetServiceClient::new(channel(&orchestrator).await);
    let mut alarm = async |wanted: &str| {
        eventually(async {
            loop {
                let table = fleet.list_nodes(ListNodesRequest {}).await.unwrap().into_inner();
                let report = table.nodes.into_iter().find_map(|row| row.report);
                if report.is_some_and(|report| report.alarm == wanted) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let mut first = Node::join(&orchestrator, "n1", None).await;
    first.report_with(Vec::new(), "the disk is full").await;
    alarm("the disk is full").await;
    let second = Node::try_join_with(&orchestrator, "n1", None, node_key(8)).await.unwrap();
    let ended = first.hear(|_| None::<()>).await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    second.report_with(Vec::new(), "the disk is full").await;
    alarm("another node goes by the same name; the disk is full").await;
    second.report().await;
    alarm("another node goes by the same name").await;
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn beacons_reach_a_follower_that_never_catches_up() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut slow = Node::join(&orchestrator, "slow", None).await;
    slow.reach(0).await;
    let writing = async {
        for number in 0u16.. {
            let mut request = put("a", 9001);
            let targets = &mut request.rule.as_mut().unwrap().data.as_mut().unwrap().targets;
            let first = targets[0].clone();
            targets.clear();
            for port in 0..400 {
                let url = format!("http://127.0.{}.1:{}", number % 250, 9000 + port);
                targets.push(crate::wire::proto::Target { url, ..first.clone() });
            }
            client.put_rule(request).await.unwrap();
        }
    };
    let reading = async {
        // Slower than commits come. A delta takes 30 ms to take in; beacons come every 50 ms.
        let (mut deltas, mut gap, mut widest) = (0, 0, 0);
        while deltas < 40 {
            match slow.next().await.unwrap() {
                FromOrchestrator::Delta(_) => {
                    deltas += 1;
                    gap += 1;
                    widest = widest.max(gap);
                    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                }
                FromOrchestrator::Beacon(_) => gap = 0,
                _ => {}
            }
        }
        widest
    };
    let widest = tokio::select! {
        () = writing => panic!("the writer goes on for ever"),
        widest = reading => widest,
    };
    assert!(widest <= 20, "{widest} deltas between two beacons");
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn an_override_whose_body_is_no_rule_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut node = Node::join(&orchestrator, "n1", None).await;
    node.reach(0).await;
    let garbage = Override {
        cluster: orchestrator.cluster(),
        id: RuleId::parse("a").unwrap(),
        version: Version::new(1).unwrap(),
        base: 0,
        body: Body::Live(bytes::Bytes::from_static(b"\xff\xff\xff")),
        node: node.id.clone(),
        written: WallTime(1),
        key: node_key(9).public(),
        signature: Signature([0; 64]),
        certificate: node.welcome.certificate.clone(),
    }
    .sign(&node_key(9));
    node.say(&FromNode::HandIn(vec![garbage])).await;
    let settled = node.hear(|said| match said {
        FromOrchestrator::Settled(settled) => Some(settled.clone()),
        _ => None,
    });
    assert_eq!(settled.await.unwrap()[0].outcome, SettledOutcome::Refused);
    orchestrator.shutdown().await;
}
