//! Requests through a node, beside nginx where it is installed: CPU per request above all.
//!
//! Closed loop over keep-alive connections. Each proxy is a process of its own with one worker;
//! its CPU time is the system's own account of it. Rounds are interleaved; medians are printed.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{load, median, origin, quantile};
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// A proxy under measurement.
struct Peer {
    name: &'static str,
    at: SocketAddr,
    process: Child,
    /// The process whose CPU time counts: nginx's worker, not its master.
    pid: u32,
    rounds: Vec<Round>,
}

/// One round through one proxy.
struct Round {
    per_second: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    errors: usize,
}

/// Runs and prints the comparison.
pub(super) async fn run(
    connections: usize,
    requests: usize,
    rounds: usize,
    size: usize,
) -> Result<(), Failure> {
    let directory = std::env::temp_dir().join(format!("tradewind-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| Failure::failed(error.to_string()))?;
    let origin = origin::start(size).await?;
    let mut peers = vec![ours(&directory, origin)?];
    match nginx(&directory, origin)? {
        Some(nginx) => peers.push(nginx),
        None => say!("nginx      is not installed: SKIPPED, no ratio"),
    }
    for peer in &mut peers {
        wait_until_up(peer.at).await?;
        peer.pid = worker_of(peer.process.id());
        measure(peer, connections, requests / 10 + 1).await?;
        peer.rounds.clear();
    }
    for _ in 0..rounds {
        for peer in &mut peers {
            measure(peer, connections, requests).await?;
        }
    }
    say!(
        "{connections} connections, {requests} requests of {size} bytes a round, {rounds} rounds, \
         medians; load {} at the end\n",
        load()
    );
    say!("              CPU/request   requests/s       p50       p99   errors");
    let mut cpu = Vec::new();
    for peer in &mut peers {
        cpu.push(peer.print());
        // It has served its purpose.
        let _ = Command::new("kill").arg(peer.process.id().to_string()).status();
        let _ = peer.process.wait();
    }
    if let [ours, nginx] = cpu.as_slice() {
        say!("\nratio       {:.2} of nginx's CPU per request", ours / nginx);
    }
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

impl Peer {
    fn print(&self) -> f64 {
        let of = |value: fn(&Round) -> f64| {
            median(&mut self.rounds.iter().map(value).collect::<Vec<f64>>())
        };
        let cpu = of(|round| round.cpu_us);
        let errors: usize = self.rounds.iter().map(|round| round.errors).sum();
        say!(
            "{:11} {cpu:9.1} us {:12.0} {:6.2} ms {:6.2} ms {errors:8}",
            self.name,
            of(|round| round.per_second),
            of(|round| round.p50_ms),
            of(|round| round.p99_ms),
        );
        cpu
    }
}

fn ours(directory: &Path, origin: SocketAddr) -> Result<Peer, Failure> {
    let rules = directory.join("rules.yaml");
    let text = format!("id: bench\ndata:\n  targets: [{{ url: \"http://{origin}\" }}]\n");
    std::fs::write(&rules, text).map_err(|error| Failure::failed(error.to_string()))?;
    let (at, peer) = (free_port()?, free_port()?);
    let own = std::env::current_exe().map_err(|error| Failure::failed(error.to_string()))?;
    let process = Command::new(own)
        .args(["node", "--id", "bench", "--traffic-threads", "1", "--access-log", "off"])
        .args(["--listen", &at.to_string(), "--peer-listen", &peer.to_string()])
        .args(["--data", &directory.join("node").display().to_string()])
        .args(["--rules", &rules.display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::failed(format!("the node cannot start: {error}")))?;
    Ok(Peer { name: "tradewind", at, pid: process.id(), process, rounds: Vec::new() })
}

fn nginx(directory: &Path, origin: SocketAddr) -> Result<Option<Peer>, Failure> {
    let at = free_port()?;
    let here = directory.display();
    let config = format!(
        "daemon off; worker_processes 1; pid {here}/nginx.pid; error_log {here}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; \
         client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; \
         uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
         upstream o {{ server {origin}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen {at} reuseport; location / {{ proxy_pass http://o; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header Host $host; }} }} }}\n"
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, config).map_err(|error| Failure::failed(error.to_string()))?;
    let started = Command::new("nginx")
        .args(["-c", &path.display().to_string(), "-e", &format!("{here}/error.log")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Ok(started.ok().map(|process| {
        let pid = process.id();
        Peer { name: "nginx", at, process, pid, rounds: Vec::new() }
    }))
}

async fn measure(peer: &mut Peer, connections: usize, requests: usize) -> Result<(), Failure> {
    let left = Arc::new(AtomicUsize::new(requests));
    let before = cpu_seconds(peer.pid);
    let begun = Instant::now();
    let tasks: Vec<_> =
        (0..connections).map(|_| tokio::spawn(client(peer.at, left.clone()))).collect();
    let mut times = Vec::with_capacity(requests);
    let mut errors = 0;
    for task in tasks {
        let (some, failed) = task.await.map_err(|error| Failure::failed(error.to_string()))?;
        times.extend(some);
        errors += failed;
    }
    let took = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds(peer.pid) - before;
    let done = times.len().max(1) as f64;
    times.sort_by(f64::total_cmp);
    peer.rounds.push(Round {
        per_second: done / took,
        cpu_us: cpu * 1e6 / done,
        p50_ms: quantile(&times, 0.5),
        p99_ms: quantile(&times, 0.99),
        errors,
    });
    Ok(())
}

/// One connection: a request after the other until none is left; times in milliseconds.
async fn client(at: SocketAddr, left: Arc<AtomicUsize>) -> (Vec<f64>, usize) {
    let mut times = Vec::new();
    let mut errors = 0;
    while left.load(Relaxed) > 0 {
        let Ok(stream) = TcpStream::connect(at).await else {
            errors += 1;
            return (times, errors);
        };
        let _ = stream.set_nodelay(true);
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            errors += 1;
            continue;
        };
        let driven = tokio::spawn(connection);
        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let request = Request::builder().uri("/").header(HOST, "bench.example");
            let Ok(request) = request.body(Empty::<Bytes>::new()) else { break };
            let begun = Instant::now();
            let answered = async {
                let response = sender.send_request(request).await.ok()?;
                let good = response.status().is_success();
                response.into_body().collect().await.ok()?;
                good.then_some(())
            };
            if answered.await.is_none() {
                errors += 1;
                break;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        driven.abort();
    }
    (times, errors)
}

/// User and system time of a process and its threads (proc(5), fields 14 and 15).
fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|t| t.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS
}

/// A master's first child, or the process itself.
fn worker_of(pid: u32) -> u32 {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(children).unwrap_or_default();
    text.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(pid)
}

async fn wait_until_up(at: SocketAddr) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        let left = Arc::new(AtomicUsize::new(1));
        if let (times, 0) = client(at, left).await
            && !times.is_empty()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::failed(format!("the proxy at {at} did not come up")))
}

fn free_port() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::failed(format!("no port: {error}")))
}

/// Clock ticks a second on Linux, as user space sees them.
const TICKS: f64 = 100.0;
