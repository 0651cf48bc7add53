//! Active health checks of a real node: who is asked, who is left alone, and who is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::harness::{Process, eventually, free_ports, http};

/// A target that says who it is, and on /healthz how it is.
struct Target {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    probes: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Target {
    fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            well: Arc::new(AtomicBool::new(true)),
            probes: Arc::default(),
            requests: Arc::default(),
        };
        let (well, probes, requests) =
            (target.well.clone(), target.probes.clone(), target.requests.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0u8; 2048];
                let read = stream.read(&mut head).unwrap_or(0);
                let probed = head[..read].starts_with(b"GET /healthz ");
                let counter = if probed { &probes } else { &requests };
                counter.fetch_add(usize::from(read > 0), SeqCst);
                let status = if probed && !well.load(SeqCst) { "500 Ill" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                // Whoever asked may have left.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        target
    }

    fn is(&self, well: bool) {
        self.well.store(well, SeqCst);
    }
}

#[test]
fn a_target_that_fails_its_check_is_left_alone_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let (one, other) = (Target::start(), Target::start());
    let rules = directory.path().join("rules.yaml");
    let text = format!(
        "id: one\ndata:\n  targets: [{{ url: \"http://{}\" }}, {{ url: \"http://{}\" }}]\n  \
         balance: {{ policy: round_robin }}\n  \
         health: {{ active: {{ path: /healthz, interval: 2s, timeout: 2s }} }}\n",
        one.address, other.address
    );
    std::fs::write(&rules, text).unwrap();
    let _node = Process::start(
        &[
            "node",
            "--id",
            "checks",
            "--listen",
            &ports[0].to_string(),
            "--peer-listen",
            &ports[1].to_string(),
            "--data",
            &directory.path().join("data").display().to_string(),
            "--rules",
            &rules.display().to_string(),
        ]
        .map(str::to_string),
    );
    let status = || http(ports[0], "GET", "/", None).map(|answer| answer.status);
    let told = |target: &Target, well: u8| {
        let line = format!(
            "tradewind_target_healthy{{target=\"http://{}\",path=\"/healthz\"}} {well}",
            target.address
        );
        let metrics = || http(ports[1], "GET", "/metrics", None).map(|answer| answer.body);
        eventually(PATIENCE, &line, || metrics()?.contains(&line).then_some(()));
    };
    eventually(PATIENCE, "both are asked", || {
        (one.probes.load(SeqCst) > 0 && other.probes.load(SeqCst) > 0).then_some(())
    });
    assert_eq!(status(), Some(200));
    one.is(false);
    told(&one, 0);
    let before = one.requests.load(SeqCst);
    for _ in 0..20 {
        assert_eq!(status(), Some(200));
    }
    assert_eq!(one.requests.load(SeqCst), before, "left alone");
    other.is(false);
    told(&other, 0);
    assert_eq!(status(), Some(503), "all are down: no target is tried in vain");
    one.is(true);
    told(&one, 1);
    assert_eq!(status(), Some(200), "found again");
}

const PATIENCE: Duration = Duration::from_secs(60);
