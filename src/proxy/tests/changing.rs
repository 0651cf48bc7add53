//! Changes of rules under way: what runs is not disturbed, what was learnt is kept.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::bed::{Bed, Origin, forward, ok, read_until, status};

/// Begins an answer, and ends it when the rest of the request comes.
fn long(head: &str, stream: &mut TcpStream) -> bool {
    if !head.starts_with("GET /long") {
        return ok("", stream);
    }
    let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let _ = stream.write_all(begun);
    let wanted = stream.read(&mut [0u8; 1]).is_ok_and(|some| some == 1);
    wanted && stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").is_ok()
}

#[test]
fn two_hundred_changes_leave_a_running_answer_and_its_connection_alone() {
    let origin = Origin::start(long);
    let mut bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    let request = "GET /long HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    assert!(read_until(&mut client, "first\r\n").is_some());
    for round in 0..200 {
        bed.put("one", forward(&[origin.address]));
        bed.put(&format!("other-{}", round % 7), forward(&[origin.address]));
    }
    // Both halves of the exchange still move.
    client.write_all(b"2\r\ngo\r\n0\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "0\r\n\r\n").is_some_and(|rest| rest.contains("last")));
    assert_eq!(status(&bed.get()), 200);
}

#[test]
fn kept_connections_outlive_a_change_of_their_rule() {
    let origin = Origin::start(ok);
    let mut bed = Bed::start(forward(&[origin.address]));
    for _ in 0..20 {
        assert_eq!(status(&bed.get()), 200);
        bed.put("one", forward(&[origin.address]));
        assert_eq!(origin.next().0, 0, "still the first connection");
    }
    let rows = bed.state.latency_rows(bed.clock.now());
    assert_eq!((rows.len(), rows[0].samples), (1, 20), "and all that was learnt");
}
