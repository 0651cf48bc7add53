//! What a client may hold over HTTP/2 (THREATS T6, T11, T12), and how it is asked to leave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, SendRequest};
use http::{Request, Version};
use tokio::task::JoinHandle;

use super::bed::{
    Bed, Origin, PATIENCE, eventually, forward, ok, read_until, silent, with_runtime as run,
};
use super::http2::{ask, connect, get, whole};
use crate::proxy::listener::Bounds;

const SHORT: Duration = Duration::from_millis(200);

/// A connection, and how it ends.
async fn watched(bed: &Bed) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = tokio::net::TcpStream::connect(bed.proxy.addresses()[0]).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

#[test]
fn a_client_that_mostly_gives_up_is_shown_the_door() {
    let origin = Origin::start(silent);
    let bed = Bed::start(forward(&[origin.address]));
    let sent: u32 = run(async {
        let sender = connect(&bed, &Builder::new()).await;
        let gone = || bed.metrics.connections.load(Relaxed) == 0;
        eventually("it is let in", || !gone());
        for sent in 0..1_000 {
            let Ok(mut ready) = sender.clone().ready().await else { return sent };
            let Ok((answer, mut body)) = ready.send_request(get("http://a/"), true) else {
                return sent;
            };
            let in_flight = || bed.metrics.in_flight.load(Relaxed);
            eventually("it is under way", || in_flight() == 1 || gone());
            // The proxy may have hung up before the client has seen it.
            if gone() {
                return sent;
            }
            body.send_reset(Reason::CANCEL);
            assert!(answer.await.is_err());
            eventually("it is given up", || in_flight() == 0);
        }
        panic!("CVE-2023-44487: nobody minds")
    });
    assert!(sent > 100, "giving up now and then is nobody's fault: {sent}");
    eventually("nothing is left of them", || {
        bed.metrics.in_flight.load(Relaxed) == 0 && bed.metrics.connections.load(Relaxed) == 0
    });
}

#[test]
fn a_stream_that_takes_nothing_in_is_reset_and_its_neighbours_are_not() {
    fn large(head: &str, stream: &mut TcpStream) -> bool {
        if head.starts_with("GET /small") {
            return ok(head, stream);
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 << 20);
        stream.write_all(answer.as_bytes()).is_ok() && stream.write_all(&[b'x'; 4 << 20]).is_ok()
    }
    let origin = Origin::start(large);
    let bounds = Bounds { stalled: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    run(async {
        let sender = connect(&bed, Builder::new().initial_window_size(1_000)).await;
        let answer = ask(&sender, get("http://a/large")).await.unwrap();
        let mut body = answer.into_body();
        let mut taken = 0;
        let cut = loop {
            match tokio::time::timeout(PATIENCE, body.data()).await.expect("an end in time") {
                Some(Ok(data)) => taken += data.len(),
                Some(Err(error)) => break error,
                None => panic!("a whole body of {taken} bytes"),
            }
        };
        assert!(cut.is_reset() && taken <= 1_000, "T11: {cut}, {taken} bytes");
        let answer = ask(&sender, get("http://a/small")).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap().0, "ok");
    });
    eventually("nothing is left of it", || bed.metrics.in_flight.load(Relaxed) == 0);
}

#[test]
fn a_stream_that_waits_for_its_target_is_not_stalled() {
    fn dripping(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab");
        // The subject itself: longer than a client may hold an answer up.
        std::thread::sleep(SHORT * 3);
        stream.write_all(b"cd").is_ok()
    }
    let origin = Origin::start(dripping);
    let bounds = Bounds { stalled: SHORT, head: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    run(async {
        let sender = connect(&bed, &Builder::new()).await;
        let answer = ask(&sender, get("http://a/")).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap().0, "abcd");
    });
}

#[test]
fn a_connection_without_streams_ends() {
    let origin = Origin::start(ok);
    let bounds = Bounds { head: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    run(async {
        let (sender, connection) = watched(&bed).await;
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        let ended = tokio::time::timeout(PATIENCE, connection).await.expect("an end in time");
        ended.unwrap().unwrap();
    });
    let mut rude: Vec<TcpStream> = (0..8).map(|_| bed.client()).collect();
    for rude in &mut rude {
        rude.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        rude.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    }
    for rude in &mut rude {
        let mut all = Vec::new();
        rude.read_to_end(&mut all).unwrap();
        assert!(frames(&all).contains(&GOAWAY), "RFC 9113 6.8: {all:?}");
    }
    eventually("who says nothing is let go", || bed.metrics.connections.load(Relaxed) == 0);
}

/// The types of these frames.
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        types.push(kind);
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        bytes = &bytes[9 + length..];
    }
    types
}

const GOAWAY: u8 = 7;

#[test]
fn with_few_places_left_a_connection_ends_with_the_streams_under_way() {
    let origin = Origin::start(ok);
    let bounds = Bounds { connections: 32, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    run(async {
        let (sender, connection) = watched(&bed).await;
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        let crowd: Vec<TcpStream> = (0..30).map(|_| bed.client()).collect();
        eventually("all are served", || bed.metrics.connections.load(Relaxed) == 31);
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200, "the last one");
        let ended = tokio::time::timeout(PATIENCE, connection).await.expect("it makes room");
        ended.unwrap().unwrap();
        drop(crowd);
    });
}

#[test]
fn a_connection_with_an_upload_behind_its_answer_does_not_end() {
    fn early(head: &str, stream: &mut TcpStream) -> bool {
        let answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok();
        answered && (head.starts_with("GET") || read_until(stream, "\r\n0\r\n\r\n").is_some())
    }
    let origin = Origin::start(early);
    let bounds = Bounds { head: SHORT, ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    run(async {
        let sender = connect(&bed, &Builder::new()).await;
        let request = Request::post("http://a/").version(Version::HTTP_2).body(()).unwrap();
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        for _ in 0..12 {
            // The subject itself: a client that takes its time.
            tokio::time::sleep(SHORT / 3).await;
            body.send_data(Bytes::from_static(b"slow"), false).unwrap();
        }
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        body.send_data(Bytes::new(), true).unwrap();
        eventually("it is over", || bed.metrics.in_flight.load(Relaxed) == 0);
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &Builder::new()).await;
        let mut request = get("http://a/");
        request.headers_mut().insert("x", "y".repeat(100 << 10).parse().unwrap());
        match ask(&sender, request).await {
            Ok(answer) => assert_eq!(answer.status(), 431),
            // The connection may be gone before the client has written all of the head.
            Err(error) => {
                let refused = error.is_reset() || error.is_go_away() || error.is_io();
                assert!(refused, "{error}");
            }
        }
    });
}

#[test]
fn more_streams_than_at_once_wait_their_turn() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let many = connect(&bed, &Builder::new()).await;
        // One answer first: from here on the client knows the proxy's limit on streams, and one
        // that is over it waits instead of being refused (RFC 9113 5.1.2).
        assert_eq!(ask(&many, get("http://a/")).await.unwrap().status(), 200);
        let mut asked = Vec::new();
        for _ in 0..200 {
            let mut ready = many.clone().ready().await.unwrap();
            asked.push(ready.send_request(get("http://a/"), true).unwrap().0);
        }
        for answer in asked {
            assert_eq!(answer.await.unwrap().status(), 200, "more than at once, but all");
        }
    });
}

#[test]
fn a_drain_says_so_and_lets_streams_end() {
    fn slow(_: &str, stream: &mut TcpStream) -> bool {
        // The subject itself: longer than the drain takes to be told.
        std::thread::sleep(SHORT * 2);
        ok("", stream)
    }
    let origin = Origin::start(slow);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let (sender, connection) = watched(&bed).await;
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, _) = ready.send_request(get("http://a/"), true).unwrap();
        tokio::task::spawn_blocking(move || origin.next()).await.unwrap();
        let draining = tokio::spawn(bed.drain(PATIENCE));
        let answer = answer.await.unwrap();
        assert!(answer.headers().get("connection").is_none(), "RFC 9113 8.2.2");
        assert_eq!(whole(answer.into_body()).await.unwrap().0, "ok");
        connection.await.unwrap().expect("a GOAWAY without an error");
        draining.await.unwrap();
        assert!(ask(&sender, get("http://a/")).await.is_err());
    });
}

#[test]
fn a_client_that_hangs_up_counts_as_aborted() {
    let origin = Origin::start(silent);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &Builder::new()).await;
        let mut ready = sender.ready().await.unwrap();
        let (answer, mut body) = ready.send_request(get("http://a/"), true).unwrap();
        eventually("it is under way", || bed.metrics.in_flight.load(Relaxed) == 1);
        body.send_reset(Reason::CANCEL);
        assert!(answer.await.is_err());
    });
    eventually("it is over", || bed.metrics.in_flight.load(Relaxed) == 0);
    eventually("and counted", || bed.shown().contains("outcome=\"aborted\"} 1"));
}
