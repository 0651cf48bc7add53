//! GET /v1/explain: why this rule and this target.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::{Door, problem};
use crate::proxy::routes::{self, ExplainedTarget};
use crate::routing::cell::Standing;
use crate::routing::matcher::Asked;

/// `?method=GET&url=http://shop.example/api&header=x-beta:%201`.
pub(super) async fn explain(State(door): State<Arc<Door>>, RawQuery(query): RawQuery) -> Response {
    let mut method = "GET".to_string();
    let mut url = None;
    let mut headers = Vec::new();
    for pair in query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        match name {
            "method" => method = value,
            "url" => url = Some(value),
            "header" => {
                if let Some((name, value)) = value.split_once(':') {
                    headers.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
                }
            }
            other => return bad(&format!("the parameter {other:?} is not known")),
        }
    }
    let Some(url) = url else { return bad("the parameter url is missing") };
    let Ok(uri) = url.parse::<Uri>() else { return bad("the url cannot be read") };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let asked = Asked { host: &host, method: &method, path: uri.path(), query: uri.query() };
    let header =
        |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let table = door.published.load_full();
    let Some(found) = routes::explain(&table, &asked, &header, door.clock.now()) else {
        let body = json!({ "rule": null, "why": "no rule takes this request: 404" });
        return problem::json(StatusCode::OK, &body);
    };
    let mut targets: Vec<&ExplainedTarget> = found.targets.iter().collect();
    targets.sort_by(|a, b| a.cost.cost.total.total_cmp(&b.cost.cost.total));
    let body = json!({
        "node": door.node.as_str(),
        "rule": found.rule.as_str(),
        "version": found.version.map(|version| version.get()),
        "alternative": found.alternative,
        "why": "the first match by host, path, method, headers, query and age",
        "targets": targets.into_iter().map(target_json).collect::<Vec<_>>(),
    });
    problem::json(StatusCode::OK, &body)
}

fn target_json(target: &ExplainedTarget) -> Value {
    let cost = &target.cost;
    let state = match cost.standing {
        Standing::Ready => "ready",
        Standing::Unknown => "unknown",
        Standing::HalfOpen => "half_open",
        Standing::Ejected => "ejected",
        Standing::Down => "down",
    };
    json!({
        "url": target.address.to_string(),
        "region": target.region,
        "weight": target.weight,
        "state": state,
        "costMs": round(cost.cost.total),
        "estimateMs": round(cost.cost.est),
        "netMs": round(cost.net_ms),
        "svcMs": round(cost.cost.svc),
        "price": round(cost.cost.price),
        "stall": round(cost.cost.stall),
        "errorMs": round(cost.cost.err),
        "inFlight": cost.in_flight,
    })
}

fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn bad(detail: &str) -> Response {
    problem::answer(&problem::of(StatusCode::BAD_REQUEST, "bad_query", detail))
}

/// Percent-decoding of a query value.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let decoded = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (bytes[at], decoded) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
