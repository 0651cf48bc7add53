//! One orchestrator: its store, its thread, its ports, and how it goes down.
//!
//! Holds no global state. Invariant: a control port beyond loopback asks for a token.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::{Command, Driver};
use super::http;
use super::metrics::Metrics;
use super::service::gate::BOUNDS;
use super::service::guard::Guard;
use super::service::port::serve_grpc;
use super::shared::{Clock, Offers, Shared};
use super::store::Store;
use super::store_error::StoreError;
use super::view::{Published, View};
use crate::engine::followers::Followers;
use crate::model::ids::ClusterId;
use crate::model::key::PublicKey;
use crate::proxy::control_port;

/// How to run an orchestrator.
#[derive(Clone)]
pub struct OrchestratorOptions {
    /// Where gRPC is served; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// Where HTTP is served; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// The directory of the store and the key.
    pub data: PathBuf,
    /// The cluster's name, for people.
    pub cluster: String,
    /// What callers have to show; must be there where a port leaves loopback.
    pub token: Option<String>,
    /// From one beacon to the next.
    pub beacon_interval: Duration,
}

/// A running orchestrator.
pub struct Orchestrator {
    shared: Arc<Shared>,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    driver: Option<Driver>,
    tasks: Vec<JoinHandle<()>>,
}

/// Why an orchestrator could not start.
#[derive(Debug)]
pub enum OrchestratorError {
    /// A port beyond loopback without a token.
    OpenPort(SocketAddr),
    /// A token that is empty or cannot be sent.
    BadToken,
    /// The store could not be opened.
    Store(StoreError),
    /// A port could not be taken.
    Listen(SocketAddr, std::io::Error),
    /// The thread or the runtime refused.
    Runtime(std::io::Error),
}

impl OrchestratorOptions {
    /// On loopback, at free ports, without a token.
    pub fn local(data: impl Into<PathBuf>) -> OrchestratorOptions {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        OrchestratorOptions {
            grpc_listen: local,
            http_listen: local,
            data: data.into(),
            cluster: "tradewind".to_owned(),
            token: None,
            beacon_interval: Duration::from_secs(1),
        }
    }
}

impl Orchestrator {
    /// Opens the store, takes the ports and serves.
    ///
    /// # Errors
    /// Nothing runs then.
    pub async fn start(options: OrchestratorOptions) -> Result<Orchestrator, OrchestratorError> {
        check(&options)?;
        let grpc = listen(options.grpc_listen)?;
        let http = listen(options.http_listen)?;
        let (grpc_addr, http_addr) = (address(&grpc)?, address(&http)?);
        let data = options.data.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&data)).await;
        let opened = opened
            .map_err(|_| StoreError::Damaged("opening it failed half-way".to_owned()))
            .and_then(|opened| opened)
            .map_err(OrchestratorError::Store)?;
        if opened.is_new {
            let key = options.data.join("cluster.key");
            tracing::warn!(key = %key.display(), "made the cluster key: keep a copy of it");
        }
        let (key, (store, commits, known, tick)) = (opened.key.clone(), opened.parts());
        let mut followers = Followers::default();
        known.into_iter().for_each(|hello| followers.remember(hello));
        followers.propagation.committed(*commits.ledger().signed(), None);
        if let Some(fence) = commits.fence() {
            tracing::error!(%fence, "no writes are taken");
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let view = View::new(commits.ledger().clone(), commits.fence().cloned());
        let shared = Arc::new(Shared {
            published: Published::new(view),
            followers: Mutex::new(followers),
            offers: Offers::default(),
            metrics: Metrics::new(),
            store: Arc::new(store),
            cluster: commits.ledger().head().cluster,
            trust: commits.trust().clone(),
            key,
            name: options.cluster.clone(),
            commands,
            clock: Clock::start(),
            beacon_interval: options.beacon_interval,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            stopping: CancellationToken::new(),
        });
        let driver = Driver::spawn(shared.clone(), commits, tick, receiver)
            .map_err(OrchestratorError::Runtime)?;
        let guard = Guard::new(options.token.as_deref());
        let tasks = vec![
            tokio::spawn(beat(shared.clone())),
            tokio::spawn(serve_grpc(shared.clone(), guard.clone(), options.token, grpc)),
            tokio::spawn(serve_http(shared.clone(), guard, http, http_addr)),
        ];
        tracing::info!(%grpc_addr, %http_addr, cluster = %shared.cluster.short(), "serving");
        Ok(Orchestrator { shared, grpc_addr, http_addr, driver: Some(driver), tasks })
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The key that signs.
    pub fn public_key(&self) -> PublicKey {
        self.shared.key.public()
    }

    /// The fleet.
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Why it takes no writes, if so.
    pub fn fenced(&self) -> Option<String> {
        self.shared.published.load().fence.as_ref().map(ToString::to_string)
    }

    /// What its tasks share.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Ends streams, answers what is under way, and closes the store.
    pub async fn shutdown(mut self) {
        self.shared.stopping.cancel();
        for mut task in std::mem::take(&mut self.tasks) {
            if timeout(DRAIN, &mut task).await.is_err() {
                task.abort();
                drop(task.await);
            }
        }
        drop(self.shared.commands.send(Command::Stop).await);
        if let Some(driver) = self.driver.take() {
            drop(tokio::task::spawn_blocking(|| driver.join()).await);
        }
    }
}

impl Drop for Orchestrator {
    /// Without `shutdown` everything ends too, but nobody waits for it.
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        drop(self.shared.commands.try_send(Command::Stop));
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn check(options: &OrchestratorOptions) -> Result<(), OrchestratorError> {
    let open = [options.grpc_listen, options.http_listen];
    let open = open.into_iter().find(|listen| !listen.ip().is_loopback());
    match (&options.token, open) {
        (None, Some(listen)) => Err(OrchestratorError::OpenPort(listen)),
        (Some(token), _)
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Err(OrchestratorError::BadToken)
        }
        _ => Ok(()),
    }
}

fn listen(at: SocketAddr) -> Result<TcpListener, OrchestratorError> {
    let open = || {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error| OrchestratorError::Listen(at, error))
}

fn address(listener: &TcpListener) -> Result<SocketAddr, OrchestratorError> {
    listener.local_addr().map_err(OrchestratorError::Runtime)
}

/// Asks the driver for a beacon again and again; it also looks at the gate then.
async fn beat(shared: Arc<Shared>) {
    let mut ticks = interval(shared.beacon_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => return,
        }
        if shared.commands.send(Command::Beat).await.is_err() {
            return;
        }
    }
}

async fn serve_http(shared: Arc<Shared>, guard: Guard, listener: TcpListener, address: SocketAddr) {
    let stopping = shared.stopping.clone();
    let router = http::router(shared, guard, address);
    let (end, ended) = watch::channel(false);
    let mut serving = std::pin::pin!(control_port::serve(listener, router, BOUNDS, ended));
    tokio::select! {
        () = serving.as_mut() => return,
        () = stopping.cancelled() => {}
    }
    // Readers may be cut off: what they read is whole or it is not an answer.
    let _ = end.send(true);
    serving.await;
}

impl fmt::Debug for OrchestratorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorOptions")
            .field("grpc_listen", &self.grpc_listen)
            .field("http_listen", &self.http_listen)
            .field("data", &self.data)
            .field("cluster", &self.cluster)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("beacon_interval", &self.beacon_interval)
            .finish()
    }
}

impl fmt::Display for OrchestratorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrchestratorError::OpenPort(listen) => write!(
                f,
                "{listen} can be reached from elsewhere: give a token with --token-file, \
                 or listen on 127.0.0.1"
            ),
            OrchestratorError::BadToken => {
                f.write_str("a token has at least one and only visible ASCII characters")
            }
            OrchestratorError::Store(error) => error.fmt(f),
            OrchestratorError::Listen(listen, error) => {
                write!(f, "cannot listen on {listen}: {error}")
            }
            OrchestratorError::Runtime(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for OrchestratorError {}

/// Connections that may wait to be accepted: a whole fleet coming back at once.
const BACKLOG: u32 = 4_096;
/// Commands that wait for the driver; beyond it callers wait.
const COMMANDS: usize = 1_024;
/// Streams of changes for people and programs.
const WATCHERS: usize = 1_024;
/// How long calls that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(5);
