//! `status`, `propagation` and `check`: the fleet as the orchestrator sees it.

use serde_json::{Value, json};

use super::arguments::ClientArguments;
use super::client::NodeRow;
use super::failure::Failure;
use super::output::{self, Format, say};
use super::propagation::{ago, propagation_json, propagation_text};

/// `tradewind status`.
pub(crate) async fn status(client: &ClientArguments) -> Result<(), Failure> {
    if let Some(node) = client.node()? {
        let value = node.get("/v1/status").await?;
        return output::print(client.output, &value, || {
            serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string())
        });
    }
    let fleet = client.connect().await?.nodes().await?;
    let value = json!({
        "epoch": fleet.epoch,
        "revision": fleet.revision,
        "fenced": fleet.fenced,
        "nodes": fleet.nodes.iter().map(row_json).collect::<Vec<_>>(),
    });
    output::print(client.output, &value, || {
        let rows = fleet.nodes.iter().map(|node| {
            vec![
                node.node.clone(),
                node.region.clone(),
                if node.connected { node.feed.clone() } else { "gone".to_string() },
                node.active.map_or("-".to_string(), |at| at.to_string()),
                if node.behind_ms == 0 {
                    "-".to_string()
                } else {
                    format!("{} ms", node.behind_ms)
                },
                node.rejected.len().to_string(),
                node.overrides.to_string(),
                node.requests.to_string(),
                if node.connected { "now".to_string() } else { ago(node.last_seen_ms) },
            ]
        });
        let heading = [
            "NODE",
            "REGION",
            "FEED",
            "REVISION",
            "BEHIND",
            "REJECTED",
            "OVERRIDES",
            "REQUESTS",
            "SEEN",
        ];
        let mut text = output::table(&heading, rows.collect());
        text.push_str(&format!("\n\nepoch {} revision {}", fleet.epoch, fleet.revision));
        if !fleet.fenced.is_empty() {
            text.push_str(&format!("\nFENCED: {}", fleet.fenced));
        }
        text
    })
}

fn row_json(node: &NodeRow) -> Value {
    json!({
        "node": node.node,
        "region": node.region,
        "connected": node.connected,
        "feed": node.feed,
        "activeRevision": node.active,
        "behindMs": node.behind_ms,
        "lastSeenMs": node.last_seen_ms,
        "rejected": node.rejected.iter().map(|(id, version, why)| {
            json!({ "id": id, "version": version, "why": why })
        }).collect::<Vec<_>>(),
        "overrides": node.overrides,
        "draining": node.draining,
        "requests": node.requests,
        "peerAddress": node.peer_address,
        "trafficAddresses": node.traffic,
        "alarm": node.alarm,
    })
}

/// `tradewind propagation [RULE]`.
pub(crate) async fn propagation(
    rule: Option<&str>,
    client: &ClientArguments,
) -> Result<(), Failure> {
    let state = client.connect().await?.propagation(0, rule.unwrap_or_default()).await?;
    let value = propagation_json(&state);
    output::print(client.output, &value, || {
        format!("revision   {}\n{}", state.revision, propagation_text(&state))
    })
}

/// `tradewind check`.
pub(crate) async fn check(client: &ClientArguments) -> Result<(), Failure> {
    let fleet = client.connect().await?.nodes().await?;
    let mut wrong = Vec::new();
    if !fleet.fenced.is_empty() {
        wrong.push(format!("the orchestrator takes no writes: {}", fleet.fenced));
    }
    for node in &fleet.nodes {
        if !node.connected {
            wrong.push(format!("{}: no stream (last seen {})", node.node, ago(node.last_seen_ms)));
        } else if node.behind_ms > BEHIND_MS {
            wrong.push(format!("{}: behind for {} ms", node.node, node.behind_ms));
        }
        for (id, version, why) in &node.rejected {
            wrong.push(format!("{}: rule {id} v{version} is rejected: {why}", node.node));
        }
        if !node.alarm.is_empty() {
            wrong.push(format!("{}: {}", node.node, node.alarm));
        }
    }
    if client.output == Format::Json {
        say!("{:#}", json!({ "nodes": fleet.nodes.len(), "problems": wrong }));
    }
    if wrong.is_empty() {
        if client.output != Format::Json {
            say!("{} nodes, all well at revision {}", fleet.nodes.len(), fleet.revision);
        }
        return Ok(());
    }
    let noun = if wrong.len() == 1 { "problem" } else { "problems" };
    Err(Failure::not_met(format!("{} {noun}", wrong.len()))
        .evidence(wrong.join("\n"))
        .next("tradewind status"))
}

/// A node that is behind for less than this is on its way.
const BEHIND_MS: u64 = 1_000;
