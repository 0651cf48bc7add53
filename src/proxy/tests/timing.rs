//! Deadlines, and whose fault it is when one passes.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::bed::{Bed, Origin, eventually, forward, ok, read_all, read_until, silent, status};
use crate::proxy::listener::Bounds;

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_target_that_does_not_answer_in_time_is_a_504_and_its_own_fault() {
    let origin = Origin::start(silent);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.per_try = SHORT;
    let bed = Bed::start(rule);
    let answer = bed.get();
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(answer.contains("error=http_response_timeout"));
    assert!(bed.shown().contains("outcome=\"timeout\"} 1"));
}

#[test]
fn a_client_that_does_not_send_its_body_is_never_the_targets_fault() {
    let origin = Origin::start(|_, _| true);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = SHORT;
    let bed = Bed::start(rule);
    let mut client = bed.client();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    let answer = read_all(&mut client);
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(bed.shown().contains("outcome=\"aborted\"} 1"), "{}", bed.shown());
    assert!(!bed.shown().contains("outcome=\"timeout\""));
    let rows = bed.state.latency_rows(bed.clock.now());
    assert!(rows.iter().all(|row| row.samples == 0 && row.err == 0.0));
}

#[test]
fn an_upload_lasts_as_long_as_it_moves() {
    fn whole(_: &str, stream: &mut TcpStream) -> bool {
        let _ = read_until(stream, "0\r\n\r\n");
        ok("", stream)
    }
    let origin = Origin::start(whole);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.per_try = SHORT;
    rule.timeouts.request = SHORT;
    let bed = Bed::start(rule);
    let mut client = bed.client();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";
    client.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    for _ in 0..12 {
        // The subject itself: an upload that takes four times as long as an answer may.
        std::thread::sleep(SHORT / 3);
        client.write_all(b"1\r\nx\r\n").unwrap();
    }
    client.write_all(b"0\r\n\r\n").unwrap();
    let answer = read_all(&mut client);
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn a_target_that_takes_no_more_of_an_upload_is_a_504_and_its_own_fault() {
    let origin = Origin::start(|_, _| {
        std::thread::park_timeout(super::bed::PATIENCE);
        false
    });
    let mut rule = forward(&[origin.address]);
    rule.timeouts.per_try = SHORT;
    let bed = Bed::start(rule);
    let mut client = bed.client();
    // More than all buffers on the way take in.
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20);
    client.write_all(head.as_bytes()).unwrap();
    let writer = {
        let mut client = client.try_clone().unwrap();
        std::thread::spawn(move || while client.write_all(&[b'x'; 1 << 16]).is_ok() {})
    };
    let answer = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(bed.shown().contains("outcome=\"timeout\"} 1"), "{}", bed.shown());
    let _ = client.shutdown(std::net::Shutdown::Both);
    writer.join().unwrap();
}

/// Answers before the body has come, wholly.
const EARLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn an_upload_that_outlives_its_answer_is_under_way_and_over_once_nothing_moves() {
    let origin = Origin::start(|_, stream| {
        let _ = stream.write_all(EARLY);
        std::thread::park_timeout(super::bed::PATIENCE);
        false
    });
    let bounds = Bounds { lingering: SHORT, ..Bounds::default() };
    let mut bed = Bed::within(forward(&[origin.address]), bounds);
    // More than all buffers on the way take in.
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20);
    let begin = |bed: &Bed| {
        let mut client = bed.client();
        client.write_all(head.as_bytes()).unwrap();
        let mut sending = client.try_clone().unwrap();
        let writer =
            std::thread::spawn(move || while sending.write_all(&[b'x'; 1 << 16]).is_ok() {});
        let answer = read_until(&mut client, "\r\n\r\n").unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        (client, writer)
    };
    let under_way = |bed: &Bed| bed.metrics.in_flight.load(Relaxed);
    let (patient, waiting) = begin(&bed);
    assert_eq!(under_way(&bed), 1, "the request is not gone yet");
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = SHORT;
    bed.put("one", rule);
    let (_client, writer) = begin(&bed);
    eventually("and the client is let go", || bed.metrics.connections.load(Relaxed) == 1);
    assert_eq!(under_way(&bed), 1, "it is over; the other rule had more patience");
    writer.join().unwrap();
    patient.shutdown(std::net::Shutdown::Both).unwrap();
    waiting.join().unwrap();
}

#[test]
fn an_upload_that_outlives_its_answer_lasts_as_long_as_it_moves() {
    fn early(head: &str, stream: &mut TcpStream) -> bool {
        let answered = stream.write_all(EARLY).is_ok();
        answered && (head.starts_with("GET") || read_until(stream, "\r\n0\r\n\r\n").is_some())
    }
    let origin = Origin::start(early);
    let bounds = Bounds { head: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let mut client = bed.client();
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    for _ in 0..12 {
        // The subject itself: a client that takes its time.
        std::thread::sleep(SHORT / 3);
        client.write_all(b"4\r\nslow\r\n").unwrap();
    }
    client.write_all(b"0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(&mut client)), 200, "its connection serves on");
    eventually("nothing is left of it", || bed.metrics.in_flight.load(Relaxed) == 0);
}

#[test]
fn the_time_a_client_takes_to_send_is_not_the_targets_latency() {
    fn whole(_: &str, stream: &mut TcpStream) -> bool {
        let _ = read_until(stream, "0\r\n\r\n");
        ok("", stream)
    }
    let origin = Origin::start(whole);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";
    client.write_all(format!("{head}\r\n4\r\nslow\r\n").as_bytes()).unwrap();
    origin.next();
    // The subject itself: a client that takes its time.
    std::thread::sleep(Duration::from_millis(600));
    client.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(&mut client)), 200);
    let rows = bed.state.latency_rows(bed.clock.now());
    assert_eq!(rows.len(), 1);
    assert!(rows[0].latency_ms < 300.0, "from the last byte: {} ms", rows[0].latency_ms);
}

#[test]
fn a_body_that_stops_on_its_way_to_the_client_is_cut_off() {
    fn stuck(_: &str, stream: &mut TcpStream) -> bool {
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n");
        true
    }
    let origin = Origin::start(stuck);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = SHORT;
    let bed = Bed::start(rule);
    let answer = bed.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(answer.contains("hi") && !answer.contains("\r\n0\r\n"), "{answer}");
}

#[test]
fn a_stream_outlives_the_request_time_out() {
    fn dripping(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n");
        (0..8).all(|_| {
            std::thread::sleep(SHORT / 3);
            stream.write_all(b".").is_ok()
        })
    }
    let origin = Origin::start(dripping);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.per_try = SHORT;
    rule.timeouts.request = SHORT;
    let bed = Bed::start(rule);
    assert!(bed.get().ends_with("........"), "only idle time counts after the head");
}

#[test]
fn a_stalled_upload_does_not_stand_in_the_way_of_others() {
    let origin = Origin::start(silent);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = SHORT;
    let mut bed = Bed::start(rule);
    let mut stalled = bed.client();
    stalled.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").unwrap();
    origin.next();
    let other = Origin::start(ok);
    bed.put("one", forward(&[other.address]));
    eventually("the new rule serves", || status(&bed.get()) == 200);
    assert_eq!(status(&read_all(&mut stalled)), 408);
}

#[test]
fn distance_is_added_to_every_exchange_with_a_target_and_seen_as_its_network() {
    let origin = Origin::start(ok);
    let far = Duration::from_millis(40);
    let bed = Bed::far(forward(&[origin.address]), far);
    let begun = std::time::Instant::now();
    assert_eq!(status(&bed.get()), 200);
    assert!(begun.elapsed() >= far * 4, "a connection and an exchange: {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(status(&bed.get()), 200);
    assert!(begun.elapsed() >= far * 2, "an exchange: {:?}", begun.elapsed());
    let rows = bed.state.latency_rows(bed.clock.now());
    assert!((80.0..300.0).contains(&rows[0].net_ms), "{} ms", rows[0].net_ms);
}
