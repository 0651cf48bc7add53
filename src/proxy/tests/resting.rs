//! Connections without anything to do give up their buffers, and nothing else.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::bed::{
    Bed, Origin, PATIENCE, block_on, eventually, field, forward, ok, read_all, read_until, silent,
    status,
};
use crate::proxy::listener::Bounds;

const SHORT: Duration = Duration::from_millis(50);
const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn resting(origin: &Origin) -> Bed {
    Bed::within(forward(&[origin.address]), Bounds { rest: SHORT, ..Bounds::default() })
}

fn rests(bed: &Bed, so_many: i64) {
    let resting = || bed.metrics.resting.load(Relaxed) == so_many;
    eventually(&format!("{so_many} connections rest"), resting);
}

#[test]
fn a_connection_that_rested_is_used_again_as_if_nothing_had_been() {
    let origin = Origin::start(ok);
    let bed = resting(&origin);
    let mut client = bed.client();
    rests(&bed, 1);
    for _ in 0..3 {
        client.write_all(ASK).unwrap();
        assert!(read_until(&mut client, "\r\n\r\nok").is_some());
        rests(&bed, 1);
    }
    // Half a head wakes it up, and is not lost when it comes to rest over it.
    client.write_all(&ASK[..20]).unwrap();
    std::thread::sleep(SHORT * 4);
    client.write_all(&ASK[20..]).unwrap();
    assert!(read_until(&mut client, "\r\n\r\nok").is_some());
    assert_eq!(bed.metrics.connections.load(Relaxed), 1, "one connection all the time");
    drop(client);
    rests(&bed, 0);
    eventually("it is gone", || bed.metrics.connections.load(Relaxed) == 0);
}

#[test]
fn more_than_was_read_on_waking_up_arrives_whole() {
    let origin = Origin::start(ok);
    let bed = resting(&origin);
    let mut client = bed.client();
    rests(&bed, 1);
    let long = "x".repeat(5_000);
    write!(client, "GET / HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n").unwrap();
    client.write_all(ASK).unwrap();
    let (_, head) = origin.next();
    assert_eq!(field(&head, "x-long"), Some(long.as_str()));
    origin.next();
    assert!(read_until(&mut client, "ok").is_some() && read_until(&mut client, "ok").is_some());
}

#[test]
fn what_is_under_way_never_rests() {
    let origin = Origin::start(silent);
    let bed = resting(&origin);
    let mut client = bed.client();
    client.write_all(ASK).unwrap();
    origin.next();
    std::thread::sleep(SHORT * 4);
    assert_eq!(bed.metrics.resting.load(Relaxed), 0);
    assert_eq!(bed.metrics.in_flight.load(Relaxed), 1);
}

#[test]
fn the_rest_of_an_upload_is_never_taken_for_a_request() {
    fn early(head: &str, stream: &mut TcpStream) -> bool {
        ok(head, stream)
    }
    let origin = Origin::start(early);
    let bed = resting(&origin);
    let mut client = bed.client();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\nhalf").unwrap();
    assert!(read_until(&mut client, "\r\n\r\nok").is_some(), "answered before it is whole");
    origin.next();
    std::thread::sleep(SHORT * 4);
    assert_eq!(bed.metrics.resting.load(Relaxed), 0, "its body is not over");
    // The proxy may have closed the connection by now.
    let _ = client.write_all(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    let _ = client.shutdown(Shutdown::Write);
    let rest = read_all(&mut client);
    assert!(rest.is_empty(), "{rest}");
    while let Ok((_, head)) = origin.soon() {
        assert!(!head.starts_with("GET /smuggled"), "{head}");
    }
}

#[test]
fn a_resting_connection_is_closed_when_its_time_is_over() {
    let origin = Origin::start(ok);
    let bounds = Bounds { rest: SHORT, head: SHORT * 6, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    let (mut silent, mut asked, mut slow) = (bed.client(), bed.client(), bed.client());
    asked.write_all(ASK).unwrap();
    slow.write_all(&ASK[..20]).unwrap();
    let begun = Instant::now();
    assert!(read_until(&mut asked, "\r\n\r\nok").is_some());
    for client in [&mut silent, &mut asked, &mut slow] {
        let said = read_all(client);
        assert!(said.is_empty() || status(&said) == 408, "{said}");
    }
    assert!(begun.elapsed() < PATIENCE);
    eventually("all are gone", || bed.metrics.connections.load(Relaxed) == 0);
    assert_eq!(bed.metrics.resting.load(Relaxed), 0);
}

#[test]
fn a_drain_does_not_wait_for_those_at_rest() {
    let origin = Origin::start(ok);
    let bed = resting(&origin);
    let mut idle = bed.client();
    rests(&bed, 1);
    let begun = Instant::now();
    block_on(bed.drain(PATIENCE));
    assert!(begun.elapsed() < PATIENCE / 2);
    assert_eq!(read_all(&mut idle), "");
}
