//! What is counted: aborts, requests under way, connections, attempts by their end.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::bed::{Bed, Origin, eventually, field, forward, ok, read_until, silent, status};
use crate::model::ids::RuleId;
use crate::model::rule::{HostPattern, RetryOn};
use crate::routing::prior::Prior;

#[test]
fn a_client_that_goes_away_counts_as_aborted_and_leaves_nothing_behind() {
    let origin = Origin::start(silent);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
    assert_eq!(bed.metrics.in_flight.load(Relaxed), 1);
    assert_eq!(bed.metrics.connections.load(Relaxed), 1);
    drop(client);
    eventually("the abort is counted", || bed.shown().contains("outcome=\"aborted\"} 1"));
    eventually("nothing is in flight", || bed.metrics.in_flight.load(Relaxed) == 0);
    eventually("nobody is connected", || bed.metrics.connections.load(Relaxed) == 0);
    let row = &bed.state.latency_rows(bed.clock.now());
    assert!(row.iter().all(|row| row.samples == 0 && row.err == 0.0), "no sample, no error");
}

#[test]
fn a_request_is_in_flight_until_its_last_byte() {
    fn half(_: &str, stream: &mut std::net::TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
        read_until(stream, "\r\n\r\n");
        let _ = stream.write_all(b"lf");
        false
    }
    let origin = Origin::start(half);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "ha").is_some());
    assert_eq!(bed.metrics.in_flight.load(Relaxed), 1, "the body is still on its way");
    drop(client);
    eventually("an aborted body ends it too", || bed.metrics.in_flight.load(Relaxed) == 0);
}

#[test]
fn without_a_connection_another_target_is_asked_if_the_rule_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let origin = Origin::start(ok);
    let mut rule = forward(&[nobody, origin.address]);
    rule.balance = crate::model::rule::Balance::RoundRobin;
    let mut bed = Bed::start(rule.clone());
    let post = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    for _ in 0..4 {
        assert_eq!(status(&bed.raw(post)), 200, "nothing was sent: any method may go elsewhere");
    }
    assert!(bed.shown().contains("outcome=\"connect_error\""), "the fault happened");

    rule.retry.on = vec![RetryOn::RefusedStream];
    bed.put("one", rule);
    let answers: Vec<u16> = (0..4).map(|_| status(&bed.get())).collect();
    assert!(answers.contains(&502), "not retried unless asked for: {answers:?}");
}

#[test]
fn with_every_target_away_the_answer_comes_at_once_and_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bed = Bed::start(forward(&[nobody]));
    let begun = std::time::Instant::now();
    let answer = bed.get();
    assert_eq!(status(&answer), 502);
    assert_eq!(field(&answer, "proxy-status"), Some("tradewind-edge; error=connection_refused"));
    let mut rule = forward(&[nobody]);
    if let crate::model::rule::Action::Forward(targets) = &mut rule.action {
        targets[0].weight = 0;
    }
    let bed = Bed::start(rule);
    let answer = bed.get();
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("error=destination_unavailable"));
    assert!(begun.elapsed() < super::bed::PATIENCE / 5);
}

#[test]
fn a_rule_that_cannot_be_compiled_leaves_its_last_version_and_no_trace() {
    let origin = Origin::start(ok);
    let mut bed = Bed::start(forward(&[origin.address]));
    let mut bad = forward(&["127.0.0.1:1".parse().unwrap()]);
    bad.alternatives[0].path = Some(crate::model::rule::PathMatch::Regex("(".to_string()));
    assert_eq!(bed.put("one", bad.clone()).len(), 1);
    assert_eq!(bed.put("new", bad).len(), 1);
    assert_eq!(status(&bed.get()), 200, "the last version serves");
    let shown = bed.shown();
    assert!(shown.contains("rule=\"one\",target="), "and is still counted: {shown}");
    assert!(!shown.contains("new"));
}

#[test]
fn what_is_known_of_a_target_outlives_its_rule_and_goes_with_the_last_one() {
    let origin = Origin::start(ok);
    let mut bed = Bed::start(forward(&[origin.address]));
    assert_eq!(status(&bed.get()), 200);
    let mut other = forward(&[origin.address]);
    other.hosts = vec![HostPattern::Exact("b".to_string())];
    bed.put("one", other.clone());
    let samples =
        |bed: &Bed| bed.state.latency_rows(bed.clock.now()).iter().map(|r| r.samples).sum();
    let kept: u64 = samples(&bed);
    assert_eq!(kept, 1, "a change of the rule keeps it");
    for port in 1..200u16 {
        bed.put("one", forward(&[std::net::SocketAddr::from(([127, 0, 0, 1], port))]));
    }
    assert!(bed.state.known_targets() < 140, "what no rule names is let go");
    let gone: u64 = samples(&bed);
    assert_eq!(gone, 0);
}

#[test]
fn what_peers_find_typical_is_the_mean_over_a_rules_targets_whoever_else_names_them() {
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut bed = Bed::start(forward(&[at(1), at(2)]));
    let mut other = forward(&[at(2), at(3)]);
    other.hosts = vec![HostPattern::Exact("b".to_string())];
    bed.put("two", other);
    let now = bed.clock.now();
    let prior = |svc_ms| Prior { net_ms: 1.0, svc_ms, err: 0.0, age: Duration::ZERO };
    let told = bed.state.unknown_targets(now).into_iter().zip([800.0, 40.0, 20.0].map(prior));
    let told: BTreeMap<_, _> = told.collect();
    assert_eq!(told.len(), 3);
    assert_eq!(bed.state.import(&told, now), 3);
    assert!(bed.state.unknown_targets(now).is_empty());
    let routes = bed.state.published().load_full();
    let typical = |id: &str| {
        let route = routes.route(&RuleId::parse(id).unwrap()).unwrap();
        route.payload.lasting.selector.typical().svcbar
    };
    assert!((typical("one") - 420.0).abs() < 1e-6, "{}", typical("one"));
    assert!((typical("two") - 30.0).abs() < 1e-6, "{}", typical("two"));
}
