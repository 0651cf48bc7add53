//! Requests through a node, beside other proxies where they are installed.
//!
//! Each proxy is a process of its own with one worker; its CPU time is the system's own account.
//! Rounds are interleaved, and ratios are to nginx in the same run; where a node is measured beside
//! itself, to its first variant.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::certificate::Identity;
use super::paced::{Arrivals, Order, Pacer};
use super::peers::{Description, Peer};
use super::processors::Processors;
use super::rounds::{self, Contender, Course, Round};
use super::tls::Tls;
use super::traffic::{self, Shape};
use super::{idle, load, origin, own, tempdir};
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
    /// How often our own nodes are started anew for so many rounds, for the works rules and log:
    /// where a process happens to lie in memory makes up to a hundredth
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    starts: NonZeroUsize,
    /// Bytes of a response
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Connections that stay idle, for the work idle
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Numbers of rules, for the work rules; ratios are to the first
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000, 100_000])]
    rules: Vec<usize>,
    /// Requests a second for the works rate and random; default: half of what ours can do
    #[arg(long)]
    rate: Option<f64>,
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
    /// The same at a fixed rate, each counted from when it was due; the proxy has a processor to
    /// itself
    Rate,
    /// The same at that rate on average, at random moments (a Poisson process)
    Random,
    /// Answers of 100 KiB
    Large,
    /// Uploads of 1 MiB
    Upload,
    /// A connection for each request
    Connect,
    /// Requests over kept TLS connections (1.3, AES-128-GCM, P-256)
    Tls,
    /// A connection with a full TLS handshake for each request
    Handshake,
    /// Memory per connection that has nothing to do
    Idle,
    /// Our node alone: keepalive with few rules and with many, told apart by host and by path; all
    /// of them asked for, or few
    Rules,
    /// Our node alone: keepalive with the access log off and on
    Log,
}

/// Runs and prints the comparison.
pub(super) async fn run(arguments: ProxyArguments) -> Result<(), Failure> {
    let directory = tempdir()?;
    let outcome = measure_all(&arguments, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn measure_all(arguments: &ProxyArguments, directory: &Path) -> Result<(), Failure> {
    let works = match arguments.work.as_slice() {
        [] => &[Work::Keepalive, Work::Rate][..],
        given => given,
    };
    let alone = works.iter().all(|work| matches!(work, Work::Rules | Work::Log));
    let chosen = if alone { Vec::new() } else { chosen(arguments)? };
    for work in works {
        let size = if *work == Work::Large { LARGE } else { arguments.size };
        let own = directory.join(format!("{work:?}"));
        std::fs::create_dir_all(&own).map_err(|error| Failure::failed(error.to_string()))?;
        match work {
            Work::Rules | Work::Log => {
                let origin = origin::start(size).await?;
                beside_itself(*work, &own, origin, arguments).await?;
            }
            Work::Rate | Work::Random => in_time(*work, &own, &chosen, arguments).await?,
            Work::Idle => {
                let peers = start(&own, origin::start(size).await?, &chosen)?;
                wait_until_up(&peers, size).await?;
                idle::run(&peers, arguments.idle, size).await?;
            }
            _ => {
                let peers = start(&own, origin::start(size).await?, &chosen)?;
                wait_until_up(&peers, size).await?;
                beside_others(*work, &own, &peers, arguments).await?;
            }
        }
    }
    say!("\nload {} at the end", load());
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

/// Ours first, then the others.
fn start(
    directory: &Path,
    origin: SocketAddr,
    chosen: &[Description],
) -> Result<Vec<Peer>, Failure> {
    let mut peers = vec![Peer::ours(directory, origin)?];
    for description in chosen {
        peers.push(description.start(directory, origin)?);
    }
    Ok(peers)
}

async fn wait_until_up(peers: &[Peer], size: usize) -> Result<(), Failure> {
    for peer in peers {
        if !traffic::wait_until_up(peer.at, size).await {
            return Err(peer.is_not_up());
        }
    }
    Ok(())
}

/// Rounds of requests that come when they are due.
async fn in_time(
    work: Work,
    directory: &Path,
    chosen: &[Description],
    arguments: &ProxyArguments,
) -> Result<(), Failure> {
    let size = arguments.size;
    let processors = Processors::two();
    if processors.is_none() {
        say!("there is one processor only: the proxies share it with who asks them");
    }
    let pacer = Pacer::start(size, processors.as_ref())?;
    let starting = || start(directory, pacer.origin, chosen);
    let peers = match &processors {
        Some(processors) => processors.on_proxys(starting)?,
        None => starting()?,
    };
    wait_until_up(&peers, size).await?;
    let (requests, connections) = (arguments.requests, arguments.connections);
    let rate = match arguments.rate {
        Some(rate) => rate,
        None => {
            let arrivals = Arrivals::Even(f64::INFINITY);
            let order = Order { at: peers[0].at, connections, requests, arrivals };
            pacer.run(order).await?.per_second() / 2.0
        }
    };
    let arrivals = match work {
        Work::Random => Arrivals::Random(rate, 0),
        _ => Arrivals::Even(rate),
    };
    let contenders: Vec<Contender<'_>> = peers
        .iter()
        .map(|peer| Contender {
            name: peer.name.clone(),
            peer,
            at: peer.at,
            shape: Shape::new(connections, size),
        })
        .collect();
    let paced = Some((&pacer, arrivals));
    let course = Course { requests, rounds: arguments.rounds, paced, logs: None };
    let before = load();
    let rounds = rounds::run(&contenders, course).await?;
    headline(work, arguments, Some(rate), requests, size, &before);
    let names = names(&contenders);
    rounds::print(&names, &rounds, "nginx", 0);
    rounds::print_tails(&names, &rounds, "nginx");
    Ok(())
}

/// Rounds of requests as fast as they are answered.
async fn beside_others(
    work: Work,
    directory: &Path,
    peers: &[Peer],
    arguments: &ProxyArguments,
) -> Result<(), Failure> {
    let size = if work == Work::Large { LARGE } else { arguments.size };
    let upload = if work == Work::Upload { UPLOAD } else { 0 };
    let fresh = matches!(work, Work::Connect | Work::Handshake);
    let tls = matches!(work, Work::Tls | Work::Handshake);
    let tls = if tls { Some(Tls::new(&Identity::within(directory)?)?) } else { None };
    let shape = Shape { upload, fresh, tls, ..Shape::new(arguments.connections, size) };
    let mut contenders = Vec::new();
    for peer in peers {
        let at = if shape.tls.is_some() { peer.tls } else { Some(peer.at) };
        let Some(at) = at else {
            say!("{:11}does not say where it speaks TLS: SKIPPED", peer.name);
            continue;
        };
        if !traffic::wait_until_answered(at, &shape).await {
            return Err(peer.is_not_up());
        }
        contenders.push(Contender { name: peer.name.clone(), peer, at, shape: shape.clone() });
    }
    let requests = match work {
        Work::Upload => arguments.requests / 100,
        Work::Large | Work::Connect | Work::Handshake => arguments.requests / 4,
        _ => arguments.requests,
    };
    let requests = requests.max(1);
    let course = Course { requests, rounds: arguments.rounds, paced: None, logs: None };
    let before = load();
    let rounds = rounds::run(&contenders, course).await?;
    headline(work, arguments, None, requests, size, &before);
    rounds::print(&names(&contenders), &rounds, "nginx", upload);
    Ok(())
}

/// Rounds of requests to variants of our node, started as often as asked for.
async fn beside_itself(
    work: Work,
    directory: &Path,
    origin: SocketAddr,
    arguments: &ProxyArguments,
) -> Result<(), Failure> {
    let shape = Shape::new(arguments.connections, arguments.size);
    let requests = arguments.requests;
    let logs = (work == Work::Log).then_some(directory);
    let course = Course { requests, rounds: arguments.rounds, paced: None, logs };
    let before = load();
    let (mut rounds, mut called) = (Vec::<Vec<Round>>::new(), Vec::new());
    for start in 1..=arguments.starts.get() {
        let own = directory.join(start.to_string());
        let variants = match work {
            Work::Rules => own::rules(&own, origin, &arguments.rules, &shape).await?,
            _ => own::logs(&own, origin, &shape).await?,
        };
        let contenders: Vec<Contender<'_>> = variants
            .iter()
            .map(|variant| Contender {
                name: variant.name.clone(),
                peer: &variant.node,
                at: variant.node.at,
                shape: variant.shape.clone(),
            })
            .collect();
        rounds.resize_with(contenders.len(), Vec::new);
        for (all, more) in rounds.iter_mut().zip(rounds::run(&contenders, course).await?) {
            all.extend(more);
        }
        called = names(&contenders);
    }
    headline(work, arguments, None, requests, arguments.size, &before);
    let kinds = if work == Work::Rules { 2 } else { 1 };
    let each = called.len() / kinds;
    for (names, rounds) in called.chunks(each).zip(rounds.chunks(each)) {
        rounds::print(names, rounds, &names[0], 0);
    }
    Ok(())
}

fn names(contenders: &[Contender<'_>]) -> Vec<String> {
    contenders.iter().map(|contender| contender.name.clone()).collect()
}

fn headline(
    work: Work,
    arguments: &ProxyArguments,
    rate: Option<f64>,
    requests: usize,
    size: usize,
    before: &str,
) {
    let word = work.to_possible_value().map(|value| value.get_name().to_string());
    let word = word.unwrap_or_default();
    let at = match rate {
        Some(rate) => format!("{rate:.0} requests/s, "),
        None => String::new(),
    };
    let again = match work {
        Work::Rules | Work::Log if arguments.starts.get() > 1 => {
            format!(" after each of {} starts", arguments.starts)
        }
        _ => String::new(),
    };
    say!(
        "\n{word}: {at}{} connections, {requests} requests a round, answers of {size} bytes, {} \
         rounds{again}, load {before} before and {} after",
        arguments.connections,
        arguments.rounds,
        load()
    );
}

/// Bytes of an answer that is large.
const LARGE: usize = 100 << 10;
/// Bytes of an upload.
const UPLOAD: usize = 1 << 20;
