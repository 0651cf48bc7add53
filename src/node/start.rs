//! Putting a node together: sockets first, then what it remembers, then everything that runs.
//!
//! Connections wait in the listening sockets until everything that the node knows by itself, its
//! disk and its rules file, is in force: no request meets a node that has not read its rules. Where
//! those have health checks, each target was looked at, or there was time to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tonic::metadata::MetadataValue;

use super::activation::{Activator, Here};
use super::address_policy::PeerPolicy;
use super::connect::Connector;
use super::driver::{self, Driver, Note, View};
use super::metrics::NodeMetrics;
use super::options::{NodeError, NodeOptions};
use super::peer_client::PeerClient;
use super::subscriber::writes::Orchestrators;
use super::{Node, disk, files, names, peer_server, priors, traffic};
use crate::engine::Engine;
use crate::engine::config::{EngineConfig, Topology};
use crate::engine::port::Input;
use crate::model::head::Position;
use crate::model::ids::PeerAddr;
use crate::model::key::PrivateKey;
use crate::proxy::listener::{ProxyConfig, ProxyHandle};
use crate::proxy::prober::Prober;
use crate::proxy::resolve::AddressPolicy;
use crate::proxy::routes::RoutesState;
use crate::proxy::running::Routes;
use crate::proxy::shedding::Shedding;
use crate::proxy::sockets::{Inherited, Sockets};
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

impl Node {
    /// Starts a node on the caller's runtime; its traffic threads are its own.
    pub(crate) async fn start(options: NodeOptions) -> Result<Node, NodeError> {
        Node::start_with(options, Inherited::default()).await
    }

    /// The same with sockets that listen already; those of other addresses are closed.
    pub(crate) async fn start_with(
        options: NodeOptions,
        inherited: Inherited,
    ) -> Result<Node, NodeError> {
        options.check()?;
        let clock = Clock::new();
        let Ports { listener, peer, peer_socket, sockets } =
            Ports::open(&options, inherited).await?;
        let seeds = names::literals(&options.seeds);
        let fixed = names::literals(&options.neighbours);
        let advertised = options.advertised(peer, &seeds);
        let own_port = options.advertises_later(peer, &seeds).then_some(peer.port());
        let ((notes, mailbox), (ended, over)) = (mpsc::channel(MAILBOX), watch::channel(false));
        let opened = open_disk(options.data.clone(), notes.clone()).await?;
        let disk = opened.disk;
        let serving = Serving::start(&options, peer, &disk, opened.fallback, &notes)?;
        let given = [&seeds[..], &fixed].concat();
        let policy = Arc::new(PeerPolicy::new(advertised, given));
        let links = Links::new(&options);
        let traffic = sockets.addresses.iter().map(ToString::to_string).collect();
        let (proxy, _served) = serving.proxy(&options, sockets, clock)?;
        let config = engine_config(&options, advertised, opened.key, (seeds, fixed), traffic);
        let engine = Engine::new(config, opened.keep, rand::random(), clock.now());
        let view = Arc::new(ArcSwap::from_pointee(View::of(&engine, clock.now())));
        let (metrics, (events, _)) = (Arc::<NodeMetrics>::default(), broadcast::channel(EVENTS));
        let door = peer_server::Door {
            node: options.id.clone(),
            region: options.region.clone(),
            view: view.clone(),
            notes: notes.clone(),
            routes: serving.routes,
            published: serving.published,
            activator: serving.activator.clone(),
            active: serving.active,
            clock,
            metrics: metrics.clone(),
            requests: serving.requests,
            access_log: options.access_log.clone(),
            policy: policy.clone(),
            token: options.token.clone(),
            hosts: options.own_names(),
            events: events.clone(),
            orchestrators: links.orchestrators.clone(),
            disk: disk.clone(),
            answers: Mutex::new(VecDeque::new()),
            rules_file: Arc::new(ArcSwap::from_pointee("none".to_string())),
            unresolved: names::Unresolved::default(),
            ended: Arc::new(AtomicBool::new(false)),
            bodies: peer_server::Bodies::default(),
        };
        let door = Arc::new(door);
        tokio::spawn(peer_server::serve(listener, door.clone(), over.clone()));
        let file_read = run_beside(&options, &door, own_port, links.peers.clone(), over);
        let driver = Driver {
            engine,
            clock,
            mailbox,
            notes: notes.clone(),
            view,
            activator: serving.activator,
            disk: disk.clone(),
            policy,
            links,
            metrics,
            events,
            waiting: driver::Waiting::default(),
        };
        let driver = tokio::spawn(driver.run());
        in_force(file_read, &notes, &door.routes).await;
        let proxy = ProxyHandle::start(proxy).map_err(NodeError::Traffic)?;
        let draining = door.ended.clone();
        Ok(Node { peer, peer_socket, notes, ended, draining, disk, proxy, driver, _served })
    }
}

/// Starts what runs beside the mind; the end of what is returned says that the file was read.
fn run_beside(
    options: &NodeOptions,
    door: &peer_server::Door,
    own_port: Option<u16>,
    peers: PeerClient,
    over: watch::Receiver<bool>,
) -> oneshot::Receiver<()> {
    let (read, file_read) = oneshot::channel();
    let (clock, notes) = (door.clock, door.notes.clone());
    if let Some(path) = options.rules.clone() {
        let (notes, state) = (notes.clone(), door.rules_file.clone());
        tokio::spawn(files::watch_file(path, read, clock, notes, state, over.clone()));
    }
    if let Some(certificates) = options.traffic.certificates.clone() {
        tokio::spawn(traffic::keep_fresh(certificates, over.clone()));
    }
    let named =
        names::Names { seeds: options.seeds.clone(), fixed: options.neighbours.clone(), own_port };
    let hearers = names::Hearers {
        policy: door.policy.clone(),
        unresolved: door.unresolved.clone(),
        notes: notes.clone(),
    };
    tokio::spawn(named.run(names::look_up, hearers, over.clone()));
    let (view, routes) = (door.view.clone(), door.routes.clone());
    let active = door.active.clone();
    tokio::spawn(priors::run(view, routes, peers, clock, active, over.clone()));
    tokio::spawn(count_requests(door.requests.clone(), notes, over));
    file_read
}

/// Waits until the rules file, where there is one, and the disk are in force, and for what their
/// health checks find; for the latter not at all where there are none.
async fn in_force(
    file_read: oneshot::Receiver<()>,
    notes: &mpsc::Sender<Note>,
    routes: &Mutex<RoutesState>,
) {
    // Without a file the other end is gone already.
    let _ = file_read.await;
    let (done, settled) = oneshot::channel();
    if notes.send(Note::Settled(done)).await.is_ok() {
        // Without the thread that puts rules in force nothing changes any more.
        let _ = settled.await;
    }
    let unseen = routes.lock().unwrap_or_else(PoisonError::into_inner).unseen_checks();
    unseen.looked_at(LOOKING).await;
}

/// What serves traffic, and puts rules in force for it.
struct Serving {
    routes: Arc<Mutex<RoutesState>>,
    published: Arc<ArcSwap<Routes>>,
    activator: Activator,
    active: watch::Receiver<Option<Position>>,
    policy: Arc<AddressPolicy>,
    requests: Arc<RequestMetrics>,
    shedding: Arc<Shedding>,
}

impl Serving {
    fn start(
        options: &NodeOptions,
        peer: SocketAddr,
        disk: &disk::Disk,
        fallback: disk::Fallbacks,
        notes: &mpsc::Sender<Note>,
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
        let shedding = options.traffic.ceilings.shedding();
        Ok(Serving { routes, published, activator, active, policy, requests, shedding })
    }

    /// What the traffic threads are told; what they go by is watched from now on.
    fn proxy(
        &self,
        options: &NodeOptions,
        sockets: Sockets,
        clock: Clock,
    ) -> Result<(ProxyConfig, watch::Sender<()>), NodeError> {
        let (served, last_served) = watch::channel(());
        let ceilings = options.traffic.ceilings;
        tokio::spawn(ceilings.watch_memory(self.shedding.clone(), clock, last_served.clone()));
        let target_tls = options.traffic.target_tls()?;
        let prober = Prober {
            routes: self.routes.clone(),
            policy: self.policy.clone(),
            distance: options.target_distance(),
            target_tls: target_tls.clone(),
            clock,
        };
        prober.start(last_served).map_err(NodeError::Thread)?;
        let proxy = ProxyConfig {
            node: options.id.to_string(),
            tls: options.traffic.tls(&sockets.addresses),
            announcers: options.traffic.announcers.clone(),
            target_tls,
            sockets,
            policy: self.policy.clone(),
            distance: options.target_distance(),
            routes: self.published.clone(),
            metrics: self.requests.clone(),
            access_log: options.access_log.clone(),
            clock,
            bounds: ceilings.bounds(options.traffic_threads),
            shedding: self.shedding.clone(),
        };
        Ok((proxy, served))
    }
}

/// How a node reaches others.
pub(super) struct Links {
    pub(super) connector: Connector,
    pub(super) peers: PeerClient,
    pub(super) orchestrators: Orchestrators,
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

/// Everything that listens.
struct Ports {
    listener: TcpListener,
    peer: SocketAddr,
    /// Another handle of the peer port, for a process that takes over.
    peer_socket: std::net::TcpListener,
    sockets: Sockets,
}

impl Ports {
    /// Taken over where there is something, else opened.
    async fn open(options: &NodeOptions, mut inherited: Inherited) -> Result<Ports, NodeError> {
        let address = options.peer_listen;
        let fail = |reason| NodeError::Listen { address, reason };
        let taken = inherited.take(address).map_err(fail)?.pop();
        let socket = match taken {
            Some(socket) => socket,
            None => {
                let opened = TcpListener::bind(address).await.and_then(TcpListener::into_std);
                opened.map_err(fail)?
            }
        };
        let peer = socket.local_addr().map_err(fail)?;
        let peer_socket = socket.try_clone().map_err(fail)?;
        let listener = TcpListener::from_std(socket).map_err(fail)?;
        let listen = [&options.listen[..], &options.traffic.listen_tls].concat();
        let sockets = Sockets::open(&listen, options.traffic_threads, &mut inherited)
            .map_err(NodeError::Traffic)?;
        for address in inherited.left() {
            tracing::warn!(%address, "a socket was handed over that no flag names: closed");
        }
        Ok(Ports { listener, peer, peer_socket, sockets })
    }
}

fn engine_config(
    options: &NodeOptions,
    advertised: PeerAddr,
    key: PrivateKey,
    (seeds, fixed): (Vec<PeerAddr>, Vec<PeerAddr>),
    traffic_addresses: Vec<String>,
) -> EngineConfig {
    EngineConfig {
        node: options.id.clone(),
        region: options.region.clone(),
        labels: options.labels.clone(),
        peer_address: advertised,
        traffic_addresses,
        program_version: env!("CARGO_PKG_VERSION").to_string(),
        key,
        trusted: options.trusted.clone(),
        orchestrators: options.orchestrators.len(),
        seeds,
        topology: if options.neighbours.is_empty() {
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
        if notes.send(Note::input(Input::Served(requests.answered.load(Relaxed)))).await.is_err() {
            return;
        }
    }
}

/// How long traffic waits for the first results of health checks.
const LOOKING: Duration = Duration::from_secs(3);
/// Inputs that may wait for the loop.
const MAILBOX: usize = 4_096;
/// Events a slow reader may be behind.
const EVENTS: usize = 1_024;
/// How often reports learn of requests.
const COUNT_EVERY: Duration = Duration::from_secs(1);
