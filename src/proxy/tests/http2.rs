//! HTTP/2 from clients, in clear text with prior knowledge: the same duties in another framing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, Version};

use super::bed::{
    Bed, Origin, PATIENCE, field, forward, ok, read_all, read_until, status, with_runtime as run,
};
use crate::model::rule::Alternative;

/// Speaks HTTP/2 to the bed; the connection is driven beside the test.
pub(super) async fn connect(bed: &Bed, builder: &h2::client::Builder) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(bed.proxy.addresses()[0]).await.unwrap();
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn get(uri: &str) -> Request<()> {
    Request::get(uri).version(Version::HTTP_2).body(()).unwrap()
}

/// Sends a request without a body and waits for the head of the answer.
pub(super) async fn ask(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<Response<RecvStream>, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (answer, _) = sender.send_request(request, true)?;
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
}

/// The whole body, and the trailers.
pub(super) async fn whole(mut body: RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((String::from_utf8_lossy(&all).into_owned(), body.trailers().await?))
}

#[test]
fn a_client_may_speak_http2_and_the_target_sees_http1() {
    let origin = Origin::start(ok);
    let mut rule = forward(&[origin.address]);
    // A rule sees what the target sees.
    let headers = vec![("cookie".to_string(), "a=1; b=2; c=3".to_string())];
    rule.alternatives = vec![Alternative { headers, ..Alternative::default() }];
    let bed = Bed::start(rule);
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut request = get("http://shop.example:81/x?y=z");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        for crumb in ["a=1", "b=2", "c=3"] {
            request.headers_mut().append("cookie", crumb.parse().unwrap());
        }
        let answer = ask(&sender, request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        assert!(answer.headers().get("connection").is_none());
        assert_eq!(whole(answer.into_body()).await.unwrap().0, "ok");
    });
    assert!(bed.shown().contains("protocol=\"http/2\"} 1"), "{}", bed.shown());
    let (_, head) = origin.next();
    assert!(head.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("shop.example:81"), "RFC 9113 8.3.1: {head}");
    assert_eq!(field(&head, "via"), Some("2.0 tradewind-edge"), "{head}");
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2; c=3"), "RFC 9113 8.2.3: {head}");
    assert_eq!(field(&head, "transfer-encoding"), None, "no body: {head}");
    assert_eq!(head.matches("cookie").count(), 1, "{head}");
}

#[test]
fn streams_do_not_wait_for_each_other() {
    fn slow(head: &str, stream: &mut TcpStream) -> bool {
        if head.starts_with("GET /slow") {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        ok(head, stream)
    }
    let origin = Origin::start(slow);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let slow = ask(&sender, get("http://a/slow"));
        tokio::pin!(slow);
        tokio::select! {
            biased;
            _ = &mut slow => panic!("the slow one is not first"),
            quick = ask(&sender, get("http://a/quick")) => assert_eq!(quick.unwrap().status(), 200),
        }
        assert_eq!(slow.await.unwrap().status(), 200);
    });
}

#[test]
fn a_body_goes_through_with_its_length_or_without() {
    fn echo(head: &str, stream: &mut TcpStream) -> bool {
        let body = match field(head, "content-length") {
            Some(length) => {
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                String::from_utf8(body).unwrap()
            }
            None => read_until(stream, "0\r\n\r\n").unwrap(),
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let origin = Origin::start(echo);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        for (length, seen) in [(Some("5"), "query"), (None, "5\r\nquery\r\n0\r\n\r\n")] {
            let mut request = Request::post("http://a/").version(Version::HTTP_2).body(()).unwrap();
            if let Some(length) = length {
                request.headers_mut().insert("content-length", length.parse().unwrap());
            }
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"query"), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(whole(answer.into_body()).await.unwrap().0, seen);
        }
    });
}

#[test]
fn a_body_whose_stream_is_reset_without_an_error_does_not_end_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = Bed::start(forward(&[listener.local_addr().unwrap()]));
    let (came, first) = tokio::sync::oneshot::channel();
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read_until(&mut stream, "\r\n\r\n4\r\npart\r\n").unwrap();
        came.send(()).unwrap();
        read_all(&mut stream)
    });
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let request = Request::post("http://a/").version(Version::HTTP_2).body(()).unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (_answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"part"), false).unwrap();
        first.await.unwrap();
        body.send_reset(Reason::NO_ERROR);
        let rest = tokio::task::spawn_blocking(|| origin.join().unwrap()).await.unwrap();
        assert_eq!(rest, "", "RFC 9112 8: no false end");
    });
}

#[test]
fn trailers_reach_the_client_but_for_what_only_a_head_may_say() {
    fn trailing(_: &str, stream: &mut TcpStream) -> bool {
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
                      grpc-status: 0\r\ncontent-length: 9\r\nset-cookie: a=1\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let origin = Origin::start(trailing);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let answer = ask(&sender, get("http://a/")).await.unwrap();
        let (body, trailers) = whole(answer.into_body()).await.unwrap();
        assert_eq!(body, "hi");
        let trailers = trailers.expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers.len(), 1, "RFC 9110 6.5.1: {trailers:?}");
    });
}

#[test]
fn one_authority_is_all_that_a_request_has() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        for (host, code) in [("A.example", 200), ("b.example", 400), ("a.example:81", 400)] {
            let mut request = get("http://a.example/");
            request.headers_mut().insert("host", host.parse().unwrap());
            let answer = ask(&sender, request).await.unwrap();
            assert_eq!(answer.status().as_u16(), code, "RFC 9113 8.3.1: {host}");
        }
        let connect = Request::connect("a.example:443").version(Version::HTTP_2).body(()).unwrap();
        assert_eq!(ask(&sender, connect).await.unwrap().status(), 405);
    });
    let (_, head) = origin.next();
    assert_eq!(head.matches("\r\nhost: ").count(), 1, "{head}");
    assert!(origin.is_left_alone());
}

/// `:status: 400` in the static table (RFC 7541, appendix A).
const STATUS_400: u32 = 0x80 | 12;

/// One frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// A head as HPACK literals that are not indexed (RFC 7541, section 6.2.2).
fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The kind of the first frame that ends a stream or the connection, and its error code; of an
/// answer the first byte of its head.
fn refusal(client: &mut TcpStream) -> (u8, u32) {
    loop {
        let mut head = [0u8; 9];
        client.read_exact(&mut head).expect("a frame that says what is wrong");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).unwrap();
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            3 => return (3, code(0)),
            7 => return (7, code(4)),
            1 => return (1, u32::from(payload[0])),
            _ => {}
        }
    }
}

#[test]
fn a_malformed_request_is_reset_and_reaches_nobody() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let line = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let mut cases: Vec<Vec<(&str, &str)>> = Vec::new();
    for field in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        (":late", "1"),
        ("content-length", "7"),
    ] {
        cases.push(line.iter().copied().chain([field]).collect());
    }
    cases.push(line[..2].to_vec());
    cases.push([line[0], line[1], line[3]].to_vec());
    cases.push(line[1..].to_vec());
    cases.push([line[0], line[2], line[3]].to_vec());
    cases.push(line.iter().copied().chain([(":path", "/other")]).collect());
    cases.push([line[0], line[1], (":path", "no-slash"), line[3]].to_vec());
    cases.push([line[0], line[1], (":path", "/a b"), line[3]].to_vec());
    for case in cases {
        let mut client = bed.client();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        client.write_all(&frame(4, 0, 0, &[])).unwrap();
        client.write_all(&frame(1, 0x5, 1, &literals(&case))).unwrap();
        let (kind, code) = refusal(&mut client);
        let refused = match kind {
            1 => code == STATUS_400,
            _ => code == u32::from(Reason::PROTOCOL_ERROR),
        };
        assert!(refused, "RFC 9113 8.1.1: {case:?}: {kind} {code}");
    }
    assert!(origin.is_left_alone());
}

#[test]
fn the_preface_is_only_good_at_the_beginning() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(status(&read_until(&mut client, "\r\n\r\nok").unwrap()), 200);
    origin.next();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.write_all(&frame(4, 0, 0, &[])).unwrap();
    assert_eq!(read_all(&mut client), "", "no settings come back");
}
