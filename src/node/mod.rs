//! The proxy process: tasks, sockets, disk around the node's mind.
//!
//! `driver` owns the mind; `subscriber` and `peer_client` speak for it, `peer_server` hears for
//! it, `disk` remembers, `activation` puts rules in force. No global state: many nodes live in
//! one process in tests and in the demo.

mod activation;
mod address_policy;
pub(crate) mod connect;
mod disk;
mod driver;
mod files;
mod keeping;
mod metrics;
mod options;
mod peer_client;
mod peer_server;
mod priors;
mod subscriber;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rand::RngExt;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tonic::metadata::MetadataValue;

use crate::engine::Engine;
use crate::engine::config::{EngineConfig, Topology};
use crate::engine::port::Input;
use crate::model::head::Position;
use crate::model::ids::{PeerAddr, RuleId, Version};
use crate::model::key::PrivateKey;
use crate::proxy::listener::{Bounds, ProxyConfig, ProxyHandle};
use crate::proxy::resolve::AddressPolicy;
use crate::proxy::routes::{Routes, RoutesState};
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;
use activation::{Activator, Here};
use address_policy::PeerPolicy;
use connect::Connector;
use driver::{Driver, Note, View};
use metrics::NodeMetrics;
pub(crate) use options::{Network, NodeError, NodeOptions};
use peer_client::PeerClient;
use subscriber::writes::Orchestrators;

/// A running node.
pub(crate) struct Node {
    traffic: Vec<SocketAddr>,
    peer: SocketAddr,
    notes: mpsc::Sender<Note>,
    ended: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    proxy: Option<ProxyHandle>,
    driver: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Starts a node on the caller's runtime; its traffic threads are its own.
    pub(crate) async fn start(options: NodeOptions) -> Result<Node, NodeError> {
        options.check()?;
        let clock = Clock::new();
        let (listener, peer) = listen(options.peer_listen).await?;
        let seeds = options::resolve(&options.seeds).await?;
        let fixed = options::resolve(&options.neighbours).await?;
        let advertised = options.advertised(peer, &seeds);
        let (notes, mailbox) = mpsc::channel(MAILBOX);
        let (ended, over) = watch::channel(false);
        let opened = open_disk(options.data.clone(), notes.clone()).await?;
        let disk = opened.disk;
        let serving = Serving::start(&options, peer, &disk, opened.fallback, &notes, clock)?;
        let given = seeds.iter().chain(&fixed).copied().collect();
        let policy = Arc::new(PeerPolicy::new(advertised, given));
        let links = Links::new(&options);
        let traffic = serving.proxy.addresses().to_vec();
        let config = engine_config(&options, advertised, opened.key, (seeds, fixed), &traffic);
        let engine = Engine::new(config, opened.keep, rand::rng().random(), clock.now());
        let view = Arc::new(ArcSwap::from_pointee(View::of(&engine, clock.now())));
        let metrics = Arc::new(NodeMetrics::default());
        let (events, _) = broadcast::channel(EVENTS);
        let draining = Arc::new(AtomicBool::new(false));
        let rules_file = Arc::new(ArcSwap::from_pointee("none".to_string()));
        let door = peer_server::Door {
            node: options.id.clone(),
            region: options.region.clone(),
            view: view.clone(),
            notes: notes.clone(),
            routes: serving.routes.clone(),
            published: serving.published,
            activator: serving.activator.clone(),
            active: serving.active,
            clock,
            metrics: metrics.clone(),
            requests: serving.requests.clone(),
            policy: policy.clone(),
            token: options.token.clone(),
            hosts: options.own_names(),
            events: events.clone(),
            orchestrators: links.orchestrators.clone(),
            disk: disk.clone(),
            answers: Mutex::new(VecDeque::new()),
            rules_file: rules_file.clone(),
            ended: draining.clone(),
        };
        tokio::spawn(peer_server::serve(listener, Arc::new(door), over.clone()));
        if let Some(path) = options.rules.clone() {
            let notes = notes.clone();
            tokio::spawn(files::watch_file(path, clock, notes, rules_file, over.clone()));
        }
        let (routes, peers) = (serving.routes, links.peers.clone());
        tokio::spawn(priors::run(view.clone(), routes, peers, clock, over.clone()));
        tokio::spawn(count_requests(serving.requests, notes.clone(), over));
        let driver = Driver {
            engine,
            clock,
            mailbox,
            notes: notes.clone(),
            view,
            activator: serving.activator,
            disk,
            policy,
            links,
            metrics,
            events,
            waiting: driver::Waiting::default(),
        };
        let driver = tokio::spawn(driver.run());
        Ok(Node { traffic, peer, notes, ended, draining, proxy: Some(serving.proxy), driver })
    }

    /// Where clients reach it.
    pub(crate) fn traffic_addrs(&self) -> &[SocketAddr] {
        &self.traffic
    }

    /// Where peers reach it.
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Out of service in good order: unready, no new connections, what runs comes to its end.
    pub(crate) async fn shutdown(mut self, delay: Duration, patience: Duration) {
        self.draining.store(true, Relaxed);
        let _ = self.notes.send(Note::input(Input::Drain(true))).await;
        tokio::time::sleep(delay).await;
        if let Some(proxy) = self.proxy.take() {
            proxy.drain(patience).await;
        }
        let (done, waiting) = oneshot::channel();
        if self.notes.send(Note::End(done)).await.is_ok() {
            // The loop answers at once, or is gone.
            let _ = waiting.await;
        }
        self.ended.send_replace(true);
    }

    /// Ends at once, as a crash would: nothing more is said or stored.
    pub(crate) fn kill(self) {
        self.driver.abort();
        self.ended.send_replace(true);
    }
}

/// What serves traffic, and puts rules in force for it.
struct Serving {
    routes: Arc<Mutex<RoutesState>>,
    published: Arc<ArcSwap<Routes>>,
    activator: Activator,
    active: watch::Receiver<Option<Position>>,
    proxy: ProxyHandle,
    requests: Arc<RequestMetrics>,
}

impl Serving {
    fn start(
        options: &NodeOptions,
        peer: SocketAddr,
        disk: &disk::Disk,
        fallback: BTreeMap<RuleId, (Version, Bytes)>,
        notes: &mpsc::Sender<Note>,
        clock: Clock,
    ) -> Result<Serving, NodeError> {
        let requests = Arc::new(RequestMetrics::default());
        let state = RoutesState::new(requests.clone());
        let published = state.published();
        let routes = Arc::new(Mutex::new(state));
        let loopback = options.allow_loopback();
        let policy = Arc::new(AddressPolicy { loopback, own: vec![peer] });
        let here = Here {
            region: options.region.clone(),
            labels: options.labels.clone(),
            policy: policy.clone(),
        };
        let (active_at, active) = watch::channel::<Option<Position>>(None);
        let said = notes.clone();
        let activated = move |position, rejected| {
            active_at.send_replace(position);
            // The loop may be gone; then nobody asks.
            let _ = said.blocking_send(Note::input(Input::Activated { position, rejected }));
        };
        let activator = Activator::start(here, disk.clone(), routes.clone(), fallback, activated)
            .map_err(NodeError::Thread)?;
        let proxy = ProxyHandle::start(ProxyConfig {
            node: options.id.to_string(),
            listen: options.listen.clone(),
            threads: options.traffic_threads,
            policy,
            distance: options.target_distance(),
            routes: published.clone(),
            metrics: requests.clone(),
            clock,
            bounds: Bounds::default(),
        })
        .map_err(NodeError::Traffic)?;
        Ok(Serving { routes, published, activator, active, proxy, requests })
    }
}

/// How a node reaches others.
pub(crate) struct Links {
    connector: Connector,
    peers: PeerClient,
    orchestrators: Orchestrators,
}

impl Links {
    fn new(options: &NodeOptions) -> Links {
        let connector = Connector::new(options.control_distance());
        let bearer = options.token.as_ref().map(|token| format!("Bearer {token}"));
        let metadata = bearer.as_ref().and_then(|text| MetadataValue::try_from(text).ok());
        let header = bearer.as_ref().and_then(|text| http::HeaderValue::from_str(text).ok());
        let urls = options.orchestrators.clone();
        Links {
            peers: PeerClient::new(connector.clone(), header),
            orchestrators: Orchestrators::new(urls, metadata, connector.clone()),
            connector,
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let fail = |reason| NodeError::Listen { address, reason };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

fn engine_config(
    options: &NodeOptions,
    advertised: PeerAddr,
    key: PrivateKey,
    (seeds, fixed): (Vec<PeerAddr>, Vec<PeerAddr>),
    traffic: &[SocketAddr],
) -> EngineConfig {
    EngineConfig {
        node: options.id.clone(),
        region: options.region.clone(),
        labels: options.labels.clone(),
        peer_address: advertised,
        traffic_addresses: traffic.iter().map(ToString::to_string).collect(),
        program_version: env!("CARGO_PKG_VERSION").to_string(),
        key,
        trusted: options.trusted.clone(),
        orchestrators: options.orchestrators.len(),
        seeds,
        topology: if fixed.is_empty() {
            Topology::Discover { near: options.near, far: options.far }
        } else {
            Topology::Fixed(fixed)
        },
        pace: options.pace.clone(),
    }
}

async fn open_disk(data: PathBuf, notes: mpsc::Sender<Note>) -> Result<disk::Opened, NodeError> {
    let opening = tokio::task::spawn_blocking(move || {
        disk::open(&data, move |ticket, done| {
            // The loop may be gone; then nobody waits.
            let _ = notes.blocking_send(Note::input(Input::Stored { ticket, done }));
        })
    });
    let opened = opening.await.map_err(|_| NodeError::Ended)?;
    opened.map_err(NodeError::Disk)
}

/// Tells the mind now and then how many requests there were, for its reports.
async fn count_requests(
    requests: Arc<RequestMetrics>,
    notes: mpsc::Sender<Note>,
    mut ended: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(COUNT_EVERY) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        if notes.send(Note::input(Input::Served(requests.total()))).await.is_err() {
            return;
        }
    }
}

/// Inputs that may wait for the loop.
const MAILBOX: usize = 4_096;
/// Events a slow reader may be behind.
const EVENTS: usize = 1_024;
/// How often reports learn of requests.
const COUNT_EVERY: Duration = Duration::from_secs(1);
