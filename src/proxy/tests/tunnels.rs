//! WebSockets: passed on where both sides ask for it properly, and nothing else ever is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};

use super::bed::{
    Bed, Origin, PATIENCE, block_on, eventually, field, forward, ok, read_all, read_until, status,
    with_runtime,
};
use super::http2::{ask, connect, get};
use crate::proxy::listener::Bounds;

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                   upgrade: WebSocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

/// Agrees, then sends back every byte in capitals, and says when there are no more.
fn shouting(_: &str, stream: &mut TcpStream) -> bool {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: a\r\n\r\n";
    let _ = stream.write_all(agreed.as_bytes());
    let mut bytes = [0u8; 1024];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        bytes[..read].make_ascii_uppercase();
        if stream.write_all(&bytes[..read]).is_err() {
            return false;
        }
    }
    let _ = stream.write_all(b"bye");
    false
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_each_side_is_done() {
    let origin = Origin::start(shouting);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    client.write_all(format!("{ASK}early").as_bytes()).unwrap();
    let head = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"), "RFC 9110 15.2.2: {head}");
    assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), Some("a"), "{head}");
    let (_, seen) = origin.next();
    assert_eq!(field(&seen, "upgrade"), Some("websocket"), "{seen}");
    assert_eq!(field(&seen, "connection"), Some("upgrade"), "{seen}");
    assert_eq!(field(&seen, "sec-websocket-key"), Some("k"), "{seen}");
    assert!(read_until(&mut client, "EARLY").is_some(), "what came behind the request");
    client.write_all(b"and more").unwrap();
    assert!(read_until(&mut client, "AND MORE").is_some());
    assert_eq!(bed.metrics.in_flight.load(Relaxed), 1, "a tunnel is under way");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), "bye", "one side's end is not the other's");
    eventually("the tunnel is over", || bed.metrics.in_flight.load(Relaxed) == 0);
    assert!(bed.shown().contains("code_class=\"1xx\""), "{}", bed.shown());
}

#[test]
fn what_is_not_asked_for_properly_is_ignored() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let cases = [
        ("GET / HTTP/1.0", "connection: keep-alive, upgrade\r\nupgrade: websocket\r\n"),
        ("GET / HTTP/1.1", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"),
        ("GET / HTTP/1.1", "connection: upgrade\r\nupgrade: websocket, h2c\r\n"),
        ("GET / HTTP/1.1", "connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n"),
        ("GET / HTTP/1.1", "upgrade: websocket\r\n"),
        ("POST / HTTP/1.1", "connection: upgrade\r\nupgrade: websocket\r\n"),
    ];
    for (line, fields) in cases {
        let mut client = bed.client();
        client.write_all(format!("{line}\r\nhost: a\r\n{fields}\r\n").as_bytes()).unwrap();
        let answer = read_until(&mut client, "\r\n\r\nok").unwrap();
        assert_eq!(status(&answer), 200, "{line} {fields}");
        let (_, seen) = origin.next();
        assert_eq!(field(&seen, "upgrade"), None, "RFC 9110 7.8: {seen}");
        client.write_all(b"GET /again HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert!(read_until(&mut client, "\r\n\r\nok").is_some(), "still HTTP: {line} {fields}");
        origin.next();
    }
}

#[test]
fn a_protocol_that_nobody_asked_for_is_a_502() {
    fn eager(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
              upgrade: websocket\r\n\r\n",
        );
        true
    }
    fn other(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        );
        true
    }
    let origin = Origin::start(eager);
    let answer = Bed::start(forward(&[origin.address])).get();
    assert_eq!(status(&answer), 502, "{answer}");
    let origin = Origin::start(other);
    let mut client = Bed::start(forward(&[origin.address])).client();
    client.write_all(ASK.as_bytes()).unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&answer), 502, "{answer}");
}

#[test]
fn a_target_that_declines_answers_as_ever() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    for _ in 0..2 {
        client.write_all(ASK.as_bytes()).unwrap();
        let answer = read_until(&mut client, "\r\n\r\nok").unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(origin.next().0, 0, "nothing is wrong with either connection");
    }
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_cut() {
    let origin = Origin::start(shouting);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = Duration::from_millis(150);
    let bed = Bed::start(rule);
    let mut client = bed.client();
    client.write_all(ASK.as_bytes()).unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").is_some());
    for _ in 0..6 {
        // The subject itself: longer than the idle time in all, never at a stretch.
        std::thread::sleep(Duration::from_millis(50));
        client.write_all(b"x").unwrap();
        assert!(read_until(&mut client, "X").is_some(), "it lives as long as it moves");
    }
    assert_eq!(read_all(&mut client), "");
    eventually("nothing is left of it", || {
        bed.metrics.in_flight.load(Relaxed) == 0 && bed.metrics.connections.load(Relaxed) == 0
    });
}

#[test]
fn a_drain_waits_for_tunnels_as_long_as_it_has_patience() {
    let origin = Origin::start(shouting);
    let bed = Bed::start(forward(&[origin.address]));
    let mut clients: Vec<TcpStream> = (0..2).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.write_all(ASK.as_bytes()).unwrap();
        assert!(read_until(client, "\r\n\r\n").is_some());
    }
    let draining = std::thread::spawn(move || block_on(bed.drain(PATIENCE)));
    for client in &mut clients {
        client.write_all(b"still here").unwrap();
        assert!(read_until(client, "STILL HERE").is_some());
        client.shutdown(Shutdown::Both).unwrap();
    }
    draining.join().unwrap();
}

/// What agrees to a tunnel as RFC 6455 asks.
pub(super) fn agreement(head: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let suffix = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let text = format!("{}{suffix}", field(head, "sec-websocket-key").unwrap_or_default());
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let proof = if head.contains("/liar") { "lies".into() } else { STANDARD.encode(digest) };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {proof}\r\nsec-websocket-protocol: chat\r\n\r\n"
    )
}

/// Agrees, then says everything twice.
fn echoing(head: &str, stream: &mut TcpStream) -> bool {
    if head.contains("/refuses") {
        return stream.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno").is_ok();
    }
    if head.contains("/listens") {
        return listens(head, stream);
    }
    if head.contains("/ignores") {
        return ok(head, stream);
    }
    let _ = stream.write_all(agreement(head).as_bytes());
    if head.contains("/leaves") {
        let _ = stream.write_all(&[b'x'; 200 << 10]);
        return false;
    }
    while head.contains("/floods") {
        if stream.write_all(&[b'x'; 1 << 16]).is_err() {
            return false;
        }
    }
    let mut bytes = [0u8; 1024];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        let twice = [&bytes[..read], &bytes[..read]].concat();
        if stream.write_all(&twice).is_err() {
            return false;
        }
    }
    let _ = stream.write_all(b"bye");
    false
}

/// Agrees, it may be that it says its end, and keeps in mind what was heard at last.
fn listens(head: &str, stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(agreement(head).as_bytes());
    if head.contains("/quiet") {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut bytes = [0u8; 1024];
    let end = loop {
        match stream.read(&mut bytes) {
            Ok(read @ 1..) => assert_eq!(&bytes[..read], b"x"),
            end => break end,
        }
    };
    if end.is_ok() {
        ENDS.fetch_add(1, Relaxed);
        // A reset behind an end is an error that nobody reads.
        eventually("a reset", || stream.take_error().unwrap().is_some());
    }
    RESETS.fetch_add(1, Relaxed);
    false
}

static ENDS: AtomicUsize = AtomicUsize::new(0);
static RESETS: AtomicUsize = AtomicUsize::new(0);

pub(super) fn extended(path: &str, protocol: &'static str) -> Request<()> {
    let mut request = Request::connect(format!("http://a{path}"))
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    request
}

#[test]
fn a_websocket_may_come_over_one_stream_of_http2() {
    let origin = Origin::start(echoing);
    let bounds = Bounds { head: Duration::from_millis(200), ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    with_runtime(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        // The server's settings come with its first answer at the latest.
        assert_eq!(ask(&sender, get("http://a/ignores")).await.unwrap().status(), 200);
        assert!(sender.is_extended_connect_protocol_enabled(), "RFC 8441 section 3");
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut up) = sender.send_request(extended("/chat", "websocket"), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "RFC 8441 section 5");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        up.send_data(Bytes::from_static(b"one "), false).unwrap();
        let mut down = answer.into_body();
        let mut heard = Vec::new();
        while heard.len() < 8 {
            heard.extend_from_slice(&down.data().await.unwrap().unwrap());
        }
        // Longer than a connection without streams may last: the tunnel is one.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(bed.metrics.in_flight.load(Relaxed), 1, "a tunnel is under way");
        up.send_data(Bytes::from_static(b"two"), true).unwrap();
        while let Some(data) = down.data().await {
            heard.extend_from_slice(&data.unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&heard), "one one twotwobye");
    });
    eventually("the tunnel is over", || bed.metrics.in_flight.load(Relaxed) == 0);
    origin.next();
    let (_, head) = origin.next();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
    assert_eq!(field(&head, "sec-websocket-version"), Some("13"), "{head}");
    assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24), "{head}");
}

#[test]
fn a_tunnel_over_a_stream_ends_where_its_client_takes_nothing_in() {
    let origin = Origin::start(echoing);
    let bounds = Bounds { stalled: Duration::from_millis(200), ..Bounds::default() };
    let bed = Bed::within(forward(&[origin.address]), bounds);
    with_runtime(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, get("http://a/ignores")).await.unwrap().status(), 200);
        for path in ["/leaves", "/floods"] {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, _up) = sender.send_request(extended(path, "websocket"), false).unwrap();
            let mut down = answer.await.unwrap().into_body();
            let mut heard = 0;
            let end = loop {
                // Its window is never opened again.
                match tokio::time::timeout(PATIENCE, down.data()).await.expect("an end in time") {
                    Some(Ok(data)) => heard += data.len(),
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            assert_eq!((heard, end), (65_535, Some(h2::Reason::CANCEL)), "{path}");
        }
        assert_eq!(ask(&sender, get("http://a/ignores")).await.unwrap().status(), 200);
        eventually("no tunnel is left", || bed.metrics.in_flight.load(Relaxed) == 0);
    });
}

#[test]
fn a_stream_becomes_a_tunnel_only_where_the_target_proves_that_it_agrees() {
    let origin = Origin::start(echoing);
    let bed = Bed::start(forward(&[origin.address]));
    with_runtime(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, get("http://a/ignores")).await.unwrap().status(), 200);
        for (path, protocol, status) in [
            ("/liar", "websocket", 502),
            ("/ignores", "websocket", 502),
            ("/refuses", "websocket", 403),
            ("/chat", "connect-udp", 405),
        ] {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, _up) = sender.send_request(extended(path, protocol), false).unwrap();
            assert_eq!(answer.await.unwrap().status(), status, "{path} {protocol}");
        }
    });
    eventually("nothing is left", || bed.metrics.in_flight.load(Relaxed) == 0);
}

#[test]
fn a_reset_reaches_a_target_also_behind_the_end_of_either_side() {
    let origin = Origin::start(echoing);
    let mut rule = forward(&[origin.address]);
    rule.timeouts.idle = Duration::from_secs(2);
    let often = Duration::from_millis(200);
    let bed = Bed::within(rule, Bounds { asked: (often, often), ..Bounds::default() });
    with_runtime(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, get("http://a/ignores")).await.unwrap().status(), 200);
        let tunnel = async |path| {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, up) = sender.send_request(extended(path, "websocket"), false).unwrap();
            (up, answer.await.unwrap().into_body())
        };
        let (mut up, _down) = tunnel("/listens").await;
        up.send_data(Bytes::from_static(b"x"), true).unwrap();
        eventually("the target hears of the end", || ENDS.load(Relaxed) == 1);
        up.send_reset(h2::Reason::CANCEL);
        eventually("the target hears of the reset", || RESETS.load(Relaxed) == 1);

        let (mut up, mut down) = tunnel("/listens/quiet").await;
        while let Some(data) = down.data().await {
            assert_eq!(data.unwrap(), "", "the target's end");
        }
        up.send_reset(h2::Reason::CANCEL);
        eventually("the target hears of the reset", || RESETS.load(Relaxed) == 2);

        // A tunnel in which nothing moves has not ended either.
        let (_up, mut down) = tunnel("/listens").await;
        let cut = down.data().await.unwrap().unwrap_err();
        assert_eq!(cut.reason(), Some(h2::Reason::CANCEL));
        eventually("the target hears of the cut", || RESETS.load(Relaxed) == 3);

        // A client that is not there any more, which no frame tells.
        for (path, resets) in [("/listens", 4), ("/listens/quiet", 5)] {
            let stream = tokio::net::TcpStream::connect(bed.proxy.addresses()[0]).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            let begin = async {
                let mut sender: h2::client::SendRequest<Bytes> = sender.ready().await.unwrap();
                while !sender.is_extended_connect_protocol_enabled() {
                    tokio::task::yield_now().await;
                }
                let asked = sender.send_request(extended(path, "websocket"), false);
                let (answer, up) = asked.unwrap();
                let mut down = answer.await.unwrap().into_body();
                while path.contains("quiet") && down.data().await.is_some() {}
                (sender, up, down)
            };
            let mut connection = Box::pin(connection);
            let _silent = tokio::select! {
                begun = begin => begun,
                _ = connection.as_mut() => panic!("the connection ended"),
            };
            eventually("the target hears of the loss", || RESETS.load(Relaxed) == resets);
        }
        assert_eq!(ENDS.load(Relaxed), 1);
    });
    eventually("nothing is left", || bed.metrics.in_flight.load(Relaxed) == 0);
}
