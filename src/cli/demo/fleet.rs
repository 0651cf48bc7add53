//! The demo's fleet: what runs, where, and what is done to it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::load::{self, Tally};
use super::target::Target;
use crate::cli::client::{Client, Write};
use crate::cli::failure::Failure;
use crate::config::distances::Distances;
use crate::engine::config::Pace;
use crate::model::ids::NodeId;
use crate::node::{Node, NodeOptions, TrafficOptions};
use crate::orchestrator::{Orchestrator, OrchestratorOptions};

/// Where everything listens.
pub(super) struct Places {
    grpc: SocketAddr,
    http: SocketAddr,
    gate: SocketAddr,
    traffic: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    targets: Vec<SocketAddr>,
}

/// The whole fleet; clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Fleet(Arc<Inner>);

struct Inner {
    places: Places,
    directory: PathBuf,
    orchestrator: Mutex<Option<Orchestrator>>,
    gate: Gate,
    nodes: Vec<Member>,
    targets: Vec<Target>,
    rate: u32,
    load: Mutex<Vec<JoinHandle<()>>>,
}

struct Member {
    options: NodeOptions,
    running: Mutex<Option<Node>>,
    tally: Arc<Tally>,
}

/// Regions, and the round trips between them.
const REGIONS: [&str; 3] = ["fra", "iad", "sin"];
const RTT: [(&str, &str, u64); 3] = [("fra", "iad", 88), ("fra", "sin", 160), ("iad", "sin", 220)];
const NODES_PER_REGION: usize = 3;
const TARGETS_PER_REGION: usize = 2;

impl Places {
    /// The ports that the documentation names.
    pub(super) fn usual() -> Places {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let nodes = u16::try_from(REGIONS.len() * NODES_PER_REGION).unwrap_or(9);
        let targets = u16::try_from(REGIONS.len() * TARGETS_PER_REGION).unwrap_or(6);
        Places {
            grpc: at(7400),
            http: at(7401),
            gate: at(7402),
            traffic: (1..=nodes).map(|n| at(8080 + n)).collect(),
            peers: (1..=nodes).map(|n| at(7500 + n)).collect(),
            targets: (1..=targets).map(|n| at(9000 + n)).collect(),
        }
    }

    /// Free ports, so that a check disturbs nobody.
    pub(super) fn anywhere() -> Result<Places, Failure> {
        let nodes = REGIONS.len() * NODES_PER_REGION;
        let targets = REGIONS.len() * TARGETS_PER_REGION;
        let mut held = Vec::new();
        for _ in 0..3 + 2 * nodes + targets {
            let listener = TcpListener::bind("127.0.0.1:0")
                .map_err(|error| Failure::failed(format!("no free port: {error}")))?;
            held.push(listener);
        }
        let free: Vec<SocketAddr> =
            held.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        Ok(Places {
            grpc: free[0],
            http: free[1],
            gate: free[2],
            traffic: free[3..3 + nodes].to_vec(),
            peers: free[3 + nodes..3 + 2 * nodes].to_vec(),
            targets: free[3 + 2 * nodes..].to_vec(),
        })
    }

    fn distances(&self) -> Distances {
        let mut distances = Distances::default();
        for (a, b, ms) in RTT {
            distances.set(a, b, Duration::from_millis(ms));
        }
        for (index, at) in self.targets.iter().enumerate() {
            distances.place(&at.to_string(), REGIONS[index / TARGETS_PER_REGION]);
        }
        for (index, at) in self.peers.iter().enumerate() {
            distances.place(&at.to_string(), REGIONS[index / NODES_PER_REGION]);
        }
        for at in [self.gate, self.grpc] {
            distances.place(&at.to_string(), REGIONS[0]);
        }
        distances
    }

    fn rules(&self) -> String {
        let mut text = String::from("- id: demo\n  data:\n    targets:\n");
        for (index, at) in self.targets.iter().enumerate() {
            let region = REGIONS[index / TARGETS_PER_REGION];
            text.push_str(&format!("      - {{ url: \"http://{at}\", region: {region} }}\n"));
        }
        text
    }
}

impl Fleet {
    /// Starts everything: targets, orchestrator with rules, nodes, load.
    pub(super) async fn start(
        directory: &Path,
        places: Places,
        rate: u32,
    ) -> Result<Fleet, Failure> {
        let mut targets = Vec::new();
        for (index, at) in places.targets.iter().enumerate() {
            targets.push(Target::start(*at, REGIONS[index / TARGETS_PER_REGION]).await?);
        }
        let orchestrator = start_orchestrator(directory, &places).await?;
        push_rules(&places).await?;
        let gate = Gate::start(places.gate, places.grpc).await?;
        let distances = Arc::new(places.distances());
        let mut nodes = Vec::new();
        for index in 0..places.peers.len() {
            let options = node_options(directory, &places, index, distances.clone());
            let node = start_node(options.clone()).await?;
            let running = Mutex::new(Some(node));
            nodes.push(Member { options, running, tally: Arc::default() });
        }
        Ok(Fleet(Arc::new(Inner {
            places,
            directory: directory.to_path_buf(),
            orchestrator: Mutex::new(Some(orchestrator)),
            gate,
            nodes,
            targets,
            rate,
            load: Mutex::default(),
        })))
    }

    /// Begins to send requests through every node.
    pub(super) async fn load(&self) {
        let mut load = self.0.load.lock().await;
        for (node, at) in self.0.nodes.iter().zip(&self.0.places.traffic) {
            let (url, host) = (format!("http://{at}/"), "demo.example".to_string());
            load.push(load::start(url, host, self.0.rate, node.tally.clone()));
        }
    }

    /// Whether every node has the rules in force, in time.
    pub(super) async fn ready(&self, patience: Duration) -> bool {
        let Ok(client) = Client::connect(&self.orchestrator_url(), None).await else {
            return false;
        };
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Ok(state) = client.propagation(0, "").await
                && state.reached as usize == self.node_count()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Whether a claim comes true in time.
    pub(super) async fn until(&self, patience: Duration, claim: impl Fn(&Fleet) -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if claim(self) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        claim(self)
    }

    pub(super) fn node_count(&self) -> usize {
        self.0.nodes.len()
    }

    pub(super) fn orchestrator_url(&self) -> String {
        format!("http://{}", self.0.places.grpc)
    }

    /// Of the last requests, those answered in the region of the node that they went through.
    pub(super) fn local_share(&self) -> f64 {
        let (mut local, mut all) = (0usize, 0usize);
        for node in &self.0.nodes {
            let recent = node.tally.recent();
            all += recent.count;
            for (target, count) in recent.by_target {
                let region = self.0.targets.iter().find(|t| t.address.to_string() == target);
                if region.is_some_and(|target| target.region == node.options.region) {
                    local += count;
                }
            }
        }
        if all == 0 { 0.0 } else { local as f64 / all as f64 }
    }

    pub(super) fn failures(&self) -> u64 {
        self.0.nodes.iter().map(|node| node.tally.failed.load(Relaxed)).sum()
    }

    pub(super) fn sent(&self) -> u64 {
        self.0.nodes.iter().map(|node| node.tally.sent.load(Relaxed)).sum()
    }

    /// Makes a target slower.
    pub(super) fn slow(&self, target: &str, ms: u64) -> Result<(), String> {
        let named = target.trim_start_matches("http://");
        let found = self.0.targets.iter().find(|one| one.address.to_string() == named);
        let Some(found) = found else {
            let known: Vec<String> =
                self.0.targets.iter().map(|one| one.address.to_string()).collect();
            return Err(format!("there is no target {target}; there are {}", known.join(", ")));
        };
        found.slow(ms);
        Ok(())
    }

    /// Ends the orchestrator.
    pub(super) async fn cut(&self) {
        if let Some(running) = self.0.orchestrator.lock().await.take() {
            running.shutdown().await;
        }
    }

    pub(super) fn silence(&self) {
        self.0.gate.silence(true);
    }

    /// Ends a node without a word.
    pub(super) async fn kill(&self, name: &str) -> Result<(), String> {
        let member = self.member(name)?;
        match member.running.lock().await.take() {
            Some(node) => {
                node.kill();
                Ok(())
            }
            None => Err(format!("{name} is not running")),
        }
    }

    /// Starts a node again, maybe with nothing on its disk.
    pub(super) async fn restart(&self, name: &str, empty_disk: bool) -> Result<(), String> {
        let member = self.member(name)?;
        let mut running = member.running.lock().await;
        if let Some(node) = running.take() {
            node.kill();
        }
        if empty_disk {
            wipe(&member.options.data).await?;
        }
        *running = Some(start_again(&member.options).await?);
        Ok(())
    }

    /// Undoes everything that was done.
    pub(super) async fn heal(&self) -> Result<(), String> {
        for target in &self.0.targets {
            target.slow(0);
        }
        self.0.gate.silence(false);
        let mut orchestrator = self.0.orchestrator.lock().await;
        if orchestrator.is_none() {
            let started = start_orchestrator(&self.0.directory, &self.0.places).await;
            *orchestrator = Some(started.map_err(|failure| failure.to_string())?);
        }
        drop(orchestrator);
        for member in &self.0.nodes {
            let mut running = member.running.lock().await;
            if running.is_none() {
                *running = Some(start_again(&member.options).await?);
            }
        }
        Ok(())
    }

    fn member(&self, name: &str) -> Result<&Member, String> {
        let found = self.0.nodes.iter().find(|member| member.options.id.as_str() == name);
        found.ok_or_else(|| {
            let known: Vec<&str> =
                self.0.nodes.iter().map(|member| member.options.id.as_str()).collect();
            format!("there is no node {name}; there are {}", known.join(", "))
        })
    }

    /// Who answers whom.
    pub(super) async fn status(&self) -> Value {
        let mut nodes = Vec::new();
        for member in &self.0.nodes {
            let recent = member.tally.recent();
            let share = |count: usize| (100.0 * count as f64 / recent.count.max(1) as f64).round();
            let targets: BTreeMap<&String, f64> =
                recent.by_target.iter().map(|(name, count)| (name, share(*count))).collect();
            let up = member.running.lock().await.is_some();
            nodes.push(json!({
                "node": member.options.id.as_str(),
                "region": member.options.region,
                "state": if up { "up" } else { "down" },
                "perSecond": recent.count / 2,
                "failed": recent.failed,
                "p50Ms": (recent.p50.as_secs_f64() * 1e4).round() / 10.0,
                "targets": targets,
            }));
        }
        let orchestrator =
            match (self.0.orchestrator.lock().await.is_some(), self.0.gate.is_silent()) {
                (false, _) => "cut",
                (true, true) => "silent",
                (true, false) => "up",
            };
        let slowed = self.0.targets.iter().filter(|target| target.slowness() > 0);
        json!({
            "nodes": nodes,
            "orchestrator": orchestrator,
            "sent": self.sent(),
            "failures": self.failures(),
            "slowed": slowed.map(|target| {
                json!({ "target": target.address.to_string(), "ms": target.slowness() })
            }).collect::<Vec<_>>(),
        })
    }

    /// Ends everything.
    pub(super) async fn stop(&self) {
        for task in self.0.load.lock().await.iter() {
            task.abort();
        }
        for member in &self.0.nodes {
            if let Some(node) = member.running.lock().await.take() {
                let patience = Duration::from_secs(1);
                node.shutdown(Duration::ZERO, patience, CancellationToken::new()).await;
            }
        }
        self.cut().await;
    }

    /// What people read first.
    pub(super) fn banner(&self, took: Duration) -> String {
        let places = &self.0.places;
        let range = |list: &[SocketAddr]| match (list.first(), list.last()) {
            (Some(first), Some(last)) => format!("{first} to {}", last.port()),
            _ => String::new(),
        };
        let words = [
            ("{nodes}", self.node_count().to_string()),
            ("{regions}", REGIONS.len().to_string()),
            ("{targets}", self.0.targets.len().to_string()),
            ("{took}", format!("{:.1}", took.as_secs_f64())),
            ("{grpc}", places.grpc.to_string()),
            ("{http}", places.http.to_string()),
            ("{traffic}", range(&places.traffic)),
            ("{peers}", range(&places.peers)),
            ("{target_range}", range(&places.targets)),
            ("{near}", places.traffic[0].to_string()),
            ("{far}", places.traffic[places.traffic.len() - 1].to_string()),
            ("{peer}", places.peers[0].to_string()),
            ("{target}", places.targets[0].to_string()),
        ];
        let banner = include_str!("banner.txt").to_string();
        words.iter().fold(banner, |text, (name, word)| text.replace(name, word))
    }
}

fn node_options(
    directory: &Path,
    places: &Places,
    index: usize,
    distances: Arc<Distances>,
) -> NodeOptions {
    let region = REGIONS[index / NODES_PER_REGION];
    let name = format!("{region}{}", index % NODES_PER_REGION + 1);
    let first = places.peers[0];
    let seeds = if index == 0 { places.peers[1..2].to_vec() } else { vec![first] };
    NodeOptions {
        id: NodeId::parse(&name).expect("regions are lower case and short"),
        region: region.to_string(),
        labels: BTreeMap::new(),
        listen: vec![places.traffic[index]],
        traffic: TrafficOptions::default(),
        traffic_threads: 1,
        peer_listen: places.peers[index],
        peer_advertise: None,
        orchestrators: vec![format!("http://{}", places.gate)],
        seeds: seeds.iter().map(|seed| format!("http://{seed}")).collect(),
        neighbours: Vec::new(),
        near: 3,
        far: 2,
        data: directory.join(&name),
        rules: None,
        trusted: Vec::new(),
        token: None,
        access_log: None,
        allow_targets: Vec::new(),
        distances: Some(distances),
        pace: Pace::default(),
    }
}

async fn start_node(options: NodeOptions) -> Result<Node, Failure> {
    Node::start(options)
        .await
        .map_err(|error| Failure::failed(format!("a node cannot start: {error}")))
}

/// The ports and the disk of a node that was just killed take a moment to be free.
async fn start_again(options: &NodeOptions) -> Result<Node, String> {
    let mut last = String::new();
    for _ in 0..50 {
        match Node::start(options.clone()).await {
            Ok(node) => return Ok(node),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(last)
}

/// A thread of the killed node may be writing its last words.
async fn wipe(data: &Path) -> Result<(), String> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_dir_all(data).map_err(|error| format!("{}: {error}", data.display()))
}

async fn start_orchestrator(directory: &Path, places: &Places) -> Result<Orchestrator, Failure> {
    let options = OrchestratorOptions {
        grpc_listen: places.grpc,
        http_listen: places.http,
        ..OrchestratorOptions::local(directory.join("orchestrator"))
    };
    Orchestrator::start(options)
        .await
        .map_err(|error| Failure::failed(format!("the orchestrator cannot start: {error}")))
}

async fn push_rules(places: &Places) -> Result<(), Failure> {
    let writes = Write::all_of(&places.rules())?;
    let url = format!("http://{}", places.grpc);
    Client::connect(&url, None).await?.apply(&writes, false).await?;
    Ok(())
}
