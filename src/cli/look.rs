//! `explain`, `latency`, `neighbours` and `healthcheck`: one node, over its peer port.

use super::arguments::{ClientArguments, ExplainArguments};
use super::failure::Failure;
use super::http::Http;
use super::output::{self, say};
use super::read_token;
use http::{Method, StatusCode};

/// `tradewind explain URL`.
pub(crate) async fn explain(arguments: &ExplainArguments) -> Result<(), Failure> {
    let node = any_node(&arguments.client)?;
    let mut path =
        format!("/v1/explain?method={}&url={}", encode(&arguments.method), encode(&arguments.url));
    for header in &arguments.header {
        path.push_str(&format!("&header={}", encode(header)));
    }
    let value = node.get(&path).await?;
    output::print(arguments.client.output, &value, || {
        let Some(rule) = value["rule"].as_str() else {
            return value["why"].as_str().unwrap_or("no rule").to_string();
        };
        let mut text =
            format!("rule {rule} v{}, alternative {}", value["version"], value["alternative"]);
        let empty = Vec::new();
        let rows = value["targets"].as_array().unwrap_or(&empty).iter().map(|target| {
            let number =
                |name: &str| target[name].as_f64().map_or("-".into(), |n| format!("{n:.1}"));
            let word = |name: &str| target[name].as_str().unwrap_or("-").to_string();
            vec![
                word("url"),
                word("region"),
                word("state"),
                number("costMs"),
                number("netMs"),
                number("svcMs"),
                number("errorMs"),
                target["inFlight"].to_string(),
            ]
        });
        let heading = ["TARGET", "REGION", "STATE", "COST", "NET", "SVC", "ERR", "IN FLIGHT"];
        text.push('\n');
        text.push_str(&output::table(&heading, rows.collect()));
        text
    })
}

/// `tradewind latency --node URL`.
pub(crate) async fn latency(client: &ClientArguments) -> Result<(), Failure> {
    let value = any_node(client)?.get("/v1/latency-info").await?;
    output::print(client.output, &value, || {
        let rows = value["targets"].as_object().into_iter().flatten().map(|(target, row)| {
            let number = |name: &str| row[name].as_f64().map_or("-".into(), |n| format!("{n:.2}"));
            vec![
                target.clone(),
                number("latencyMs"),
                number("netMs"),
                number("svcMs"),
                number("err"),
                number("confidence"),
                row["samples"].to_string(),
                row["ageMs"].to_string(),
                row["source"].as_str().unwrap_or("-").to_string(),
            ]
        });
        let heading =
            ["TARGET", "MS", "NET", "SVC", "ERR", "CONFIDENCE", "SAMPLES", "AGE MS", "SOURCE"];
        output::table(&heading, rows.collect())
    })
}

/// `tradewind neighbours NODE`.
pub(crate) async fn neighbours(
    name: Option<&str>,
    client: &ClientArguments,
) -> Result<(), Failure> {
    let node = match name {
        None => any_node(client)?,
        Some(name) => {
            let fleet = client.connect().await?.nodes().await?;
            let found = fleet.nodes.iter().find(|node| node.node == name).ok_or_else(|| {
                let known: Vec<&str> = fleet.nodes.iter().map(|node| node.node.as_str()).collect();
                Failure::failed(format!("there is no node {name}"))
                    .evidence(format!("known: {}", known.join(", ")))
            })?;
            let token = read_token(client.token_file.as_deref())?;
            Http::new(&found.peer_address, token.as_deref())
        }
    };
    let value = node.get("/v1/neighbours").await?;
    output::print(client.output, &value, || {
        let empty = Vec::new();
        let rows = value.as_array().unwrap_or(&empty).iter().map(|one| {
            let word = |name: &str| one[name].as_str().unwrap_or("-").to_string();
            let rtt = one["rttMs"].as_f64().map_or("-".to_string(), |ms| format!("{ms:.1} ms"));
            vec![word("node"), word("region"), word("kind"), rtt, word("address")]
        });
        output::table(&["NODE", "REGION", "KIND", "RTT", "ADDRESS"], rows.collect())
    })
}

/// `tradewind healthcheck`: a node's readiness by default, or an orchestrator's.
pub(crate) async fn healthcheck(
    node: Option<&str>,
    orchestrator: Option<&str>,
) -> Result<(), Failure> {
    let asked: Vec<&str> = match (node, orchestrator) {
        (Some(node), _) => vec![node],
        (None, Some(orchestrator)) => vec![orchestrator],
        (None, None) => vec!["http://127.0.0.1:7500", "http://127.0.0.1:7401"],
    };
    let mut last = Failure::failed("nobody was asked");
    for url in asked {
        match Http::new(url, None).call(Method::GET, "/readyz", None).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                say!("ready");
                return Ok(());
            }
            Ok(answer) => {
                let why = String::from_utf8_lossy(&answer.body).trim_end().to_string();
                return Err(Failure::failed(format!("{url} is not ready")).evidence(why));
            }
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn any_node(client: &ClientArguments) -> Result<Http, Failure> {
    let token = read_token(client.token_file.as_deref())?;
    let url = client.node.as_deref().unwrap_or("http://127.0.0.1:7500");
    Ok(Http::new(url, token.as_deref()))
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
