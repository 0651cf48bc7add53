//! `tradewind bench`: measurements that anybody can repeat.
//!
//! Every figure is taken beside another in the same run, interleaved, and printed with the load
//! of the machine. Nothing here is a test; tests assert behaviour.

mod fleet;
pub(crate) mod latency;
mod origin;
mod peers;
pub(crate) mod proxy;
mod push;
mod traffic;

use std::path::PathBuf;

use super::arguments::BenchCommand;
use super::failure::Failure;
use super::output::say;
use super::roles::control_runtime;
use crate::telemetry::logs;

/// `tradewind bench …`.
pub(crate) fn run(command: BenchCommand) -> Result<(), Failure> {
    logs::begin("error");
    say!("machine    {} cores, load {}", cores(), load());
    control_runtime()?.block_on(async move {
        match command {
            BenchCommand::Fleet { followers, rules, rounds } => {
                fleet::run(followers, rules, rounds).await
            }
            BenchCommand::Latency(arguments) => latency::command::run(arguments).await,
            BenchCommand::Push { rules, pushes } => push::run(&rules, pushes).await,
            BenchCommand::Proxy(arguments) => proxy::run(arguments).await,
        }
    })
}

/// A folder for one measurement.
fn tempdir() -> Result<PathBuf, Failure> {
    let directory = std::env::temp_dir().join(format!("tradewind-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(directory)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The one-minute load average, where the system tells it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_string()
}

/// The value at a share of sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// The middle value.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(values, 0.5)
}
