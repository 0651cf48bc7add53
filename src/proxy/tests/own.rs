//! What the proxy answers by itself, to clients that want less than an answer, or something else.

use http::{Request, Version};

use super::bed::{Bed, forward, status, with_runtime as run};
use super::http2::{ask, connect, get, whole};
use super::tunnels::extended;
use crate::model::rule::{Action, Filter, PathRewrite, Respond, Rewrite, Rule};
use crate::model::rule::{Alternative, PathMatch};
use crate::proxy::forward::Client;

fn maintenance() -> Rule {
    let respond = Respond { status: 200, headers: Vec::new(), body: "maintenance".to_string() };
    Rule { action: Action::Respond(respond), ..forward(&[]) }
}

#[test]
fn what_is_secured_is_asked_for_over_tls_or_by_a_gateway() {
    let may = |address: &str, announced, uri: &str| {
        let client = Client::new(address.parse().unwrap(), None, announced);
        client.may_ask_by(&uri.parse().unwrap())
    };
    // RFC 9110, section 7.4.
    assert!(!may("192.0.2.1", false, "https://a/") && !may("2001:db8::1", false, "https://a/"));
    assert!(may("192.0.2.1", true, "https://a/") && may("10.0.0.1", false, "https://a/"));
    assert!(may("192.0.2.1", false, "http://a/") && may("192.0.2.1", false, "/"));
}

#[test]
fn a_head_is_answered_without_content() {
    let mut bed = Bed::start(maintenance());
    let mut elsewhere = maintenance();
    elsewhere.hosts = vec![crate::model::rule::HostPattern::Exact("only".to_string())];
    assert!(bed.put("one", elsewhere).is_empty());
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        for host in ["only", "nobody"] {
            let uri = format!("http://{host}/");
            let whole_answer = ask(&sender, get(&uri)).await.unwrap();
            let (body, _) = whole(whole_answer.into_body()).await.unwrap();
            let head = Request::head(&uri).version(Version::HTTP_2).body(()).unwrap();
            let answer = ask(&sender, head).await.unwrap();
            assert_eq!(answer.headers()["content-length"], body.len().to_string(), "{host}");
            let nothing = whole(answer.into_body()).await.expect("RFC 9110 9.3.2").0;
            assert_eq!((nothing.as_str(), body.is_empty()), ("", false), "{host}");
        }
    });
    for host in ["only", "nobody"] {
        let ask = |method| {
            bed.raw(&format!("{method} / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
        };
        let length = |answer: &str| super::bed::field(answer, "content-length").map(str::to_string);
        let (head, whole) = (ask("HEAD"), ask("GET"));
        assert_eq!(length(&head), length(&whole), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[test]
fn an_answer_of_our_own_opens_no_tunnel() {
    let bed = Bed::start(maintenance());
    run(async {
        let sender = connect(&bed, &h2::client::Builder::new()).await;
        assert_eq!(ask(&sender, get("http://a/")).await.unwrap().status(), 200);
        let mut call = extended("/", "websocket");
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, _up) = ready.send_request(call.clone(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 405, "RFC 8441 5: a 2xx would be a tunnel");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, _up) = ready.send_request(call, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 405, "nor is a status of gRPC one");
    });
}

#[test]
fn a_path_that_a_rule_makes_too_long_is_refused_as_such() {
    let long = format!("/{}", "b".repeat(4_000));
    let rewrite = Rewrite { host: None, path: Some(PathRewrite::Prefix(long)) };
    let mut rule = forward(&["127.0.0.1:1".parse().unwrap()]);
    rule.filters = vec![Filter::Rewrite(rewrite)];
    rule.alternatives =
        vec![Alternative { path: Some(PathMatch::Prefix("/a".into())), ..Alternative::default() }];
    let bed = Bed::start(rule);
    let path = format!("/a/{}", "c".repeat(63_000));
    let answer = bed.raw(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    assert_eq!(status(&answer), 414, "RFC 9112 3: {answer}");
}
