//! What a node knows of targets before it has sent anything there: what its peer has measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Process, eventually, free_ports, http, with_rules};

/// A target that answers everything.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0u8; 2048];
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                // Whoever asked may have left.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    address
}

fn node(id: &str, directory: &Path, ports: &[SocketAddr], seed: Option<SocketAddr>) -> Process {
    let seed = seed.map(|seed| format!("http://{seed}"));
    let more: Vec<&str> = seed.iter().flat_map(|seed| ["--seed", seed]).collect();
    let (data, rules) = (directory.join(id), directory.join("rules.yaml"));
    Process::start(&with_rules(id, (ports[0], ports[1]), &data, &rules, &more))
}

/// Where the numbers of each target come from, if there are any.
fn sources(peer_port: SocketAddr) -> Option<Vec<(String, String)>> {
    let info = http(peer_port, "GET", "/v1/latency-info", None)?.json();
    let rows = info["targets"].as_object()?.iter();
    Some(rows.map(|(name, row)| (name.clone(), row["source"].to_string())).collect())
}

#[test]
fn a_node_with_a_peer_knows_what_that_has_measured_before_its_own_first_request() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(4);
    let target = target();
    let rule = format!("id: one\ndata: {{ targets: [{{ url: \"http://{target}\" }}] }}\n");
    std::fs::write(directory.path().join("rules.yaml"), rule).unwrap();
    let _first = node("first", directory.path(), &ports[..2], None);
    let long = Duration::from_secs(20);
    eventually(long, "the first node has measured one target", || {
        http(ports[0], "GET", "/", None).filter(|answer| answer.status == 200)
    });

    let _second = node("second", directory.path(), &ports[2..], Some(ports[1]));
    eventually(long, "the second node is ready", || {
        http(ports[3], "GET", "/readyz", None).filter(|answer| answer.status == 200)
    });
    let known = [(format!("http://{target}"), "\"peer\"".to_string())];
    let soon = Duration::from_secs(3);
    eventually(soon, "the second node knows what the first one has measured", || {
        (sources(ports[3])? == known).then_some(())
    });
}
