//! Origins that do not keep to the rules are contained (THREATS T4, T5).

use std::io::{Read, Write};
use std::net::TcpStream;

use super::bed::{Bed, Origin, field, forward, read_until, status};
use crate::model::rule::Balance;

#[test]
fn a_response_that_two_parsers_could_read_differently_is_a_502() {
    fn odd(head: &str, stream: &mut TcpStream) -> bool {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
        let answer = match head.split(' ').nth(1) {
            Some("/lengths") => {
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
            }
            Some("/length") => "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            Some("/head") => long.as_str(),
            Some("/name") => "HTTP/1.1 200 OK\r\nna me: x\r\ncontent-length: 0\r\n\r\n",
            _ => "",
        };
        let _ = stream.write_all(answer.as_bytes());
        false
    }
    let origin = Origin::start(odd);
    for path in ["/lengths", "/length", "/head", "/name", "/nothing"] {
        let bed = Bed::start(forward(&[origin.address]));
        let answer =
            bed.raw(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        assert_eq!(status(&answer), 502, "{path}: {answer}");
        assert!(field(&answer, "proxy-status").is_some(), "{path}");
    }
}

#[test]
fn an_answer_with_two_framings_is_framed_once_and_its_connection_left() {
    fn both(_: &str, stream: &mut TcpStream) -> bool {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    }
    let origin = Origin::start(both);
    let bed = Bed::start(forward(&[origin.address]));
    for connection in 0..3 {
        let answer = bed.get();
        assert_eq!(field(&answer, "content-length"), None, "RFC 9112 6.3: {answer}");
        assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), "not cut by the length: {answer}");
        assert_eq!(origin.next().0, connection, "nothing more is believed of a connection");
    }
}

#[test]
fn an_answer_in_a_coding_that_nobody_asked_for_is_a_502() {
    fn coded(head: &str, stream: &mut TcpStream) -> bool {
        let codings = match head.split(' ').nth(1) {
            Some("/gzip") => "transfer-encoding: gzip, chunked",
            Some("/unending") => "transfer-encoding: identity",
            _ => "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\n{codings}\r\n\r\n1\r\nx\r\n0\r\n\r\n");
        false
    }
    let origin = Origin::start(coded);
    for path in ["/gzip", "/unending", "/twice"] {
        let bed = Bed::start(forward(&[origin.address]));
        let answer =
            bed.raw(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        assert_eq!(status(&answer), 502, "RFC 9112 6.1, {path}: {answer}");
    }
}

#[test]
fn a_length_that_may_not_be_is_not_passed_on() {
    fn empty(_: &str, stream: &mut TcpStream) -> bool {
        stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n").is_ok()
    }
    let origin = Origin::start(empty);
    let answer = Bed::start(forward(&[origin.address])).get();
    assert_eq!((status(&answer), field(&answer, "content-length")), (204, None), "RFC 9110 8.6");
}

#[test]
fn bytes_that_nobody_asked_for_never_answer_the_next_request() {
    fn pushy(_: &str, stream: &mut TcpStream) -> bool {
        let one = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine";
        let two = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
        stream.write_all(format!("{one}{two}").as_bytes()).is_ok()
    }
    let origin = Origin::start(pushy);
    let bed = Bed::start(forward(&[origin.address]));
    for _ in 0..5 {
        let answer = bed.get();
        assert!(!answer.contains("forged"), "{answer}");
        assert!(matches!(status(&answer), 200 | 502), "{answer}");
    }
}

/// Answers before the request body has come, and reads no more of it.
fn early(_: &str, stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly");
    std::thread::park_timeout(super::bed::PATIENCE);
    false
}

#[test]
fn a_connection_with_unsent_bytes_is_not_used_again() {
    let origin = Origin::start(early);
    let mut rule = forward(&[origin.address]);
    rule.balance = Balance::RoundRobin;
    let bed = Bed::start(rule);
    let mut client = bed.client();
    // More than all buffers on the way take in: some of it stays unsent.
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20);
    client.write_all(head.as_bytes()).unwrap();
    let writer = {
        let mut client = client.try_clone().unwrap();
        std::thread::spawn(move || {
            let block = vec![b'x'; 1 << 20];
            for _ in 0..64 {
                if client.write_all(&block).is_err() {
                    return;
                }
            }
        })
    };
    assert!(read_until(&mut client, "early").is_some(), "the early answer comes through");
    assert_eq!(origin.next().0, 0);
    let answer = bed.get();
    assert!(answer.ends_with("early"), "{answer}");
    assert_eq!(origin.next().0, 1, "on a connection of its own");
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = client.read(&mut [0u8; 1]);
    writer.join().unwrap();
}

#[test]
fn an_early_refusal_is_passed_on_though_its_target_hangs_up() {
    fn refuse(_: &str, stream: &mut TcpStream) -> bool {
        let _ = stream.read(&mut [0u8; 1]);
        let refusal = "HTTP/1.1 413 Too Much\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes());
        // What is unread makes this a reset.
        false
    }
    let origin = Origin::start(refuse);
    let bed = Bed::start(forward(&[origin.address]));
    for round in 0..20 {
        let mut client = bed.client();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20);
        client.write_all(head.as_bytes()).unwrap();
        let mut sending = client.try_clone().unwrap();
        let writer =
            std::thread::spawn(move || while sending.write_all(&[b'x'; 1 << 16]).is_ok() {});
        let answer = read_until(&mut client, "\r\n\r\n").unwrap_or_default();
        assert_eq!(status(&answer), 413, "{round}: {answer}");
        let _ = client.shutdown(std::net::Shutdown::Both);
        writer.join().unwrap();
    }
}
