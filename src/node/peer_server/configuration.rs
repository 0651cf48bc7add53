//! GET configuration: for people as JSON, for peers as pull frames.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use serde_json::{Map, Value, json};

use super::super::driver::View;
use super::super::peer_client::PROTOBUF;
use super::{Door, problem};
use crate::model::delta::{Changes, Delta};
use crate::model::exchange::PullFrame;
use crate::model::head::Position;
use crate::model::ids::{Epoch, Revision, RuleId};
use crate::model::moment::Moment;
use crate::model::record::Body as RuleBody;
use crate::model::rule_set::{Effective, Origin, RuleSet};
use crate::wire::problem_document::ProblemDocument;
use crate::wire::pull::pull_frame_chunks;
use crate::wire::quantity::show_duration;
use crate::wire::rule_document::rule_data_to_json;

/// GET /v1/configuration.
pub(super) async fn many(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = match Asked::parse(query.as_deref().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(document) => return problem::answer(&document),
    };
    let view = door.view.load_full();
    let protobuf =
        headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == PROTOBUF.as_bytes());
    match (asked.since, protobuf) {
        (Some(since), true) => frames(since_frames(&view, since)),
        (None, true) => frames(override_frames(&view, &asked.rules)),
        (Some(since), false) => since_json(&view, since),
        (None, false) => whole_json(&view, &asked.rules, &headers, door.clock.now()),
    }
}

/// GET /v1/configuration/{rule}.
pub(super) async fn one(
    State(door): State<Arc<Door>>,
    Path(rule): Path<String>,
    headers: HeaderMap,
) -> Response {
    let view = door.view.load_full();
    let set = &view.status.rule_set;
    let Some(id) = RuleId::parse(&rule) else {
        return problem::answer(&no_such_rule(&rule));
    };
    let now = door.clock.now();
    let Some(effective) = set.effective(&id) else {
        return match overlay_json(set, &id, now) {
            Some(overlay) => problem::json(StatusCode::OK, &json!({ "overlay": overlay })),
            None => problem::answer(&no_such_rule(&rule)),
        };
    };
    if effective.body.is_retired() {
        let document =
            no_such_rule(&rule).with("version", effective.version.get()).with("retired", true);
        return problem::answer(&document);
    }
    let tag = rule_tag(&effective);
    if matches_tag(&headers, &tag) {
        return not_modified(&tag);
    }
    let entry = entry_json(set, &effective, now);
    with_tag(problem::json(StatusCode::OK, &entry), &tag)
}

/// What a query asks for.
struct Asked {
    rules: Vec<RuleId>,
    since: Option<Option<Position>>,
}

impl Asked {
    fn parse(query: &str) -> Result<Asked, Box<ProblemDocument>> {
        let mut asked = Asked { rules: Vec::new(), since: None };
        let bad = |name: &str, detail: &str| {
            let what = "the query cannot be read";
            let document = problem::of(StatusCode::BAD_REQUEST, "bad_query", what);
            Box::new(document.error(format!("?{name}"), "invalid", detail))
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "rule" => {
                    let id =
                        RuleId::parse(value).ok_or_else(|| bad("rule", "this is not a rule id"))?;
                    if asked.rules.len() >= crate::model::limits::PULL_RULES {
                        return Err(bad("rule", "too many rules are named"));
                    }
                    asked.rules.push(id);
                }
                "since" => {
                    let position = parse_position(value)
                        .ok_or_else(|| bad("since", "this is not EPOCH:REVISION"))?;
                    asked.since = Some(Some(position).filter(|at| at.epoch.0 > 0));
                }
                other => return Err(bad(other, "this parameter is not known")),
            }
        }
        Ok(asked)
    }
}

/// `EPOCH:REVISION`; `0:0` asks for everything.
fn parse_position(text: &str) -> Option<Position> {
    let (epoch, revision) = text.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number < 1 << 53);
    Some(Position { epoch: Epoch(number(epoch)?), revision: Revision(number(revision)?) })
}

fn since_frames(view: &View, since: Option<Position>) -> Vec<PullFrame> {
    let mut frames: Vec<PullFrame> = view.links.iter().copied().map(PullFrame::Link).collect();
    frames.extend(view.beacon.map(PullFrame::Beacon));
    frames.push(match changes(view, since) {
        Some(delta) => PullFrame::Delta(delta),
        None => PullFrame::Current,
    });
    frames
}

fn changes(view: &View, since: Option<Position>) -> Option<Delta> {
    let ledger = view.status.rule_set.ledger.as_ref()?;
    match ledger.changes_since(since) {
        Changes::Current => None,
        Changes::Delta(delta) => Some(delta),
    }
}

fn override_frames(view: &View, ids: &[RuleId]) -> Vec<PullFrame> {
    let mut frames: Vec<PullFrame> = view.links.iter().copied().map(PullFrame::Link).collect();
    let held = ids.iter().filter_map(|id| view.status.rule_set.overrides.of(id));
    frames.extend(held.map(|held| PullFrame::Override((**held).clone())));
    frames
}

/// Streams the frames: each is encoded when the one before has been taken.
fn frames(frames: Vec<PullFrame>) -> Response {
    let chunks = frames.into_iter().flat_map(|frame| {
        pull_frame_chunks(&frame)
            .map(|chunk| Ok::<_, Infallible>(chunk.freeze()))
            .collect::<Vec<_>>()
    });
    let mut response = Body::from_stream(tokio_stream::iter(chunks)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    response
}

/// A delta for people: what was signed is `raw`; `data` is a view of it.
fn since_json(view: &View, since: Option<Position>) -> Response {
    let Some(delta) = changes(view, since) else {
        return problem::json(StatusCode::OK, &json!({ "current": true }));
    };
    let mut rules = Map::new();
    for record in &delta.records {
        let mut entry = json!({
            "version": record.version.get(),
            "revision": record.revision.0,
            "createdMs": record.created.0,
            "changedMs": record.changed.0,
        });
        match &record.body {
            RuleBody::Retired => entry["retired"] = Value::Bool(true),
            RuleBody::Live(raw) => {
                entry["raw"] = Value::String(BASE64.encode(raw));
                entry["data"] = rule_data_to_json(raw).unwrap_or(Value::Null);
            }
        }
        rules.insert(record.id.to_string(), entry);
    }
    let head = delta.to.head;
    let body = json!({
        "replace": delta.is_replace(),
        "head": {
            "cluster": BASE64.encode(head.cluster.0),
            "epoch": head.epoch.0,
            "revision": head.revision.0,
            "floor": head.floor.0,
            "top": head.top,
            "fingerprint": BASE64.encode(head.fingerprint.0),
            "key": BASE64.encode(delta.to.key.0),
            "signature": BASE64.encode(delta.to.signature.0),
        },
        "rules": rules,
    });
    problem::json(StatusCode::OK, &body)
}

fn whole_json(view: &View, only: &[RuleId], headers: &HeaderMap, now: Moment) -> Response {
    let set = &view.status.rule_set;
    let tag = format!("\"{}\"", set.tag());
    if matches_tag(headers, &tag) {
        return not_modified(&tag);
    }
    let ids = if only.is_empty() { set.ids() } else { only.to_vec() };
    let mut rules = Map::new();
    for id in ids {
        match set.effective(&id).filter(|effective| !effective.body.is_retired()) {
            Some(effective) => {
                rules.insert(id.to_string(), entry_json(set, &effective, now));
            }
            None => {
                if let Some(overlay) = overlay_json(set, &id, now) {
                    rules.insert(id.to_string(), json!({ "overlay": overlay }));
                }
            }
        }
    }
    with_tag(problem::json(StatusCode::OK, &Value::Object(rules)), &tag)
}

fn entry_json(set: &RuleSet, effective: &Effective, now: Moment) -> Value {
    let origin = match &effective.origin {
        Origin::Ledger => "ledger".to_string(),
        Origin::Override(node) => format!("override:{node}"),
        Origin::File => "file".to_string(),
    };
    let data = effective
        .body
        .data()
        .map_or(Value::Null, |data| rule_data_to_json(data).unwrap_or(Value::Null));
    let mut entry = json!({ "version": effective.version.get(), "origin": origin, "data": data });
    if let Some(overlay) = overlay_json(set, &effective.id, now) {
        entry["overlay"] = overlay;
    }
    entry
}

fn overlay_json(set: &RuleSet, id: &RuleId, now: Moment) -> Option<Value> {
    let overlay = set.overlays.get(id)?;
    let left = overlay.until.since(now);
    let data = rule_data_to_json(&overlay.data).unwrap_or(Value::Null);
    let ttl = std::time::Duration::from_secs(left.as_secs().max(1));
    Some(json!({ "ttl": show_duration(ttl), "data": data }))
}

/// `"v7"`, or `"v8.fra2"` for an override.
pub(super) fn rule_tag(effective: &Effective) -> String {
    match &effective.origin {
        Origin::Override(node) => format!("\"v{}.{node}\"", effective.version.get()),
        Origin::Ledger | Origin::File => format!("\"v{}\"", effective.version.get()),
    }
}

fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|given| given.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
}

fn not_modified(tag: &str) -> Response {
    with_tag(StatusCode::NOT_MODIFIED.into_response(), tag)
}

fn with_tag(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn no_such_rule(id: &str) -> ProblemDocument {
    let detail = format!("no rule with the id {id:?} is in force here");
    problem::of(StatusCode::NOT_FOUND, "no_such_rule", &detail)
}
