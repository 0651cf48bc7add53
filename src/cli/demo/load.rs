//! Requests at a steady rate through a node, and who answered them.
//!
//! Open loop: requests begin when they are due, whatever became of the ones before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::target::TARGET_HEADER;
use crate::cli::failure::Failure;
use crate::cli::roles::{Signals, control_runtime};
use crate::telemetry::logs;

/// What became of the requests through one node.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: AtomicU64,
    pub(super) failed: AtomicU64,
    recent: Mutex<VecDeque<Sample>>,
}

struct Sample {
    at: Instant,
    took: Duration,
    /// None when it failed.
    target: Option<String>,
}

/// The last two seconds.
pub(super) struct Recent {
    pub(super) count: usize,
    pub(super) failed: usize,
    pub(super) p50: Duration,
    pub(super) by_target: BTreeMap<String, usize>,
}

impl Tally {
    fn note(&self, took: Duration, target: Option<String>) {
        self.sent.fetch_add(1, Relaxed);
        if target.is_none() {
            self.failed.fetch_add(1, Relaxed);
        }
        let at = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(Sample { at, took, target });
        while recent.front().is_some_and(|old| at.duration_since(old.at) > WINDOW) {
            recent.pop_front();
        }
    }

    pub(super) fn recent(&self) -> Recent {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = recent.iter().filter(|sample| sample.at.elapsed() <= WINDOW);
        let mut times = Vec::new();
        let mut by_target: BTreeMap<String, usize> = BTreeMap::new();
        let mut failed = 0;
        for sample in fresh {
            times.push(sample.took);
            match &sample.target {
                Some(target) => *by_target.entry(target.clone()).or_default() += 1,
                None => failed += 1,
            }
        }
        times.sort();
        let p50 = times.get(times.len() / 2).copied().unwrap_or_default();
        Recent { count: times.len(), failed, p50, by_target }
    }
}

/// Sends `rate` requests a second to a traffic port until it is aborted.
pub(super) fn start(url: String, host: String, rate: u32, tally: Arc<Tally>) -> JoinHandle<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector);
    tokio::spawn(async move {
        if rate == 0 {
            return;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let (client, tally) = (client.clone(), tally.clone());
            let request = Request::builder().uri(&url).header(HOST, &host).body(Empty::new());
            let Ok(request) = request else { return };
            tokio::spawn(async move {
                let begun = Instant::now();
                let answered = exchange(&client, request);
                let target = tokio::time::timeout(PATIENCE, answered).await.ok().flatten();
                tally.note(begun.elapsed(), target);
            });
        }
    })
}

/// Who answered, if anybody did.
async fn exchange(
    client: &Client<HttpConnector, Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Option<String> {
    let response = client.request(request).await.ok()?;
    let good = response.status().is_success();
    let target = response.headers().get(TARGET_HEADER)?.to_str().ok()?.to_string();
    response.into_body().collect().await.ok()?;
    good.then_some(target)
}

/// `tradewind demo load`.
pub(super) fn alone(nodes: &[String], host: &str, rate: u32) -> Result<(), Failure> {
    if nodes.is_empty() {
        return Err(Failure::usage("--node URL is needed, once per node"));
    }
    logs::begin("info");
    control_runtime()?.block_on(async move {
        let mut signals = Signals::new()?;
        let tallies: Vec<Arc<Tally>> = nodes
            .iter()
            .map(|node| {
                let tally = Arc::new(Tally::default());
                start(node.clone(), host.to_string(), rate, tally.clone());
                tally
            })
            .collect();
        loop {
            tokio::select! {
                () = tokio::time::sleep(SAY_EVERY) => {}
                () = signals.ended() => return Ok(()),
            }
            for (node, tally) in nodes.iter().zip(&tallies) {
                let recent = tally.recent();
                tracing::info!(
                    %node, count = recent.count, failed = recent.failed,
                    p50_ms = recent.p50.as_secs_f64() * 1e3, targets = ?recent.by_target,
                    "the last two seconds"
                );
            }
        }
    })
}

/// What counts as recent.
const WINDOW: Duration = Duration::from_secs(2);
/// A request without an answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the load alone says how it goes.
const SAY_EVERY: Duration = Duration::from_secs(10);
