//! `tradewind demo`: a whole fleet in one process, to try things on.
//!
//! An orchestrator, nine nodes in three regions, six targets, distance between the regions, and
//! requests through every node. Everything is the real thing; only the distance is made.

mod control;
mod fleet;
mod gate;
mod load;
mod target;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::http::Method;
use serde_json::{Value, json};

use super::arguments::{DemoArguments, DemoCommand};
use super::client::{Client, Write};
use super::failure::Failure;
use super::http::Http;
use super::output::{self, say};
use super::roles::{Signals, control_runtime};
use crate::telemetry::logs;
use crate::wire::quantity::parse_duration;
use fleet::{Fleet, Places};

/// `tradewind demo …`.
pub(crate) fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let Some(command) = arguments.command else {
        return stage(arguments.check, arguments.rate, arguments.control);
    };
    let control = Http::new(&format!("http://{}", arguments.control), None);
    match command {
        DemoCommand::Target { listen, region } => target::alone(listen, &region),
        DemoCommand::Load { nodes, host, rate } => load::alone(&nodes, &host, rate),
        DemoCommand::Status => super::wait_for(async move {
            let status = control.get("/status").await.map_err(no_demo)?;
            say!("{}", status_text(&status));
            Ok(())
        }),
        other => super::wait_for(async move {
            let (path, body) = told(other)?;
            let answer = control.json(Method::POST, path, Some(&body)).await.map_err(no_demo)?;
            say!("{}", answer["done"].as_str().unwrap_or("done"));
            Ok(())
        }),
    }
}

fn no_demo(failure: Failure) -> Failure {
    failure.next("is a demo running? start one with `tradewind demo`")
}

/// What a command tells the running demo.
fn told(command: DemoCommand) -> Result<(&'static str, Value), Failure> {
    let only_orchestrator = |what: &str| match what {
        "orchestrator" => Ok(()),
        other => Err(Failure::usage(format!("{other} cannot be cut; the orchestrator can"))),
    };
    Ok(match command {
        DemoCommand::Slow { target, by } => {
            let by = parse_duration(&by)
                .map_err(|_| Failure::usage(format!("{by} is not a duration such as 300ms")))?;
            ("/slow", json!({ "target": target, "ms": u64::try_from(by.as_millis()).unwrap_or(0) }))
        }
        DemoCommand::Cut { what } => {
            only_orchestrator(&what)?;
            ("/cut", json!({}))
        }
        DemoCommand::Silence { what } => {
            only_orchestrator(&what)?;
            ("/silence", json!({}))
        }
        DemoCommand::Kill { node } => ("/kill", json!({ "node": node })),
        DemoCommand::Restart { node, empty_disk } => {
            ("/restart", json!({ "node": node, "emptyDisk": empty_disk }))
        }
        DemoCommand::Heal => ("/heal", json!({})),
        DemoCommand::Status | DemoCommand::Target { .. } | DemoCommand::Load { .. } => {
            return Err(Failure::usage("this is not told to a running demo"));
        }
    })
}

/// Brings the fleet up and keeps it until a signal comes, or checks it and ends.
fn stage(check: bool, rate: u32, control: SocketAddr) -> Result<(), Failure> {
    logs::begin("error");
    control_runtime()?.block_on(async move {
        let mut signals = Signals::new()?;
        let directory = std::env::temp_dir().join(format!("tradewind-demo-{}", std::process::id()));
        let begun = Instant::now();
        let places = if check { Places::anywhere()? } else { Places::usual() };
        let fleet = Fleet::start(&directory, places, rate).await?;
        let ready = fleet.ready(Duration::from_secs(20)).await;
        say!("{}", fleet.banner(begun.elapsed()));
        fleet.load().await;
        let ended = if !ready {
            Err(Failure::failed("the fleet did not become ready"))
        } else if check {
            verify(&fleet).await
        } else {
            let served = control::serve(control, fleet.clone()).await?;
            signals.ended().await;
            served.abort();
            Ok(())
        };
        fleet.stop().await;
        // What a demo leaves behind is of no use to anybody.
        let _ = std::fs::remove_dir_all(&directory);
        ended
    })
}

/// Everything that the demo shows, seen to be true.
async fn verify(fleet: &Fleet) -> Result<(), Failure> {
    let steered = fleet.until(Duration::from_secs(15), |fleet| fleet.local_share() >= 0.9).await;
    say!(
        "steering   {:.0} % of requests are answered in their own region",
        100.0 * fleet.local_share()
    );
    if !steered {
        return Err(Failure::not_met("requests do not go to the nearest target"));
    }
    let client = Client::connect(&fleet.orchestrator_url(), None).await?;
    let text = "id: pushed\ndata:\n  match: { any: [{ path: { exact: /pushed } }] }\n  \
                respond: { status: 200, body: pushed }\n";
    let applied = client.apply(&Write::all_of(text)?, false).await?;
    let revision = applied.position.map_or(0, |at| at.revision.0);
    let begun = Instant::now();
    loop {
        let state = client.propagation(revision, "").await?;
        if state.reached as usize == fleet.node_count() {
            say!("{}", super::propagation::propagation_text(&state));
            break;
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(Failure::not_met("a pushed rule did not reach every node"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failures = fleet.failures();
    say!("failures   {failures} of {} requests", fleet.sent());
    if failures > 0 {
        return Err(Failure::not_met(format!("{failures} requests failed")));
    }
    Ok(())
}

fn status_text(status: &Value) -> String {
    let empty = Vec::new();
    let list = |name: &str| status[name].as_array().unwrap_or(&empty);
    let nodes = list("nodes").iter().map(|node| {
        let targets = node["targets"].as_object().into_iter().flatten();
        let shares: Vec<String> =
            targets.map(|(name, share)| format!("{name} {share} %")).collect();
        vec![
            node["node"].as_str().unwrap_or("-").to_string(),
            node["state"].as_str().unwrap_or("-").to_string(),
            node["perSecond"].to_string(),
            node["failed"].to_string(),
            format!("{} ms", node["p50Ms"]),
            shares.join(", "),
        ]
    });
    let heading = ["NODE", "STATE", "REQ/S", "FAILED", "P50", "ANSWERED BY (LAST 2 S)"];
    let mut text = output::table(&heading, nodes.collect());
    text.push_str(&format!(
        "\n\norchestrator {}; {} requests, {} failed",
        status["orchestrator"].as_str().unwrap_or("-"),
        status["sent"],
        status["failures"]
    ));
    for target in list("slowed") {
        let (name, ms) = (target["target"].as_str().unwrap_or("-"), &target["ms"]);
        text.push_str(&format!("\ntarget {name} is slowed by {ms} ms"));
    }
    text
}
