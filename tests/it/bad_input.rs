//! What is wrong is refused with every problem named, nothing changes, and the process lives.

use std::time::Duration;

use crate::harness::{
    Fleet, NodeProcess, Process, RulesNode, eventually, http, http_with, respond_rule, run,
};

#[test]
fn bad_input_at_a_node_is_refused_whole_and_changes_nothing() {
    let fleet = Fleet::start(1);
    let node = &fleet.nodes[0];
    let tag = |node: &NodeProcess| http(node.peer, "GET", "/v1/configuration", None).unwrap().head;
    let etag = |head: &str| {
        head.lines().find(|line| line.to_ascii_lowercase().starts_with("etag")).map(str::to_string)
    };
    let before = etag(&tag(node));
    let post = |path: &str, body: &str| http(node.peer, "POST", path, Some(body)).unwrap();

    let five = r#"{"bad": {"data": {"targts": [], "balance": {"policy": "latncy"},
        "timeouts": {"connect": "3 seconds"}, "match": {"hosts": ["a b"]},
        "limits": {"maxInFlight": "many"}}}}"#;
    let answer = post("/v1/configuration", five);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.head.contains("application/problem+json"));
    let problem = answer.json();
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.len() >= 5, "{errors:?}");
    assert!(errors.iter().any(|error| error["pointer"] == "/bad/data/targts"), "{errors:?}");

    let expectations = [
        ("/v1/configuration/x", r#"{"data": {"targets": []}}"#, 422),
        ("/v1/configuration/x", r#"{"data": {"targets": [{"url": "ftp://a:1"}]}}"#, 422),
        ("/v1/configuration/x", r#"{"version": 0.5, "data": {"respond": {}}}"#, 422),
        ("/v1/configuration/x", r#"{"version": -1, "data": {"respond": {}}}"#, 422),
        ("/v1/configuration/UPPER", r#"{"data": {"respond": {}}}"#, 422),
        ("/v1/configuration/x", r#"{"data": {"respond": {}, "respond": {"status": 404}}}"#, 422),
        ("/v1/configuration/x", "not json", 400),
        ("/v1/configuration", "[1, 2]", 400),
        ("/v1/configuration/x?scope=node", r#"{"data": {"respond": {}}}"#, 400),
        ("/v1/configuration/x?nonsense=1", r#"{"data": {"respond": {}}}"#, 400),
        ("/v1/nowhere", "{}", 404),
    ];
    for (path, body, status) in expectations {
        let answer = post(path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.head.contains("application/problem+json"), "{path}: {}", answer.head);
    }
    let headers = [("if-match", "\"v9\"")];
    let body = respond_rule("demo");
    let stale =
        http_with(node.peer, "POST", "/v1/configuration/demo", &headers, Some(&body)).unwrap();
    assert_eq!(stale.status, 412, "{stale:?}");
    assert_eq!(stale.json()["currentVersion"], 1);
    let low = post("/v1/configuration/demo", r#"{"version": 9999, "data": {"respond": {}}}"#);
    assert!((400..500).contains(&low.status), "a version far ahead: {low:?}");
    let text = [("content-type", "text/plain")];
    let plain = http_with(node.peer, "POST", "/v1/configuration/x", &text, Some("{}")).unwrap();
    assert_eq!(plain.status, 415);
    let rebound = [("host", "evil.example")];
    let host = http_with(node.peer, "GET", "/v1/configuration", &rebound, None).unwrap();
    assert_eq!(host.status, 421);
    assert_eq!(etag(&tag(node)), before, "nothing changed");
}

#[test]
fn a_hostile_digest_changes_nothing_and_the_node_lives() {
    let fleet = Fleet::start(1);
    let node = &fleet.nodes[0];
    let from = "http://127.0.0.1:65001";
    let post = |body: &str| {
        let path = "/v1/configuration-update";
        http(node.peer, "POST", path, Some(body)).map_or(0, |answer| answer.status)
    };
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let large = format!(
        "{{\"from\": \"{from}\", \"versions\": {{}}, \"x\": \"{}\"}}",
        "x".repeat(11 << 20)
    );
    let hostile = [
        "{}".to_string(),
        deep,
        format!("{{\"from\": \"{from}\", \"versions\": {{\"demo\": 1.5}}}}"),
        format!("{{\"from\": \"{from}\", \"versions\": {{\"demo\": -1}}}}"),
        format!("{{\"from\": \"{from}\", \"versions\": {{\"demo\": 18446744073709551615}}}}"),
        format!("{{\"from\": \"{from}\", \"versions\": {{\"Not An Id\": 1}}}}"),
        "{\"from\": \"http://169.254.169.254:80\", \"versions\": {}}".to_string(),
        "{\"from\": \"http://name.example:7500\", \"versions\": {}}".to_string(),
        large,
    ];
    for body in &hostile {
        let status = post(body);
        assert!(
            (400..500).contains(&status) || status == 0,
            "{status}: {}",
            &body[..60.min(body.len())]
        );
    }
    let declared = [("content-length", "2000000"), ("content-type", "application/json")];
    let large = http_with(node.peer, "POST", "/v1/configuration-update", &declared, None).unwrap();
    assert_eq!((large.status, large.json()["code"].as_str()), (413, Some("too_large")));
    // A well-formed lie is answered, and believed in nothing: no signature, no rule.
    let lie = format!("{{\"from\": \"{from}\", \"versions\": {{\"demo\": 900, \"new\": 3}}}}");
    assert_eq!(post(&lie), 200);
    let status = node.status().unwrap();
    assert_eq!(status["known"], status["active"]);
    let held = http(node.peer, "GET", "/v1/configuration", None).unwrap().json();
    assert_eq!(held["demo"]["version"], 1);
    assert!(held.get("new").is_none());
}

#[test]
fn a_digest_beyond_all_measure_costs_little_and_is_told_why() {
    let fleet = Fleet::start(1);
    let node = &fleet.nodes[0];
    let path = "/v1/configuration-update";
    let ids = |count: u32| -> String {
        (0..count).map(|number| format!("\"r{number}\":{number}")).collect::<Vec<_>>().join(",")
    };
    let digest = |versions: &str| {
        format!("{{\"from\":\"http://127.0.0.1:65001\",\"versions\":{{{versions}}}}}")
    };
    let expectations = [
        (digest(&ids(1_000_000)), 413, "too_large"),
        (digest(&ids(50_000)), 400, "bad_digest"),
        (digest("\"a\":99999999999999999999999"), 400, "bad_digest"),
        (digest("\"a\":0"), 400, "bad_digest"),
        (digest("\"a\":1,\"\\ud800\":1"), 400, "bad_digest"),
    ];
    let before = node.process.as_ref().unwrap().resident_kib();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for (body, status, code) in &expectations {
                    // A server that refuses a body early may close before the answer is read.
                    let Some(answer) = http(node.peer, "POST", path, Some(body)) else { continue };
                    assert_eq!(answer.status, *status, "{answer:?}");
                    assert_eq!(answer.json()["code"], *code, "{answer:?}");
                    assert!(answer.head.contains("application/problem+json"));
                }
            });
        }
    });
    let grown = node.process.as_ref().unwrap().resident_kib().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB more");
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = http_with(node.peer, "POST", path, &zipped, Some("{}")).unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (415, Some("encoded")));
    let held = http(node.peer, "GET", "/v1/configuration", None).unwrap().json();
    assert_eq!(held.as_object().unwrap().len(), 1, "nothing changed");
}

#[test]
fn a_body_that_never_comes_is_given_up_and_others_are_served_meanwhile() {
    use std::io::{Read, Write};
    let fleet = Fleet::start(1);
    let node = &fleet.nodes[0];
    let slow: Vec<std::net::TcpStream> = (0..100)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(node.peer).unwrap();
            let head = "POST /v1/configuration-update HTTP/1.1\r\nhost: localhost\r\n\
                        content-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
            stream.write_all(head.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        })
        .collect();
    let lie = r#"{"from": "http://127.0.0.1:65001", "versions": {}}"#;
    let answer = http(node.peer, "POST", "/v1/configuration-update", Some(lie)).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    for mut stream in slow {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
}

#[test]
fn the_command_line_names_every_problem_and_exits_as_documented() {
    let fleet = Fleet::start(1);
    let bad = fleet.rules_file(
        "bad.yaml",
        "id: Bad_Id-\ndata:\n  targets: [{ url: ftp://x, wieght: 2 }]\n\
         \x20 balance: { policy: fast }\n---\nid: two\ndata: { targets: [] }\n",
    );
    for command in ["validate", "apply"] {
        let arguments: Vec<&str> =
            if command == "apply" { vec!["apply", "-f", &bad] } else { vec!["validate", &bad] };
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for part in ["/id", "/data/targets/0/url", "wieght", "weight", "fast", "/1/data/targets"] {
            assert!(said.contains(part), "{part} is not named in:\n{said}");
        }
    }
    assert_eq!(run(&["apply"]).status.code(), Some(2));
    let nobody = run(&["status", "--orchestrator", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("next:"));
    let same = fleet.rules_file("same.yaml", &fleet.demo_rule());
    assert_eq!(run(&["diff", "-f", &same, "--orchestrator", &fleet.url()]).status.code(), Some(0));
    let other = fleet.rules_file("other.yaml", "id: demo\ndata: { respond: { status: 204 } }\n");
    assert_eq!(run(&["diff", "-f", &other, "--orchestrator", &fleet.url()]).status.code(), Some(3));
    let stale = run(&["apply", "-f", &other, "--if-version", "7", "--orchestrator", &fleet.url()]);
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("current version is v1"));
}

#[test]
fn control_ports_beyond_the_loopback_need_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("n").display().to_string();
    let node = run(&["node", "--id", "a", "--peer-listen", "0.0.0.0:0", "--data", &data]);
    assert_eq!(node.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&node.stderr).contains("--token-file"));
    let tls = run(&["node", "--id", "a", "--tls-cert", "x", "--data", &data]);
    assert_eq!(tls.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&tls.stderr).contains("unsupported"));

    let token = directory.path().join("token").display().to_string();
    assert!(run(&["token", "--out", &token]).status.success());
    let ports = crate::harness::free_ports(2);
    let (traffic, peer) = (ports[0].to_string(), ports[1].to_string());
    let arguments = [
        "node",
        "--id",
        "a",
        "--listen",
        &traffic,
        "--peer-listen",
        &peer,
        "--data",
        &data,
        "--token-file",
        &token,
    ];
    let _node = Process::start(&arguments.map(str::to_string));
    let answer = eventually(Duration::from_secs(5), "the node is up", || {
        http(ports[1], "GET", "/v1/configuration", None)
    });
    assert_eq!(answer.status, 401);
    assert_eq!(http(ports[1], "GET", "/readyz", None).unwrap().status, 200);
    let secret = std::fs::read_to_string(&token).unwrap();
    let bearer = format!("Bearer {}", secret.trim());
    let with = [("authorization", bearer.as_str())];
    let answer = http_with(ports[1], "GET", "/v1/configuration", &with, None).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_rules_file_is_enough_and_is_watched() {
    let first = "id: one\ndata: { respond: { body: first } }\n";
    let node = RulesNode::start("solo", first, &[]);
    let says = |body: &str| {
        eventually(Duration::from_secs(5), body, || {
            http(node.traffic, "GET", "/", None).filter(|answer| answer.body == body)
        });
    };
    says("first");
    std::fs::write(&node.rules, "id: one\ndata: { respond: { body: second } }\n").unwrap();
    says("second");
    std::fs::write(&node.rules, "id: one\ndata: { respnd: {} }\n").unwrap();
    eventually(Duration::from_secs(5), "the problem shows in the status", || {
        let status = http(node.peer, "GET", "/v1/status", None)?.json();
        status["rulesFile"].as_str()?.contains("respnd").then_some(())
    });
    says("second");
}

#[test]
fn an_overlay_that_this_node_refuses_says_so_and_leaves_nothing_behind() {
    let first = "id: one\ndata: { respond: { body: first } }\n";
    // Reachable from elsewhere: targets on this machine are not allowed.
    let node = RulesNode::start("solo", first, &["--listen", "0.0.0.0:0"]);
    let says = |body: &str| http(node.traffic, "GET", "/", None).filter(|a| a.body == body);
    eventually(Duration::from_secs(20), "the rule is in force", || says("first"));
    let path = "/v1/configuration/one?scope=node&ttl=10m";
    let set = |method, body: Option<&str>| {
        let answer = http(node.peer, method, path, body).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["results"]["one"].clone()
    };
    let rejected = |count: usize| {
        eventually(Duration::from_secs(20), "what is rejected is known", || {
            let status = http(node.peer, "GET", "/v1/status", None)?.json();
            let listed = status["rejected"].as_array()?.len();
            (listed == count && status["rules"]["rejected"] == count).then_some(())
        });
    };
    let refused = set("POST", Some(r#"{"data": {"targets": [{"url": "http://127.0.0.1:9000"}]}}"#));
    assert_eq!(refused["state"], "rejected", "{refused}");
    assert!(refused["why"].as_str().unwrap().contains("127.0.0.1:9000"), "{refused}");
    rejected(1);
    assert!(says("first").is_some(), "the last good version stays");
    assert_eq!(set("DELETE", None)["state"], "ended");
    rejected(0);
    let elsewhere = r#"{"data": {"nodes": {"regions": ["x"]}, "respond": {"body": "x"}}}"#;
    let elsewhere = set("POST", Some(elsewhere));
    assert_eq!(elsewhere["state"], "not_for_this_node", "{elsewhere}");
    let taken = set("POST", Some(r#"{"data": {"respond": {"body": "over"}}}"#));
    assert_eq!(taken["state"], "active", "{taken}");
    assert!(says("over").is_some());
    assert_eq!(set("DELETE", None)["state"], "ended");
    assert!(says("first").is_some());
}
