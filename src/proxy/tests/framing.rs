//! Messages keep their meaning on the way: lengths, empty bodies, answers without a body.

use std::io::Write;
use std::net::TcpStream;

use super::bed::{Bed, Origin, field, forward, ok, read_all, read_until, status};

/// Reads a chunked body to its end, and says what it was.
fn echo_chunked(head: &str, stream: &mut TcpStream) -> bool {
    let body = match field(head, "transfer-encoding") {
        Some(_) => read_until(stream, "0\r\n\r\n").unwrap_or_default(),
        None => String::new(),
    };
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).is_ok()
}

#[test]
fn a_body_of_unknown_length_reaches_the_target_whatever_the_method() {
    let origin = Origin::start(echo_chunked);
    let bed = Bed::start(forward(&[origin.address]));
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let answer = bed.raw(&format!(
            "{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n"
        ));
        assert!(answer.contains("query"), "RFC 9110 6.4, {method}: {answer}");
        let (_, head) = origin.next();
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{method}");
    }
}

#[test]
fn nothing_is_read_behind_a_request_that_is_not_understood() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.raw(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n\
         0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert_eq!(status(&answer), 400, "RFC 9112 6.3: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "and no other answer: {answer}");
    assert!(origin.is_left_alone());
}

#[test]
fn a_host_is_asked_for_even_where_the_target_names_one() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.raw("GET http://a/ HTTP/1.1\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&answer), 400, "RFC 9112 3.2: {answer}");
    assert_eq!(status(&bed.raw("GET http://a/ HTTP/1.0\r\n\r\n")), 200);
}

#[test]
fn trailers_that_are_announced_pass_both_ways() {
    fn echo(head: &str, stream: &mut TcpStream) -> bool {
        let sent = read_until(stream, "\r\n\r\n").unwrap_or_default();
        assert!(sent.ends_with("0\r\nx-up: 1\r\n\r\n"), "{head}{sent}");
        let answer = "HTTP/1.1 200 OK\r\ntrailer: x-down, set-cookie\r\n\
                      transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                      x-down: 2\r\nset-cookie: a=b\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let origin = Origin::start(echo);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.raw(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close, te\r\nte: trailers\r\n\
         trailer: x-up, host\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nquery\r\n0\r\nx-up: 1\r\nhost: b\r\n\r\n",
    );
    assert_eq!(field(&answer, "trailer"), Some("x-down"), "RFC 9110 6.6.2: {answer}");
    assert!(answer.ends_with("2\r\nok\r\n0\r\nx-down: 2\r\n\r\n"), "{answer}");
    assert_eq!(field(&origin.next().1, "trailer"), Some("x-up"));
}

#[test]
fn a_length_that_is_said_twice_is_passed_on_once() {
    fn twice(head: &str, stream: &mut TcpStream) -> bool {
        let length = if head.starts_with("HEAD") {
            "content-length: 7, 7"
        } else {
            "content-length: 2\r\ncontent-length: 2, 2"
        };
        let body = if head.starts_with("HEAD") { "" } else { "ok" };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{body}").as_bytes()).is_ok()
    }
    let origin = Origin::start(twice);
    let bed = Bed::start(forward(&[origin.address]));
    for (method, length) in [("GET", "2"), ("HEAD", "7")] {
        let ask = format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = bed.raw(&ask);
        assert_eq!(answer.matches("content-length").count(), 1, "RFC 9110 8.6: {answer}");
        assert_eq!(field(&answer, "content-length"), Some(length), "{answer}");
    }
}

#[test]
fn an_empty_body_that_was_announced_stays_announced() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let post = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(status(&bed.raw(post)), 200);
    let (_, head) = origin.next();
    assert_eq!(field(&head, "content-length"), Some("0"), "RFC 9110 8.6: {head}");
    assert_eq!(status(&bed.get()), 200);
    assert_eq!(field(&origin.next().1, "content-length"), None);
}

#[test]
fn answers_without_a_body_keep_what_they_say_about_it() {
    fn bodiless(head: &str, stream: &mut TcpStream) -> bool {
        let answer: &[u8] = if head.starts_with("HEAD /chunked") {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        } else if head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"
        } else if head.starts_with("GET /204") {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        } else {
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\netag: \"x\"\r\n\r\n"
        };
        stream.write_all(answer).is_ok()
    }
    let origin = Origin::start(bodiless);
    let bed = Bed::start(forward(&[origin.address]));
    let cases = [
        ("HEAD /", 200, Some("1234")),
        ("HEAD /chunked", 200, None),
        ("GET /204", 204, None),
        // hyper leaves out what it may leave out here; a wrong length it must not say.
        ("GET /304", 304, None),
    ];
    for (what, code, length) in cases {
        let request = format!("{what} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = bed.raw(&request);
        assert_eq!(status(&answer), code, "{what}: {answer}");
        assert_eq!(field(&answer, "content-length"), length, "RFC 9110 8.6, {what}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{what} has no body: {answer}");
    }
    let connections: Vec<usize> = cases.iter().map(|_| origin.next().0).collect();
    assert_eq!(connections, [0; 4], "each left the connection clean");
}

#[test]
fn a_truncated_body_reaches_the_client_truncated() {
    fn cut(head: &str, stream: &mut TcpStream) -> bool {
        let answer: &[u8] = if head.starts_with("GET /chunked") {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst"
        };
        let _ = stream.write_all(answer);
        false
    }
    let origin = Origin::start(cut);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.raw("GET /chunked HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(answer.contains("first"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "RFC 9112 8: no false end: {answer}");
    let answer = bed.raw("GET /length HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(field(&answer, "content-length"), Some("100"));
    assert!(answer.ends_with("first"), "{answer}");
}

#[test]
fn a_body_that_ends_with_its_connection_ends_whole_for_the_client() {
    fn old(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nold but whole");
        false
    }
    let origin = Origin::start(old);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.get();
    assert!(answer.contains("old but whole"), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "chunked anew, with an end: {answer}");
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = read_all(&mut client);
    assert!(field(&answer, "transfer-encoding").is_none(), "RFC 9112 6.1: {answer}");
    assert!(answer.ends_with("old but whole"), "{answer}");
}

#[test]
fn the_received_protocol_stands_in_via() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    bed.raw("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(field(&origin.next().1, "via"), Some("1.0 tradewind-edge"), "RFC 9110 7.6.3");
    bed.get();
    assert_eq!(field(&origin.next().1, "via"), Some("1.1 tradewind-edge"));
}

#[test]
fn a_refused_method_is_told_what_is_allowed() {
    let bed = Bed::start(forward(&["127.0.0.1:1".parse().unwrap()]));
    let answer = bed.raw("TRACE / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&answer), 405);
    let allowed = field(&answer, "allow").expect("RFC 9110 15.5.6: 405 has Allow");
    assert!(allowed.contains("GET") && !allowed.contains("TRACE"), "{allowed}");
}

#[test]
fn options_ends_where_it_may_not_go_on() {
    let origin = Origin::start(ok);
    let bed = Bed::start(forward(&[origin.address]));
    let ask = |left: u32| {
        bed.raw(&format!(
            "OPTIONS / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nmax-forwards: {left}\r\n\r\n"
        ))
    };
    assert_eq!(status(&ask(0)), 200);
    assert!(origin.is_left_alone(), "RFC 9110 7.6.2: not passed on");
    assert_eq!(status(&ask(3)), 200);
    assert_eq!(field(&origin.next().1, "max-forwards"), Some("2"));
}

#[test]
fn trailers_never_turn_into_headers_of_the_next_hop() {
    let origin = Origin::start(echo_chunked);
    let bed = Bed::start(forward(&[origin.address]));
    let answer = bed.raw(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         trailer: content-length, authorization\r\n\r\n\
         5\r\nquery\r\n0\r\ncontent-length: 99\r\nauthorization: me\r\n\r\n",
    );
    assert!(answer.contains("query"), "{answer}");
    assert!(!answer.contains("authorization"), "RFC 9110 6.5.1: {answer}");
    let (_, head) = origin.next();
    assert!(field(&head, "trailer").is_none() && field(&head, "authorization").is_none());
}

#[test]
fn requests_sent_in_one_go_are_answered_in_their_order() {
    fn named(head: &str, stream: &mut TcpStream) -> bool {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let origin = Origin::start(named);
    let bed = Bed::start(forward(&[origin.address]));
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let last = "GET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = bed.raw(&format!("{}{}{last}", one("/1"), one("/2")));
    let at = |path| answer.find(path).unwrap_or_else(|| panic!("{path} in {answer}"));
    assert!(at("\n/1") < at("\n/2") && at("\n/2") < at("\n/3"), "RFC 9112 9.3.2: {answer}");
}

#[test]
fn who_waits_for_a_word_before_sending_is_told_to_go_on() {
    fn length(_: &str, stream: &mut TcpStream) -> bool {
        let mut body = [0u8; 4];
        let read = std::io::Read::read_exact(stream, &mut body).is_ok();
        read && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    }
    let origin = Origin::start(length);
    let bed = Bed::start(forward(&[origin.address]));
    let mut client = bed.client();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\
                expect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let told = read_until(&mut client, "\r\n\r\n").unwrap();
    assert_eq!(status(&told), 100, "RFC 9110 10.1.1: {told}");
    client.write_all(b"body").unwrap();
    assert_eq!(status(&read_all(&mut client)), 200);
}

#[test]
fn a_redirect_to_another_scheme_leaves_the_port_behind() {
    let mut rule = forward(&["127.0.0.1:1".parse().unwrap()]);
    let redirect = |scheme: Option<&str>| {
        crate::model::rule::Action::Redirect(crate::model::rule::Redirect {
            scheme: scheme.map(str::to_string),
            host: None,
            path: None,
            status: 308,
        })
    };
    let ask = "GET /x?y=z HTTP/1.1\r\nhost: Shop:8080\r\nconnection: close\r\n\r\n";
    rule.action = redirect(Some("https"));
    let answer = Bed::start(rule.clone()).raw(ask);
    assert_eq!(field(&answer, "location"), Some("https://shop/x?y=z"));
    rule.action = redirect(None);
    let bed = Bed::start(rule);
    assert_eq!(field(&bed.raw(ask), "location"), Some("http://Shop:8080/x?y=z"));
    let options = "OPTIONS * HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    let answer = bed.raw(options);
    assert_eq!(field(&answer, "location"), Some("http://shop/"), "RFC 9112 3.2.4: not a name");
}

#[test]
fn a_redirect_leads_to_what_a_uri_may_contain() {
    let mut rule = forward(&["127.0.0.1:1".parse().unwrap()]);
    rule.action = crate::model::rule::Action::Redirect(crate::model::rule::Redirect {
        scheme: None,
        host: None,
        path: None,
        status: 308,
    });
    let bed = Bed::start(rule);
    // Targets that the parser lets through, though they are not quite URIs.
    let ask = "GET /caf\u{e9}/%2f{\"\"}?q=\u{fffd}|[1] HTTP/1.1\r\nhost: shop\r\n\
               connection: close\r\n\r\n";
    let answer = bed.raw(ask);
    let led = "http://shop/caf%C3%A9/%2f%7B%22%22%7D?q=%EF%BF%BD%7C[1]";
    assert_eq!(field(&answer, "location"), Some(led), "RFC 9110 10.2.2: {answer}");
}

#[test]
fn a_body_that_ends_in_trailers_has_ended_and_its_connection_serves_on() {
    fn trailed(head: &str, stream: &mut TcpStream) -> bool {
        let read = match field(head, "transfer-encoding") {
            Some(_) => read_until(stream, "0\r\n\r\n").is_some(),
            None => true,
        };
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                      2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
        let plain = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let answer = if head.starts_with("GET") { answer } else { plain };
        read && stream.write_all(answer.as_bytes()).is_ok()
    }
    let get = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\nx-sum: 1\r\n\r\n";
    for (sides, request) in [("the answer", get), ("the request", post)] {
        let origin = Origin::start(trailed);
        let bed = Bed::start(forward(&[origin.address]));
        for _ in 0..3 {
            assert_eq!(status(&bed.raw(request)), 200);
            let (connection, _) = origin.next();
            assert_eq!(connection, 0, "{sides} was whole, so its connection is kept");
        }
    }
}
