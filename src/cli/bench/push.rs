//! From a rule pushed to a running node to the first request that it serves.
//!
//! Pushed in two ways: to the node's peer port for that node only (an overlay), without an
//! orchestrator and a disk in between; and through an orchestrator, which writes to its disk before
//! it answers and before it sends. What the disk takes for so little is measured beside it. A
//! client asks over a kept connection until the new answer comes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use super::operator::Conversation;
use super::peers::Peer;
use super::{load, quantile, traffic};
use crate::cli::client::{Client, Write};
use crate::cli::failure::Failure;
use crate::cli::output::say;
use crate::orchestrator::{Orchestrator, OrchestratorOptions};

/// Milliseconds of each push, sorted.
#[derive(Default)]
struct Times {
    served: Vec<f64>,
    answered: Vec<f64>,
    /// Of the disk alone; empty where there is none.
    synced: Vec<f64>,
}

/// Pushes so many times, once the node has so many rules; for each of those numbers.
pub(super) async fn run(rules: &[usize], pushes: usize) -> Result<(), Failure> {
    say!("rules      from the push to the first request served by it, {pushes} pushes");
    say!("                  p50        p99       last   the push answered, p50");
    for count in rules {
        let directory = super::tempdir()?;
        let outcome = to_the_node(&directory, *count, pushes).await;
        let _ = std::fs::remove_dir_all(&directory);
        outcome?.print(*count);
    }
    say!("through the orchestrator                                  a write of 4 KiB synced, p50");
    for count in rules {
        let directory = super::tempdir()?;
        let outcome = through_the_orchestrator(&directory, *count, pushes).await;
        let _ = std::fs::remove_dir_all(&directory);
        outcome?.print(*count);
    }
    say!("load {} at the end", load());
    Ok(())
}

async fn to_the_node(directory: &Path, rules: usize, pushes: usize) -> Result<Times, Failure> {
    let mut text = String::new();
    for number in 1..rules {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}---", filler(number));
    }
    let (node, control) = Peer::node(directory, &(text + UP))?;
    if !traffic::wait_until_up(node.at, UP_BODY.len()).await {
        return Err(node.is_not_up());
    }
    let mut operator = Conversation::begin(control).await?;
    measure(&node, pushes, None, async |rule| operator.push(rule, "1h").await).await
}

async fn through_the_orchestrator(
    directory: &Path,
    rules: usize,
    pushes: usize,
) -> Result<Times, Failure> {
    let store = directory.join("orchestrator");
    let orchestrator = Orchestrator::start(OrchestratorOptions::local(&store))
        .await
        .map_err(|error| Failure::failed(format!("the orchestrator cannot start: {error}")))?;
    let url = format!("http://{}", orchestrator.grpc_addr());
    let client = Client::connect(&url, None).await?;
    let all: Vec<String> = (1..rules).map(filler).chain([UP.to_string()]).collect();
    for some in all.chunks(AT_ONCE) {
        client.apply(&Write::all_of(&some.join("---\n"))?, false).await?;
    }
    // What it has of its own is in nobody's way.
    let (node, _) = Peer::node_with(directory, &filler(0), |command| {
        command.args(["--access-log", "off", "--orchestrator", &url]);
    })?;
    if !traffic::wait_until_up(node.at, UP_BODY.len()).await {
        return Err(node.is_not_up());
    }
    let push = async |rule: String| client.apply(&Write::all_of(&rule)?, false).await.map(drop);
    let times = measure(&node, pushes, Some(&store), push).await;
    drop(node);
    orchestrator.shutdown().await;
    times
}

/// Pushes by turns with asking; `disk` is where a write is synced before each.
async fn measure(
    node: &Peer,
    pushes: usize,
    disk: Option<&Path>,
    mut push: impl AsyncFnMut(String) -> Result<(), Failure>,
) -> Result<Times, Failure> {
    let mut client = Conversation::begin(node.at).await?;
    let mut times = Times::default();
    let millis = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    for number in 0..pushes {
        if let Some(disk) = disk {
            times.synced.push(sync(disk)?);
        }
        let answer = number.to_string();
        let rule = format!(
            "{{\"pushed\":{{\"data\":{{\"match\":{{\"hosts\":[\"push.example\"]}},\
             \"respond\":{{\"body\":\"{answer}\"}}}}}}}}"
        );
        let begun = Instant::now();
        push(rule).await?;
        times.answered.push(millis(begun));
        while client.get("push.example", "/").await?.body != answer.as_bytes() {}
        times.served.push(millis(begun));
    }
    for each in [&mut times.served, &mut times.answered, &mut times.synced] {
        each.sort_by(f64::total_cmp);
    }
    Ok(times)
}

/// What it takes to write a page to a file there, and to have it on the disk; in milliseconds.
fn sync(directory: &Path) -> Result<f64, Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("the disk: {error}"));
    let mut file = File::create(directory.join("synced")).map_err(fail)?;
    let begun = Instant::now();
    file.write_all(&[0; 4 << 10]).map_err(fail)?;
    file.sync_data().map_err(fail)?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// A rule that nobody asks for.
fn filler(number: usize) -> String {
    format!(
        "id: r{number}\ndata: {{ match: {{ hosts: [h{number}.example] }}, \
         respond: {{ body: x }} }}\n"
    )
}

impl Times {
    fn print(&self, rules: usize) {
        let synced = match self.synced.as_slice() {
            [] => String::new(),
            synced => format!("{:14.2} ms", quantile(synced, 0.5)),
        };
        say!(
            "{rules:8} {:9.2} ms {:7.2} ms {:7.2} ms {:14.2} ms{synced}",
            quantile(&self.served, 0.5),
            quantile(&self.served, 0.99),
            quantile(&self.served, 1.0),
            quantile(&self.answered, 0.5),
        );
    }
}

/// Served once all that a node begins with is in force.
const UP: &str = "id: up\ndata: { respond: { body: up } }\n";
const UP_BODY: &str = "up";
/// Rules of one commit.
const AT_ONCE: usize = 5_000;
