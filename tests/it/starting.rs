//! A node starts with what it has: names without an address hold nobody up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{self, Process, RulesNode, eventually, free_ports, http, with_rules};

fn start(name: &str, directory: &Path, ports: (SocketAddr, SocketAddr), more: &[&str]) -> Process {
    let rules = directory.join("rules.yaml");
    std::fs::write(&rules, "id: one\ndata: { respond: { body: here } }\n").unwrap();
    Process::start(&with_rules(name, ports, &directory.join(name), &rules, more))
}

#[test]
fn a_seed_without_an_address_holds_nobody_up_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(4);
    let _first = start("first", directory.path(), (ports[0], ports[1]), &[]);
    let named = format!("http://localhost:{}", ports[1].port());
    let seeds = ["--seed", "http://no-such-name.invalid:7500", "--seed", &named];
    let begun = Instant::now();
    let _second = start("second", directory.path(), (ports[2], ports[3]), &seeds);
    eventually(Duration::from_secs(5), "it serves", || {
        http(ports[2], "GET", "/", None).filter(|answer| answer.body == "here")
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let status = || http(ports[3], "GET", "/v1/status", None).map(|answer| answer.json());
    eventually(Duration::from_secs(20), "the name is told", || {
        status()?["unresolved"]["http://no-such-name.invalid:7500"].as_str().map(str::to_string)
    });
    eventually(Duration::from_secs(20), "the other name has become a neighbour", || {
        (status()?["neighbours"] == 1).then_some(())
    });
}

#[test]
fn a_fixed_topology_may_be_named() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(4);
    let _first = start("first", directory.path(), (ports[0], ports[1]), &[]);
    let named = format!("http://localhost:{}", ports[1].port());
    let more = ["--neighbours", named.as_str()];
    let _second = start("second", directory.path(), (ports[2], ports[3]), &more);
    eventually(Duration::from_secs(20), "the name is the neighbour", || {
        let list = http(ports[3], "GET", "/v1/neighbours", None)?.json();
        let kind = list[0]["kind"].as_str()?.to_string();
        (kind == "fixed" && list[0]["address"] == format!("http://{}", ports[1])).then_some(())
    });
}

#[test]
fn a_node_short_of_memory_refuses_requests_and_still_answers_its_operators() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let _node = start("tight", directory.path(), (ports[0], ports[1]), &["--max-memory", "1MiB"]);
    eventually(Duration::from_secs(20), "requests are refused", || {
        http(ports[0], "GET", "/", None).filter(|answer| answer.status == 503)
    });
    assert_eq!(http(ports[1], "GET", "/livez", None).unwrap().status, 200);
    let metrics = http(ports[1], "GET", "/metrics", None).unwrap().body;
    assert!(!metrics.contains("tradewind_requests_shed_total 0"), "{metrics}");
    assert!(metrics.contains("tradewind_requests_shed_total"), "{metrics}");
}

#[test]
fn a_node_with_few_descriptors_turns_clients_away_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let rules = directory.path().join("rules.yaml");
    std::fs::write(&rules, "id: one\ndata: { respond: { body: here } }\n").unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=256:256").arg(harness::binary().get_program());
    command.args(["node", "--id", "few", "--listen", &ports[0].to_string()]);
    command.args(["--peer-listen", &ports[1].to_string(), "--rules"]).arg(&rules);
    command.arg("--data").arg(directory.path().join("few"));
    let _node = Process::of(command);
    let serves = || http(ports[0], "GET", "/", None).filter(|answer| answer.body == "here");
    eventually(Duration::from_secs(20), "it serves", serves);
    let crowd: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(ports[0]).unwrap()).collect();
    let told = || http(ports[1], "GET", "/metrics", None).map(|answer| answer.body);
    eventually(Duration::from_secs(20), "some are turned away, and operators are answered", || {
        let count = told()?;
        let (_, count) = count.split_once("\ntradewind_connections_refused_total ")?;
        count.lines().next()?.parse::<u64>().ok().filter(|count| *count > 100)
    });
    drop(crowd);
    eventually(Duration::from_secs(20), "it serves again", serves);
}

/// Answers each connection once.
fn brief_origin() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    address
}

#[test]
fn a_node_that_is_out_of_descriptors_blames_no_target() {
    let rules =
        format!("id: one\ndata: {{ targets: [{{ url: \"http://{}\" }}] }}\n", brief_origin());
    let node = RulesNode::serving("dry", &rules, Duration::from_secs(20));
    let limit = |soft: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &node.id().to_string(), &format!("--nofile={soft}:")]);
        assert!(command.status().unwrap().success());
    };
    let mut client = TcpStream::connect(node.traffic).unwrap();
    let mut ask = |until: &str| {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        while !answer.ends_with(until) {
            let mut bytes = [0; 1024];
            let read = client.read(&mut bytes).unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        answer
    };
    assert!(ask("ok").starts_with("HTTP/1.1 200 "));
    limit("8");
    let refused = ask("\n");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("error=http_request_denied"), "RFC 9209 2.3.14: {refused}");
    limit("1024");
    eventually(Duration::from_secs(20), "it serves again", || {
        http(node.traffic, "GET", "/", None).filter(|answer| answer.body == "ok")
    });
    let info = http(node.peer, "GET", "/v1/latency-info", None).unwrap().json();
    let targets = info["targets"].as_object().unwrap();
    assert!(targets.values().all(|target| target["err"] == 0.0), "{info}");
}
