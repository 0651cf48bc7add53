//! Claims about keys, backups and recovery of a stopped orchestrator.

use std::fs;
use std::path::Path;

use axum::routing::get;

use super::bed::{Node, put, rules, start};
use crate::engine::recovery::RecoverError;
use crate::model::exchange::PullFrame;
use crate::model::ledger::Ledger;
use crate::orchestrator::keeping::{RecoverFailure, RecoverOptions, back_up, recover, show_key};
use crate::orchestrator::store_error::StoreError;
use crate::wire::pull::encode_pull_frame;

/// A stopped orchestrator with two rules; gives its ledger.
async fn stopped(home: &Path) -> Ledger {
    let orchestrator = start(home).await;
    let mut client = rules(&orchestrator).await;
    for rule in ["a", "b"] {
        client.put_rule(put(rule, 9001)).await.unwrap();
    }
    let mut node = Node::join(&orchestrator, "n1", None).await;
    node.reach(2).await;
    orchestrator.shutdown().await;
    node.ledger.unwrap()
}

/// The peer port of a node that holds this ledger, as far as a recovery sees it.
async fn peer(ledger: &Ledger) -> String {
    let mut body = bytes::BytesMut::new();
    encode_pull_frame(&PullFrame::Delta(ledger.replacement()), &mut body);
    let body = body.freeze();
    let router = axum::Router::new().route("/v1/configuration", get(|| async { body }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn options(home: &Path, from: Vec<String>) -> RecoverOptions {
    RecoverOptions { data: home.to_owned(), from, token: None, new_fleet: false }
}

#[tokio::test]
async fn a_stopped_orchestrator_recovers_from_a_peer_port_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let ledger = stopped(home.path()).await;
    fs::remove_file(home.path().join("store.redb")).unwrap();
    let dead = String::from("http://127.0.0.1:1");
    let alone = recover(options(home.path(), vec![dead.clone()])).await.unwrap_err();
    assert!(matches!(alone, RecoverFailure::Refused(RecoverError::NothingFound)), "{alone}");
    let from = vec![dead.clone(), peer(&ledger).await];
    let report = recover(options(home.path(), from)).await.unwrap();
    assert_eq!((report.branch, report.rules, report.orphaned), (ledger.position(), 2, 0));
    assert_eq!(report.failures[0].0, dead);
    let orchestrator = start(home.path()).await;
    assert_eq!(orchestrator.fenced(), None);
    let mut node = Node::join(&orchestrator, "n1", Some(ledger)).await;
    node.reach(report.position.revision.0).await;
    let written = rules(&orchestrator).await.put_rule(put("a", 9002)).await.unwrap();
    assert_eq!(written.into_inner().result.unwrap().version, 2);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_new_fleet_is_begun_only_on_a_word_and_never_over_a_fleet_that_is_found() {
    let home = tempfile::tempdir().unwrap();
    let ledger = stopped(home.path()).await;
    fs::remove_file(home.path().join("store.redb")).unwrap();
    // Without the word it stays fenced, start after start.
    for _ in 0..2 {
        let orchestrator = start(home.path()).await;
        assert!(orchestrator.fenced().unwrap().contains("--new-fleet"));
        let refused = rules(&orchestrator).await.put_rule(put("a", 9001)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        orchestrator.shutdown().await;
    }
    let dead = vec![String::from("http://127.0.0.1:1")];
    let anew = |from| RecoverOptions { new_fleet: true, ..options(home.path(), from) };
    let report = recover(anew(dead.clone())).await.unwrap();
    assert_eq!((report.rules, report.position.revision.0), (0, 0));
    let orchestrator = start(home.path()).await;
    assert_eq!(orchestrator.fenced(), None);
    rules(&orchestrator).await.put_rule(put("c", 9001)).await.unwrap();
    // The fleet was there after all: it keeps what it has, and is asked for it.
    let node = Node::join(&orchestrator, "n1", Some(ledger.clone())).await;
    assert!(node.welcome.fenced);
    orchestrator.shutdown().await;
    let refused = recover(anew(dead)).await.unwrap_err();
    assert!(matches!(refused, RecoverFailure::Refused(RecoverError::Less { .. })), "{refused}");
    let report = recover(anew(vec![peer(&ledger).await])).await.unwrap();
    assert_eq!((report.branch, report.rules, report.orphaned), (ledger.position(), 2, 1));
}

#[tokio::test]
async fn recovery_leaves_alone_what_has_no_key_runs_or_is_well() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().join("empty");
    let refused = recover(options(&empty, Vec::new())).await.unwrap_err();
    assert!(matches!(refused, RecoverFailure::NoKey(_)), "{refused}");
    assert!(!empty.exists());
    stopped(home.path()).await;
    let refused = recover(options(home.path(), Vec::new())).await.unwrap_err();
    assert!(matches!(refused, RecoverFailure::Refused(RecoverError::NotFenced)), "{refused}");
    let running = start(home.path()).await;
    let refused = recover(options(home.path(), Vec::new())).await.unwrap_err();
    assert!(matches!(refused, RecoverFailure::Start(_)), "{refused}");
    assert_eq!(show_key(home.path()).unwrap(), running.public_key());
    running.shutdown().await;
}

#[tokio::test]
async fn a_backup_is_the_store_and_overwrites_nothing() {
    let (home, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = stopped(home.path()).await;
    let copy = restored.path().join("store.redb");
    back_up(home.path(), &copy).unwrap();
    let again = back_up(home.path(), &copy).unwrap_err();
    assert!(matches!(again, StoreError::Io { .. }), "{again}");
    fs::copy(home.path().join("cluster.key"), restored.path().join("cluster.key")).unwrap();
    let orchestrator = start(restored.path()).await;
    let mut node = Node::join(&orchestrator, "n2", None).await;
    node.reach(2).await;
    assert_eq!(node.ledger.unwrap().head(), ledger.head());
    let busy = back_up(restored.path(), &restored.path().join("copy")).unwrap_err();
    assert!(matches!(busy, StoreError::Locked(_)), "{busy}");
    assert!(!restored.path().join("copy").exists());
    orchestrator.shutdown().await;
}

#[test]
fn a_directory_without_a_store_is_neither_backed_up_nor_given_one() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("copy");
    assert!(back_up(home.path(), &to).is_err());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
