//! Every line of the access log is the one that serde_json would write.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, Uri, Version};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::ids::{self, RuleId};
use crate::model::rule::{Scheme, TargetAddress};
use crate::proxy::access::{Known, Line, cut};
use crate::proxy::forward::Client;
use crate::telemetry::access_log::{AccessLog, Pen};
use crate::telemetry::chance::seeded;
use crate::telemetry::clock::Clock;

/// A line as serde_json writes it: its fields, in their order.
#[derive(Serialize)]
struct Reference<'a> {
    time: &'a RawValue,
    client: &'a str,
    protocol: &'a str,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    request_id: Option<&'a str>,
    rule: Option<&'a str>,
    rule_version: Option<u64>,
    target: Option<String>,
    attempts: u32,
    status: u16,
    bytes: u64,
    duration_ms: Box<RawValue>,
    overhead_ms: Option<Box<RawValue>>,
    complete: bool,
}

fn millis(micros: u64) -> Box<RawValue> {
    let text = format!("{}.{:03}", micros / 1_000, micros % 1_000);
    assert_eq!(text.parse::<f64>().unwrap(), micros as f64 / 1e3);
    RawValue::from_string(text).unwrap()
}

struct Random(SmallRng);

impl Random {
    fn text(&mut self, alphabet: &str, most: usize) -> String {
        let length = self.0.random_range(0..most);
        let of: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| of[self.0.random_range(0..of.len())]).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
        if self.0.random() { Some(make(self)) } else { None }
    }

    fn uri(&mut self) -> Uri {
        loop {
            let path = self.text("abc/%2e{\"}|~\\\u{7f}\u{e9}\u{1f4a9}", 30);
            let long = "p".repeat(if self.0.random_range(0..9) == 0 { 2_000 } else { 0 });
            let text = match self.0.random_range(0..3) {
                0 => format!("http://a.example:81/{path}?{path}"),
                1 => format!("/{long}{path}?secret"),
                _ => format!("/{long}{path}"),
            };
            if let Ok(uri) = text.parse() {
                return uri;
            }
        }
    }

    fn target(&mut self) -> TargetAddress {
        let scheme = [Scheme::Http, Scheme::Https, Scheme::H2c][self.0.random_range(0..3)];
        let host = ["10.0.0.1", "fd00::7", "shop.internal"][self.0.random_range(0..3)];
        TargetAddress { scheme, host: host.to_string(), port: self.0.random() }
    }
}

/// How a request ended.
struct Ended {
    bytes: u64,
    micros: u64,
    whole: bool,
}

fn end(random: &mut Random, mut line: Line) -> Ended {
    let bits = random.0.random_range(4..50);
    let micros = random.0.random_range(0..1 << bits);
    line.took = Duration::from_micros(micros);
    line.bytes = random.maybe(|random| random.0.random()).unwrap_or_default();
    line.complete = random.0.random();
    Ended { bytes: line.bytes, micros, whole: line.complete }
}

/// Says a random request's line and returns what it should be.
fn say(random: &mut Random, pen: &Rc<Pen>, time: &RawValue) -> String {
    let address: IpAddr = ["127.0.0.1", "fd00::1"][random.0.random_range(0..2)].parse().unwrap();
    let method = random.text("GETx-'!", 9);
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::PATCH);
    let uri = random.uri();
    let bytes = "ab.:-\"\\\t /~\u{e9}";
    let field = |random: &mut Random| HeaderValue::from_str(&random.text(bytes, 40));
    let host = random.maybe(field).and_then(Result::ok);
    let id = random.maybe(field).and_then(Result::ok);
    let made = random.maybe(|_| HeaderValue::from_static("9e3e2724ae8a453c9b49249dba8d1c83"));
    let rule = RuleId::parse("shop-api.x_1").unwrap();
    let rule = random.maybe(|random| (&rule, ids::Version::new(random.0.random())));
    let (version, protocol) = [
        (Version::HTTP_10, "HTTP/1.0"),
        (Version::HTTP_11, "HTTP/1.1"),
        (Version::HTTP_2, "HTTP/2"),
    ][random.0.random_range(0..3)];
    let client = Client::new(address, None, false);
    let attempts = random.0.random_range(0..12);
    let status = [0, 200, 503, 999][random.0.random_range(0..4)];
    let overhead = random.maybe(|random| random.0.random_range(0..9_999_999));
    let target = random.maybe(Random::target).map(|target| target.to_string());
    let quoted = target.as_ref().map(|target| format!("\"{target}\""));
    let known = Known {
        begun: Clock::new().now(),
        client: &client,
        version,
        method: &method,
        uri: &uri,
        host: host.as_ref(),
        rule,
        target: quoted.as_deref(),
        request_id: id.as_ref(),
        made_id: made.as_ref(),
        attempts,
        status,
        overhead: overhead.map(Duration::from_micros),
    };
    let ended = end(random, Line::begin(pen, &known));
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_string();
    let host = uri.authority().map(ToString::to_string).or(host.as_ref().map(text));
    serde_json::to_string(&Reference {
        time,
        client: &address.to_string(),
        protocol,
        method: method.as_str(),
        host: &host.unwrap_or_default(),
        path: cut(uri.path()),
        request_id: made.or(id).as_ref().map(text).as_deref(),
        rule: rule.map(|(id, _)| id.as_str()),
        rule_version: rule.and_then(|(_, version)| version).map(ids::Version::get),
        target,
        attempts,
        status,
        bytes: ended.bytes,
        duration_ms: millis(ended.micros),
        overhead_ms: overhead.map(millis),
        complete: ended.whole,
    })
    .unwrap()
}

/// Again with one seed: `SEED=... cargo test lines_of_all_kinds`.
#[test]
fn lines_of_all_kinds_are_those_of_serde_json() {
    let mut random = Random(seeded());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = AccessLog::open(&path).unwrap();
    let pen = Rc::new(log.pen(Clock::new()));
    let time = RawValue::from_string("\"TIME\"".to_string()).unwrap();
    let said: Vec<String> = (0..2_000).map(|_| say(&mut random, &pen, &time)).collect();
    drop(pen);
    log.flush();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), said.len());
    for (line, said) in text.lines().zip(said) {
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = read["time"].as_str().unwrap();
        assert_eq!(line.replacen(time, "TIME", 1), said);
    }
}
