//! What a node is told at its start, checked all at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::connect::ControlDistance;
use super::disk::DiskError;
use crate::config::distances::Distances;
use crate::engine::config::Pace;
use crate::model::ids::{NodeId, PeerAddr};
use crate::model::key::PublicKey;
use crate::model::rule::TargetAddress;
use crate::proxy::listener::ListenError;
use crate::proxy::pool::Distance;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    pub(crate) id: NodeId,
    pub(crate) region: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where clients reach it.
    pub(crate) listen: Vec<SocketAddr>,
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
    /// Networks in which targets are allowed although they are on this machine.
    pub(crate) allow_targets: Vec<Network>,
    pub(crate) distances: Option<Arc<Distances>>,
    pub(crate) pace: Pace,
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u8,
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

impl Network {
    /// `10.0.0.0/8`, or a single address.
    pub(crate) fn parse(text: &str) -> Option<Network> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let base: IpAddr = base.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Network { base, bits })
    }

    fn covers_loopback(self) -> bool {
        // Only 127.0.0.0/8 and ::1 are decided on; other ranges are allowed anyway.
        self.base.is_loopback() || self.bits == 0
    }
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
        for url in &self.orchestrators {
            let uri = url.parse::<http::Uri>().ok();
            if !uri.is_some_and(|u| u.scheme_str() == Some("http") && u.authority().is_some()) {
                wrong.push(format!("--orchestrator {url}: not a URL such as http://HOST:7400"));
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
        let own = self.listen.iter().chain([&self.peer_listen]);
        own.clone().all(|at| at.ip().is_loopback())
            || self.allow_targets.iter().any(|network| network.covers_loopback())
    }

    /// The address under which peers know this node: given, or the one towards the first seed.
    pub(crate) fn advertised(&self, bound: SocketAddr, seeds: &[PeerAddr]) -> PeerAddr {
        if let Some(given) = self.peer_advertise {
            return given;
        }
        if !bound.ip().is_unspecified() {
            return PeerAddr(bound);
        }
        let towards = seeds.first().map(|seed| seed.0);
        let own = towards.and_then(own_address_towards).unwrap_or(bound.ip());
        PeerAddr(SocketAddr::new(own, bound.port()))
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

/// Connecting a datagram socket sends nothing, and tells which own address would be used.
fn own_address_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        SocketAddr::from(([0u16; 8], 0))
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|at| at.ip())
}

/// Peer URLs to addresses. A name that does not resolve yet is waited for: peers of a fleet that
/// starts together come up in any order.
pub(crate) async fn resolve(urls: &[String]) -> Result<Vec<PeerAddr>, NodeError> {
    let mut addresses = Vec::new();
    let mut wrong = Vec::new();
    for url in urls {
        if let Some(address) = PeerAddr::parse(url) {
            addresses.push(address);
            continue;
        }
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match authority {
            Some(authority) if authority.contains(':') => match look_up(authority).await {
                Some(address) => addresses.push(PeerAddr(address)),
                None => wrong.push(format!("{url}: the name has no address")),
            },
            _ => wrong.push(format!("{url}: not a URL such as http://HOST:7500")),
        }
    }
    if wrong.is_empty() { Ok(addresses) } else { Err(NodeError::Settings(wrong)) }
}

async fn look_up(authority: &str) -> Option<SocketAddr> {
    for _ in 0..20 {
        if let Ok(mut found) = tokio::net::lookup_host(authority).await
            && let Some(address) = found.next()
        {
            return Some(address);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    None
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
