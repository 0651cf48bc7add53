//! The messages of the rule service: writes in, answers and stored rules out.
//!
//! Parses, and judges only what the messages alone can tell; what stands in the ledger is not
//! known here. All problems of a request are reported at once, by JSON pointers into it.

use prost::Message;

use super::error::WireError;
use super::rule_document::{ParsedRule, rule_from_proto, rule_to_proto};
use super::rule_problems::{Findings, Flaw, ProblemCode, Problems};
use super::{field, proto};
use crate::engine::commits::{Answer, Filed, Intent, IntentResult, Outcome, Write};
use crate::engine::write_memory::{Remembered, WritePrint};
use crate::model::delta::Delta;
use crate::model::head::Position;
use crate::model::ids::{RuleId, Version, WriteId};
use crate::model::limits;
use crate::model::record::{Body, Record};

/// A write of one rule, and the rule.
pub(crate) fn write_from_put(request: proto::PutRuleRequest) -> Result<Write, Problems> {
    let mut findings = Findings::default();
    let write = proto::RuleWrite {
        kind: request.rule.map(proto::rule_write::Kind::Put),
        expected_version: request.expected_version,
        version: request.version,
    };
    let intent = read_intent(write, "", "/rule", &mut findings);
    let write_id = read_write_id(&request.write_id, &mut findings);
    let dry_run = request.dry_run;
    findings.finish(intent.map(|intent| Write { write_id, intents: vec![intent], dry_run }))
}

/// A write of several rules.
pub(crate) fn write_from_apply(request: proto::ApplyRulesRequest) -> Result<Write, Problems> {
    let mut findings = Findings::default();
    if request.writes.len() > limits::COMMIT_RULES {
        let detail = format!("one commit has at most {} rules", limits::COMMIT_RULES);
        findings.note("/writes", ProblemCode::TooLarge, detail);
        return findings.finish(None);
    }
    if request.writes.is_empty() {
        findings.note("/writes", ProblemCode::Missing, "there is nothing to write");
    }
    let mut intents = Vec::with_capacity(request.writes.len());
    let mut ids = std::collections::BTreeSet::new();
    for (index, write) in request.writes.into_iter().enumerate() {
        let at = format!("/writes/{index}");
        let Some(intent) = read_intent(write, &at, &format!("{at}/put"), &mut findings) else {
            continue;
        };
        if !ids.insert(intent.id.clone()) {
            let detail = format!("rule {} stands in this request already", intent.id);
            findings.note(&at, ProblemCode::Duplicate, detail);
        }
        intents.push(intent);
    }
    let write_id = read_write_id(&request.write_id, &mut findings);
    findings.finish(Some(Write { write_id, intents, dry_run: request.dry_run }))
}

/// A write that retires one rule.
pub(crate) fn write_from_delete(request: proto::DeleteRuleRequest) -> Result<Write, Problems> {
    let mut findings = Findings::default();
    let id = findings.take("/id", read_id(&request.id));
    let write_id = read_write_id(&request.write_id, &mut findings);
    let expected = request.expected_version;
    findings.finish(id.map(|id| Write {
        write_id,
        intents: vec![Intent { id, body: Body::Retired, expected, version: None }],
        dry_run: false,
    }))
}

/// Reads rules without writing; every problem with the id of its rule.
pub(crate) fn validate(request: proto::ValidateRulesRequest) -> proto::ValidateRulesResponse {
    let mut problems = Vec::new();
    for (index, rule) in request.rules.into_iter().enumerate() {
        let id = rule.id.clone();
        let Err(found) = rule_from_proto(rule) else { continue };
        for problem in found.under(&format!("/rules/{index}")).list() {
            if problems.len() < limits::PROBLEM_ERRORS {
                problems.push(proto::RuleProblem {
                    id: field::reason(id.clone()),
                    pointer: problem.pointer.clone(),
                    code: problem.code.as_str().to_owned(),
                    detail: problem.detail.clone(),
                });
            }
        }
    }
    proto::ValidateRulesResponse { problems }
}

/// A rule id of a request.
pub(crate) fn read_rule_id(text: &str) -> Result<RuleId, Problems> {
    let mut findings = Findings::default();
    let id = findings.take("/id", read_id(text));
    findings.finish(id)
}

/// A position of a request, if given.
pub(crate) fn read_position(at: Option<&proto::Position>) -> Result<Option<Position>, WireError> {
    at.map(Position::try_from).transpose()
}

/// The answer to an apply.
pub(crate) fn apply_response(answer: &Answer) -> proto::ApplyRulesResponse {
    proto::ApplyRulesResponse {
        results: answer.results.iter().map(result_message).collect(),
        position: Some((&answer.position).into()),
    }
}

/// The answer to a put.
pub(crate) fn put_response(answer: &Answer) -> proto::PutRuleResponse {
    let (result, position) = (answer.results.first().map(result_message), answer.position);
    proto::PutRuleResponse { result, position: Some((&position).into()) }
}

/// The answer to a delete.
pub(crate) fn delete_response(answer: &Answer) -> proto::DeleteRuleResponse {
    let (result, position) = (answer.results.first().map(result_message), answer.position);
    proto::DeleteRuleResponse { result, position: Some((&position).into()) }
}

/// A remembered write as bytes, for the store: its answer, and beside it what it changed.
pub(crate) fn encode_remembered(remembered: &Remembered) -> Vec<u8> {
    let print = remembered.print.map_or_else(Vec::new, |print| print.0.to_vec());
    let mut bytes = apply_response(&remembered.answer).encode_to_vec();
    bytes.extend(PrintField { print }.encode_to_vec());
    bytes
}

/// A remembered write from its bytes.
pub(crate) fn decode_remembered(bytes: &[u8]) -> Result<Remembered, WireError> {
    let undecodable = |_| WireError::Undecodable("answer");
    let message = proto::ApplyRulesResponse::decode(bytes).map_err(undecodable)?;
    let beside = PrintField::decode(bytes).map_err(undecodable)?;
    let position = field::required(message.position.as_ref(), "position")?;
    let results = message.results.iter().map(read_result).collect::<Result<_, _>>()?;
    let answer = Answer { results, position: position.try_into()? };
    Ok(Remembered { answer, print: beside.print.try_into().ok().map(WritePrint) })
}

/// A field that only the store knows, behind those of an answer.
#[derive(Clone, PartialEq, Message)]
struct PrintField {
    #[prost(bytes = "vec", tag = "15")]
    print: Vec<u8>,
}

/// A record as people see it. Bytes that this release cannot read are left out.
pub(crate) fn stored_rule(record: &Record) -> proto::StoredRule {
    let shown = record.body.data().and_then(|data| rule_to_proto(&record.id, data).ok());
    let bare = || proto::Rule { id: record.id.to_string(), data: None };
    proto::StoredRule {
        rule: Some(shown.unwrap_or_else(bare)),
        version: record.version.get(),
        revision: record.revision.0,
        created_ms: record.created.0,
        changed_ms: record.changed.0,
        retired: record.body.is_retired(),
    }
}

/// Versions from a rule's history.
pub(crate) fn history_response(filed: &[Filed]) -> proto::GetRuleHistoryResponse {
    let historic = |one: &Filed| proto::HistoricRule {
        rule: Some(stored_rule(&one.record)),
        kind: one.kind.as_str().to_owned(),
        node: one.node.as_ref().map_or_else(String::new, ToString::to_string),
    };
    proto::GetRuleHistoryResponse { versions: filed.iter().map(historic).collect() }
}

/// The changes of a delta, cut into messages of about a frame each.
pub(crate) fn watch_responses(
    delta: &Delta,
) -> impl Iterator<Item = proto::WatchRulesResponse> + '_ {
    let mut rest = delta.records.as_slice();
    let mut first = true;
    std::iter::from_fn(move || {
        if rest.is_empty() && !first {
            return None;
        }
        let mut bytes = 0;
        let fits = rest.iter().take_while(|record| {
            bytes += record.size();
            bytes <= limits::FRAME_BYTES
        });
        let (some, after) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = after;
        let replace = delta.is_replace() && first;
        first = false;
        Some(proto::WatchRulesResponse {
            rules: some.iter().map(|record| stored_rule(record)).collect(),
            // Only what is complete has a position to go on from.
            position: rest.is_empty().then(|| (&delta.to.position()).into()),
            replace,
        })
    })
}

fn read_intent(
    write: proto::RuleWrite,
    at: &str,
    rule_at: &str,
    findings: &mut Findings,
) -> Option<Intent> {
    use proto::rule_write::Kind;
    let version = match write.version.map(Version::new) {
        Some(None) => {
            let place = format!("{at}/version");
            findings.note(&place, ProblemCode::Invalid, "is not a version: 1, 2, 3 …");
            None
        }
        version => version.flatten(),
    };
    let (id, body) = match write.kind {
        Some(Kind::Put(rule)) => match rule_from_proto(rule) {
            Ok(ParsedRule { id, data, .. }) => (id, Body::Live(data)),
            Err(problems) => {
                findings.absorb(problems.under(rule_at));
                return None;
            }
        },
        Some(Kind::Delete(id)) => {
            (findings.take(&format!("{at}/delete"), read_id(&id))?, Body::Retired)
        }
        None => {
            findings.note(rule_at, ProblemCode::Missing, "has to be given");
            return None;
        }
    };
    Some(Intent { id, body, expected: write.expected_version, version })
}

fn read_write_id(text: &str, findings: &mut Findings) -> Option<WriteId> {
    if text.is_empty() {
        return None;
    }
    let read = WriteId::parse(text)
        .ok_or_else(|| Flaw::new("a write id has 1 to 128 visible ASCII characters"));
    findings.take("/write_id", read)
}

fn read_id(text: &str) -> Result<RuleId, Flaw> {
    RuleId::parse(text).ok_or_else(|| {
        Flaw::new("is not a rule id").hint("1 to 128 of a-z, 0-9 and, inside, any of \"-._\"")
    })
}

fn result_message(result: &IntentResult) -> proto::RuleResult {
    proto::RuleResult {
        id: result.id.to_string(),
        version: result.version,
        previous_version: result.previous,
        outcome: result.outcome.as_str().to_owned(),
    }
}

fn read_result(message: &proto::RuleResult) -> Result<IntentResult, WireError> {
    let outcomes = [Outcome::Written, Outcome::Unchanged, Outcome::Retired];
    let outcome = outcomes.into_iter().find(|outcome| outcome.as_str() == message.outcome);
    Ok(IntentResult {
        id: field::rule_id(&message.id)?,
        version: message.version,
        previous: message.previous_version,
        outcome: outcome.ok_or(WireError::Invalid("outcome"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Epoch, Revision};

    #[test]
    fn a_remembered_write_survives_its_bytes() {
        let result = |outcome| IntentResult {
            id: RuleId::parse("shop").unwrap(),
            version: 8,
            previous: 7,
            outcome,
        };
        let answer = Answer {
            results: vec![result(Outcome::Written), result(Outcome::Retired)],
            position: Position { epoch: Epoch(2), revision: Revision(48) },
        };
        for print in [Some(WritePrint([7; 32])), None] {
            let remembered = Remembered { answer: answer.clone(), print };
            assert_eq!(decode_remembered(&encode_remembered(&remembered)), Ok(remembered));
        }
        // As an earlier release kept it.
        let bare = apply_response(&answer).encode_to_vec();
        assert_eq!(decode_remembered(&bare), Ok(Remembered { answer, print: None }));
        assert!(decode_remembered(&[7, 7, 7]).is_err());
    }

    #[test]
    fn every_problem_of_an_apply_is_listed_with_its_place() {
        let put = |id: &str| proto::RuleWrite {
            kind: Some(proto::rule_write::Kind::Put(proto::Rule { id: id.into(), data: None })),
            ..proto::RuleWrite::default()
        };
        let delete = proto::RuleWrite {
            kind: Some(proto::rule_write::Kind::Delete("No Id".into())),
            version: Some(0),
            ..proto::RuleWrite::default()
        };
        let request = proto::ApplyRulesRequest {
            writes: vec![put("A"), delete, proto::RuleWrite::default()],
            write_id: "with space".into(),
            dry_run: false,
        };
        let problems = write_from_apply(request).unwrap_err();
        let pointers: Vec<&str> = problems.list().iter().map(|p| p.pointer.as_str()).collect();
        for pointer in [
            "/writes/0/put/id",
            "/writes/0/put/data",
            "/writes/1/version",
            "/writes/1/delete",
            "/writes/2/put",
            "/write_id",
        ] {
            assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
        }
    }
}
