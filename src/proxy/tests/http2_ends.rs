//! Connections to HTTP/2 targets that end, or only seem to live: whose fault, and what comes next.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request};
use socket2::SockRef;

use super::bed::{Bed, PATIENCE, eventually, forward_by, status, with_runtime as run};
use super::http2::{ask, connect, get, whole};
use super::targets::{Origin2, fine};
use crate::model::rule::Scheme;

const SHORT: Duration = Duration::from_millis(150);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection to a target is like once its preface is read.
fn accepted(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).unwrap();
    assert_eq!(preface, PREFACE);
    stream
}

fn bed(listener: &TcpListener) -> Bed {
    Bed::start(forward_by(Scheme::H2c, &[listener.local_addr().unwrap()]))
}

#[test]
fn a_target_that_leaves_before_its_first_word_is_to_blame_for_all_who_waited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = bed(&listener);
    let (leave, told) = channel::<()>();
    let target = std::thread::spawn(move || {
        let stream = accepted(&listener);
        told.recv_timeout(PATIENCE).unwrap();
        drop((stream, listener));
    });
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let asked = (0..2).map(|_| {
            let mut request = get("http://a/");
            *request.method_mut() = Method::POST;
            let sender = sender.clone();
            tokio::spawn(async move { ask(&sender, request).await.unwrap().status().as_u16() })
        });
        let asked: Vec<_> = asked.collect();
        eventually("both wait", || bed.metrics.in_flight.load(Relaxed) == 2);
        leave.send(()).unwrap();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), 502);
        }
    });
    target.join().unwrap();
    assert!(!bed.shown().contains("outcome=\"aborted\""), "{}", bed.shown());
}

#[test]
fn a_connection_over_which_nothing_comes_any_more_is_not_asked_again() {
    async fn deaf(at: usize, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if request.uri().path() == "/dead" {
            std::future::pending::<()>().await;
        }
        fine(at, request, respond).await;
    }
    let origin = Origin2::start(deaf);
    let mut rule = forward_by(Scheme::H2c, &[origin.address]);
    rule.timeouts.per_try = SHORT;
    let bed = Bed::start(rule);
    let ask = |path: &str| {
        bed.raw(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
    };
    for (path, code, at) in [("/", 200, 0), ("/", 200, 0), ("/dead", 504, 0), ("/", 200, 1)] {
        assert_eq!(status(&ask(path)), code, "{path}");
        assert_eq!(origin.next().0, at, "{path}");
    }
}

#[test]
fn an_early_answer_of_a_known_length_is_whole_though_the_connection_ends_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = bed(&listener);
    let target = std::thread::spawn(move || {
        let mut stream = accepted(&listener);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
        // :status 413, content-length 2 (RFC 7541, appendix A), then the content and its end.
        let head = [0, 0, 9, 1, 4, 0, 0, 0, 1, 8, 3, b'4', b'1', b'3', 0x0f, 0x0d, 1, b'2'];
        let content = [0, 0, 2, 0, 1, 0, 0, 0, 1, b'n', b'o'];
        // The head of the request is there by then.
        let mut seen = [0; 256];
        let mut read = 0;
        while read < 200 {
            read += stream.read(&mut seen).unwrap();
        }
        let all = [&settings[..], &acknowledged, &head, &content].concat();
        // In one piece with the end of the connection.
        SockRef::from(&stream).set_tcp_cork(true).unwrap();
        stream.write_all(&all).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        while stream.read(&mut seen).is_ok_and(|read| read > 0) {}
    });
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut request = get("http://a/");
        *request.method_mut() = Method::POST;
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut sending) = sender.send_request(request, false).unwrap();
        sending.send_data(Bytes::from_static(&[b'x'; 1 << 10]), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 413);
        let (said, _) = whole(answer.into_body()).await.expect("no reset");
        assert_eq!(said, "no");
    });
    target.join().unwrap();
}
