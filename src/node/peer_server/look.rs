//! Looking at a node: status, events, health, metrics; and taking it out of service.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::super::driver::Note;
use super::{Door, problem};
use crate::engine::port::{Event, Input};
use crate::model::head::Position;
use crate::model::trust::TrustSource;

/// GET /v1/status: one row of the fleet table.
pub(super) async fn status(State(door): State<Arc<Door>>) -> Response {
    let view = door.view.load();
    let status = &view.status;
    let now = door.clock.now();
    let since = now.since(view.at);
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (active, elsewhere, rejected) = door.activator.counts();
    let trust = match status.trust {
        TrustSource::Nobody => "nobody",
        TrustSource::Provisional => "provisional",
        TrustSource::Pinned => "pinned",
        TrustSource::Configured => "configured",
    };
    let head = status.rule_set.ledger.as_ref().map(|ledger| *ledger.head());
    let behind = if status.behind.is_zero() { 0 } else { millis(status.behind + since) };
    let disk = door.disk.trouble();
    let body = json!({
        "node": door.node.as_str(),
        "region": door.region,
        "version": env!("CARGO_PKG_VERSION"),
        "cluster": head.map(|head| head.cluster.to_string()),
        "fingerprint": head.map(|head| head.fingerprint.to_string()),
        "accepted": position(status.accepted),
        "active": position(status.active),
        "known": position(status.known),
        "behindMs": behind,
        "stalenessMs": status.staleness.map(|staleness| millis(staleness + since)),
        "feed": status.feed.as_str(),
        "confirmed": status.confirmed,
        "trust": trust,
        "alarm": status.alarm,
        "rules": { "active": active, "notHere": elsewhere, "rejected": rejected },
        "rejected": status.rejected.iter().map(|one| json!({
            "id": one.id.as_str(), "version": one.version.get(), "why": one.why,
        })).collect::<Vec<_>>(),
        "overrides": status.rule_set.overrides.len(),
        "overlays": status.rule_set.overlays.len(),
        "rulesFile": *door.rules_file.load_full(),
        "neighbours": view.neighbours.len(),
        "unresolved": *door.unresolved.load_full(),
        "draining": status.draining,
        "diskFailing": disk.is_some(),
        "diskTrouble": disk.as_deref(),
        "requests": door.requests.answered.load(Relaxed),
    });
    problem::json(StatusCode::OK, &body)
}

fn position(position: Option<Position>) -> Value {
    position.map_or(Value::Null, |at| json!({ "epoch": at.epoch.0, "revision": at.revision.0 }))
}

/// An event as a line of the event stream.
pub(crate) fn event_json(event: &Event) -> String {
    let body = match event {
        Event::Applied { position: at, rules, path, replaced } => json!({
            "event": "applied", "position": position(Some(*at)), "rules": rules,
            "path": path.as_str(), "replaced": replaced,
        }),
        Event::Refused { reason, from } => json!({
            "event": "refused", "reason": reason, "from": from.map(|from| from.to_string()),
        }),
        Event::OverrideTaken(id, version, node) => json!({
            "event": "override", "rule": id.as_str(), "version": version.get(),
            "node": node.as_str(),
        }),
        Event::OverrideVoid(id, version) => json!({
            "event": "override_void", "rule": id.as_str(), "version": version.get(),
        }),
        Event::Feed(state) => json!({ "event": "feed", "state": state.as_str() }),
        Event::NeighbourUp(peer) => json!({ "event": "neighbour_up", "peer": peer.to_string() }),
        Event::NeighbourDown(peer) => {
            json!({ "event": "neighbour_down", "peer": peer.to_string() })
        }
        Event::Alarm(alarm) => json!({ "event": "alarm", "alarm": alarm }),
        Event::Trusted(key, _) => json!({ "event": "trusted", "key": key.to_string() }),
    };
    body.to_string()
}

/// GET /v1/events: what happens from now on, as server-sent events. A reader that does not keep
/// up is told how much it missed.
pub(super) async fn events(State(door): State<Arc<Door>>) -> Response {
    let lines = BroadcastStream::new(door.events.subscribe()).map(|line| {
        let line = match line {
            Ok(line) => format!("data: {line}\n\n"),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                format!("data: {{\"event\":\"missed\",\"count\":{missed}}}\n\n")
            }
        };
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let hello = tokio_stream::once(Ok(Bytes::from_static(b": events of this node\n\n")));
    let mut response = Body::from_stream(hello.chain(lines)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// POST /v1/drain.
pub(super) async fn drain(State(door): State<Arc<Door>>) -> Response {
    draining(&door, true).await
}

/// POST /v1/undrain.
pub(super) async fn undrain(State(door): State<Arc<Door>>) -> Response {
    draining(&door, false).await
}

async fn draining(door: &Door, draining: bool) -> Response {
    // Without the loop the node is ending anyway.
    let _ = door.notes.send(Note::input(Input::Drain(draining))).await;
    problem::json(StatusCode::OK, &json!({ "draining": draining }))
}

/// GET /livez: the process answers.
pub(super) async fn livez() -> Response {
    "ok\n".into_response()
}

/// GET /readyz, /healthz: a first rule set is active and the node is in service.
pub(super) async fn readyz(State(door): State<Arc<Door>>, RawQuery(query): RawQuery) -> Response {
    let view = door.view.load();
    let status = &view.status;
    let stalled = door.clock.now().since(view.at) > STALLED;
    let waits = status.rule_set.ledger.is_none() && !door.orchestrators.is_empty();
    let loaded = !waits && (status.active.is_some() || status.rule_set.ledger.is_none());
    let checks = [
        ("rules", loaded, "a first rule set is active"),
        ("service", !status.draining && !door.ended.load(Relaxed), "not draining"),
        ("control", !stalled, "the control loop moves"),
    ];
    let ready = checks.iter().all(|(_, fine, _)| *fine);
    let mut text = String::new();
    if query.as_deref().is_some_and(|query| query.contains("verbose")) || !ready {
        for (name, fine, what) in checks {
            let mark = if fine { '+' } else { '-' };
            text.push_str(&format!("[{mark}] {name}: {what}\n"));
        }
        if !status.alarm.is_empty() {
            text.push_str(&format!("[!] alarm: {}\n", status.alarm));
        }
        for (url, why) in door.unresolved.load().iter() {
            text.push_str(&format!("[!] name: {url}: {why}\n"));
        }
        if let Some(why) = door.disk.trouble() {
            text.push_str(&format!("[!] disk: does not take the state: {why}\n"));
        }
        if !status.behind.is_zero() {
            text.push_str("[!] stale: something newer is known than what is held\n");
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

/// GET /metrics.
pub(super) async fn metrics(State(door): State<Arc<Door>>) -> Response {
    let now = door.clock.now();
    let (rows, budgets, verdicts) = {
        let routes = door.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let budgets = routes.retry_budgets(RULES_SHOWN, now);
        (routes.latency_rows(now), budgets, routes.verdicts())
    };
    let mut text = String::new();
    door.requests.write(&mut text);
    text.push_str("# TYPE tradewind_target_healthy gauge\n");
    for (target, check, well) in verdicts {
        let (labels, well) = (format!("target=\"{target}\",check={check:?}"), u8::from(well));
        text.push_str(&format!("tradewind_target_healthy{{{labels}}} {well}\n"));
    }
    text.push_str("# TYPE tradewind_retry_budget_remaining_ratio gauge\n");
    for (rule, left) in budgets {
        let labels = format!("{{rule=\"{rule}\"}}");
        text.push_str(&format!("tradewind_retry_budget_remaining_ratio{labels} {left}\n"));
    }
    if let Some(log) = &door.access_log {
        let name = "tradewind_access_log_dropped_total";
        text.push_str(&format!("# TYPE {name} counter\n{name} {}\n", log.dropped()));
    }
    let disk = u8::from(door.disk.trouble().is_some());
    text.push_str(&format!("# TYPE tradewind_disk_failing gauge\ntradewind_disk_failing {disk}\n"));
    door.metrics.write(&door.view.load(), &door.activator, &rows, now, &mut text);
    let mut response = text.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// GET /version.
pub(super) async fn version() -> Response {
    problem::json(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// Rules with a series of their own where few need one.
const RULES_SHOWN: usize = 100;
/// The view is published with every input, and there is one at least every few seconds.
const STALLED: std::time::Duration = std::time::Duration::from_secs(10);
