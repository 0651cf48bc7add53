//! Requests through a node, byte by byte: raw sockets at the client and at the origin.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::harness::{RulesNode, free_ports};

/// What an origin shall do with the next requests.
type Answering = fn(&str, &mut TcpStream) -> bool;

/// An origin that tells what it receives, per connection and request.
struct Origin {
    address: SocketAddr,
    heads: Receiver<(usize, String)>,
}

impl Origin {
    /// `answer` returns whether the connection stays open.
    fn start(answer: Answering) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (said, heads) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let said = said.clone();
                std::thread::spawn(move || serve(stream, number, &said, answer));
            }
        });
        Origin { address, heads }
    }

    fn next(&self) -> (usize, String) {
        self.heads.recv_timeout(Duration::from_secs(5)).expect("a request reaches the origin")
    }
}

fn serve(mut stream: TcpStream, number: usize, said: &Sender<(usize, String)>, answer: Answering) {
    while let Some(head) = read_head(&mut stream) {
        let length = field(&head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut body = vec![0u8; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let whole = format!("{head}{}", String::from_utf8_lossy(&body));
        if said.send((number, whole.clone())).is_err() || !answer(&whole, &mut stream) {
            return;
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn hello(_: &str, stream: &mut TcpStream) -> bool {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x-hop\r\nx-hop: 1\r\n\
                  server: origin\r\n\r\nhello";
    stream.write_all(answer.as_bytes()).is_ok()
}

/// A node with a rules file, and nothing else.
struct Proxy(RulesNode);

impl Proxy {
    fn start(rules: &str) -> Proxy {
        Proxy(RulesNode::serving("edge", rules, Duration::from_secs(10)))
    }

    fn to(origin: SocketAddr, more: &str) -> Proxy {
        Proxy::start(&format!(
            "id: one\ndata:\n  targets: [{{ url: \"http://{origin}\" }}]\n{more}"
        ))
    }

    /// Sends bytes as they are and reads until the other side has nothing more to say.
    fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.0.traffic).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut all = Vec::new();
        // A reset after the answer is an answer too.
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{headers}\r\n"
        ))
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop_and_the_way_is_named() {
    let origin = Origin::start(hello);
    let proxy = Proxy::to(origin.address, "");
    let answer = proxy.get(
        "/a?b=c",
        "x-keep: 1\r\nx-drop: 1\r\nconnection: x-drop\r\nte: gzip\r\n\
        forwarded: for=6.6.6.6\r\nx-forwarded-for: 6.6.6.6\r\nupgrade: h2c\r\n",
    );
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("hello"));
    assert!(field(&answer, "x-hop").is_none() && field(&answer, "server").is_some(), "{answer}");
    let (_, head) = origin.next();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("shop"));
    assert_eq!(field(&head, "x-keep"), Some("1"));
    for gone in ["x-drop", "te", "forwarded", "upgrade", "connection"] {
        assert!(field(&head, gone).is_none(), "{gone}: {head}");
    }
    assert_eq!(field(&head, "via"), Some("1.1 tradewind-edge"));
    assert_eq!(field(&head, "cdn-loop"), Some("tradewind-edge"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert!(field(&head, "x-request-id").is_some());
}

#[test]
fn a_connection_to_a_target_is_used_again() {
    let origin = Origin::start(hello);
    let proxy = Proxy::to(origin.address, "");
    for _ in 0..5 {
        assert_eq!(status(&proxy.get("/", "")), 200);
    }
    let connections: Vec<usize> = (0..5).map(|_| origin.next().0).collect();
    assert_eq!(connections, [0; 5], "one connection served all");
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    let origin = Origin::start(hello);
    let proxy = Proxy::to(origin.address, "");
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "RFC 9112 3.2: no Host"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "RFC 9112 3.2: two Hosts"),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400, "RFC 9112 3.2: a bad Host"),
        ("GET / HTTP/1.1\r\nhost: user@a\r\n\r\n", 400, "RFC 9110 4.2.4: user information"),
        ("GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n", 400, "dot segments"),
        ("GET /%2e%2e/b HTTP/1.1\r\nhost: a\r\n\r\n", 400, "encoded dot segments"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 405, "CONNECT"),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405, "TRACE"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            400,
            "RFC 9112 6.1: a coding besides chunked",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
             transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "RFC 9112 6.1: chunked twice",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy",
            400,
            "RFC 9112 6.3: two lengths",
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\ncdn-loop: tradewind-edge\r\n\r\n", 508, "RFC 8586: a loop"),
        ("GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "another scheme"),
    ];
    for (bytes, expected, what) in cases {
        let answer = proxy.raw(&bytes.replacen("\r\n", "\r\nconnection: close\r\n", 1));
        assert_eq!(status(&answer), expected, "{what}: {answer}");
    }
    assert!(origin.heads.try_recv().is_err(), "none of it reached the origin");

    let both = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\
                transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                GET /smuggled HTTP/1.1\r\n\r\n";
    let answer = proxy.raw(both);
    assert!(matches!(status(&answer), 200 | 400), "RFC 9112 6.3: {answer}");
    while let Ok((_, head)) = origin.heads.try_recv() {
        assert!(!head.contains("smuggled"), "{head}");
        assert!(field(&head, "content-length").is_none(), "framed anew: {head}");
    }
}

#[test]
fn absolute_form_decides_over_host() {
    let origin = Origin::start(hello);
    let proxy = Proxy::start(&format!(
        "id: one\ndata:\n  match: {{ hosts: [\"right.example\"] }}\n  \
         targets: [{{ url: \"http://{}\" }}]\n",
        origin.address
    ));
    let absolute =
        "GET http://right.example/x HTTP/1.1\r\nhost: wrong.example\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&proxy.raw(absolute)), 200);
    let (_, head) = origin.next();
    assert!(head.starts_with("GET /x HTTP/1.1") && field(&head, "host") == Some("right.example"));
    let plain = "GET /x HTTP/1.1\r\nhost: WRONG.example\r\nconnection: close\r\n\r\n";
    let answer = proxy.raw(plain);
    assert_eq!(status(&answer), 404);
    let said = field(&answer, "proxy-status").unwrap();
    assert_eq!(said, "tradewind-edge; error=destination_not_found");
    let port = "GET /x HTTP/1.1\r\nhost: Right.Example.:81\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&proxy.raw(port)), 200, "ports and a final dot do not matter");
}

#[test]
fn failures_name_their_cause() {
    let nobody = free_ports(1)[0];
    let proxy = Proxy::to(nobody, "");
    let answer = proxy.get("/", "");
    assert_eq!(status(&answer), 502);
    assert!(answer.contains("error=connection_refused"), "{answer}");

    fn silent(_: &str, _: &mut TcpStream) -> bool {
        true
    }
    let origin = Origin::start(silent);
    let proxy = Proxy::to(origin.address, "  timeouts: { perTry: 200ms, request: 400ms }\n");
    let answer = proxy.get("/", "accept: application/json\r\n");
    assert_eq!(status(&answer), 504);
    assert!(answer.contains("error=http_response_timeout"), "{answer}");
    assert!(answer.contains("\"status\":504"), "{answer}");

    fn broken(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"not http at all\r\n\r\n");
        false
    }
    let origin = Origin::start(broken);
    let answer = Proxy::to(origin.address, "").get("/", "");
    assert_eq!(status(&answer), 502, "{answer}");

    fn switching(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
        false
    }
    let origin = Origin::start(switching);
    let answer = Proxy::to(origin.address, "").get("/", "");
    assert_eq!(status(&answer), 502, "an upgrade that nobody asked for: {answer}");
}

#[test]
fn a_stale_connection_costs_a_get_nothing_and_a_post_is_never_sent_twice() {
    fn once(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        false
    }
    let origin = Origin::start(once);
    let proxy = Proxy::to(origin.address, "");
    for _ in 0..10 {
        assert_eq!(status(&proxy.get("/", "")), 200);
    }
    for _ in 0..10 {
        origin.next();
    }

    fn swallow(whole: &str, stream: &mut TcpStream) -> bool {
        if whole.starts_with("POST") {
            return false;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    }
    let origin = Origin::start(swallow);
    let proxy = Proxy::to(origin.address, "");
    assert_eq!(status(&proxy.get("/", "")), 200);
    let post = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbuy";
    assert_eq!(status(&proxy.raw(post)), 502, "it may have been carried out: not repeated");
    assert!(origin.next().1.starts_with("GET"));
    assert!(origin.next().1.ends_with("buy"));
    assert!(origin.heads.recv_timeout(Duration::from_millis(300)).is_err(), "sent once");
}

#[test]
fn filters_rewrite_redirect_and_answer() {
    let origin = Origin::start(hello);
    let proxy = Proxy::start(&format!(
        "- id: api\n  data:\n    match: {{ any: [{{ path: {{ prefix: /api }} }}] }}\n    \
         filters:\n      \
         - requestHeaders: {{ set: [{{ name: x-edge, value: t }}], remove: [x-secret] }}\n      \
         - responseHeaders: {{ add: [{{ name: x-out, value: y }}], remove: [server] }}\n      \
         - rewrite: {{ host: inner.example, prefix: /v2 }}\n    \
         targets: [{{ url: \"http://{}\" }}]\n\
         - id: old\n  data:\n    match: {{ any: [{{ path: {{ exact: /old }} }}] }}\n    \
         redirect: {{ scheme: https, host: new.example, status: 301 }}\n\
         - id: fixed\n  data:\n    match: {{ any: [{{ path: {{ exact: /fixed }} }}] }}\n    \
         respond: {{ status: 418, headers: [{{ name: x-a, value: b }}], body: short }}\n",
        origin.address
    ));
    let answer = proxy.get("/api/x?q=1", "x-secret: 1\r\n");
    assert_eq!(field(&answer, "x-out"), Some("y"));
    assert!(field(&answer, "server").is_none());
    let (_, head) = origin.next();
    assert!(head.starts_with("GET /v2/x?q=1 "), "{head}");
    assert_eq!(field(&head, "host"), Some("inner.example"));
    assert_eq!(field(&head, "x-edge"), Some("t"));
    assert!(field(&head, "x-secret").is_none());
    assert_eq!(status(&proxy.get("/apix", "")), 404, "prefixes are whole segments");
    let moved = proxy.get("/old?a=b", "");
    assert_eq!(status(&moved), 301);
    assert_eq!(field(&moved, "location"), Some("https://new.example/old?a=b"));
    let fixed = proxy.get("/fixed", "");
    assert_eq!((status(&fixed), field(&fixed, "x-a")), (418, Some("b")));
    assert!(fixed.ends_with("short"));
}

#[test]
fn bodies_stream_both_ways_while_they_come() {
    /// Answers the head first, then echoes the chunk that it waits for.
    fn echo(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let _ = stream.write_all(b"5\r\nfirst\r\n");
        let mut chunk = [0u8; 9];
        let _ = stream.read_exact(&mut chunk);
        let _ = stream.write_all(&chunk);
        let _ = stream.write_all(b"0\r\n\r\n");
        false
    }
    let origin = Origin::start(echo);
    let proxy = Proxy::to(origin.address, "");
    let mut client = TcpStream::connect(proxy.0.traffic).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut seen = String::new();
    let mut space = [0u8; 1024];
    while !seen.contains("first") {
        let some = client.read(&mut space).unwrap();
        assert!(some > 0, "the response flows before the request has ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&space[..some]));
    }
    client.write_all(b"4\r\npong\r\n0\r\n\r\n").unwrap();
    while !seen.contains("pong") {
        let some = client.read(&mut space).unwrap();
        assert!(some > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&space[..some]));
    }
}
