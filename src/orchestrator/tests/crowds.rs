//! Claims about much at once: ten thousand rules in a write, a thousand who watch.

use tonic::Code;
use tonic_types::StatusExt;

use super::bed::{Node, channel, eventually, put, rule, rules, start};
use crate::model::ledger::Ledger;
use crate::wire::proto::rule_service_client::RuleServiceClient;
use crate::wire::proto::rule_write::Kind;
use crate::wire::proto::{ApplyRulesRequest, RuleWrite, WatchRulesRequest};

#[tokio::test]
async fn ten_thousand_rules_are_one_commit_and_their_faults_fit_one_answer() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let mut node = Node::join(&orchestrator, "n1", None).await;
    let write = |number: usize, expected_version| RuleWrite {
        kind: Some(Kind::Put(rule(&format!("rule-{number}"), 9001))),
        expected_version,
        version: None,
    };
    let writes: Vec<RuleWrite> = (0..10_000).map(|number| write(number, None)).collect();
    let request = ApplyRulesRequest { writes, write_id: "all".into(), dry_run: false };
    let answer = client.apply_rules(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.results.len(), answer.position.unwrap().revision), (10_000, 1));
    node.reach(1).await;
    assert_eq!(node.ledger.as_ref().map(Ledger::live_count), Some(10_000));
    let again = client.apply_rules(request).await.unwrap().into_inner();
    assert_eq!(again, answer);
    let writes = (0..10_000).map(|number| write(number, Some(7))).collect();
    let stale = ApplyRulesRequest { writes, ..ApplyRulesRequest::default() };
    let refused = client.apply_rules(stale).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().starts_with("10000 problems"), "{refused}");
    let shown = refused.get_error_details().bad_request().unwrap().field_violations.len();
    assert!(shown > 20 && refused.details().len() < 12 << 10, "{shown} shown");
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_thousand_watchers_hear_of_a_change_however_slowly_they_read_and_no_more_get_in() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut writer = rules(&orchestrator).await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        let mut client = RuleServiceClient::new(channel(&orchestrator).await);
        for _ in 0..128 {
            let watch = client.watch_rules(WatchRulesRequest { after: None }).await.unwrap();
            watchers.push(watch.into_inner());
        }
    }
    let mut late = rules(&orchestrator).await;
    let one_more = late.watch_rules(WatchRulesRequest { after: None }).await;
    assert_eq!(one_more.err().unwrap().code(), Code::ResourceExhausted);
    // Nobody reads while all this is written; nothing waits for them.
    for port in 9_000..9_050 {
        writer.put_rule(put("a", port)).await.unwrap();
    }
    for watch in &mut watchers {
        let mut revision = 0;
        while revision < 50 {
            let heard = eventually(watch.message()).await.unwrap().unwrap();
            let position = heard.position.unwrap().revision;
            assert!(position > revision, "what is heard only rises");
            revision = position;
        }
    }
    watchers.clear();
    let another = eventually(async {
        loop {
            if let Ok(watch) = late.watch_rules(WatchRulesRequest { after: None }).await {
                return watch;
            }
            tokio::task::yield_now().await;
        }
    });
    drop(another.await);
    orchestrator.shutdown().await;
}
