//! Targets that speak HTTP/2: the same exchange in another form, many over one connection.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, Version};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use super::bed::{
    Bed, Origin, PATIENCE, field, forward_by, ok, read_all, read_until, status, with_runtime as run,
};
use super::http2::{ask, connect, get, whole};
use crate::model::rule::Scheme;

/// A request that reached an origin, with the number of its connection.
pub(super) type Seen = (usize, Request<()>);

/// An origin that speaks HTTP/2 in clear text.
pub(super) struct Origin2 {
    pub(super) address: SocketAddr,
    seen: Receiver<Seen>,
}

impl Origin2 {
    /// `answer` is called for each request, with the number of its connection.
    pub(super) fn start<A, F>(answer: A) -> Origin2
    where
        A: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Origin2::limited(100, answer)
    }

    /// With so many streams at once.
    fn limited<A, F>(streams: u32, answer: A) -> Origin2
    where
        A: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (said, seen) = channel();
        std::thread::spawn(move || {
            run(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                for number in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (said, answer) = (said.clone(), answer.clone());
                    tokio::spawn(async move {
                        let mut builder = h2::server::Builder::new();
                        let shaking = builder.max_concurrent_streams(streams).handshake(stream);
                        let Ok(mut connection) = shaking.await else { return };
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            let (parts, body) = request.into_parts();
                            let _ = said.send((number, Request::from_parts(parts.clone(), ())));
                            tokio::spawn(answer(number, Request::from_parts(parts, body), respond));
                        }
                    });
                }
            });
        });
        Origin2 { address, seen }
    }

    pub(super) fn bed(&self) -> Bed {
        Bed::start(forward_by(Scheme::H2c, &[self.address]))
    }

    pub(super) fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request reaches the origin")
    }

    /// Whether no request has reached it that was not looked at.
    pub(super) fn is_quiet(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// Says `ok`.
pub(super) async fn fine(_: usize, _: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    let _ = body.send_data(Bytes::from_static(b"ok"), true);
}

#[test]
fn a_target_may_speak_http2_to_a_client_that_does_not() {
    let origin = Origin2::start(fine);
    let bed = origin.bed();
    let answer = bed.raw(
        "GET /x?y HTTP/1.1\r\nhost: Shop.example:81\r\nconnection: close, te\r\nte: gzip\r\n\
         keep-alive: 5\r\ncookie: a=1\r\n\r\n",
    );
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("ok"), "{answer}");
    let (_, seen) = origin.next();
    assert_eq!(seen.uri(), "http://Shop.example:81/x?y", "RFC 9113 8.3.1");
    for gone in ["host", "connection", "te", "keep-alive", "transfer-encoding"] {
        assert!(!seen.headers().contains_key(gone), "RFC 9113 8.2.2: {gone}");
    }
    assert_eq!(seen.headers()["via"], "1.1 tradewind-edge");
    assert_eq!(seen.headers()["x-forwarded-host"], "Shop.example:81");
}

#[test]
fn a_body_of_either_kind_reaches_such_a_target() {
    async fn echo(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let length = request.headers().get("content-length").cloned();
        let (body, _) = whole(request.into_body()).await.unwrap();
        let mut response = Response::new(());
        if let Some(length) = length {
            response.headers_mut().insert("x-length", length);
        }
        let mut sending = respond.send_response(response, false).unwrap();
        sending.send_data(Bytes::from(body), true).unwrap();
    }
    let origin = Origin2::start(echo);
    let bed = origin.bed();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let answer = bed.raw(&format!("{head}content-length: 5\r\n\r\nquery"));
    assert_eq!(field(&answer, "x-length"), Some("5"), "{answer}");
    assert!(answer.contains("query"), "{answer}");
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n";
    let answer = bed.raw(&format!("{head}{chunked}"));
    assert_eq!(field(&answer, "x-length"), None, "{answer}");
    assert!(answer.contains("query"), "{answer}");
}

#[test]
fn an_answer_whose_stream_is_reset_without_an_error_does_not_end_whole() {
    let came = Arc::new(Notify::new());
    let origin = Origin2::start({
        let came = came.clone();
        move |_, _, mut respond: SendResponse<Bytes>| {
            let came = came.clone();
            async move {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"part"), false).unwrap();
                came.notified().await;
                body.send_reset(Reason::NO_ERROR);
            }
        }
    });
    let bed = origin.bed();
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "part\r\n").is_some());
    came.notify_one();
    assert_eq!(read_all(&mut client), "", "RFC 9112 8: no false end");
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut body = ask(&sender, get("http://a/")).await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "part");
        came.notify_one();
        assert!(body.data().await.is_some_and(|end| end.is_err()), "RFC 9113 8.1");
    });
}

#[test]
fn an_early_answer_is_whole_though_its_stream_is_reset_then() {
    let origin = Origin2::start(fine);
    let bed = origin.bed();
    // Whoever answers without waiting for the body resets the stream without an error.
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = bed.client();
    client.write_all(head.as_bytes()).unwrap();
    let answer = read_until(&mut client, "0\r\n\r\n").expect("RFC 9113 8.1: an end");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("2\r\nok\r\n"), "{answer}");
}

/// Sends every message back as it comes, then a status in trailers.
async fn converse(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let response = Response::builder().header("content-type", "application/grpc").body(());
    let mut sending = respond.send_response(response.unwrap(), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(message)) = body.data().await {
        body.flow_control().release_capacity(message.len()).unwrap();
        sending.send_data(message, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "done".parse().unwrap());
    sending.send_trailers(trailers).unwrap();
}

pub(super) fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://a{path}")).version(Version::HTTP_2);
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

#[test]
fn a_call_of_grpc_goes_both_ways_at_once_and_ends_with_its_status() {
    let origin = Origin2::start(converse);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut ready = sender.ready().await.unwrap();
        let (answer, mut sending) = ready.send_request(call("/s/M"), false).unwrap();
        let mut coming = answer.await.unwrap().into_body();
        for message in ["one", "two", "three"] {
            sending.send_data(Bytes::from(message), false).unwrap();
            let heard = coming.data().await.unwrap().unwrap();
            assert_eq!(heard, message, "each answer comes before the next question");
            coming.flow_control().release_capacity(heard.len()).unwrap();
        }
        sending.send_data(Bytes::new(), true).unwrap();
        let (rest, trailers) = whole(coming).await.unwrap();
        let trailers = trailers.expect("trailers");
        assert_eq!((rest.as_str(), &trailers["grpc-status"]), ("", &"0".parse().unwrap()));
        assert_eq!(trailers["grpc-message"], "done");
    });
    let (_, seen) = origin.next();
    assert_eq!(seen.headers()["te"], "trailers", "RFC 9110 10.1.4: trailers are wanted");
}

#[test]
fn failures_of_the_proxy_are_statuses_of_grpc() {
    async fn silent(_: usize, request: Request<RecvStream>, _respond: SendResponse<Bytes>) {
        let mut body = request.into_body();
        while body.data().await.is_some() {}
        std::future::pending::<()>().await;
    }
    let origin = Origin2::start(silent);
    let bed = origin.bed();
    let refused = Bed::start(forward_by(Scheme::H2c, &["127.0.0.1:1".parse().unwrap()]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut request = call("/s/M");
        request.headers_mut().insert("grpc-timeout", "200m".parse().unwrap());
        let begun = std::time::Instant::now();
        let answer = ask(&sender, request).await.unwrap();
        assert!((Duration::from_millis(200)..PATIENCE / 2).contains(&begun.elapsed()));
        assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &4.into()));
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert!(answer.headers().contains_key("proxy-status"));
        assert!(answer.into_body().is_end_stream(), "trailers at once");
        let sender = connect(&refused, &h2::client::Builder::new()).await;
        let answer = ask(&sender, call("/s/M")).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14", "unavailable");
        let answer = ask(&sender, get("http://a/")).await.unwrap();
        assert_eq!(answer.status(), 502, "who does not speak gRPC hears HTTP");
    });
    assert!(bed.shown().contains("code_class=\"5xx\""), "counted as what it was");
}

#[test]
fn a_burst_shares_one_connection() {
    let origin = Origin2::start(fine);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let asked = (0..60).map(|_| {
            tokio::spawn({
                let sender = sender.clone();
                async move { ask(&sender, get("http://a/")).await.unwrap().status() }
            })
        });
        for answer in asked.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
    });
    for _ in 0..60 {
        assert_eq!(origin.next().0, 0, "nobody opens a connection beside another");
    }
}

#[test]
fn a_target_that_allows_little_is_not_asked_for_more() {
    async fn slow(at: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        // The subject itself: the origin refuses a third while two take their time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        fine(at, request, respond).await;
    }
    let origin = Origin2::limited(2, slow);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let asked = (0..40).map(|_| {
            tokio::spawn({
                let sender = sender.clone();
                async move { ask(&sender, get("http://a/")).await.unwrap().status() }
            })
        });
        for answer in asked.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
    });
}

#[test]
fn a_target_that_allows_one_is_asked_for_one_at_a_time() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin2::limited(1, move |at, request, respond| {
        let held = held.clone();
        async move {
            if request.uri().path() == "/held" {
                drop(held.acquire().await);
            }
            fine(at, request, respond).await;
        }
    });
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        // With its answer the target has said what it allows.
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        assert_eq!(origin.next().0, 0);
        let mut waiting = Vec::new();
        for number in 0..2 {
            let sender = sender.clone();
            waiting.push(tokio::spawn(async move {
                ask(&sender, get("http://a/held")).await.unwrap().status()
            }));
            assert_eq!(origin.next().0, number, "nobody waits behind another");
        }
        gate.close();
        for answer in waiting {
            assert_eq!(answer.await.unwrap(), 200);
        }
    });
}

#[test]
fn a_stream_that_is_refused_is_asked_again_and_one_that_is_reset_is_not() {
    async fn moody(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        static REFUSED: AtomicUsize = AtomicUsize::new(0);
        match request.uri().path() {
            "/refused" if REFUSED.fetch_add(1, Relaxed) == 0 => {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
            _ => fine(0, request, respond).await,
        }
    }
    let origin = Origin2::start(moody);
    let bed = origin.bed();
    let ask = |method: &str, path: &str| {
        bed.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        ))
    };
    assert_eq!(status(&ask("GET", "/")), 200);
    assert_eq!(status(&ask("POST", "/refused")), 200, "RFC 9113 8.7: nobody has looked at it");
    let answer = ask("POST", "/reset");
    assert_eq!(status(&answer), 502, "{answer}");
    assert_eq!(status(&ask("GET", "/")), 200);
    let seen: Vec<Seen> = (0..5).map(|_| origin.next()).collect();
    let paths: Vec<&str> = seen.iter().map(|(_, request)| request.uri().path()).collect();
    assert_eq!(paths, ["/", "/refused", "/refused", "/reset", "/"]);
    assert!(seen.iter().all(|(at, _)| *at == 0), "a stream's end is not the connection's");
}

#[test]
fn a_connection_that_the_target_leaves_is_replaced() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        run(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    // One request for each connection, then farewell.
                    if let Some(Ok((request, respond))) = connection.accept().await {
                        connection.graceful_shutdown();
                        fine(0, request, respond).await;
                    }
                    while connection.accept().await.is_some() {}
                });
            }
        });
    });
    let bed = Bed::start(forward_by(Scheme::H2c, &[address]));
    for _ in 0..10 {
        let answer =
            bed.raw("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[test]
fn a_target_that_does_not_speak_http2_is_a_502() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward_by(Scheme::H2c, &[origin.address]));
    let answer = bed.get();
    assert_eq!(status(&answer), 502, "{answer}");
}

#[test]
fn upgrade_is_not_passed_on_to_http2() {
    let origin = Origin2::start(fine);
    let bed = origin.bed();
    let answer = bed.raw(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
    );
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(!origin.next().1.headers().contains_key("upgrade"), "RFC 9113 8.2.2");
}

#[test]
fn an_upload_that_breaks_off_is_the_clients_fault() {
    async fn patient(_: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        drop(respond);
    }
    let origin = Origin2::start(patient);
    let mut rule = forward_by(Scheme::H2c, &[origin.address]);
    rule.timeouts.idle = Duration::from_millis(200);
    let bed = Bed::start(rule);
    let answer = bed.raw("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(bed.shown().contains("outcome=\"aborted\"} 1"), "{}", bed.shown());
}
