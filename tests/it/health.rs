//! Active health checks of a real node: who is asked, who is left alone, and who is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tonic_health::ServingStatus;

use crate::harness::{RulesNode, eventually, http};

/// A target that says who it is, and on /healthz how it is.
struct Target {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    /// Whether it takes probes and does not answer them.
    silent: Arc<AtomicBool>,
    probes: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Target {
    fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            well: Arc::new(AtomicBool::new(true)),
            silent: Arc::default(),
            probes: Arc::default(),
            requests: Arc::default(),
        };
        let (well, silent) = (target.well.clone(), target.silent.clone());
        let (probes, requests) = (target.probes.clone(), target.requests.clone());
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let mut head = [0u8; 2048];
                let read = stream.read(&mut head).unwrap_or(0);
                let probed = head[..read].starts_with(b"GET /healthz ");
                let counter = if probed { &probes } else { &requests };
                counter.fetch_add(usize::from(read > 0), SeqCst);
                if probed && silent.load(SeqCst) {
                    held.push(stream);
                    continue;
                }
                let status = if probed && !well.load(SeqCst) { "500 Ill" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                // Whoever asked may have left.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        target
    }

    fn is_silent(&self) {
        self.silent.store(true, SeqCst);
    }

    fn is(&self, well: bool) {
        self.well.store(well, SeqCst);
    }
}

/// A node with rules from a file.
struct Node(RulesNode);

impl Node {
    fn start(rules: &str) -> Node {
        Node(RulesNode::start("checks", rules, &[]))
    }

    fn status(&self, path: &str) -> Option<u16> {
        http(self.0.traffic, "GET", path, None).map(|answer| answer.status)
    }

    /// Waits until the metrics say how a target is.
    fn tells(&self, target: &str, check: &str, well: bool) {
        let line = format!(
            "tradewind_target_healthy{{target=\"{target}\",check=\"{check}\"}} {}",
            u8::from(well)
        );
        eventually(PATIENCE, &line, || {
            let metrics = http(self.0.peer, "GET", "/metrics", None)?.body;
            metrics.contains(&line).then_some(())
        });
    }
}

#[test]
fn a_target_that_fails_its_check_is_left_alone_and_found_again() {
    let (one, other) = (Target::start(), Target::start());
    let node = Node::start(&format!(
        "id: one\ndata:\n  targets: [{{ url: \"http://{}\" }}, {{ url: \"http://{}\" }}]\n  \
         balance: {{ policy: round_robin }}\n  \
         health: {{ active: {{ path: /healthz, interval: 2s, timeout: 2s }} }}\n",
        one.address, other.address
    ));
    let status = || node.status("/");
    let told = |target: &Target, well| {
        node.tells(&format!("http://{}", target.address), "/healthz", well);
    };
    eventually(PATIENCE, "both are asked", || {
        (one.probes.load(SeqCst) > 0 && other.probes.load(SeqCst) > 0).then_some(())
    });
    assert_eq!(status(), Some(200));
    one.is(false);
    told(&one, false);
    let before = one.requests.load(SeqCst);
    for _ in 0..20 {
        assert_eq!(status(), Some(200));
    }
    assert_eq!(one.requests.load(SeqCst), before, "left alone");
    other.is(false);
    told(&other, false);
    assert_eq!(status(), Some(503), "all are down: no target is tried in vain");
    one.is(true);
    told(&one, true);
    assert_eq!(status(), Some(200), "found again");
}

#[test]
fn a_server_of_grpc_says_itself_how_its_services_are() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let is = |name: &str, status| runtime.block_on(reporter.set_service_status(name, status));
    is("shop.v1.Cart", ServingStatus::Serving);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(incoming));
    let rule = |id: &str, check: &str| {
        format!(
            "id: {id}\ndata:\n  match: {{ any: [{{ path: {{ prefix: /{id} }} }}] }}\n  \
             targets: [{{ url: \"h2c://{address}\" }}]\n  \
             health: {{ active: {{ grpc: {check}, interval: 1s, timeout: 1s }} }}\n---\n"
        )
    };
    let cart = rule("cart", "{ service: shop.v1.Cart }");
    let node = Node::start(&(cart + &rule("none", "{ service: shop.v1.None }")));
    let target = format!("h2c://{address}");
    node.tells(&target, "grpc:shop.v1.Cart", true);
    node.tells(&target, "grpc:shop.v1.None", false);
    assert_eq!(node.status("/none"), Some(503), "nobody knows this service");
    // What the server makes of a GET is its business, but it was asked.
    assert_ne!(node.status("/cart"), Some(503));
    is("shop.v1.Cart", ServingStatus::NotServing);
    node.tells(&target, "grpc:shop.v1.Cart", false);
    assert_eq!(node.status("/cart"), Some(503));
    is("shop.v1.Cart", ServingStatus::Serving);
    node.tells(&target, "grpc:shop.v1.Cart", true);
}

#[test]
fn a_target_that_takes_no_connection_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let node = Node::start(&format!(
        "id: one\ndata:\n  targets: [{{ url: \"{target}\" }}]\n  \
         health: {{ active: {{ tcp: true, interval: 1s, timeout: 1s }} }}\n"
    ));
    node.tells(&target, "tcp", true);
    let (mut probe, _) = listener.accept().unwrap();
    assert_eq!(probe.read(&mut [0; 1]).unwrap(), 0, "nothing is said over it");
    drop(listener);
    node.tells(&target, "tcp", false);
    assert_eq!(node.status("/"), Some(503));
}

/// A node that starts, or takes over, has looked before it sends anybody anywhere.
#[test]
fn traffic_begins_when_each_target_was_looked_at_or_after_a_while() {
    let (well, ill) = (Target::start(), Target::start());
    ill.is_silent();
    let rule = |timeout: &str| {
        format!(
            "id: one\ndata:\n  targets: [{{ url: \"http://{}\" }}, {{ url: \"http://{}\" }}]\n  \
             balance: {{ policy: round_robin }}\n  \
             health: {{ active: {{ path: /healthz, interval: 30s, timeout: {timeout} }} }}\n",
            ill.address, well.address
        )
    };
    let node = Node::start(&rule("1s"));
    let answers = || eventually(PATIENCE, "the node serves", || node.status("/"));
    for _ in 0..10 {
        assert_eq!(answers(), 200);
    }
    assert_eq!((well.requests.load(SeqCst), ill.requests.load(SeqCst)), (10, 0));
    drop(node);
    let begun = Instant::now();
    let hasty = Node::start(&rule("30s"));
    eventually(PATIENCE, "the node serves", || hasty.status("/"));
    assert!(begun.elapsed() < Duration::from_secs(20), "not for as long as a probe may take");
}

const PATIENCE: Duration = Duration::from_secs(60);
