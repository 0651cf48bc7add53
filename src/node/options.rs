//! What a node is told at its start, checked all at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::connect::ControlDistance;
use super::disk::DiskError;
use super::names;
use super::traffic::TrafficOptions;
use crate::config::distances::Distances;
use crate::engine::config::Pace;
use crate::model::ids::{NodeId, PeerAddr};
use crate::model::key::PublicKey;
use crate::model::network::Network;
use crate::model::rule::TargetAddress;
use crate::proxy::dial::Distance;
use crate::proxy::listener::ListenError;
use crate::telemetry::access_log::AccessLog;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    pub(crate) id: NodeId,
    pub(crate) region: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where clients reach it.
    pub(crate) listen: Vec<SocketAddr>,
    /// What else there is at its traffic ports.
    pub(crate) traffic: TrafficOptions,
    pub(crate) traffic_threads: usize,
    /// Where peers reach it.
    pub(crate) peer_listen: SocketAddr,
    /// Under which address peers shall know it.
    pub(crate) peer_advertise: Option<PeerAddr>,
    /// gRPC URLs.
    pub(crate) orchestrators: Vec<String>,
    /// Peer URLs to begin with; names are resolved here and never travel.
    pub(crate) seeds: Vec<String>,
    /// Peer URLs of a fixed topology; empty to find out.
    pub(crate) neighbours: Vec<String>,
    pub(crate) near: usize,
    pub(crate) far: usize,
    pub(crate) data: PathBuf,
    /// A rules file, watched.
    pub(crate) rules: Option<PathBuf>,
    /// Cluster keys; empty to learn them.
    pub(crate) trusted: Vec<PublicKey>,
    pub(crate) token: Option<String>,
    /// A line for each request.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// Networks in which targets are allowed although they are on this machine.
    pub(crate) allow_targets: Vec<Network>,
    pub(crate) distances: Option<Arc<Distances>>,
    pub(crate) pace: Pace,
}

/// A node could not be started.
#[derive(Debug)]
pub(crate) enum NodeError {
    /// Settings that do not fit together; all of them.
    Settings(Vec<String>),
    /// A port is taken or forbidden.
    Listen { address: SocketAddr, reason: std::io::Error },
    /// The same for traffic.
    Traffic(ListenError),
    /// The data directory cannot be used.
    Disk(DiskError),
    /// No thread could be started.
    Thread(std::io::Error),
    /// The runtime is ending.
    Ended,
}

impl NodeOptions {
    /// Finds everything that does not fit together.
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        let mut wrong = Vec::new();
        if !self.peer_listen.ip().is_loopback() && self.token.is_none() {
            wrong.push(format!(
                "--peer-listen {} leaves the loopback: it needs --token-file",
                self.peer_listen
            ));
        }
        if self.listen.is_empty() {
            wrong.push("--listen: at least one address is needed".to_string());
        }
        self.traffic.check(&mut wrong);
        for url in &self.orchestrators {
            let uri = url.parse::<http::Uri>().ok();
            if !uri.is_some_and(|u| u.scheme_str() == Some("http") && u.authority().is_some()) {
                wrong.push(format!("--orchestrator {url}: not a URL such as http://HOST:7400"));
            }
        }
        for (flag, urls) in [("--seed", &self.seeds), ("--neighbours", &self.neighbours)] {
            for url in urls.iter().filter(|url| names::authority(url).is_none()) {
                wrong.push(format!("{flag} {url}: not a URL such as http://HOST:7500"));
            }
        }
        if self.near == 0 && self.neighbours.is_empty() {
            wrong.push("--near must be at least 1".to_string());
        }
        if self.near + self.far > crate::model::limits::NEIGHBOURS / 2 {
            wrong.push("--near and --far together may be at most 16".to_string());
        }
        if wrong.is_empty() { Ok(()) } else { Err(NodeError::Settings(wrong)) }
    }

    /// Targets on this machine are allowed while nobody else can reach this node, or by name.
    pub(crate) fn allow_loopback(&self) -> bool {
        let own = self.listen.iter().chain(&self.traffic.listen_tls).chain([&self.peer_listen]);
        own.clone().all(|at| at.ip().is_loopback())
            || self.allow_targets.iter().any(|network| network.covers_loopback())
    }

    /// The address under which peers know this node: given, or the one towards the first seed.
    /// While that has none, the one towards anywhere.
    pub(crate) fn advertised(&self, bound: SocketAddr, seeds: &[PeerAddr]) -> PeerAddr {
        if let Some(given) = self.peer_advertise {
            return given;
        }
        if !bound.ip().is_unspecified() {
            return PeerAddr(bound);
        }
        let towards = seeds.first().map_or(ANYWHERE, |seed| seed.0);
        let own = names::own_address_towards(towards).unwrap_or(bound.ip());
        PeerAddr(SocketAddr::new(own, bound.port()))
    }

    /// Whether that address has to wait for a seed's.
    pub(super) fn advertises_later(&self, bound: SocketAddr, seeds: &[PeerAddr]) -> bool {
        self.peer_advertise.is_none() && bound.ip().is_unspecified() && seeds.is_empty()
    }

    /// Names that the peer port answers to.
    pub(crate) fn own_names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }

    pub(crate) fn control_distance(&self) -> Option<ControlDistance> {
        let (distances, region) = (self.distances.clone()?, self.region.clone());
        Some(Arc::new(move |to: &str| distances.one_way(&region, to)))
    }

    pub(crate) fn target_distance(&self) -> Option<Distance> {
        let (distances, region) = (self.distances.clone()?, self.region.clone());
        Some(Arc::new(move |to: &TargetAddress| distances.one_way(&region, &to.authority())))
    }
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeError::Settings(wrong) => f.write_str(&wrong.join("\n")),
            NodeError::Listen { address, reason } => {
                write!(f, "cannot listen on {address}: {reason}")
            }
            NodeError::Traffic(error) => write!(f, "{error}"),
            NodeError::Disk(error) => write!(f, "{error}"),
            NodeError::Thread(reason) => write!(f, "cannot start a thread: {reason}"),
            NodeError::Ended => f.write_str("the runtime is ending"),
        }
    }
}

impl std::error::Error for NodeError {}

/// An address of the documentation (RFC 5737); nothing is sent there.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9);
