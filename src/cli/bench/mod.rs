//! `tradewind bench`: measurements that anybody can repeat.
//!
//! Every figure is taken beside another in the same run, interleaved, and printed with the load
//! of the machine. Nothing here is a test; tests assert behaviour.

mod certificate;
pub(crate) mod changes;
mod fleet;
mod frames;
mod held;
mod idle;
pub(crate) mod latency;
mod operator;
mod origin;
mod own;
mod paced;
mod peers;
mod process;
mod processors;
pub(crate) mod proxy;
mod push;
mod rounds;
pub(crate) mod soak;
mod statistics;
mod tls;
mod traffic;
mod websockets;

use std::path::PathBuf;

use super::arguments::BenchCommand;
use super::failure::Failure;
use super::output::say;
use super::roles::control_runtime;
use crate::telemetry::logs;
use statistics::{median, quantile};

/// `tradewind bench …`.
pub(crate) fn run(command: BenchCommand) -> Result<(), Failure> {
    logs::begin("error");
    if let BenchCommand::Origin { listen, size } = command {
        return origin::alone(listen, size);
    }
    say!("machine    {} cores, load {}", cores(), load());
    control_runtime()?.block_on(async move {
        match command {
            BenchCommand::Fleet { followers, rules, rounds } => {
                fleet::run(followers, rules, rounds).await
            }
            BenchCommand::Latency(arguments) => latency::command::run(arguments).await,
            BenchCommand::Push { rules, pushes } => push::run(&rules, pushes).await,
            BenchCommand::Proxy(arguments) => proxy::run(arguments).await,
            BenchCommand::Changes(arguments) => changes::run(&arguments).await,
            BenchCommand::Soak(arguments) => soak::run(&arguments).await,
            BenchCommand::Origin { .. } => Ok(()),
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
