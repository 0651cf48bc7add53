//! The course of the whole: what is measured, in which order, and what is told about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::proxies::{Contender, Distance, Ours};
use super::scenario::{self, Plan, Run, Scenario, WARM_UP};
use super::{cold, report, schedule, targets};
use crate::cli::bench::{load, tempdir};
use crate::cli::failure::Failure;
use crate::cli::output::say;

#[derive(Debug, Args)]
pub(crate) struct LatencyArguments {
    /// What happens (repeatable); default: everything
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Runs of each
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long requests count in a run
    #[arg(long, default_value_t = 25)]
    seconds: u64,
    /// Requests a second to each proxy, on average
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Decides when requests come and how long they are served
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the distance to the targets is made
    #[arg(long, value_enum, default_value_t = Distance::Node)]
    distance: Distance,
    /// Also our own policies least_requests and round_robin
    #[arg(long)]
    references: bool,
    /// Another build of this program for the nodes
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Runs and prints everything.
pub(crate) async fn run(arguments: LatencyArguments) -> Result<(), Failure> {
    if !(1.0..=5_000.0).contains(&arguments.rate) || arguments.runs == 0 || arguments.seconds < 5 {
        let need = "--rate is from 1 to 5000, --runs at least 1, --seconds at least 5";
        return Err(Failure::usage(need));
    }
    let directory = tempdir()?;
    let outcome = measure_all(&arguments, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn measure_all(arguments: &LatencyArguments, directory: &Path) -> Result<(), Failure> {
    let scenarios = match arguments.scenario.as_slice() {
        [] => <Scenario as clap::ValueEnum>::value_variants(),
        given => given,
    };
    let (contenders, missing) = Contender::all(arguments.references)?;
    for name in missing {
        say!("{name:11}is not installed: SKIPPED");
    }
    let own = std::env::current_exe();
    let own = own.map_err(|error| Failure::failed(format!("this program: {error}")))?;
    let ours =
        Ours { program: arguments.program.clone().unwrap_or(own), distance: arguments.distance };
    let lasting = Duration::from_secs(arguments.seconds);
    let plan = Plan { ours, rate: arguments.rate, lasting, seed: arguments.seed };
    introduce(arguments, scenarios, &plan);
    for scenario in scenarios {
        if *scenario == Scenario::Cold {
            measure_cold(arguments.runs, &plan, directory).await?;
        } else {
            measure(*scenario, &contenders, arguments.runs, &plan, directory).await?;
        }
    }
    say!("\nload {} at the end", load());
    Ok(())
}

fn introduce(arguments: &LatencyArguments, scenarios: &[Scenario], plan: &Plan) {
    let per_target = targets::SERVERS as f64 * 1e3;
    let mean = schedule::mean_ms(targets::MEDIAN_MS, targets::SIGMA);
    let capacity = targets::ROUND_TRIPS_MS.len() as f64 * per_target / mean;
    say!(
        "targets    {:?} ms away and back, {} requests at a time each, others wait",
        targets::ROUND_TRIPS_MS,
        targets::SERVERS
    );
    say!(
        "service    log-normal, median {} ms, sigma {}, mean {mean:.1} ms",
        targets::MEDIAN_MS,
        targets::SIGMA
    );
    say!(
        "requests   {} a second to each proxy ({:.0} % of what its targets can do), each due by \
         itself, seed {}",
        plan.rate,
        plan.rate / capacity * 100.0,
        plan.seed
    );
    let (from, to) = plan.trouble();
    say!(
        "a run      {} s of warming up, {} s that count; trouble from {:.0} s to {:.0} s of them",
        WARM_UP.as_secs(),
        plan.lasting.as_secs(),
        (from - WARM_UP).as_secs_f64(),
        (to - WARM_UP).as_secs_f64()
    );
    let each = |scenario: &Scenario| match scenario {
        Scenario::Cold => plan.whole() + cold::JOINING + cold::SETTLING,
        _ => plan.whole(),
    };
    let one: Duration = scenarios.iter().map(|scenario| each(scenario) + BETWEEN).sum();
    let minutes = one.as_secs_f64() * arguments.runs as f64 / 60.0;
    say!("this takes about {minutes:.0} minutes; all proxies run at the same time, each with");
    say!("targets of its own, so that what disturbs the machine disturbs all of them alike");
}

async fn measure(
    scenario: Scenario,
    contenders: &[Contender],
    runs: usize,
    plan: &Plan,
    directory: &Path,
) -> Result<(), Failure> {
    let mut all: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
    let before = load();
    for number in 0..runs {
        let own = directory.join(format!("{scenario:?}-{number}"));
        let plan = Plan { seed: plan.seed + number as u64, ..plan.clone() };
        let ended = scenario::run(scenario, contenders, &plan, &own).await?;
        for (runs, run) in all.iter_mut().zip(ended) {
            runs.push(run);
        }
    }
    report::scenario(scenario, contenders, &all, &before);
    Ok(())
}

async fn measure_cold(runs: usize, plan: &Plan, directory: &Path) -> Result<(), Failure> {
    let mut all = cold::Starts::default();
    let before = load();
    for number in 0..runs {
        let own = directory.join(format!("cold-{number}"));
        let plan = Plan { seed: plan.seed + number as u64, ..plan.clone() };
        let ended = cold::run(&plan, &own).await?;
        all.with.extend(ended.with);
        all.without.extend(ended.without);
    }
    report::cold(&all, &before);
    Ok(())
}

/// Starting and ending the processes of a run.
const BETWEEN: Duration = Duration::from_secs(2);
