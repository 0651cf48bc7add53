//! One run: a proxy before eight targets, a target in trouble for a while, and what came of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

use super::clients;
use super::figures::{Shares, Times};
use super::proxies::{Contender, Ours};
use super::schedule;
use super::targets::{self, Fault, ROUND_TRIPS_MS, Target};
use crate::cli::bench::traffic;
use crate::cli::failure::Failure;

/// What happens to one of the nearest targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Nothing
    Steady,
    /// It takes ten times as long
    Slowed,
    /// It answers 503 at once
    Failing,
    /// It takes requests and does not answer them
    Hanging,
    /// It closes every connection
    Dead,
    /// Nothing; a second node of ours starts, with and without a peer that knows the targets
    Cold,
}

/// How runs are made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) ours: Ours,
    /// Requests a second on average.
    pub(super) rate: f64,
    /// How long requests count.
    pub(super) lasting: Duration,
    pub(super) seed: u64,
}

/// What came of one run of one proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) times: Times,
    pub(super) requests: usize,
    pub(super) errors: usize,
    /// The troubled target's share of what came to the targets before its trouble.
    pub(super) before: f64,
    /// Seconds until it had less than `LEFT` of the traffic; infinite: never.
    pub(super) left: f64,
    /// Seconds from its healing until it had half of its share again; infinite: never.
    pub(super) back: f64,
}

impl Scenario {
    /// What is wrong meanwhile.
    pub(super) fn fault(self) -> Fault {
        match self {
            Scenario::Steady | Scenario::Cold => Fault::None,
            Scenario::Slowed => Fault::Slow(10.0),
            Scenario::Failing => Fault::Failing,
            Scenario::Hanging => Fault::Hanging,
            Scenario::Dead => Fault::Dead,
        }
    }
}

impl Plan {
    /// When the trouble begins and when it ends.
    pub(super) fn trouble(&self) -> (Duration, Duration) {
        (WARM_UP + self.lasting.mul_f64(0.2), WARM_UP + self.lasting.mul_f64(0.6))
    }

    /// From the first request to the last one.
    pub(super) fn whole(&self) -> Duration {
        WARM_UP + self.lasting
    }
}

/// Runs one scenario for every proxy at the same time, each with targets of its own: what disturbs
/// the machine disturbs all of them alike. The seed decides when requests come and what they need.
pub(super) async fn run(
    scenario: Scenario,
    contenders: &[Contender],
    plan: &Plan,
    directory: &Path,
) -> Result<Vec<Run>, Failure> {
    // Whoever looks for a port does so before anybody opens connections.
    let mut worlds = Vec::new();
    for _ in contenders {
        worlds.push(start_targets(plan.seed).await?);
    }
    let mut running = Vec::new();
    for (contender, targets) in contenders.iter().zip(worlds) {
        let proxy = contender.start(directory, &targets, &plan.ours)?;
        if !traffic::wait_until_up(proxy.at, targets::SIZE).await {
            return Err(proxy.is_not_up());
        }
        running.push((proxy, targets));
    }
    let mut ending = Vec::new();
    for (proxy, targets) in &running {
        ending.push(tokio::spawn(one(scenario, proxy.at, targets.clone(), plan.clone())));
    }
    let mut runs = Vec::new();
    for run in ending {
        runs.push(run.await.map_err(|error| Failure::failed(error.to_string()))??);
    }
    // The processes end only here, where nobody is measured any more.
    drop(running);
    Ok(runs)
}

async fn one(
    scenario: Scenario,
    at: SocketAddr,
    targets: Vec<Target>,
    plan: Plan,
) -> Result<Run, Failure> {
    let due = schedule::arrivals(plan.rate, plan.whole(), plan.seed);
    let begun = Instant::now();
    let (from, to) = plan.trouble();
    let troubles = async {
        tokio::time::sleep_until(begun + from).await;
        targets[TROUBLED].set(scenario.fault());
        tokio::time::sleep_until(begun + to).await;
        targets[TROUBLED].set(Fault::None);
    };
    let (fates, ()) = tokio::join!(clients::ask(at, &due, begun), troubles);
    let counted: Vec<_> = fates?.into_iter().filter(|fate| fate.due >= WARM_UP).collect();
    let good = counted.iter().filter(|fate| fate.good);
    let times = Times::of(good.map(|fate| fate.took_ms).collect());
    let errors = counted.iter().filter(|fate| !fate.good).count();
    let came = targets
        .iter()
        .enumerate()
        .flat_map(|(number, target)| target.came(begun).into_iter().map(move |at| (at, number)));
    let shares = Shares::new(came.collect());
    let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
    let end = plan.whole().as_secs_f64();
    let before = shares.of(TROUBLED, WARM_UP.as_secs_f64(), from).unwrap_or(0.0);
    let left = shares.until_below(TROUBLED, LEFT, (from, to));
    let back = shares.until_above(TROUBLED, before / 2.0, (to, end));
    Ok(Run {
        times,
        requests: counted.len(),
        errors,
        before,
        left: left.unwrap_or(f64::INFINITY),
        back: back.unwrap_or(f64::INFINITY),
    })
}

/// One at each distance.
pub(super) async fn start_targets(seed: u64) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    for number in 0..ROUND_TRIPS_MS.len() {
        targets.push(Target::start(number, seed).await?);
    }
    Ok(targets)
}

/// One of the two nearest.
const TROUBLED: usize = 0;
/// A target that has less of the traffic is as good as left.
pub(super) const LEFT: f64 = 0.05;
/// Until proxies know their targets; nothing counts before.
pub(super) const WARM_UP: Duration = Duration::from_secs(5);
