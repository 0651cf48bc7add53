//! The traffic threads: one single-threaded runtime each, with its own listening socket.
//!
//! The kernel spreads connections over the sockets (SO_REUSEPORT); nothing crosses threads on the
//! way of a request. Started, drained and ended from the control side.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::HeaderValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::certificates::Certificates;
use super::connection;
use super::dial::{Dialer, Distance};
use super::forward::Worker;
use super::last_call::LastCall;
use super::pool::Pool;
use super::resolve::{AddressPolicy, Resolver};
use super::running::Routes;
use super::shedding::Shedding;
use super::sockets::Sockets;
use super::target_tls::TargetTls;
use crate::model::network::Network;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

/// What the traffic threads are told at their start.
pub(crate) struct ProxyConfig {
    pub(crate) node: String,
    /// Where clients connect; a thread for each row.
    pub(crate) sockets: Sockets,
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) distance: Option<Distance>,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) metrics: Arc<RequestMetrics>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) clock: Clock,
    pub(crate) bounds: Bounds,
    pub(crate) shedding: Arc<Shedding>,
    pub(crate) tls: Option<Tls>,
    pub(crate) target_tls: Arc<TargetTls>,
    /// Who must begin each connection with a PROXY header.
    pub(crate) announcers: Vec<Network>,
}

/// Where TLS is spoken, and who we are there.
pub(crate) struct Tls {
    /// Of the sockets' addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) certificates: Arc<Certificates>,
}

/// What clients may hold of one traffic thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at once; beyond them a new one is closed at once.
    pub(crate) connections: usize,
    /// From the first moment of a connection, or the end of a request, to the next whole head.
    pub(crate) head: Duration,
    /// How long a connection has nothing to do before it gives up its buffers.
    pub(crate) rest: Duration,
    /// How long a client may take in nothing of what is sent to it.
    pub(crate) stalled: Duration,
    /// From the first moment of a connection to the end of its TLS handshake.
    pub(crate) handshake: Duration,
    /// How long a client may go on sending what nobody waits for, so that it comes to read its
    /// answer.
    pub(crate) lingering: Duration,
    /// How often a silent client is asked over HTTP/2 whether it is there, and how long it may take
    /// to say so.
    pub(crate) asked: (Duration, Duration),
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 50_000,
            head: Duration::from_secs(60),
            rest: Duration::from_millis(250),
            stalled: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            lingering: Duration::from_secs(30),
            asked: (Duration::from_secs(30), Duration::from_secs(20)),
        }
    }
}

impl ProxyConfig {
    fn tls_at(&self, listener: &TcpListener) -> Option<Arc<Certificates>> {
        let tls = self.tls.as_ref()?;
        let here = listener.local_addr().is_ok_and(|at| tls.addresses.contains(&at));
        here.then(|| tls.certificates.clone())
    }
}

/// The running traffic threads. Dropping it ends them at once.
pub(crate) struct ProxyHandle {
    addresses: Vec<SocketAddr>,
    /// For a process that takes over; a socket is closed only with its last handle.
    kept: Vec<std::net::TcpListener>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Draining,
    Ended,
}

/// The traffic threads could not be started.
#[derive(Debug)]
pub(crate) struct ListenError {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Why.
    pub(crate) reason: std::io::Error,
}

impl ProxyHandle {
    /// Starts the threads, which accept from now on.
    pub(crate) fn start(mut config: ProxyConfig) -> Result<ProxyHandle, ListenError> {
        let addresses = config.sockets.addresses.clone();
        let address = addresses.first().copied();
        let address = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let fail = |reason| ListenError { address, reason };
        let kept = config.sockets.duplicates().map_err(fail)?;
        let rows = std::mem::take(&mut config.sockets.rows);
        let (phase, watched) = watch::channel(Phase::Serving);
        let config = Arc::new(config);
        // A socket that nobody accepts from would keep its share of the clients waiting.
        let ready: Vec<Ready> =
            rows.into_iter().map(Ready::make).collect::<Result<_, _>>().map_err(fail)?;
        let threads = ready
            .into_iter()
            .map(|ready| {
                let (config, watched) = (config.clone(), watched.clone());
                let named = std::thread::Builder::new().name("traffic".to_string());
                named.spawn(move || run(&config, ready, watched)).map_err(fail)
            })
            .collect::<Result<_, _>>()?;
        Ok(ProxyHandle { addresses, kept, phase, threads })
    }

    /// Where clients reach it.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The listening sockets, for a process that takes over.
    pub(crate) fn sockets(&self) -> &[std::net::TcpListener] {
        &self.kept
    }

    /// Stops accepting, lets what runs come to its end, for at most `patience`, or until `hurry`.
    pub(crate) async fn drain(mut self, patience: Duration, hurry: CancellationToken) {
        self.kept.clear();
        self.phase.send_replace(Phase::Draining);
        let threads = std::mem::take(&mut self.threads);
        let mut joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A thread that panicked has nothing left to wait for.
                let _ = thread.join();
            }
        });
        let waiting = tokio::time::timeout(patience, &mut joined);
        if !matches!(hurry.run_until_cancelled(waiting).await, Some(Ok(_))) {
            self.phase.send_replace(Phase::Ended);
            // What is cut off shall stand in the access log before anybody takes that to be whole.
            let _ = tokio::time::timeout(LAST_WORDS, joined).await;
        }
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

/// What a traffic thread runs on, and the sockets that it accepts from.
struct Ready {
    /// Until a thread has it.
    runtime: Option<tokio::runtime::Runtime>,
    listeners: Vec<TcpListener>,
}

impl Ready {
    fn make(sockets: Vec<std::net::TcpListener>) -> std::io::Result<Ready> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUPS)
            .build()?;
        let mut ready = Ready { runtime: Some(runtime), listeners: Vec::new() };
        let inside = ready.runtime.as_ref().map(tokio::runtime::Runtime::enter);
        let listeners = sockets.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>();
        drop(inside);
        ready.listeners = listeners?;
        Ok(ready)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // Where it was never used: to wait for it is not allowed where another one runs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn run(config: &ProxyConfig, mut ready: Ready, phase: watch::Receiver<Phase>) {
    let Some(runtime) = ready.runtime.take() else { return };
    let listeners = std::mem::take(&mut ready.listeners);
    let bounds = config.bounds;
    let local = LocalSet::new();
    let connections = Arc::new(Semaphore::new(bounds.connections));
    let worker = worker(config, connections.clone());
    local.block_on(&runtime, async {
        tokio::task::spawn_local(worker.pool.clone().keep());
        if let Some(pen) = worker.access_log.clone() {
            tokio::task::spawn_local(pen.keep());
        }
        let mut accepting = Vec::new();
        for listener in listeners {
            let door = Door { certificates: config.tls_at(&listener), listener };
            let accept = accept(door, worker.clone(), connections.clone(), phase.clone());
            accepting.push(tokio::task::spawn_local(accept));
        }
        for task in accepting {
            // A task that was cancelled accepts nothing either.
            let _ = task.await;
        }
        let everything = u32::try_from(bounds.connections).unwrap_or(u32::MAX);
        let mut ended = phase.clone();
        tokio::select! {
            _ = connections.acquire_many(everything) => {}
            _ = ended.wait_for(|phase| *phase == Phase::Ended) => {}
        }
    });
    drop(local);
    // A name that is being looked up is nobody's business any more.
    runtime.shutdown_background();
}

/// What a traffic thread works with.
pub(super) fn worker(config: &ProxyConfig, connections: Arc<Semaphore>) -> Rc<Worker> {
    let own = format!("tradewind-{}", config.node);
    let via = |version: &str, else_by: &'static str| {
        HeaderValue::from_str(&format!("{version} {own}"))
            .unwrap_or(HeaderValue::from_static(else_by))
    };
    Rc::new(Worker {
        node: config.node.clone(),
        via: [
            via("1.1", "1.1 tradewind"),
            via("1.0", "1.0 tradewind"),
            via("2.0", "2.0 tradewind"),
        ],
        own: HeaderValue::from_str(&own).unwrap_or(HeaderValue::from_static("tradewind")),
        routes: config.routes.clone(),
        pool: Pool::new(Dialer {
            resolver: Resolver::new(config.policy.clone()),
            distance: config.distance.clone(),
            tls: config.target_tls.clone(),
        }),
        rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
        clock: config.clock,
        metrics: config.metrics.clone(),
        access_log: config.access_log.as_ref().map(|log| Rc::new(log.pen(config.clock))),
        bounds: config.bounds,
        shedding: config.shedding.clone(),
        connections,
        announcers: config.announcers.clone(),
        draining: Cell::new(false),
    })
}

/// A socket, and who we are to those who come through it.
struct Door {
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

async fn accept(
    door: Door,
    worker: Rc<Worker>,
    connections: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
) {
    let mut last_call = LastCall::new(phase.clone(), || worker.draining.set(true));
    while let Some(accepted) = last_call.next(door.listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                // At the cap a connection is closed at once: better than one that hangs.
                let Ok(permit) = connections.clone().try_acquire_owned() else {
                    worker.metrics.turned_away.fetch_add(1, Relaxed);
                    continue;
                };
                let (certificates, worker) = (door.certificates.clone(), worker.clone());
                let serving = connection::serve(stream, peer, certificates, worker, phase.clone());
                tokio::task::spawn_local(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for ListenError {}

/// After an accept that failed: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When leaving: how long new connections and requests are still taken, with the word that the
/// connection closes. What was sent before the client could know arrives within this time.
pub(super) const LAST_CALL: Duration = Duration::from_millis(100);
/// How long threads may take to let go of everything.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Names looked up at once per traffic thread; more wait.
const LOOKUPS: usize = 8;
