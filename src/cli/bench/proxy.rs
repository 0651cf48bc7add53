//! Requests through a node, beside other proxies where they are installed.
//!
//! Each proxy is a process of its own with one worker; its CPU time is the system's own account.
//! Rounds are interleaved, medians are printed, and ratios are to nginx in the same run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::peers::{Description, Peer};
use super::traffic::{self, Outcome, Shape};
use super::{load, median, origin, quantile, tempdir};
use crate::cli::failure::Failure;
use crate::cli::output::say;

#[derive(Debug, Args)]
pub(crate) struct ProxyArguments {
    /// What is measured (repeatable); default: keepalive and rate
    #[arg(long, value_enum, value_delimiter = ',')]
    work: Vec<Work>,
    /// Connections at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per round
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    /// Rounds of each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of a response
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Connections that stay idle, for the work idle
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Only these proxies beside our own (repeatable); default: all that are installed
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// A description of another proxy (repeatable)
    #[arg(long, value_name = "FILE")]
    peer_file: Vec<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Requests over kept connections, as fast as they are answered
    Keepalive,
    /// The same at half the rate that ours reached, each counted from when it was due
    Rate,
    /// Answers of 100 KiB
    Large,
    /// Uploads of 1 MiB
    Upload,
    /// A connection for each request
    Connect,
    /// Memory per connection that has nothing to do
    Idle,
}

/// One round of one proxy.
struct Round {
    cpu_us: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    errors: usize,
}

/// Runs and prints the comparison.
pub(super) async fn run(arguments: ProxyArguments) -> Result<(), Failure> {
    let directory = tempdir()?;
    let outcome = measure_all(&arguments, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn measure_all(arguments: &ProxyArguments, directory: &Path) -> Result<(), Failure> {
    let work = match arguments.work.as_slice() {
        [] => &[Work::Keepalive, Work::Rate][..],
        given => given,
    };
    let chosen = chosen(arguments)?;
    let mut rate = None;
    for work in work {
        let size = if *work == Work::Large { LARGE } else { arguments.size };
        let origin = origin::start(size).await?;
        let own = directory.join(format!("{work:?}"));
        std::fs::create_dir_all(&own).map_err(|error| Failure::failed(error.to_string()))?;
        let mut peers = vec![Peer::ours(&own, origin)?];
        for description in &chosen {
            peers.push(description.start(&own, origin)?);
        }
        for peer in &peers {
            if !traffic::wait_until_up(peer.at, size).await {
                return Err(peer.is_not_up());
            }
        }
        match work {
            Work::Idle => idle(&peers, arguments.idle, size).await?,
            _ => {
                let capacity = busy(*work, &peers, arguments, size, rate).await?;
                rate = rate.or((*work == Work::Keepalive).then_some(capacity / 2.0));
            }
        }
    }
    say!("load {} at the end", load());
    Ok(())
}

/// Which proxies there are besides our own; whoever is missing is named.
fn chosen(arguments: &ProxyArguments) -> Result<Vec<Description>, Failure> {
    let mut all = Description::known()?;
    for file in &arguments.peer_file {
        all.push(Description::read(file)?);
    }
    let unknown = |name: &&String| !all.iter().any(|known| known.name == **name);
    if let Some(name) = arguments.peer.iter().find(unknown) {
        let names: Vec<&str> = all.iter().map(|known| known.name.as_str()).collect();
        return Err(Failure::usage(format!("--peer {name}: not one of {}", names.join(", "))));
    }
    let wanted = |it: &Description| arguments.peer.is_empty() || arguments.peer.contains(&it.name);
    all.retain(wanted);
    all.retain(|description| {
        let there = description.program().is_some();
        if !there {
            say!("{:11}is not installed: SKIPPED", description.name);
        }
        there
    });
    Ok(all)
}

/// Rounds of requests; returns how many a second ours answered.
async fn busy(
    work: Work,
    peers: &[Peer],
    arguments: &ProxyArguments,
    size: usize,
    rate: Option<f64>,
) -> Result<f64, Failure> {
    let upload = if work == Work::Upload { UPLOAD } else { 0 };
    let fresh = work == Work::Connect;
    let (connections, expected) = (arguments.connections, size);
    let shape = Shape { connections, upload, fresh, expected };
    let requests = match work {
        Work::Upload => (arguments.requests / 100).max(1),
        Work::Large | Work::Connect => (arguments.requests / 4).max(1),
        _ => arguments.requests,
    };
    let mut rounds: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
    let mut rate = rate;
    if work == Work::Rate && rate.is_none() {
        let outcome = traffic::flat_out(peers[0].at, shape, requests).await?;
        rate = Some(outcome.per_second() / 2.0);
    }
    for number in 0..=arguments.rounds {
        for (peer, rounds) in peers.iter().zip(&mut rounds) {
            // The first one warms up.
            let requests = if number == 0 { requests / 10 + 1 } else { requests };
            let before = peer.cpu_seconds();
            let outcome = match rate.filter(|_| work == Work::Rate) {
                Some(rate) => traffic::at_rate(peer.at, shape, rate, requests).await?,
                None => traffic::flat_out(peer.at, shape, requests).await?,
            };
            let cpu = peer.cpu_seconds() - before;
            if number > 0 {
                rounds.push(Round::of(&outcome, cpu));
            }
        }
    }
    let word = work.to_possible_value().map(|value| value.get_name().to_string());
    let word = word.unwrap_or_default();
    let at = match rate.filter(|_| work == Work::Rate) {
        Some(rate) => format!("{rate:.0} requests/s"),
        None => format!("{} connections", arguments.connections),
    };
    say!(
        "\n{word}: {at}, {requests} requests a round, answers of {size} bytes, {} rounds, medians",
        arguments.rounds
    );
    let unit = if upload > 0 { "CPU/GB    " } else { "CPU/request" };
    say!("            {unit}  to nginx   requests/s        p50        p99      p99.9   errors");
    print(peers, &rounds, upload);
    let ours = |value: fn(&Round) -> f64| middle(&rounds[0], value);
    Ok(ours(|round| round.per_second))
}

fn print(peers: &[Peer], rounds: &[Vec<Round>], upload: usize) {
    let nginx = peers.iter().position(|peer| peer.name == "nginx");
    let base = nginx.map(|at| middle(&rounds[at], |round| round.cpu_us));
    for (peer, rounds) in peers.iter().zip(rounds) {
        let of = |value: fn(&Round) -> f64| middle(rounds, value);
        let cpu = of(|round| round.cpu_us);
        let shown = if upload > 0 {
            format!("{:8.3} s", cpu / 1e6 / (upload as f64 / 1e9))
        } else {
            format!("{cpu:7.1} us")
        };
        let ratio = base.map_or("-".to_string(), |base| format!("{:.2}", cpu / base));
        let errors: usize = rounds.iter().map(|round| round.errors).sum();
        say!(
            "{:11} {shown} {ratio:>10} {:12.0} {:7.2} ms {:7.2} ms {:7.2} ms {errors:8}",
            peer.name,
            of(|round| round.per_second),
            of(|round| round.p50_ms),
            of(|round| round.p99_ms),
            of(|round| round.p999_ms),
        );
    }
}

/// Memory of connections that had an answer each and then nothing to do.
async fn idle(peers: &[Peer], connections: usize, size: usize) -> Result<(), Failure> {
    say!("\nidle: {connections} connections after a request each");
    say!("            KiB/connection at once   after {} s", SETTLED.as_secs());
    for peer in peers {
        let before = {
            let few = traffic::idle(peer.at, connections / 20 + 1, size).await?;
            drop(few);
            tokio::time::sleep(Duration::from_secs(1)).await;
            peer.resident_kib()
        };
        let held = traffic::idle(peer.at, connections, size).await?;
        let each = || (peer.resident_kib() - before) / connections as f64;
        let at_once = each();
        tokio::time::sleep(SETTLED).await;
        say!("{:11} {at_once:22.2} {:12.2}", peer.name, each());
        drop(held);
    }
    Ok(())
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }
}

impl Round {
    fn of(outcome: &Outcome, cpu: f64) -> Round {
        Round {
            cpu_us: cpu * 1e6 / outcome.times.len().max(1) as f64,
            per_second: outcome.per_second(),
            p50_ms: quantile(&outcome.times, 0.5),
            p99_ms: quantile(&outcome.times, 0.99),
            p999_ms: quantile(&outcome.times, 0.999),
            errors: outcome.errors,
        }
    }
}

fn middle(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    median(&mut rounds.iter().map(value).collect::<Vec<f64>>())
}

/// Bytes of an answer that is large.
const LARGE: usize = 100 << 10;
/// Bytes of an upload.
const UPLOAD: usize = 1 << 20;
/// What programs need to notice that nothing happens, and to give memory back.
const SETTLED: Duration = Duration::from_secs(25);
