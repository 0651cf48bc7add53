//! Writing by hand: POST and DELETE under /v1/configuration.
//!
//! Everything is judged before anything is done. Then the write goes through an orchestrator if
//! any can be reached; only if none can does this node write overrides itself. An answer comes
//! when the rules are in force here, or it says why they are not.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use rand::RngExt;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::super::activation::Standing;
use super::super::driver::Note;
use super::super::subscriber::writes::{Forwarded, Refusal, RefusalKind};
use super::{Door, problem};
use crate::engine::port::{Expected, HandWrite, WriteRefused};
use crate::model::head::Position;
use crate::model::ids::{NodeId, RuleId, Version, WriteId};
use crate::model::limits;
use crate::model::record::Body;
use crate::model::rule_set::RuleSet;
use crate::wire::problem_document::ProblemDocument;
use crate::wire::quantity::parse_duration;
use crate::wire::rule_document::{ParsedRule, rules_from_yaml_or_json};
use crate::wire::rule_problems::Problems;
use crate::wire::write_proto::ForwardedWrite;

/// An answer that a repeat of the same write gets again.
pub(crate) struct Remembered {
    id: WriteId,
    status: StatusCode,
    body: Value,
}

/// How a write is to be made.
struct Manner {
    dry_run: bool,
    overlay: Option<Duration>,
    id: WriteId,
    given: bool,
    if_match: Option<(Version, Option<NodeId>)>,
    if_absent: bool,
}

/// POST /v1/configuration: all or nothing.
pub(super) async fn many(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let manner = match Manner::read(query.as_deref(), &headers) {
        Ok(manner) => manner,
        Err(document) => return problem::answer(&document),
    };
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(_)) => {}
        Ok(_) => {
            let detail = "the body must be an object of rules by id";
            let document = problem::of(StatusCode::BAD_REQUEST, "not_an_object", detail);
            return problem::answer(&document);
        }
        Err(error) => return unreadable(&error),
    }
    match read_entries(&String::from_utf8_lossy(&body), &manner) {
        Ok(writes) => carry_out(&door, writes, manner).await,
        Err(problems) => invalid(&problems),
    }
}

/// POST /v1/configuration/{rule}.
pub(super) async fn one(
    State(door): State<Arc<Door>>,
    Path(rule): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let manner = match Manner::read(query.as_deref(), &headers) {
        Ok(manner) => manner,
        Err(document) => return problem::answer(&document),
    };
    // As it was written: what stands there twice is found out.
    let said: &RawValue = match serde_json::from_slice(&body) {
        Ok(said) => said,
        Err(error) => return unreadable(&error),
    };
    match read_entries(&format!("{{{}:{said}}}", Value::from(rule)), &manner) {
        Ok(writes) => carry_out(&door, writes, manner).await,
        Err(problems) => invalid(&problems),
    }
}

/// DELETE /v1/configuration/{rule}.
pub(super) async fn delete(
    State(door): State<Arc<Door>>,
    Path(rule): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let manner = match Manner::read(query.as_deref(), &headers) {
        Ok(manner) => manner,
        Err(document) => return problem::answer(&document),
    };
    let Some(id) = RuleId::parse(&rule) else {
        let detail = format!("no rule with the id {rule:?} is in force here");
        return problem::answer(&problem::of(StatusCode::NOT_FOUND, "no_such_rule", &detail));
    };
    let write = HandWrite { id, body: Body::Retired, version: None, expected: manner.expected() };
    carry_out(&door, vec![write], manner).await
}

impl Manner {
    fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Manner, Box<ProblemDocument>> {
        let bad = |name: &str, detail: &str| {
            let what = "the request cannot be carried out";
            let document = problem::of(StatusCode::BAD_REQUEST, "bad_request", what);
            Box::new(document.error(name, "invalid", detail))
        };
        let fresh = format!("{:032x}", rand::rng().random::<u128>());
        let fresh = WriteId::parse(&fresh).ok_or_else(|| bad("", "no write id"))?;
        let mut manner = Manner {
            dry_run: false,
            overlay: None,
            id: fresh,
            given: false,
            if_match: None,
            if_absent: false,
        };
        let mut ttl = None;
        let mut node_only = false;
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("dry_run", "true") => manner.dry_run = true,
                ("dry_run", "false") => {}
                ("scope", "node") => node_only = true,
                ("ttl", text) => {
                    let time = parse_duration(text)
                        .map_err(|_| bad("?ttl", "this is not a duration such as 10m"))?;
                    ttl = Some(time);
                }
                (name, _) => return Err(bad(&format!("?{name}"), "not known, or a wrong value")),
            }
        }
        match (node_only, ttl) {
            (true, Some(ttl)) if !ttl.is_zero() && ttl <= limits::OVERLAY_TTL => {
                manner.overlay = Some(ttl);
            }
            (true, _) => return Err(bad("?ttl", "scope=node needs a ttl of at most 720h")),
            (false, Some(_)) => return Err(bad("?ttl", "a ttl goes with scope=node")),
            (false, None) => {}
        }
        let text = |name: http::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        if let Some(tag) = text(IF_MATCH) {
            let tag = read_tag(tag).ok_or_else(|| bad("If-Match", "this is not \"v7\""))?;
            manner.if_match = Some(tag);
        }
        match text(IF_NONE_MATCH) {
            None => {}
            Some("*") => manner.if_absent = true,
            Some(_) => return Err(bad("If-None-Match", "only * is understood for writes")),
        }
        if let Some(key) = headers.get("idempotency-key").and_then(|v| v.to_str().ok()) {
            let key = key.trim_matches('"');
            manner.id = WriteId::parse(key)
                .ok_or_else(|| bad("Idempotency-Key", "1 to 128 visible ASCII characters"))?;
            manner.given = true;
        }
        Ok(manner)
    }

    fn expected(&self) -> Expected {
        match (&self.if_match, self.if_absent) {
            (Some((version, author)), _) => Expected::Version(*version, author.clone()),
            (None, true) => Expected::Absent,
            (None, false) => Expected::Anything,
        }
    }
}

/// `"v7"` or `"v8.fra2"`.
fn read_tag(text: &str) -> Option<(Version, Option<NodeId>)> {
    let inside = text.trim().strip_prefix("\"v")?.strip_suffix('"')?;
    let (number, author) = match inside.split_once('.') {
        Some((number, author)) => (number, Some(NodeId::parse(author)?)),
        None => (inside, None),
    };
    Some((Version::new(number.parse().ok()?)?, author))
}

/// Rules by id, in the form that GET gives them in.
fn read_entries(text: &str, manner: &Manner) -> Result<Vec<HandWrite>, Problems> {
    let write = |parsed: ParsedRule| HandWrite {
        id: parsed.id,
        body: Body::Live(parsed.data),
        version: parsed.version,
        expected: manner.expected(),
    };
    Ok(rules_from_yaml_or_json(text)?.into_iter().map(write).collect())
}

async fn carry_out(door: &Arc<Door>, writes: Vec<HandWrite>, manner: Manner) -> Response {
    if manner.dry_run {
        let ids: Vec<&str> = writes.iter().map(|write| write.id.as_str()).collect();
        return problem::json(StatusCode::OK, &json!({ "dryRun": true, "valid": ids }));
    }
    if let Some(ttl) = manner.overlay {
        return set_overlays(door, writes, ttl).await;
    }
    if manner.given {
        let answers = door.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = answers.iter().find(|answer| answer.id == manner.id) {
            return problem::json(before.status, &before.body);
        }
    }
    let set = door.view.load().status.rule_set.clone();
    let forwarded = match to_forward(&writes, &set) {
        Ok(forwarded) => forwarded,
        Err(refused) => return refuse(&refused),
    };
    let (status, body) = match door.orchestrators.apply(&forwarded, &manner.id).await {
        Forwarded::Done(result) => {
            let rules: Vec<(RuleId, Version)> =
                result.rules.into_iter().map(|(id, version, _)| (id, version)).collect();
            in_force(door, &rules, Some(result.position)).await
        }
        Forwarded::Refused(refusal) => return answer_refusal(&refusal),
        Forwarded::Unknown => {
            let detail = "the write was sent to an orchestrator and no answer came: it may or may \
                          not have been made; repeat it with the same Idempotency-Key to find out";
            let status = StatusCode::GATEWAY_TIMEOUT;
            let document = problem::of(status, "outcome_unknown", detail);
            return problem::answer(&document.with("writeId", manner.id.as_str()));
        }
        Forwarded::Unreachable => match by_hand(door, writes).await {
            Ok(rules) => in_force(door, &rules, None).await,
            Err(refused) => return refuse(&refused),
        },
    };
    if manner.given {
        let mut answers = door.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= limits::WRITE_IDS / 10 {
            answers.pop_front();
        }
        answers.push_back(Remembered { id: manner.id, status, body: body.clone() });
    }
    problem::json(status, &body)
}

/// The same writes in the words of the orchestrator.
fn to_forward(writes: &[HandWrite], set: &RuleSet) -> Result<Vec<ForwardedWrite>, WriteRefused> {
    writes
        .iter()
        .map(|write| {
            let current = set.effective(&write.id).map(|rule| rule.version);
            let (mut expected, mut version) = match &write.expected {
                Expected::Anything => (None, None),
                Expected::Absent => (Some(0), None),
                Expected::Version(version, _) => (Some(version.get()), None),
            };
            match write.version {
                None => {}
                Some(named) if Some(named) < current => {
                    return Err(WriteRefused::VersionTooLow(write.id.clone(), current));
                }
                // An edit of what was read: it must still be the current one.
                Some(named) if Some(named) == current => {
                    expected = expected.or(Some(named.get()));
                }
                Some(named) => version = Some(named),
            }
            Ok(ForwardedWrite { id: write.id.clone(), body: write.body.clone(), expected, version })
        })
        .collect()
}

async fn by_hand(
    door: &Door,
    writes: Vec<HandWrite>,
) -> Result<Vec<(RuleId, Version)>, WriteRefused> {
    let (reply, waiting) = oneshot::channel();
    if door.notes.send(Note::Write { writes, reply }).await.is_err() {
        return Err(WriteRefused::NotStored);
    }
    let written = waiting.await.map_err(|_| WriteRefused::NotStored)??;
    Ok(written.into_iter().map(|one| (one.id, one.version)).collect())
}

/// Waits until the rules are in force here, or known not to be, and says how each stands.
async fn in_force(
    door: &Door,
    rules: &[(RuleId, Version)],
    position: Option<Position>,
) -> (StatusCode, Value) {
    let mut active = door.active.clone();
    let arrived = match position {
        None => true,
        Some(_) => {
            let here = active.wait_for(|at| *at >= position);
            tokio::time::timeout(PATIENCE, here).await.is_ok_and(|waited| waited.is_ok())
        }
    };
    door.activator.settled().await;
    let mut results = Map::new();
    for (id, version) in rules {
        let entry = json!({ "version": version.get() });
        let entry = match door.activator.standing(id) {
            _ if !arrived => with_state(entry, "accepted"),
            Standing::Absent => with_state(entry, "retired"),
            standing => with_standing(entry, standing),
        };
        results.insert(id.to_string(), entry);
    }
    let through = if position.is_some() { "orchestrator" } else { "override" };
    let mut body = json!({ "results": results, "through": through });
    if let Some(at) = position {
        body["epoch"] = Value::from(at.epoch.0);
        body["revision"] = Value::from(at.revision.0);
    }
    (if arrived { StatusCode::OK } else { StatusCode::ACCEPTED }, body)
}

async fn set_overlays(door: &Door, writes: Vec<HandWrite>, ttl: Duration) -> Response {
    let until = door.clock.now() + ttl;
    let overlay = |write: HandWrite| {
        let data = write.body.data().map(|data| (data.clone(), until));
        (write.id, data)
    };
    let overlays: Vec<_> = writes.into_iter().map(overlay).collect();
    let ids: Vec<(RuleId, bool)> =
        overlays.iter().map(|(id, overlay)| (id.clone(), overlay.is_some())).collect();
    let (reply, waiting) = oneshot::channel();
    if door.notes.send(Note::Overlays { overlays, reply }).await.is_err() {
        return refuse(&WriteRefused::NotStored);
    }
    match waiting.await {
        Ok(Ok(_)) => {}
        Ok(Err(refused)) => return refuse(&refused),
        Err(_) => return refuse(&WriteRefused::NotStored),
    }
    door.activator.settled().await;
    let mut results = Map::new();
    for (id, set) in ids {
        let entry = json!({ "overlay": true });
        let entry = match door.activator.standing(&id) {
            standing if set => with_standing(entry, standing),
            _ => with_state(entry, "ended"),
        };
        results.insert(id.to_string(), entry);
    }
    problem::json(StatusCode::OK, &json!({ "results": results, "through": "overlay" }))
}

/// How a rule stands, and why where it is rejected.
fn with_standing(entry: Value, standing: Standing) -> Value {
    match standing {
        Standing::Active => with_state(entry, "active"),
        Standing::NotHere => with_state(entry, "not_for_this_node"),
        // It was set a moment ago: it has ended, or somebody has ended it, since.
        Standing::Absent => with_state(entry, "ended"),
        Standing::Rejected(why) => {
            let mut entry = with_state(entry, "rejected");
            entry["why"] = Value::from(why);
            entry
        }
    }
}

fn with_state(mut entry: Value, state: &str) -> Value {
    entry["state"] = Value::from(state);
    entry
}

fn unreadable(error: &serde_json::Error) -> Response {
    let detail = format!("the body is not JSON: {error}");
    problem::answer(&problem::of(StatusCode::BAD_REQUEST, "not_json", &detail))
}

fn invalid(problems: &Problems) -> Response {
    let detail = "nothing was changed";
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    problem::answer(&problem::of(status, "invalid_rule", detail).findings(problems))
}

fn refuse(refused: &WriteRefused) -> Response {
    let number = |current: &Option<Version>| current.map_or(Value::Null, |v| Value::from(v.get()));
    let document = match refused {
        WriteRefused::Precondition(id, current) => problem::of(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            &format!("rule {id} is not at the version that was expected"),
        )
        .with("currentVersion", number(current)),
        WriteRefused::VersionTooLow(id, current) => problem::of(
            StatusCode::CONFLICT,
            "version_too_low",
            &format!("rule {id} is at a higher version already"),
        )
        .with("currentVersion", number(current)),
        WriteRefused::VersionTooHigh(id, current) => problem::of(
            StatusCode::CONFLICT,
            "version_too_high",
            &format!("a version may be at most {} ahead (rule {id})", limits::VERSION_JUMP),
        )
        .with("currentVersion", number(current)),
        WriteRefused::NotFound(id) => problem::of(
            StatusCode::NOT_FOUND,
            "no_such_rule",
            &format!("there is no rule {id} to retire"),
        ),
        WriteRefused::NotCertified => problem::of(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_certified",
            "no orchestrator can be reached, and this node never had one certify it as an author",
        ),
        WriteRefused::TooMany => problem::of(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many",
            "too many writes by hand at once, or too many overrides held",
        ),
        WriteRefused::TooManyOverlays => problem::of(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many",
            &format!("a node holds at most {} overlays; end some first", limits::OVERLAYS),
        ),
        WriteRefused::NotStored => problem::of(
            StatusCode::INSUFFICIENT_STORAGE,
            "not_stored",
            "the node's disk did not take the write; nothing was changed",
        ),
    };
    problem::answer(&document)
}

fn answer_refusal(refusal: &Refusal) -> Response {
    let (status, code) = match refusal.kind {
        RefusalKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_rule"),
        RefusalKind::Precondition => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
        RefusalKind::NotFound => (StatusCode::NOT_FOUND, "no_such_rule"),
        RefusalKind::Fenced => (StatusCode::SERVICE_UNAVAILABLE, "fenced"),
        RefusalKind::Forbidden => (StatusCode::BAD_GATEWAY, "orchestrator_refused"),
        RefusalKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
    };
    let mut document = problem::of(status, code, &refusal.message);
    for (field, what) in &refusal.fields {
        document = document.error(field.clone(), "invalid", what.clone());
    }
    if let Some(current) = refusal.current {
        document = document.with("currentVersion", current);
    }
    problem::answer(&document)
}

/// How long a writer is kept waiting for its rules to be in force here.
const PATIENCE: Duration = Duration::from_secs(5);
