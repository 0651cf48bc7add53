//! What clients can hold is bounded: silent sockets, slow heads, slow readers, connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::bed::{Bed, Origin, eventually, forward, ok, read_all, status};
use crate::proxy::listener::Bounds;

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
    fn endless(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        // Ends when the proxy lets go of the connection.
        while stream.write_all(&block).is_ok() {}
        false
    }
    let origin = Origin::start(endless);
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
