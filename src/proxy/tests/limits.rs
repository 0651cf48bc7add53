//! What a rule refuses before it costs anything, and the end of an exchange that takes too long.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use h2::client::Builder;

use super::bed::{
    Bed, Origin, eventually, field, forward, ok, read_all, read_until, silent, status, vast,
    with_runtime,
};
use super::http2::{ask, connect, get};

const SHORT: Duration = Duration::from_millis(400);

fn whole(head: &str, stream: &mut TcpStream) -> bool {
    if field(head, "transfer-encoding").is_some() {
        let _ = read_until(stream, "0\r\n\r\n");
    }
    ok(head, stream)
}

#[test]
fn beyond_the_limit_a_request_is_a_503_and_reaches_no_target() {
    let origin = Origin::start(silent);
    let mut rule = forward(&[origin.address]);
    rule.limits.max_in_flight = Some(2);
    let bed = Bed::start(rule);
    let mut held = [bed.client(), bed.client()];
    for client in &mut held {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        origin.next();
    }
    let answer = bed.get();
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("error=http_request_denied"), "{answer}");
    assert!(origin.is_left_alone());
    drop(held);
    eventually("aborted ones make room", || bed.metrics.in_flight.load(Relaxed) == 0);
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    origin.next();
}

#[test]
fn a_limit_is_the_rules_own_and_outlives_its_versions() {
    let (slow, other) = (Origin::start(silent), Origin::start(ok));
    let mut rule = forward(&[slow.address]);
    rule.hosts = vec![crate::model::rule::HostPattern::Exact("a".to_string())];
    rule.limits.max_in_flight = Some(1);
    let mut bed = Bed::start(rule.clone());
    bed.put("two", forward(&[other.address]));
    let mut held = bed.client();
    held.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    slow.next();
    rule.timeouts.idle = Duration::from_secs(99);
    bed.put("one", rule);
    assert_eq!(status(&bed.get()), 503, "the next version counts on");
    let elsewhere = "GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&bed.raw(elsewhere)), 200);
}

#[test]
fn a_body_that_is_too_large_is_a_413_and_never_the_targets_fault() {
    let origin = Origin::start(whole);
    let mut rule = forward(&[origin.address]);
    rule.limits.max_request_body = Some(8);
    let bed = Bed::start(rule);
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let fits = bed.raw(&format!("{head}content-length: 8\r\n\r\n12345678"));
    assert_eq!(status(&fits), 200, "{fits}");
    origin.next();
    let said = bed.raw(&format!("{head}content-length: 9\r\n\r\n123456789"));
    assert_eq!(status(&said), 413, "{said}");
    assert!(origin.is_left_alone(), "refused by its length alone");
    let found =
        bed.raw(&format!("{head}transfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n"));
    assert_eq!(status(&found), 413, "{found}");
    let fits =
        bed.raw(&format!("{head}transfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n0\r\n\r\n"));
    assert_eq!(status(&fits), 200, "{fits}");
    let rows = bed.state.latency_rows(bed.clock.now());
    assert!(rows.iter().all(|row| row.err == 0.0));
    assert!(!bed.shown().contains("outcome=\"failure\""), "{}", bed.shown());
}

#[test]
fn an_exchange_that_has_to_be_over_is_cut_off_however_lively() {
    fn endless(_: &str, stream: &mut TcpStream) -> bool {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut open = stream.write_all(head).is_ok();
        while open {
            open = stream.write_all(b"1\r\n.\r\n").is_ok();
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
    let origin = Origin::start(endless);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.total = Some(SHORT);
    let bed = Bed::start(rule);
    let answer = bed.get();
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "cut off, and seen to be: {answer}");
    eventually("nothing is left of it", || bed.metrics.in_flight.load(Relaxed) == 0);
}

#[test]
fn an_exchange_that_has_to_be_over_is_cut_off_however_little_its_client_takes_in() {
    let origin = Origin::start(vast);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.total = Some(SHORT);
    let bed = Bed::start(rule);
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let over = || bed.metrics.in_flight.load(Relaxed) == 0;
    assert!(read_until(&mut client, "\r\n\r\n").is_some() && !over());
    eventually("it is over in HTTP/1.1", over);
    with_runtime(async {
        let sender = connect(&bed, &Builder::new()).await;
        let mut body = ask(&sender, get("http://a/")).await.unwrap().into_body();
        while let Some(Ok(_)) = body.data().await {
            // Never a window that is worth a frame.
            let _ = body.flow_control().release_capacity(1);
        }
        eventually("it is over in HTTP/2", over);
    });
}

#[test]
fn a_target_without_an_answer_by_then_is_a_504_and_a_client_without_a_body_a_408() {
    let origin = Origin::start(silent);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.total = Some(SHORT);
    let bed = Bed::start(rule);
    assert_eq!(status(&bed.get()), 504);
    assert!(bed.shown().contains("outcome=\"timeout\"} 1"), "{}", bed.shown());
    let mut client = bed.client();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(&mut client)), 408);
    assert!(bed.shown().contains("outcome=\"aborted\"} 1"), "{}", bed.shown());
}

#[test]
fn a_tunnel_ends_with_its_exchange() {
    fn agrees(_: &str, stream: &mut TcpStream) -> bool {
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\n\r\n";
        let mut open = stream.write_all(agreed).is_ok();
        while open {
            open = stream.write_all(b".").is_ok();
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
    let origin = Origin::start(agrees);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.total = Some(SHORT);
    let bed = Bed::start(rule);
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";
    let answer = bed.raw(ask);
    assert_eq!(status(&answer), 101, "{answer}");
    eventually("the tunnel is gone", || bed.metrics.in_flight.load(Relaxed) == 0);
}
