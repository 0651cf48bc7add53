//! The orchestrator over HTTP: health, metrics, and the fleet as JSON and as a small page.
//!
//! Reads only, and takes no bodies. Invariants: health needs no token, everything else does where
//! there is one; on loopback only requests for a loopback host are answered (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body::Body as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::service::fleet;
use super::service::guard::Guard;
use super::shared::Shared;
use crate::wire::problem_document::{PROBLEM_JSON, ProblemDocument};
use crate::wire::rule_document::rule_data_to_json;

#[derive(Clone)]
struct Site {
    shared: Arc<Shared>,
    guard: Guard,
    on_loopback: bool,
}

/// Everything that the HTTP port answers.
pub(super) fn router(shared: Arc<Shared>, guard: Guard, listen: SocketAddr) -> Router {
    let site = Site { shared, guard, on_loopback: listen.ip().is_loopback() };
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/rules", get(rules))
        .route("/v1/nodes", get(nodes))
        .route("/v1/propagation", get(propagation))
        .route_layer(middleware::from_fn_with_state(site.clone(), admit));
    Router::new()
        .route("/", get(page))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/version", get(version))
        .merge(guarded)
        .fallback(|| async { problem(404, "not_found", "there is nothing here") })
        .layer(middleware::from_fn_with_state(site.clone(), judged))
        .with_state(site)
}

async fn admit(State(site): State<Site>, request: Request, next: Next) -> Response {
    let offered = request.headers().get(header::AUTHORIZATION);
    if site.guard.admits(offered.map(|value| value.as_bytes())) {
        return next.run(request).await;
    }
    let mut refused = problem(401, "unauthorized", "send `authorization: Bearer TOKEN`");
    refused
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    refused
}

/// Judges a request before anything of it is read.
async fn judged(State(site): State<Site>, request: Request, next: Next) -> Response {
    let in_uri = request.uri().authority().map(|authority| authority.as_str());
    let named = host_of(request.headers()).or(in_uri);
    if site.on_loopback && !named.is_some_and(is_loopback) {
        return problem(421, "wrong_host", "this port answers for loopback hosts only");
    }
    if !request.body().is_end_stream() {
        let mut refused = problem(413, "too_large", "nothing here takes a body");
        // What is left of the body is nobody's next request.
        refused.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        return refused;
    }
    next.run(request).await
}

fn host_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

/// Whether a `Host` is this machine: a name that others control never is.
fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn ready(State(site): State<Site>) -> Response {
    match &site.shared.published.load().fence {
        _ if site.shared.stopping.is_cancelled() => {
            (StatusCode::SERVICE_UNAVAILABLE, "going down\n").into_response()
        }
        Some(fence) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("takes no writes: {fence}\n")).into_response()
        }
        None => "ok\n".into_response(),
    }
}

async fn version(State(site): State<Site>) -> Response {
    let cluster = site.shared.cluster.to_string();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "role": "orchestrator",
        "cluster": cluster,
        "name": site.shared.name,
        "key": site.shared.key.public().to_string(),
    });
    axum::Json(body).into_response()
}

async fn metrics(State(site): State<Site>) -> Response {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], site.shared.metrics.text()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesQuery {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: Option<usize>,
}

async fn rules(
    State(site): State<Site>,
    query: Result<Query<RulesQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(400, "bad_query", "the query takes prefix, after and limit");
    };
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let view = site.shared.published.load();
    let live = view.ledger.records_from(&query.after, &query.prefix);
    let mut live = live.filter(|record| !record.body.is_retired());
    let mut shown = Map::new();
    let mut last = None;
    for record in live.by_ref().take(limit) {
        let data = record.body.data().and_then(|data| rule_data_to_json(data).ok());
        let rule = json!({
            "version": record.version.get(),
            "revision": record.revision.0,
            "created_ms": record.created.0,
            "changed_ms": record.changed.0,
            "data": data,
        });
        shown.insert(record.id.to_string(), rule);
        last = Some(record.id.to_string());
    }
    let next = live.next().and(last);
    let position = view.ledger.position();
    axum::Json(json!({
        "epoch": position.epoch.0,
        "revision": position.revision.0,
        "count": view.ledger.live_count(),
        "rules": Value::Object(shown),
        "next": next,
    }))
    .into_response()
}

async fn nodes(State(site): State<Site>) -> Response {
    let table = fleet::nodes(&site.shared);
    let position = site.shared.published.load().ledger.position();
    let rows = table.nodes.into_iter().map(|node| {
        let report = node.report.as_ref();
        let active = report.and_then(|report| report.active.as_ref());
        json!({
            "node": node.node,
            "region": node.region,
            "labels": node.labels,
            "traffic_addresses": node.traffic_addresses,
            "peer_address": node.peer_address,
            "program_version": node.program_version,
            "connected": node.connected,
            "last_seen_ms_ago": node.last_seen_ms_ago,
            "behind_ms": node.behind_ms,
            "active_revision": active.map(|active| active.revision),
            "active_epoch": active.map(|active| active.epoch),
            "feed": report.map(|report| report.feed.clone()),
            "path": report.map(|report| report.path.clone()),
            "overrides": report.map(|report| report.overrides),
            "rejected": report.map(|report| report.rejected.len()),
            "alarm": report.map(|report| report.alarm.clone()),
        })
    });
    let rows: Vec<Value> = rows.collect();
    axum::Json(json!({
        "epoch": position.epoch.0,
        "revision": position.revision.0,
        "fenced": table.fenced,
        "nodes": rows,
    }))
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PropagationQuery {
    #[serde(default)]
    rule: String,
    #[serde(default)]
    revision: u64,
}

async fn propagation(
    State(site): State<Site>,
    query: Result<Query<PropagationQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(400, "bad_query", "the query takes rule and revision");
    };
    let spread = match fleet::propagation(&site.shared, query.revision, &query.rule) {
        Ok(spread) => spread,
        Err(status) if status.code() == tonic::Code::NotFound => {
            return problem(404, "not_found", status.message());
        }
        Err(status) => return problem(400, "bad_query", status.message()),
    };
    let unreachable = spread.unreachable.iter().map(|node| node.node.clone());
    let rejections = spread.rejections.iter().map(|one| {
        let rejected = one.rejected.as_ref();
        json!({
            "node": one.node,
            "rule": rejected.map(|rejected| rejected.id.clone()),
            "version": rejected.map(|rejected| rejected.version),
            "why": rejected.map(|rejected| rejected.why.clone()),
        })
    });
    axum::Json(json!({
        "epoch": spread.position.as_ref().map(|position| position.epoch),
        "revision": spread.position.as_ref().map(|position| position.revision),
        "connected": spread.connected,
        "reached": spread.reached,
        "rejected": spread.rejected,
        "unreached": spread.unreached,
        "timed": spread.timed,
        "p50_ms": spread.p50_ms,
        "p99_ms": spread.p99_ms,
        "last_ms": spread.last_ms,
        "last_node": spread.last_node,
        "by_stream": spread.by_stream,
        "by_peer": spread.by_peer,
        "waiting": spread.waiting,
        "unreachable": unreachable.collect::<Vec<String>>(),
        "rejections": rejections.collect::<Vec<Value>>(),
    }))
    .into_response()
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE_HTML).into_response()
}

fn problem(status: u16, code: &str, title: &str) -> Response {
    let document = ProblemDocument::new(status, code, title);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], document.to_json()).into_response()
}

const PAGE_HTML: &str = include_str!("page.html");
/// The page brings its own script and speaks to nobody else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; frame-ancestors 'none'";
/// Rules in one answer.
const PAGE: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_points_here_is_not_this_machine() {
        for host in ["127.0.0.1", "127.0.0.1:7401", "localhost:7401", "[::1]:7401", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7401", "10.0.0.1", "localhost.evil.example", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
