//! The last answer of a connection reaches a client that is still sending (RFC 9112, section 9.6).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::bed::{
    Bed, Origin, eventually, field, forward, ok, read_all, read_until, silent, status,
};
use crate::model::rule::{Action, Respond};
use crate::proxy::listener::Bounds;

const LARGE: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 67108864\r\n\r\n";

/// A bed that takes no bodies, and what it keeps to.
fn bed(lingering: Duration) -> (Bed, Origin) {
    let origin = Origin::start(ok);
    let mut rule = forward(&[origin.address]);
    rule.limits.max_request_body = Some(1);
    (Bed::within(rule, Bounds { lingering, ..Bounds::default() }), origin)
}

/// Sends more than any buffer on the way holds.
fn send(client: &mut TcpStream) -> std::io::Result<()> {
    (0..256).try_for_each(|_| client.write_all(&[b'x'; 64 << 10]))
}

#[test]
fn who_reads_only_once_all_is_sent_hears_the_answer_and_no_reset() {
    let (bed, origin) = bed(Bounds::default().lingering);
    let no_head = "GET / HTTP/1.1\r\nhost: a\r\nno field\r\n\r\n";
    let doubtful = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    for (head, code) in [(LARGE, 413), (no_head, 400), (doubtful, 400)] {
        let mut client = bed.client();
        client.write_all(head.as_bytes()).unwrap();
        send(&mut client).expect("all of it is taken in");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end, and no reset");
        assert_eq!(status(&answer), code, "{answer}");
        assert_eq!(bed.metrics.connections.load(Relaxed), 1, "it waits for the client");
        client.shutdown(Shutdown::Both).unwrap();
        eventually("and no longer", || bed.metrics.connections.load(Relaxed) == 0);
    }
    assert!(origin.is_left_alone());
}

#[test]
fn an_answer_says_whether_its_connection_outlives_a_body_that_nobody_reads() {
    let mut rule = forward(&[]);
    let respond = Respond { status: 200, headers: Vec::new(), body: "here".to_string() };
    rule.action = Action::Respond(respond);
    let bed = Bed::start(rule);
    let post = "POST / HTTP/1.1\r\nhost: a\r\n";
    let small = format!("{post}content-length: 4\r\n\r\nbody");
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    let expecting = format!("{post}expect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    let slow = format!("{post}content-length: 4\r\n\r\n");
    for (request, stays) in [
        (&small, true),
        (&chunked, true),
        (&expecting, false),
        (&slow, false),
        (&LARGE.into(), false),
    ] {
        let mut client = bed.client();
        client.write_all(request.as_bytes()).unwrap();
        let answer = read_until(&mut client, "here").unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(answer.contains("connection: close"), !stays, "RFC 9112 9.6: {answer}");
        if stays {
            client.write_all(small.as_bytes()).unwrap();
            assert!(read_until(&mut client, "here").is_some());
        } else {
            assert_eq!(read_all(&mut client), "");
        }
    }
    let full = Origin::start(silent);
    let mut rule = forward(&[full.address]);
    rule.limits.max_in_flight = Some(0);
    for rule in [forward(&["127.0.0.1:1".parse().unwrap()]), rule] {
        let bed = Bed::start(rule);
        let mut client = bed.client();
        for _ in 0..2 {
            client.write_all(small.as_bytes()).unwrap();
            let answer = read_until(&mut client, "\r\n\r\n").unwrap();
            assert!(read_until(&mut client, "\n").is_some(), "and why");
            assert!((502..=503).contains(&status(&answer)), "{answer}");
            assert!(!answer.contains("connection: close"), "it is taken in: {answer}");
        }
    }
    let said = bed.raw("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!((status(&said), field(&said, "connection")), (400, Some("close")), "{said}");
}

#[test]
fn who_never_stops_sending_is_let_go() {
    let (bed, _origin) = bed(Duration::from_millis(150));
    let mut client = bed.client();
    client.write_all(LARGE.as_bytes()).unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&answer), 413, "{answer}");
    while send(&mut client).is_ok() {}
    eventually("its connection is over", || bed.metrics.connections.load(Relaxed) == 0);
}
