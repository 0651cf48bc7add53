//! What clients can hold is bounded: silent sockets, slow heads, slow readers, connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::bed::{
    Bed, Origin, Setup, eventually, forward, ok, read_all, read_until, silent, status, vast,
};
use crate::proxy::listener::Bounds;
use crate::proxy::shedding::Shedding;

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_silent_socket_and_a_head_that_never_ends_are_closed() {
    let origin = Origin::start(ok);
    let bounds = Bounds { head: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let mut silent = bed.client();
    let mut slow = bed.client();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").unwrap();
    assert_eq!(read_all(&mut silent), "", "closed without a word");
    let said = read_all(&mut slow);
    assert!(said.is_empty() || status(&said) == 408, "{said}");
    assert!(origin.is_left_alone());
}

#[test]
fn a_reader_that_stops_reading_is_let_go() {
    let origin = Origin::start(vast);
    let bounds = Bounds { stalled: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(client.read(&mut [0u8; 16]).unwrap() > 0);
    origin.next();
    eventually("the stalled connection is given up", || {
        bed.metrics.connections.load(Relaxed) == 0 && bed.metrics.in_flight.load(Relaxed) == 0
    });
}

#[test]
fn over_the_cap_a_connection_is_closed_at_once() {
    let origin = Origin::start(ok);
    let bounds = Bounds { connections: 2, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let held = [bed.client(), bed.client()];
    eventually("both are served", || bed.metrics.connections.load(Relaxed) == 2);
    assert_eq!(read_all(&mut bed.client()), "", "no room");
    drop(held);
    eventually("room again", || bed.metrics.connections.load(Relaxed) == 0);
    assert_eq!(status(&bed.get()), 200);
}

#[test]
fn with_few_places_left_connections_are_not_kept() {
    let origin = Origin::start(ok);
    let bounds = Bounds { connections: 32, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let mut kept = bed.client();
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    kept.write_all(ask).unwrap();
    let head = read_until(&mut kept, "\r\n\r\nok").unwrap();
    assert!(!head.contains("connection: close"), "{head}");
    let crowd: Vec<TcpStream> = (0..30).map(|_| bed.client()).collect();
    eventually("all are served", || bed.metrics.connections.load(Relaxed) == 31);
    kept.write_all(ask).unwrap();
    let answer = read_all(&mut kept);
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("connection: close"), "it makes room: {answer}");
    drop(crowd);
}

#[test]
fn a_node_with_too_much_to_do_refuses_and_recovers() {
    let origin = Origin::start(silent);
    let shedding = Arc::new(Shedding::beyond(2));
    let setup = Setup { shedding: shedding.clone(), ..Setup::default() };
    let mut bed = Bed::set_up(forward(&[origin.address]), setup);
    let mut held = [bed.client(), bed.client()];
    for client in &mut held {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        origin.next();
    }
    let refused = || {
        let answer = bed.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("retry-after: 1") && answer.contains("connection: close"));
    };
    refused();
    drop(held);
    eventually("room again", || bed.metrics.in_flight.load(Relaxed) == 0);
    assert!(shedding.memory_is_short(true), "news");
    refused();
    assert!(origin.is_left_alone());
    assert!(bed.shown().contains("tradewind_requests_shed_total 2"), "{}", bed.shown());
    assert!(!shedding.memory_is_short(true) && shedding.memory_is_short(false));
    let other = Origin::start(ok);
    bed.put("one", forward(&[other.address]));
    assert_eq!(status(&bed.get()), 200);
}
