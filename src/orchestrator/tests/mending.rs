//! Claims about lost stores, forks and recovery.

use std::fs;

use axum::Router;
use axum::routing::get;
use bytes::BytesMut;
use tonic::Code;
use tonic_types::StatusExt;

use super::bed::{Node, channel, eventually, put, rules, start};
use crate::model::exchange::{FromNode, FromOrchestrator, PullFrame};
use crate::model::ids::Epoch;
use crate::model::ledger::Ledger;
use crate::orchestrator::Orchestrator;
use crate::wire::proto::control_service_client::ControlServiceClient;
use crate::wire::proto::{GetRuleHistoryRequest, RecoverRequest, RecoverResponse};
use crate::wire::pull::encode_pull_frame;

async fn recover(
    orchestrator: &Orchestrator,
    from: Vec<String>,
) -> Result<RecoverResponse, tonic::Status> {
    let mut client = ControlServiceClient::new(channel(orchestrator).await);
    eventually(client.recover(RecoverRequest { from, new_fleet: false }))
        .await
        .map(tonic::Response::into_inner)
}

/// A follower that gives its ledger when asked.
async fn give(mut node: Node) -> Node {
    let asked =
        |said: &FromOrchestrator| matches!(said, FromOrchestrator::LedgerRequest).then_some(());
    node.hear(asked).await.unwrap();
    let ledger = node.ledger.as_ref().unwrap().replacement();
    node.say(&FromNode::Ledger(ledger)).await;
    node
}

async fn fenced(orchestrator: &Orchestrator) -> String {
    eventually(async {
        loop {
            if let Some(why) = orchestrator.fenced() {
                return why;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// A node that holds three commits.
async fn fleet(orchestrator: &Orchestrator) -> Ledger {
    let mut client = rules(orchestrator).await;
    let mut node = Node::join(orchestrator, "n1", None).await;
    for port in 9001..9004 {
        client.put_rule(put("a", port)).await.unwrap();
    }
    node.reach(3).await;
    node.ledger.clone().unwrap()
}

#[tokio::test]
async fn a_lost_store_takes_no_writes_until_it_recovers_from_a_follower() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let ledger = fleet(&orchestrator).await;
    orchestrator.shutdown().await;
    fs::remove_file(home.path().join("store.redb")).unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let refused = client.put_rule(put("b", 9001)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "FENCED");
    let node = Node::join(&orchestrator, "n1", Some(ledger.clone())).await;
    assert!(node.welcome.fenced);
    let (mut node, recovered) = tokio::join!(give(node), recover(&orchestrator, Vec::new()));
    let recovered = recovered.unwrap();
    assert_eq!((recovered.rules, recovered.orphaned), (1, 0));
    assert_eq!(recovered.position.unwrap().epoch, 2);
    // The stream goes on, without a replacement.
    node.reach(4).await;
    assert!(node.deltas.iter().all(|delta| !delta.is_replace()));
    client.put_rule(put("b", 9001)).await.unwrap();
    node.reach(5).await;
    assert_eq!(node.ledger.as_ref().unwrap().head().epoch, Epoch(2));
    // And it stays so.
    orchestrator.shutdown().await;
    let orchestrator = start(home.path()).await;
    assert_eq!(orchestrator.fenced(), None);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_named_node_is_enough_and_others_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let ledger = fleet(&orchestrator).await;
    orchestrator.shutdown().await;
    fs::remove_file(home.path().join("store.redb")).unwrap();
    let mut body = BytesMut::new();
    encode_pull_frame(&PullFrame::Delta(ledger.replacement()), &mut body);
    let body = body.freeze();
    let peer = Router::new().route("/v1/configuration", get(move || async move { body }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, peer).await });
    let orchestrator = start(home.path()).await;
    let bad = "http://127.0.0.1:1".to_owned();
    let recovered = recover(&orchestrator, vec![bad.clone(), good]).await.unwrap();
    assert_eq!(recovered.rules, 1);
    assert_eq!(recovered.failures[0].from, bad);
    assert_eq!(orchestrator.fenced(), None);
    serving.abort();
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn an_old_copy_is_fenced_by_its_followers_and_files_what_it_wrote_meanwhile() {
    let (home, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let orchestrator = start(home.path()).await;
    orchestrator.shutdown().await;
    for name in ["store.redb", "cluster.key"] {
        fs::copy(home.path().join(name), copy.path().join(name)).unwrap();
    }
    let orchestrator = start(home.path()).await;
    let ledger = fleet(&orchestrator).await;
    orchestrator.shutdown().await;
    // The copy knows of no nodes, and takes a write before any of them comes.
    let restored = start(copy.path()).await;
    let mut client = rules(&restored).await;
    client.put_rule(put("only-here", 9009)).await.unwrap();
    let node = Node::join(&restored, "n1", Some(ledger)).await;
    assert!(fenced(&restored).await.contains("n1"));
    let refused = client.put_rule(put("b", 9001)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let (mut node, recovered) = tokio::join!(give(node), recover(&restored, Vec::new()));
    assert_eq!(recovered.unwrap().orphaned, 1);
    node.reach(5).await;
    let lost = GetRuleHistoryRequest { id: "only-here".into() };
    let lost = client.get_rule_history(lost).await.unwrap().into_inner().versions;
    assert!(lost.iter().any(|one| one.kind == "orphaned"));
    restored.shutdown().await;
}

#[tokio::test]
async fn after_a_start_writes_wait_until_known_nodes_had_their_say() {
    let (home, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut node = Node::join(&orchestrator, "n1", None).await;
    client.put_rule(put("a", 9001)).await.unwrap();
    node.reach(1).await;
    for name in ["store.redb", "cluster.key"] {
        fs::copy(home.path().join(name), copy.path().join(name)).unwrap();
    }
    client.put_rule(put("a", 9002)).await.unwrap();
    node.reach(2).await;
    let ledger = node.ledger.clone();
    orchestrator.shutdown().await;
    // The node is known to the copy: the write waits for it, and then it is too late to take it.
    let restored = start(copy.path()).await;
    let mut client = rules(&restored).await;
    let write = tokio::spawn(async move { client.put_rule(put("a", 9003)).await });
    let node = Node::join(&restored, "n1", ledger.clone()).await;
    assert!(node.welcome.fenced);
    let refused = eventually(write).await.unwrap().unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "FENCED");
    restored.shutdown().await;
    // The one that is as far as its node opens at once.
    let orchestrator = start(home.path()).await;
    let _node = Node::join(&orchestrator, "n1", ledger).await;
    let written = rules(&orchestrator).await.put_rule(put("a", 9003)).await.unwrap();
    assert_eq!(written.into_inner().position.unwrap().revision, 3);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn the_fleet_is_not_overwritten_with_less() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let refused = recover(&orchestrator, Vec::new()).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "NOT_FENCED");
    let mut node = Node::join(&orchestrator, "n2", None).await;
    node.reach(0).await;
    let stale = node.ledger.clone().unwrap();
    let ledger = fleet(&orchestrator).await;
    orchestrator.shutdown().await;
    fs::remove_file(home.path().join("store.redb")).unwrap();
    let orchestrator = start(home.path()).await;
    // It proves to hold more, and is gone before it is asked.
    drop(Node::join(&orchestrator, "n1", Some(ledger)).await);
    let mut body = BytesMut::new();
    encode_pull_frame(&PullFrame::Delta(stale.replacement()), &mut body);
    let body = body.freeze();
    let peer = Router::new().route("/v1/configuration", get(move || async move { body }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, peer).await });
    let refused = recover(&orchestrator, vec![url]).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "LESS_THAN_THE_FLEET");
    assert!(orchestrator.fenced().is_some());
    serving.abort();
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn an_unasked_ledger_ends_the_stream() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut node = Node::join(&orchestrator, "n1", None).await;
    node.reach(0).await;
    let ledger = node.ledger.as_ref().unwrap().replacement();
    node.say(&FromNode::Ledger(ledger)).await;
    let ended = node.hear(|_| None::<()>).await.unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument);
    orchestrator.shutdown().await;
}
