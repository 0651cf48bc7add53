//! The fuzz target `request` over its seeds, and faults that the judge has to see.

use std::cell::{Cell, RefCell};
use std::path::Path;

use http::{HeaderMap, Request};

use super::*;

/// What goes on of bytes that a client sends.
fn sent(bytes: &[u8]) -> String {
    BENCH.with(|bench| String::from_utf8(bench.pass_on(bytes).sent.bytes()).unwrap())
}

#[test]
fn requests_from_the_seeds_go_on_as_what_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/request");
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let refused = path.file_name().unwrap().to_str().unwrap().starts_with("bad-");
        assert_eq!(request(&bytes), !refused, "{}", path.display());
        for end in 0..bytes.len() {
            request(&bytes[..end]);
        }
        seeds += 1;
    }
    assert!(seeds > 10);
}

#[test]
fn the_way_is_the_real_one() {
    let out = sent(
        b"PUT /7?x HTTP/1.1\r\nHost: edited.example\r\nConnection: x-gone\r\nX-Gone: 1\r\n\
          Cookie: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert!(out.starts_with("PUT /7?x HTTP/1.1\r\nhost: edited.example\r\n"), "{out}");
    assert!(out.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{out}");
    assert!(out.contains("x-set: one\r\n") && out.contains("x-add: two\r\n"), "{out}");
    assert!(!out.contains("gone") && !out.contains("cookie"), "{out}");
}

/// Whether the judge finds fault with this, were it sent for a plain request.
fn is_faulty(sent: &str, body: &[u8], whole: bool) -> bool {
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (http::Method::POST, "/a?b".parse().unwrap());
    parts.headers = HeaderMap::from_iter([
        (http::header::HOST, "plain.example".parse().unwrap()),
        (http::header::CONNECTION, "x-named".parse().unwrap()),
    ]);
    let Ok(Decided::Onward(route, _)) = BENCH.with(|bench| {
        bench.worker.decide(
            &Client::new(IpAddr::V4(Ipv4Addr::LOCALHOST), None, false),
            &parts,
            Noted::of(&parts.headers),
        )
    }) else {
        panic!("the rule is there")
    };
    let seen = Seen::new(&parts, &route, false);
    let recorded = Recorded { bytes: RefCell::new(body.to_vec()), whole: Cell::new(whole) };
    let judged = std::panic::AssertUnwindSafe(|| judge(&seen, sent.as_bytes(), &recorded));
    std::panic::catch_unwind(judged).is_err()
}

#[test]
fn the_judge_sees_every_kind_of_fault() {
    let own = "via: 1.1 e\r\ncdn-loop: e\r\nx-forwarded-for: 1\r\nx-forwarded-proto: http\r\n";
    let head = |line: &str, fields: &str| format!("POST {line} HTTP/1.1\r\n{own}{fields}\r\n");
    let good = |fields: &str| head("/a?b", &format!("host: plain.example\r\n{fields}"));
    let (chunked, sized) = ("transfer-encoding: chunked\r\n", "content-length: 3\r\n");
    assert!(!is_faulty(&good(""), b"", true));
    assert!(!is_faulty(&(good(sized) + "abc"), b"abc", true));
    assert!(!is_faulty(&(good(sized) + "ab"), b"ab", false));
    assert!(!is_faulty(&(good(chunked) + "3\r\nabc\r\n0\r\n\r\n"), b"abc", true));
    assert!(!is_faulty(&(good(chunked) + "3\r\nabc\r\n"), b"abc", false));

    let heads = [
        head("/b", "host: plain.example\r\n"),
        head("/a?b", "host: other.example\r\n"),
        head("/a?b", ""),
        good("host: plain.example\r\n"),
        good("keep-alive: 1\r\n"),
        good("x-named: 1\r\n"),
        good("x-a: 1\rx-b: 2\r\n"),
        good("x-a: 1\r\n x-b: 2\r\n"),
        good("x a: 1\r\n"),
        good("x-a: 1\n"),
        good("x-a: 1\0\r\n"),
        good("content-length: 0\r\ncontent-length: 0\r\n"),
        good("content-length: +0\r\n"),
        good("transfer-encoding: identity\r\n"),
        good("").replace("via: 1.1 e\r\n", ""),
        good("").replace("HTTP/1.1", "HTTP/1.0"),
        good("").replace("POST", "GET"),
    ];
    for head in heads {
        assert!(is_faulty(&head, b"", true), "{head}");
    }
    let bodies = [
        (good(sized) + "ab", true),
        (good(sized) + "abcd", true),
        (good(sized) + "abd", true),
        (good(sized) + "abc", false),
        (good("") + "abc", true),
        (good(&format!("{chunked}{sized}")) + "abc", true),
        (good(chunked) + "3\r\nabc\r\n", true),
        (good(chunked) + "3\r\nabc\r\n0\r\n\r\n", false),
        (good(chunked) + "3\r\nabc\r\n0\r\n\r\nGET", true),
        (good(chunked) + "3;x\r\nabc\r\n0\r\n\r\n", true),
        (good(chunked) + "3\r\nabcd\r\n0\r\n\r\n", true),
    ];
    for (sent, whole) in bodies {
        assert!(is_faulty(&sent, b"abc", whole), "{sent}");
    }
}
