//! Claims about writes and reads over gRPC.

use prost::Message;
use tonic::Code;
use tonic_types::StatusExt;

use super::bed::{put, rule, rules, start};
use crate::wire::proto::rule_write::Kind;
use crate::wire::proto::{
    ApplyRulesRequest, DeleteRuleRequest, GetRuleHistoryRequest, GetRuleRequest, ListRulesRequest,
    PutRuleRequest, PutRuleResponse, Rule, RuleWrite, ValidateRulesRequest, WatchRulesRequest,
};

fn write(kind: Kind) -> RuleWrite {
    RuleWrite { kind: Some(kind), ..RuleWrite::default() }
}

#[tokio::test]
async fn a_rule_is_written_read_and_retired() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let answer = client.put_rule(put("shop", 9001)).await.unwrap().into_inner();
    let (result, position) = (answer.result.unwrap(), answer.position.unwrap());
    assert_eq!((result.version, result.outcome.as_str(), position.revision), (1, "written", 1));
    let named = |id: &str| GetRuleRequest { id: id.to_owned() };
    let held = client.get_rule(named("shop")).await.unwrap().into_inner().rule.unwrap();
    assert_eq!(held.rule.unwrap(), rule("shop", 9001));
    let unchanged = client.put_rule(put("shop", 9001)).await.unwrap().into_inner();
    assert_eq!(unchanged.result.unwrap().outcome, "unchanged");
    let gone = DeleteRuleRequest { id: "shop".into(), ..DeleteRuleRequest::default() };
    let gone = client.delete_rule(gone).await.unwrap().into_inner().result.unwrap();
    assert_eq!((gone.version, gone.outcome.as_str()), (2, "retired"));
    assert_eq!(client.get_rule(named("shop")).await.unwrap_err().code(), Code::NotFound);
    let history = GetRuleHistoryRequest { id: "shop".into() };
    let history = client.get_rule_history(history).await.unwrap().into_inner().versions;
    let kinds: Vec<&str> = history.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["retired", "written"]);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn five_errors_in_one_apply_are_all_listed_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let bare = |id: &str| write(Kind::Put(Rule { id: id.to_owned(), data: None }));
    let writes = vec![
        write(Kind::Put(rule("good", 9001))),
        bare("Bad Id"),
        bare("no-data"),
        write(Kind::Delete("-".into())),
        RuleWrite { version: Some(0), ..write(Kind::Put(rule("zero", 9001))) },
        write(Kind::Put(rule("good", 9002))),
    ];
    let request = ApplyRulesRequest { writes, ..ApplyRulesRequest::default() };
    let refused = client.apply_rules(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let violations = refused.get_error_details().bad_request().unwrap().field_violations.clone();
    let places: Vec<&str> = violations.iter().map(|one| one.field.as_str()).collect();
    let wanted =
        ["/writes/1/put/id", "/writes/2/put/data", "/writes/3/delete", "/writes/4/version"];
    for place in wanted.into_iter().chain(["/writes/5"]) {
        assert!(places.contains(&place), "{place} in {places:?}");
    }
    let list = client.list_rules(ListRulesRequest::default()).await.unwrap().into_inner();
    assert!(list.rules.is_empty() && list.position.unwrap().revision == 0);
    let rules = vec![rule("fine", 9001), Rule { id: "x".into(), data: None }];
    let checked = client.validate_rules(ValidateRulesRequest { rules }).await.unwrap();
    assert_eq!(checked.into_inner().problems[0].pointer, "/rules/1/data");
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn every_precondition_that_fails_is_listed_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    client.put_rule(put("a", 9001)).await.unwrap();
    let writes = vec![
        write(Kind::Put(rule("fine", 9001))),
        RuleWrite { expected_version: Some(7), ..write(Kind::Put(rule("a", 9002))) },
        write(Kind::Delete("none".into())),
        RuleWrite { version: Some(5_000), ..write(Kind::Put(rule("b", 9001))) },
    ];
    let request = ApplyRulesRequest { writes, ..ApplyRulesRequest::default() };
    let refused = client.apply_rules(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().starts_with("3 problems; the first: rule a is at v1"));
    let details = refused.get_error_details();
    let violations = details.bad_request().unwrap().field_violations.clone();
    let listed: Vec<(&str, &str)> = violations
        .iter()
        .map(|one| (one.field.as_str(), one.description.split(':').next().unwrap()))
        .collect();
    let wanted = [
        ("/writes/1/expected_version", "version_mismatch"),
        ("/writes/2", "rule_not_found"),
        ("/writes/3/version", "version_range"),
    ];
    assert_eq!(listed, wanted);
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["rule"].as_str()), ("VERSION_MISMATCH", "a"));
    let list = client.list_rules(ListRulesRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.rules.len(), list.position.unwrap().revision), (1, 1));
    let gone = DeleteRuleRequest { id: "none".into(), ..DeleteRuleRequest::default() };
    let gone = client.delete_rule(gone).await.unwrap_err();
    let details = gone.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "/id");
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn an_apply_is_one_commit_or_none() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let both = |second: RuleWrite| ApplyRulesRequest {
        writes: vec![write(Kind::Put(rule("a", 9001))), second],
        ..ApplyRulesRequest::default()
    };
    let stale = RuleWrite { expected_version: Some(7), ..write(Kind::Put(rule("b", 9001))) };
    let refused = client.apply_rules(both(stale)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let good = client.apply_rules(both(write(Kind::Put(rule("b", 9001))))).await.unwrap();
    assert_eq!(good.into_inner().position.unwrap().revision, 1);
    let page = ListRulesRequest { page_size: 1, ..ListRulesRequest::default() };
    let first = client.list_rules(page.clone()).await.unwrap().into_inner();
    assert_eq!((first.rules.len(), first.next_page_token.as_str()), (1, "a"));
    let page = ListRulesRequest { page_token: first.next_page_token, ..page };
    let last = client.list_rules(page).await.unwrap().into_inner();
    assert_eq!(last.rules[0].rule.as_ref().unwrap().id, "b");
    assert!(last.next_page_token.is_empty());
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn of_many_writers_on_one_version_exactly_one_wins() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let client = rules(&orchestrator).await;
    let mut writers = tokio::task::JoinSet::new();
    for port in 9001..9021 {
        let mut client = client.clone();
        let request = PutRuleRequest { expected_version: Some(0), ..put("shop", port) };
        writers.spawn(async move { client.put_rule(request).await });
    }
    let answers = writers.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 19));
    for status in lost.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::Aborted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "VERSION_MISMATCH");
        assert_eq!(info.metadata["current_version"], "1");
    }
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_even_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut orchestrator = start(home.path()).await;
    let request = PutRuleRequest { write_id: "once".into(), ..put("shop", 9001) };
    let mut client = rules(&orchestrator).await;
    let first = client.put_rule(request.clone()).await.unwrap().into_inner();
    client.put_rule(put("shop", 9002)).await.unwrap();
    for _ in 0..2 {
        let again = rules(&orchestrator).await.put_rule(request.clone()).await.unwrap();
        assert_eq!(again.into_inner(), first);
        orchestrator.shutdown().await;
        orchestrator = start(home.path()).await;
    }
    let held = rules(&orchestrator).await.get_rule(GetRuleRequest { id: "shop".into() }).await;
    assert_eq!(held.unwrap().into_inner().rule.unwrap().version, 2);
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_write_id_used_for_something_else_is_refused_even_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut orchestrator = start(home.path()).await;
    let named = |port| PutRuleRequest { write_id: "once".into(), ..put("shop", port) };
    let first = rules(&orchestrator).await.put_rule(named(9001)).await.unwrap().into_inner();
    for _ in 0..2 {
        let mut client = rules(&orchestrator).await;
        let refused = client.put_rule(named(9002)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "WRITE_ID_REUSED");
        let gone = DeleteRuleRequest {
            id: "shop".into(),
            write_id: "once".into(),
            ..DeleteRuleRequest::default()
        };
        assert!(client.delete_rule(gone).await.is_err());
        // Another door, the same change.
        let writes = vec![write(Kind::Put(rule("shop", 9001)))];
        let same =
            ApplyRulesRequest { writes, write_id: "once".into(), ..ApplyRulesRequest::default() };
        let again = client.apply_rules(same).await.unwrap().into_inner();
        assert_eq!(
            (again.results, again.position),
            (first.result.clone().into_iter().collect(), first.position)
        );
        orchestrator.shutdown().await;
        orchestrator = start(home.path()).await;
    }
    orchestrator.shutdown().await;
}

#[tokio::test]
async fn a_watcher_sees_every_change_from_its_position_on() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut client = rules(&orchestrator).await;
    let first = client.put_rule(put("a", 9001)).await.unwrap().into_inner();
    client.put_rule(put("b", 9001)).await.unwrap();
    let request = WatchRulesRequest { after: first.position };
    let mut watch = client.watch_rules(request).await.unwrap().into_inner();
    let one = watch.message().await.unwrap().unwrap();
    assert_eq!(one.rules[0].rule.as_ref().unwrap().id, "b");
    client.put_rule(put("c", 9001)).await.unwrap();
    let next = watch.message().await.unwrap().unwrap();
    assert_eq!(next.rules[0].rule.as_ref().unwrap().id, "c");
    assert_eq!(next.position.unwrap().revision, 3);
    orchestrator.shutdown().await;
}

/// Bytes as they are, for requests that no generated code would make.
#[derive(Clone, Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = PutRuleResponse;
    type Encoder = Raw;
    type Decoder = tonic_prost::ProstDecoder<PutRuleResponse>;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstDecoder::default()
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        bytes: Vec<u8>,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(out, &bytes);
        Ok(())
    }
}

#[tokio::test]
async fn a_field_of_a_later_release_is_refused_by_its_place() {
    let home = tempfile::tempdir().unwrap();
    let orchestrator = start(home.path()).await;
    let mut grpc = tonic::client::Grpc::new(super::bed::channel(&orchestrator).await);
    let path = http::uri::PathAndQuery::from_static("/tradewind.v1.RuleService/PutRule");
    // Field 900 inside `data` inside `rule`, and then a whole rule without it.
    let later = [0x0a, 0x05, 0x12, 0x03, 0xa0, 0x38, 0x01];
    for (bytes, refused) in [
        ([&later[..], &put("a", 9001).encode_to_vec()].concat(), true),
        (put("a", 9001).encode_to_vec(), false),
    ] {
        grpc.ready().await.unwrap();
        let answer = grpc.unary(tonic::Request::new(bytes), path.clone(), Raw).await;
        let Err(status) = answer else {
            assert!(!refused);
            continue;
        };
        assert!(refused, "{status}");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "/rule/data");
    }
    orchestrator.shutdown().await;
}
