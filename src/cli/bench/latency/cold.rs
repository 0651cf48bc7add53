//! A second node of ours that knows nothing but what its peer tells, or nothing at all.
//!
//! The first node has traffic all the time. The second one starts beside it, in front of the same
//! targets; its first requests are compared with its own mean once it is settled.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::clients::{self, Fate};
use super::figures::mean;
use super::proxies::NodePlan;
use super::scenario::{Plan, WARM_UP, start_targets};
use super::targets::Target;
use super::{schedule, targets};
use crate::cli::bench::peers::Peer;
use crate::cli::bench::traffic;
use crate::cli::failure::Failure;
use crate::cli::http::Http;

/// What came of one cold start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cold {
    /// Mean of the first requests, in milliseconds.
    pub(super) first: f64,
    /// Mean of those after it had settled.
    pub(super) settled: f64,
    pub(super) errors: usize,
}

impl Cold {
    pub(super) fn ratio(&self) -> f64 {
        self.first / self.settled
    }
}

/// One cold start with a peer and one without, at the same time, each in a world of its own.
pub(super) async fn run(plan: &Plan, directory: &Path) -> Result<[Cold; 2], Failure> {
    // Whoever looks for a port does so before anybody opens connections.
    let worlds = [start_targets(plan.seed).await?, start_targets(plan.seed).await?];
    let mut firsts = Vec::new();
    for (number, targets) in worlds.iter().enumerate() {
        let own = directory.join(format!("first-{number}"));
        let first = NodePlan { id: "first", policy: "latency", seed: None };
        let (first, control) = plan.ours.start(&own, targets, &first)?;
        if !traffic::wait_until_up(first.at, targets::SIZE).await {
            return Err(first.is_not_up());
        }
        firsts.push((first, control));
    }
    let start = |number: usize| {
        let (first, control) = &firsts[number];
        let seed = (number == 0).then_some(*control);
        one(plan, directory.join(format!("second-{number}")), &worlds[number], first.at, seed)
    };
    let (with, without) = tokio::join!(start(0), start(1));
    let ((with, _second), (without, _other)) = (with?, without?);
    Ok([with, without])
}

async fn one(
    plan: &Plan,
    directory: PathBuf,
    targets: &[Target],
    first: SocketAddr,
    seed: Option<SocketAddr>,
) -> Result<(Cold, Peer), Failure> {
    // From then on each node has half of the traffic: the targets have as much to do as before.
    let rate = plan.rate * SHARE;
    let joined = WARM_UP + JOINING;
    let mut due = schedule::arrivals(rate, joined, plan.seed);
    let after = schedule::arrivals(rate / 2.0, SETTLING + plan.lasting, !plan.seed);
    due.extend(after.into_iter().map(|due| joined + due));
    let begun = Instant::now();
    let with_peer = seed.is_some();
    let second = async {
        tokio::time::sleep_until(begun + WARM_UP).await;
        let second = NodePlan { id: "second", policy: "latency", seed };
        let (second, control) = plan.ours.start(&directory, targets, &second)?;
        wait_until_ready(control).await?;
        tokio::time::sleep_until(begun + joined).await;
        let due =
            schedule::arrivals(rate / 2.0, SETTLING + plan.lasting, plan.seed ^ OTHER_CLIENTS);
        // Else the comparison would be of nothing.
        let known = known_targets(control).await?;
        if (known > 0) != with_peer {
            let what = if with_peer { "nothing of its peer" } else { "of a peer it has not" };
            return Err(Failure::failed(format!("the second node has heard {what}")));
        }
        let fates = clients::ask(second.at, &due, Instant::now()).await?;
        Ok::<_, Failure>((fates, second))
    };
    let (others, second) = tokio::join!(clients::ask(first, &due, begun), second);
    others?;
    let (fates, second) = second?;
    let times = |fates: &[Fate]| {
        let good = fates.iter().filter(|fate| fate.good);
        mean(&good.map(|fate| fate.took_ms).collect::<Vec<f64>>())
    };
    let settled = fates.partition_point(|fate| fate.due < SETTLING);
    let cold = Cold {
        first: times(&fates[..FIRST.min(fates.len())]),
        settled: times(&fates[settled..]),
        errors: fates.iter().filter(|fate| !fate.good).count(),
    };
    Ok((cold, second))
}

/// Its peer port says when it may have traffic.
async fn wait_until_ready(control: SocketAddr) -> Result<(), Failure> {
    let node = Http::new(&format!("http://{control}"), None);
    let begun = Instant::now();
    while begun.elapsed() < JOINING {
        if let Ok(answer) = node.call(http::Method::GET, "/readyz", None).await
            && answer.status.is_success()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::failed("the second node did not become ready"))
}

/// How many targets a node knows anything of.
async fn known_targets(control: SocketAddr) -> Result<usize, Failure> {
    let info = Http::new(&format!("http://{control}"), None).get("/v1/latency-info").await?;
    Ok(info["targets"].as_object().map_or(0, serde_json::Map::len))
}

/// Of the requests a second of the other scenarios: little enough that two nodes, of which neither
/// sees the other's queues, do not get into each other's way. What counts here is what is known.
pub(super) const SHARE: f64 = 0.4;
/// Requests that count as the first ones.
pub(super) const FIRST: usize = 50;
/// From the second node's start until its traffic comes: as long as a load balancer needs to see
/// that it is ready, for the node with a peer and the one without.
pub(super) const JOINING: Duration = Duration::from_secs(3);
/// From its first request until it counts as settled.
pub(super) const SETTLING: Duration = Duration::from_secs(5);
/// The second node's clients come at other times than the first one's.
const OTHER_CLIENTS: u64 = 0x5eed;
