//! A second node of ours that knows nothing but what its peer tells, or nothing at all.
//!
//! The first node has traffic all the time. The second one starts beside it, in front of the same
//! targets; its first requests are compared with its own mean once it is settled. So few requests
//! scatter by a tenth; several second nodes start at a time, each in a world of its own.

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

/// What came of cold starts with a peer and without.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub(super) with: Vec<Cold>,
    pub(super) without: Vec<Cold>,
}

/// A world: its targets, the node that knows them, and where that one's operators reach it.
struct World {
    plan: Plan,
    directory: PathBuf,
    targets: Vec<Target>,
    first: Peer,
    control: SocketAddr,
}

/// `PAIRS` cold starts with a peer and as many without, all at the same time. The two of a pair
/// have the same seed.
pub(super) async fn run(plan: &Plan, directory: &Path) -> Result<Starts, Failure> {
    // Whoever looks for a port does so before anybody opens connections.
    let mut opened = Vec::new();
    for number in 0..2 * PAIRS {
        let seed = plan.seed.wrapping_mul(PAIRS as u64).wrapping_add((number / 2) as u64);
        opened.push((Plan { seed, ..plan.clone() }, start_targets(seed).await?));
    }
    let mut worlds = Vec::new();
    for (number, (plan, targets)) in opened.into_iter().enumerate() {
        let directory = directory.join(number.to_string());
        let first = NodePlan { id: "first", policy: "latency", seed: None };
        let (first, control) = plan.ours.start(&directory.join("first"), &targets, &first)?;
        if !traffic::wait_until_up(first.at, targets::SIZE).await {
            return Err(first.is_not_up());
        }
        worlds.push(World { plan, directory, targets, first, control });
    }
    let mut starting = Vec::new();
    for (number, world) in worlds.into_iter().enumerate() {
        starting.push(tokio::spawn(one(world, number % 2 == 0)));
    }
    let mut starts = Starts::default();
    // The processes end only here, where nobody is measured any more.
    let mut ended = Vec::new();
    for (number, start) in starting.into_iter().enumerate() {
        let (cold, nodes) = start.await.map_err(|error| Failure::failed(error.to_string()))??;
        ended.push(nodes);
        let alike = if number % 2 == 0 { &mut starts.with } else { &mut starts.without };
        alike.push(cold);
    }
    Ok(starts)
}

/// What came of one, and its two nodes, which run on.
async fn one(world: World, with_peer: bool) -> Result<(Cold, [Peer; 2]), Failure> {
    let World { plan, directory, targets, first, control } = world;
    let seed = with_peer.then_some(control);
    // From then on each node has half of the traffic: the targets have as much to do as before.
    let rate = plan.rate * SHARE;
    let joined = WARM_UP + JOINING;
    let mut due = schedule::arrivals(rate, joined, plan.seed);
    let after = schedule::arrivals(rate / 2.0, SETTLING + plan.lasting, !plan.seed);
    due.extend(after.into_iter().map(|due| joined + due));
    let begun = Instant::now();
    let second = async {
        tokio::time::sleep_until(begun + WARM_UP).await;
        let second = NodePlan { id: "second", policy: "latency", seed };
        let (second, control) = plan.ours.start(&directory.join("second"), &targets, &second)?;
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
    let (others, second) = tokio::join!(clients::ask(first.at, &due, begun), second);
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
    Ok((cold, [first, second]))
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
/// Starts of a kind at a time: with the others' share of the traffic, as many requests a second
/// altogether as three proxies have in the other scenarios.
const PAIRS: usize = 4;
/// Requests that count as the first ones.
pub(super) const FIRST: usize = 50;
/// From the second node's start until its traffic comes: as long as a load balancer needs to see
/// that it is ready, for the node with a peer and the one without.
pub(super) const JOINING: Duration = Duration::from_secs(3);
/// From its first request until it counts as settled.
pub(super) const SETTLING: Duration = Duration::from_secs(5);
/// The second node's clients come at other times than the first one's.
const OTHER_CLIENTS: u64 = 0x5eed;
