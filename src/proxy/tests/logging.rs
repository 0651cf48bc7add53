//! What the access log says of requests that go well, wrong and away.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use serde_json::Value;

use super::bed::{
    Bed, Origin, Setup, block_on, eventually, forward, forward_by, ok, read_until, silent,
};
use super::targets::Origin2;
use crate::model::rule::{Action, Balance, Rule, Scheme};
use crate::telemetry::access_log::AccessLog;

struct Logged {
    bed: Bed,
    path: PathBuf,
    log: Arc<AccessLog>,
    _directory: tempfile::TempDir,
}

impl Logged {
    fn start(rule: Rule) -> Logged {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = Arc::new(AccessLog::open(&path).unwrap());
        let access_log = Some(log.clone());
        let bed = Bed::set_up(rule, Setup { access_log, ..Setup::default() });
        Logged { bed, path, log, _directory: directory }
    }

    /// All lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        eventually("the lines are written", || {
            self.log.flush();
            let text = std::fs::read_to_string(&self.path).unwrap();
            lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.len() >= count
        });
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

#[test]
fn a_line_tells_the_rule_its_version_the_target_and_the_time() {
    let origin = Origin::start(ok);
    let logged = Logged::start(forward(&[origin.address]));
    let request = "GET /a/b?secret=1 HTTP/1.1\r\nhost: shop.example\r\nx-request-id: id-7\r\n\
                   connection: close\r\n\r\n";
    let answer = logged.bed.raw(request);
    let line = &logged.lines(1)[0];
    for (name, value) in [
        ("method", "GET"),
        ("path", "/a/b"),
        ("host", "shop.example"),
        ("client", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
        ("rule", "one"),
        ("target", &format!("http://{}", origin.address)),
        ("request_id", "id-7"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!((&line["status"], &line["attempts"]), (&200.into(), &1.into()), "{line}");
    assert_eq!(line["bytes"], body.len(), "{line}");
    assert_eq!((&line["rule_version"], &line["complete"]), (&1.into(), &true.into()), "{line}");
    let (overhead, duration) = (line["overhead_ms"].as_f64(), line["duration_ms"].as_f64());
    assert!(overhead > Some(0.0) && overhead <= duration, "{line}");
    assert!(!line.to_string().contains("secret"), "{line}");
}

#[test]
fn retries_failures_and_what_no_rule_takes_are_told_apart() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut rule = forward(&[nobody]);
    rule.balance = Balance::RoundRobin;
    let mut logged = Logged::start(rule.clone());
    logged.bed.get();
    let line = &logged.lines(1)[0];
    assert_eq!((&line["status"], &line["attempts"]), (&502.into(), &2.into()), "{line}");
    assert_eq!(line["target"], format!("http://{nobody}"));
    assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 32), "{line}");
    rule.hosts = vec![crate::model::rule::HostPattern::Exact("b".to_string())];
    rule.action = Action::Respond(crate::model::rule::Respond {
        status: 200,
        headers: Vec::new(),
        body: "12345".into(),
    });
    logged.bed.put("one", rule);
    logged.bed.get();
    logged.bed.raw("GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
    let lines = logged.lines(3);
    assert_eq!((&lines[1]["status"], &lines[1]["rule"]), (&404.into(), &Value::Null));
    assert_eq!((&lines[2]["status"], &lines[2]["bytes"]), (&200.into(), &5.into()));
    assert_eq!((&lines[2]["target"], &lines[2]["rule"]), (&Value::Null, &"one".into()));
}

#[test]
fn a_client_that_goes_away_leaves_a_line() {
    let origin = Origin::start(silent);
    let logged = Logged::start(forward(&[origin.address]));
    let mut client = logged.bed.client();
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
    drop(client);
    let line = &logged.lines(1)[0];
    assert_eq!((&line["status"], &line["complete"]), (&0.into(), &false.into()), "{line}");
    assert_eq!((&line["path"], &line["rule"]), (&"/slow".into(), &"one".into()), "{line}");
    assert_eq!(line["target"], format!("http://{}", origin.address), "{line}");
}

#[test]
fn an_answer_whose_trailers_are_malformed_is_not_complete() {
    async fn blank(_: usize, _: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"all of it"), false).unwrap();
        let trailers = [(HeaderName::from_static("x"), HeaderValue::from_static(" 1"))];
        body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    }
    let origin = Origin2::start(blank);
    let logged = Logged::start(forward_by(Scheme::H2c, &[origin.address]));
    for _ in 0..3 {
        logged.bed.get();
        assert_eq!(origin.next().0, 0, "other streams have done nothing wrong");
    }
    for line in logged.lines(3) {
        assert_eq!((&line["status"], &line["complete"]), (&200.into(), &false.into()), "{line}");
    }
}

#[test]
fn an_answer_whose_head_is_malformed_is_its_streams_own() {
    async fn blank(_: usize, _: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let response = Response::builder().header("x", "1 ").body(()).unwrap();
        let _ = respond.send_response(response, true);
    }
    let origin = Origin2::start(blank);
    let logged = Logged::start(forward_by(Scheme::H2c, &[origin.address]));
    for _ in 0..3 {
        logged.bed.get();
        assert_eq!(origin.next().0, 0, "asked once, and over the same connection");
    }
    assert!(origin.is_quiet(), "and not again");
    for line in logged.lines(3) {
        assert_eq!((&line["status"], &line["attempts"]), (&502.into(), &1.into()), "{line}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_complete() {
    fn half(_: &str, stream: &mut std::net::TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
        false
    }
    let origin = Origin::start(half);
    let logged = Logged::start(forward(&[origin.address]));
    let mut client = logged.bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    read_until(&mut client, "ha");
    drop(client);
    let line = &logged.lines(1)[0];
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &2.into()), "{line}");
    assert_eq!(line["complete"], false, "{line}");
}

#[test]
fn what_a_drain_cuts_off_is_said_before_the_drain_is_over() {
    let origin = Origin::start(silent);
    let logged = Logged::start(forward(&[origin.address]));
    let mut client = logged.bed.client();
    client.write_all(b"GET /cut HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
    block_on(logged.bed.drain(Duration::ZERO));
    logged.log.flush();
    let text = std::fs::read_to_string(logged.path).unwrap();
    let line: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&line["path"], &line["status"]), (&"/cut".into(), &0.into()), "{line}");
}
