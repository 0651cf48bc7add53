//! How far a commit has come: as text for people, as JSON for programs.

use serde_json::{Value, json};

use super::client::Propagation;

/// The two lines that say how far a commit has come.
pub(crate) fn propagation_text(state: &Propagation) -> String {
    let ms = |value: f64| format!("{} ms", value.round());
    let mut text = format!("reached    {}/{}", state.reached, state.connected);
    if state.timed && state.reached > 0 {
        text.push_str(&format!(
            "  p50 {}  p99 {}  last {} ({})",
            ms(state.p50_ms),
            ms(state.p99_ms),
            ms(state.last_ms),
            state.last_node
        ));
    }
    text.push_str(&format!("   stream {}, peer {}", state.by_stream, state.by_peer));
    for (node, rule, why) in &state.rejections {
        text.push_str(&format!("\nrejected   {rule} at {node}: {why}"));
    }
    if !state.unreachable.is_empty() {
        let nodes: Vec<String> = state
            .unreachable
            .iter()
            .map(|row| {
                let (node, seen) = (&row.node, row.last_seen_ms);
                match row.active {
                    Some(at) => format!("{node} (last seen {}, revision {at})", ago(seen)),
                    None => format!("{node} ({})", span(seen)),
                }
            })
            .collect();
        let count = nodes.len();
        let known = if count == 1 { "node" } else { "nodes" };
        text.push_str(&format!(
            "\n{count} {known} known but not reachable: {} - they catch up on return",
            nodes.join(", ")
        ));
    }
    text
}

/// `41 s ago`.
pub(crate) fn ago(ms: u64) -> String {
    format!("{} ago", span(ms))
}

/// `41 s`, `3 h`.
fn span(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// The same for programs.
pub(crate) fn propagation_json(state: &Propagation) -> Value {
    json!({
        "epoch": state.epoch,
        "revision": state.revision,
        "connected": state.connected,
        "reached": state.reached,
        "p50Ms": state.p50_ms,
        "p99Ms": state.p99_ms,
        "lastMs": state.last_ms,
        "lastNode": state.last_node,
        "byStream": state.by_stream,
        "byPeer": state.by_peer,
        "waiting": state.waiting,
        "rejections": state.rejections.iter().map(|(node, rule, why)| {
            json!({ "node": node, "rule": rule, "why": why })
        }).collect::<Vec<_>>(),
        "unreachable": state.unreachable.iter().map(|row| {
            json!({ "node": row.node, "lastSeenMs": row.last_seen_ms, "revision": row.active })
        }).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::NodeRow;

    fn gone(node: &str, last_seen_ms: u64, active: Option<u64>) -> NodeRow {
        NodeRow {
            node: node.to_string(),
            region: String::new(),
            peer_address: String::new(),
            traffic: Vec::new(),
            connected: false,
            last_seen_ms,
            behind_ms: 0,
            active,
            feed: String::new(),
            rejected: Vec::new(),
            overrides: 0,
            draining: false,
            requests: 0,
            alarm: String::new(),
        }
    }

    #[test]
    fn what_wait_prints_is_the_wording_of_the_specification() {
        let state = Propagation {
            epoch: 1,
            revision: 48211,
            connected: 1000,
            reached: 1000,
            p50_ms: 43.2,
            p99_ms: 140.4,
            last_ms: 211.9,
            last_node: "sin4".to_string(),
            by_stream: 971,
            by_peer: 29,
            waiting: Vec::new(),
            unreachable: vec![gone("gru2", 41_000, Some(47002)), gone("syd9", 10_800_000, None)],
            rejections: Vec::new(),
            timed: true,
        };
        let expected = [
            "reached    1000/1000  p50 43 ms  p99 140 ms  last 212 ms (sin4)",
            "   stream 971, peer 29\n",
            "2 nodes known but not reachable: gru2 (last seen 41 s ago, revision 47002), ",
            "syd9 (3 h) - they catch up on return",
        ];
        assert_eq!(propagation_text(&state), expected.concat());
    }
}
