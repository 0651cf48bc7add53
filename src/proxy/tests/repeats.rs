//! What is asked again, how often, and what never is.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::bed::{Bed, Origin, forward, ok, read_all, silent, status};
use crate::model::rule::{RetryOn, Rule};

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

fn busy(_: &str, stream: &mut TcpStream) -> bool {
    stream.write_all(UNAVAILABLE).is_ok()
}

/// Retries these, over these targets, in turn.
fn retried(origins: &[SocketAddr], attempts: u32, on: &[RetryOn]) -> Rule {
    let mut rule = forward(origins);
    rule.retry.attempts = attempts;
    rule.retry.on = on.to_vec();
    // Nothing but what a test says bounds its repeats.
    rule.retry.budget.min_per_second = 1_000;
    // A target that fails shall not be ejected meanwhile.
    rule.health.outlier.consecutive = 1_000;
    rule
}

fn heads(origin: &Origin) -> usize {
    std::iter::from_fn(|| (!origin.is_left_alone()).then_some(())).count()
}

#[test]
fn a_status_that_the_rule_names_is_asked_again_elsewhere() {
    let (sick, well) = (Origin::start(busy), Origin::start(ok));
    let mut rule = retried(&[sick.address, well.address], 2, &[RetryOn::Status(503)]);
    rule.balance = crate::model::rule::Balance::RoundRobin;
    let bed = Bed::start(rule);
    for _ in 0..10 {
        assert_eq!(status(&bed.get()), 200);
    }
    let failures = heads(&sick);
    assert!(bed.shown().contains(&format!("outcome=\"failure\"}} {failures}")), "{}", bed.shown());
    assert!(failures > 0, "the fault happened");
    assert_eq!(heads(&well), 10);
}

#[test]
fn the_only_target_is_asked_again_over_the_same_connection() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn third_time_lucky(head: &str, stream: &mut TcpStream) -> bool {
        if ASKED.fetch_add(1, Relaxed) < 2 { busy(head, stream) } else { ok(head, stream) }
    }
    let origin = Origin::start(third_time_lucky);
    let bed = Bed::start(retried(&[origin.address], 3, &[RetryOn::Status(503)]));
    assert_eq!(status(&bed.get()), 200);
    let connections: Vec<usize> = (0..3).map(|_| origin.next().0).collect();
    // How fast an unwanted body is taken in decides whether the next attempt finds the connection.
    assert!(connections.iter().all(|number| *number <= 2), "{connections:?}");
    assert!(origin.is_left_alone());
}

#[test]
fn an_unwanted_answer_with_two_framings_leaves_no_connection_behind() {
    fn both(_: &str, stream: &mut TcpStream) -> bool {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\
                      transfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let (sick, well) = (Origin::start(both), Origin::start(ok));
    let mut rule = retried(&[sick.address, well.address], 2, &[RetryOn::Status(503)]);
    rule.balance = crate::model::rule::Balance::RoundRobin;
    let bed = Bed::start(rule);
    for _ in 0..10 {
        assert_eq!(status(&bed.get()), 200);
    }
    let connections: Vec<usize> = std::iter::from_fn(|| Some(sick.soon().ok()?.0)).collect();
    assert!(connections.len() > 1, "the fault happened: {connections:?}");
    let others: Vec<usize> = (0..connections.len()).collect();
    assert_eq!(connections, others, "RFC 9112 6.3: nothing more is believed of a connection");
}

#[test]
fn when_attempts_run_out_the_last_answer_is_the_answer() {
    let origin = Origin::start(busy);
    let bed = Bed::start(retried(&[origin.address], 3, &[RetryOn::Status(503)]));
    let answer = bed.get();
    assert_eq!(status(&answer), 503);
    assert!(answer.ends_with("busy"), "the target's own: {answer}");
    assert!(!answer.contains("proxy-status"), "{answer}");
    assert_eq!(heads(&origin), 3);
}

#[test]
fn what_may_have_been_done_already_is_never_asked_again() {
    let origin = Origin::start(busy);
    let bed = Bed::start(retried(&[origin.address], 5, &[RetryOn::Status(503)]));
    let requests = [
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "PATCH / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        // Its body is gone.
        "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
    ];
    for request in requests {
        let mut client = bed.client();
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(status(&read_all(&mut client)), 503);
        assert_eq!(heads(&origin), 1, "{request}");
    }
}

#[test]
fn a_status_stands_for_the_failures_that_are_answered_with_it() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn breaks_off(head: &str, stream: &mut TcpStream) -> bool {
        ASKED.fetch_add(1, Relaxed) > 0 && ok(head, stream)
    }
    let origin = Origin::start(breaks_off);
    let bed = Bed::start(retried(&[origin.address], 2, &[RetryOn::Status(502)]));
    assert_eq!(status(&bed.get()), 200, "it broke off the first time");
    assert_eq!(heads(&origin), 2);
    assert!(bed.shown().contains("outcome=\"failure\"} 1"), "{}", bed.shown());

    let origin = Origin::start(silent);
    let mut rule = retried(&[origin.address], 3, &[RetryOn::Status(504)]);
    rule.timeouts.per_try = Duration::from_millis(300);
    let bed = Bed::start(rule);
    assert_eq!(status(&bed.get()), 504);
    let shown = bed.shown();
    assert!(shown.contains("outcome=\"timeout\"} 3"), "each has a deadline of its own: {shown}");
}

#[test]
fn all_attempts_together_have_the_time_of_one_request() {
    let origin = Origin::start(silent);
    let mut rule = retried(&[origin.address], 10, &[RetryOn::Status(504)]);
    rule.timeouts.per_try = Duration::from_millis(400);
    rule.timeouts.request = Duration::from_millis(600);
    let bed = Bed::start(rule);
    assert_eq!(status(&bed.get()), 504);
    let shown = bed.shown();
    let tried = |times: u32| shown.contains(&format!("outcome=\"timeout\"}} {times}"));
    assert!(tried(1) || tried(2), "{shown}");
}

#[test]
fn repeats_are_bounded_by_the_budget() {
    let origin = Origin::start(busy);
    let mut rule = retried(&[origin.address], 2, &[RetryOn::Status(503)]);
    rule.retry.budget.ratio = 0.2;
    rule.retry.budget.min_per_second = 0;
    rule.retry.budget.window = Duration::from_secs(3_600);
    let bed = Bed::start(rule);
    for _ in 0..50 {
        assert_eq!(status(&bed.get()), 503);
    }
    assert_eq!(heads(&origin), 60, "a fifth of fifty");
    let left = bed.state.retry_budgets(100, bed.clock.now());
    assert_eq!(left.len(), 1);
    assert!((0.0..0.01).contains(&left[0].1), "nothing left: {}", left[0].1);
}

#[test]
fn a_target_that_is_not_there_yet_is_asked_again_after_a_pause() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bed = Bed::start(retried(&[nobody], 4, &[RetryOn::ConnectFailure]));
    let answer = bed.get();
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(bed.shown().contains("outcome=\"connect_error\"} 4"), "{}", bed.shown());
}
