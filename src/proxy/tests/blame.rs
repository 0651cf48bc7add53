//! What is held against a target, and what is not: a caller's haste, an answer that nobody can use,
//! a call that fails as a success of HTTP.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, Version};

use super::bed::{Bed, Origin, PATIENCE, forward, ok, with_runtime as run};
use super::http2::{ask, connect, get};
use super::targets::{Origin2, call};
use super::tunnels::extended;

/// Of the only target: its errors, and the least that it ever took.
fn known(bed: &Bed) -> (f64, f64) {
    let rows = bed.state.latency_rows(bed.clock.now());
    assert_eq!(rows.len(), 1);
    (rows[0].err, rows[0].net_ms)
}

/// Answers after 20 ms, on `/silent` never.
async fn unhurried(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let silent = request.uri().path() == "/silent";
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    if silent {
        std::future::pending::<()>().await;
    }
    // The subject itself: how far the target is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let _ = respond.send_response(Response::new(()), true);
}

fn hurried(path: &str, timeout: &str) -> Request<()> {
    let mut request = call(path);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[test]
fn a_caller_without_time_says_nothing_of_its_target() {
    let origin = Origin2::start(unhurried);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, call("/s/M")).await.unwrap().status(), 200);
        let before = known(&bed);
        assert_eq!(before.0, 0.0);
        for timeout in ["1n", "0u", "1m", "3m", "1m", "1m"] {
            let answer = ask(&sender, hurried("/s/M", timeout)).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "4", "{timeout}");
        }
        assert_eq!(known(&bed), before);
    });
    let shown = bed.shown();
    assert!(shown.contains("outcome=\"timeout\"} 6"), "counted as what they were: {shown}");
}

#[test]
fn a_caller_without_time_has_not_spent_it_on_a_connection_either() {
    let origin = Origin2::start(unhurried);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        for _ in 0..6 {
            let answer = ask(&sender, hurried("/s/M", "1n")).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "4");
        }
    });
    let rows = bed.state.latency_rows(bed.clock.now());
    assert!(rows.iter().all(|row| row.err == 0.0), "{rows:?}");
}

#[test]
fn a_call_is_over_when_its_caller_says_also_where_it_has_a_body() {
    let origin = Origin2::start(unhurried);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        let mut sender = sender.ready().await.unwrap();
        let begun = std::time::Instant::now();
        let (answer, mut up) = sender.send_request(hurried("/silent", "300m"), false).unwrap();
        up.send_data(Bytes::from_static(b"question"), true).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4");
        assert!(begun.elapsed() < Duration::from_secs(8), "not after the time of one try");
    });
}

#[test]
fn a_call_that_fails_as_a_success_of_http_is_a_failure_of_its_target() {
    async fn failing(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let status = request.uri().path()[1..].to_string();
        let response = Response::builder().header("content-type", "application/grpc");
        let _ =
            respond.send_response(response.header("grpc-status", status).body(()).unwrap(), true);
    }
    let origin = Origin2::start(failing);
    let bed = origin.bed();
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        for (status, blamed) in [("0", false), ("5", false), ("4", false), ("12", false)] {
            let answer = ask(&sender, call(&format!("/{status}"))).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], status);
            assert_eq!(known(&bed).0 > 0.0, blamed, "{status}");
        }
        let mut last = 0.0;
        for status in ["14", "13", "2", "15"] {
            let answer = ask(&sender, call(&format!("/{status}"))).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], status, "it is passed on as it is");
            let err = known(&bed).0;
            assert!(err > last, "{status}: {err} after {last}");
            last = err;
        }
        let answer = ask(&sender, get("http://a/14")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(known(&bed).0 < last, "what is no call is judged as HTTP");
    });
}

#[test]
fn a_target_need_not_speak_websocket() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        for _ in 0..6 {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, _up) = sender.send_request(extended("/", "websocket"), false).unwrap();
            assert_eq!(answer.await.unwrap().status(), 502, "a 2xx would open the tunnel");
        }
    });
    assert_eq!(known(&bed).0, 0.0, "RFC 9110 7.8: it may ignore Upgrade");
}

#[test]
fn a_query_without_a_path_reaches_an_http2_target_behind_one() {
    let origin = Origin2::start(unhurried);
    let bed = origin.bed();
    let answer = bed.raw("GET http://a?x=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(super::bed::status(&answer), 200, "{answer}");
    let (_, seen) = origin.next();
    assert_eq!(seen.uri(), "http://a/?x=1", "RFC 9113 8.3.1");
    assert_eq!(seen.version(), Version::HTTP_2);
}
