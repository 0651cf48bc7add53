//! The traffic threads: one single-threaded runtime each, with its own listening socket.
//!
//! The kernel spreads connections over the sockets (SO_REUSEPORT); nothing crosses threads on the
//! way of a request. Started, drained and ended from the control side.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::forward::{Client, Worker};
use super::pool::{Distance, Pool};
use super::reply::{self, Failure};
use super::resolve::{AddressPolicy, Resolver};
use super::routes::Routes;
use super::stall::Watched;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

/// What the traffic threads are told at their start.
pub(crate) struct ProxyConfig {
    pub(crate) node: String,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) threads: usize,
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) distance: Option<Distance>,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) metrics: Arc<RequestMetrics>,
    pub(crate) clock: Clock,
    pub(crate) bounds: Bounds,
}

/// What clients may hold of one traffic thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at once; beyond them a new one is closed at once.
    pub(crate) connections: usize,
    /// From the first moment of a connection, or the end of a request, to the next whole head.
    pub(crate) head: Duration,
    /// How long a client may take in nothing of what is sent to it.
    pub(crate) stalled: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 50_000,
            head: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
        }
    }
}

/// The running traffic threads. Dropping it ends them at once.
pub(crate) struct ProxyHandle {
    addresses: Vec<SocketAddr>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
    /// Opens the sockets and starts the threads. Port 0 takes a free port, the same for all.
    pub(crate) fn start(config: ProxyConfig) -> Result<ProxyHandle, ListenError> {
        let threads = config.threads.max(1);
        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..threads).map(|_| vec![]).collect();
        for wanted in &config.listen {
            let fail = |reason| ListenError { address: *wanted, reason };
            let mut at = *wanted;
            for row in &mut sockets {
                let socket = open(at).map_err(fail)?;
                at = socket.local_addr().map_err(fail)?;
                row.push(socket);
            }
            addresses.push(at);
        }
        let (phase, watched) = watch::channel(Phase::Serving);
        let config = Arc::new(config);
        let threads = sockets
            .into_iter()
            .map(|row| {
                let (config, watched) = (config.clone(), watched.clone());
                let named = std::thread::Builder::new().name("traffic".to_string());
                let address = addresses.first().copied();
                named.spawn(move || run(&config, row, watched)).map_err(|reason| ListenError {
                    address: address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(ProxyHandle { addresses, phase, threads })
    }

    /// Where clients reach it.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting, lets what runs come to its end, for at most `patience`.
    pub(crate) async fn drain(mut self, patience: Duration) {
        self.phase.send_replace(Phase::Draining);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A thread that panicked has nothing left to wait for.
                let _ = thread.join();
            }
        });
        if tokio::time::timeout(patience, joined).await.is_err() {
            self.phase.send_replace(Phase::Ended);
        }
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

fn open(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn run(config: &ProxyConfig, sockets: Vec<std::net::TcpListener>, phase: watch::Receiver<Phase>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUPS)
        .build();
    let Ok(runtime) = runtime else {
        tracing::error!("a traffic thread could not make its runtime");
        return;
    };
    let worker = worker(config);
    let bounds = config.bounds;
    let local = LocalSet::new();
    let connections = Arc::new(Semaphore::new(bounds.connections));
    local.block_on(&runtime, async move {
        tokio::task::spawn_local(worker.pool.clone().keep());
        let mut accepting = Vec::new();
        for socket in sockets {
            let Ok(listener) = TcpListener::from_std(socket) else { continue };
            let accept = accept(listener, worker.clone(), connections.clone(), phase.clone());
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

fn worker(config: &ProxyConfig) -> Rc<Worker> {
    let own = format!("tradewind-{}", config.node);
    let via = |version: &str, else_by: &'static str| {
        HeaderValue::from_str(&format!("{version} {own}"))
            .unwrap_or(HeaderValue::from_static(else_by))
    };
    Rc::new(Worker {
        node: config.node.clone(),
        via: [via("1.1", "1.1 tradewind"), via("1.0", "1.0 tradewind")],
        own: HeaderValue::from_str(&own).unwrap_or(HeaderValue::from_static("tradewind")),
        routes: config.routes.clone(),
        pool: Pool::new(Resolver::new(config.policy.clone()), config.distance.clone()),
        rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
        clock: config.clock,
        metrics: config.metrics.clone(),
        bounds: config.bounds,
        draining: Cell::new(false),
    })
}

async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    connections: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
) {
    let mut changing = phase.clone();
    let mut last_call = None;
    loop {
        let leaving = async {
            match last_call {
                None => drop(changing.wait_for(|phase| *phase != Phase::Serving).await),
                Some(until) => tokio::time::sleep_until(until).await,
            }
        };
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = leaving => {
                worker.draining.set(true);
                if last_call.is_some() {
                    return;
                }
                // Who stands at the door already would be turned away by closing it.
                last_call = Some(Instant::now() + LAST_CALL);
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                // At the cap a connection is closed at once: better than one that hangs.
                let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
                let serving = connection(stream, peer, worker.clone(), phase.clone());
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

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    worker: Rc<Worker>,
    mut phase: watch::Receiver<Phase>,
) {
    // A lost option costs latency, not correctness.
    let _ = stream.set_nodelay(true);
    let _counted = Counted::begin(&worker.metrics);
    let bounds = worker.bounds;
    let client = Rc::new(Client::new(peer.ip()));
    let service = service_fn(move |request| {
        let (worker, client) = (worker.clone(), client.clone());
        async move {
            let serving = Guarded(Box::pin(worker.clone().serve(client, request)));
            let response = serving.await.unwrap_or_else(|()| {
                tracing::error!("a request made the proxy panic");
                reply::failed(Failure::Internal, &worker.node, None)
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.head);
    builder.max_buf_size(REQUEST_HEAD_BYTES).half_close(false);
    let watched = TokioIo::new(Watched::new(stream, bounds.stalled));
    let mut serving = pin!(builder.serve_connection(watched, service));
    let leaving = async {
        let changed = phase.wait_for(|phase| *phase != Phase::Serving).await.is_ok();
        if changed {
            // A request may be on its way already; its answer will say that the connection closes.
            tokio::time::sleep(LAST_CALL).await;
        }
        changed
    };
    tokio::select! {
        // How a client's connection ends is the client's business.
        _ = serving.as_mut() => return,
        changed = leaving => {
            if !changed {
                return;
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<RequestMetrics>);

impl Counted {
    fn begin(metrics: &Arc<RequestMetrics>) -> Counted {
        metrics.connections.fetch_add(1, Relaxed);
        Counted(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A future whose panic is an error: one request's defect stays that request's.
struct Guarded<F>(Pin<Box<F>>);

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, ()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_) => Poll::Ready(Err(())),
        }
    }
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.reason)
    }
}

impl std::error::Error for ListenError {}

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4_096;
/// The largest request head.
const REQUEST_HEAD_BYTES: usize = 64 << 10;
/// After an accept that failed: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When leaving: how long new connections and requests are still taken, with the word that the
/// connection closes. What was sent before the client could know arrives within this time.
const LAST_CALL: Duration = Duration::from_millis(100);
/// Names looked up at once per traffic thread; more wait.
const LOOKUPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_one_request_is_an_error_and_nothing_more() {
        async fn defect(when: u32) -> u32 {
            for _ in 0..when {
                tokio::task::yield_now().await;
            }
            assert!(when != 2, "a defect");
            when
        }
        assert_eq!(Guarded(Box::pin(defect(1))).await, Ok(1));
        assert_eq!(Guarded(Box::pin(defect(2))).await, Err(()));
        assert_eq!(Guarded(Box::pin(defect(3))).await, Ok(3));
    }
}
