//! Host and the request target: one authority and one path, for matching and for forwarding.

use crate::wire::case::Verdict;
use crate::wire::case::{Case, must, should};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, demand, passed, refused, refused_or, same, turned_away, untouched};

pub fn cases() -> Vec<Case> {
    let mut cases = hosts();
    cases.extend(forms());
    cases.extend(other_forms());
    cases.extend(kept_paths());
    cases.extend(odd_paths());
    cases
}

fn hosts() -> Vec<Case> {
    let invalid = [
        ("host-with-space", "Host: a b"),
        ("host-with-slash", "Host: {id}.test/x"),
        ("host-with-user", "Host: user@{id}.test"),
        ("host-with-two-ports", "Host: {id}.test:1:2"),
        ("host-with-bad-port", "Host: {id}.test:x"),
        ("host-with-open-bracket", "Host: [::1"),
        ("host-with-control", "Host: {id}\x01.test"),
        ("host-with-query", "Host: {id}.test?x"),
        ("host-with-fragment", "Host: {id}.test#x"),
        ("host-list", "Host: {id}.test, other.test"),
        ("host-missing", "X: y"),
        ("host-twice", "Host: {id}.test\r\nHost: other.test"),
        ("host-twice-the-same", "Host: {id}.test\r\nHost: {id}.test"),
    ];
    let mut cases: Vec<Case> = invalid
        .into_iter()
        .map(|(name, field)| {
            must(name, "RFC 9112 3.2")
                .send(format!("GET /{{id}}/ HTTP/1.1\r\n{field}\r\nConnection: close\r\n\r\n"))
                .end()
                .check(refused(&[400]))
        })
        .collect();
    cases.push(
        must("host-passes", "RFC 9110 7.2")
            .get("")
            .answers(1)
            .check(passed(|request| host(request, "host-passes.test"))),
    );
    for (name, value, kept) in [
        ("host-with-port", "{id}.test:8080", "host-with-port.test:8080"),
        ("host-of-version-6", "[::1]:8080", "[::1]:8080"),
    ] {
        cases.push(
            should(name, "RFC 9110 7.2")
                .send(format!("GET /{{id}}/ HTTP/1.1\r\nHost: {value}\r\n\r\n"))
                .answers(1)
                .check(passed(move |request| host(request, kept))),
        );
    }
    cases
}

fn host(request: &Message, expected: &str) -> Verdict {
    same("host", request.fields.one("host").as_deref(), Some(expected))
}

/// One request with this line and Host.
fn asked(case: Case, line: &str, host: &str) -> Case {
    case.send(format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n")).end()
}

fn forms() -> Vec<Case> {
    let decides = "RFC 9112 3.2.2";
    vec![
        asked(
            must("absolute-form-wins", decides),
            "GET http://{id}.test/{id}/ HTTP/1.1",
            "other.test",
        )
        .check(passed(|request| host(request, "absolute-form-wins.test"))),
        asked(
            must("absolute-form-is-sent-on-as-a-path", "RFC 9112 3.2.1"),
            "GET http://{id}.test/{id}/x?y=z HTTP/1.1",
            "{id}.test",
        )
        .check(passed(|request| {
            let (target, whole) = (request.target(), "absolute-form-is-sent-on-as-a-path");
            same("target", target.to_string(), format!("/{whole}/x?y=z"))
        })),
        asked(
            must("absolute-form-in-capitals", decides),
            "GET HTTP://{id}.test/{id}/ HTTP/1.1",
            "{id}.test",
        )
        .check(refused_or(&[400], |_| Ok(()))),
        asked(
            must("absolute-form-with-an-empty-path", "RFC 9112 3.2.1"),
            "GET http://{id}.test HTTP/1.1",
            "{id}.test",
        )
        .by_host()
        .check(passed(|request| same("target", request.target(), "/"))),
        asked(
            must("absolute-form-with-only-a-query", "RFC 9112 3.2.1"),
            "GET http://{id}.test?x=y HTTP/1.1",
            "{id}.test",
        )
        .by_host()
        .check(refused_or(&[400], |request| same("target", request.target(), "/?x=y"))),
        asked(
            must("absolute-form-with-only-a-fragment", "RFC 9112 3.2.1"),
            "GET http://{id}.test#x HTTP/1.1",
            "{id}.test",
        )
        .by_host()
        .check(refused_or(&[400], |request| same("target", request.target(), "/"))),
        must("absolute-form-without-host", "RFC 9112 3.2")
            .send("GET http://{id}.test/{id}/ HTTP/1.1\r\nConnection: close\r\n\r\n")
            .end()
            .check(refused(&[400])),
        asked(
            should("absolute-form-with-user", "RFC 9110 4.2.4"),
            "GET http://user:word@{id}.test/{id}/ HTTP/1.1",
            "{id}.test",
        )
        .check(refused(&[400])),
        asked(
            must("absolute-form-with-bad-host-beside", "RFC 9112 3.2"),
            "GET http://{id}.test/{id}/ HTTP/1.1",
            "a b",
        )
        .check(refused(&[400])),
        asked(
            should("absolute-form-of-another-scheme", "RFC 9110 7.4"),
            "GET ftp://{id}.test/{id}/ HTTP/1.1",
            "{id}.test",
        )
        .check(turned_away(&[400, 404, 421])),
    ]
}

fn other_forms() -> Vec<Case> {
    vec![
        asked(
            must("authority-form-without-connect", "RFC 9112 3.2.3"),
            "GET {id}.test:80 HTTP/1.1",
            "{id}.test",
        )
        .by_host()
        .check(refused(&[400])),
        asked(must("target-without-a-slash", "RFC 9112 3.2"), "GET {id}/ HTTP/1.1", "{id}.test")
            .by_host()
            .check(refused(&[400])),
        asked(should("asterisk-form-passes", "RFC 9112 3.2.4"), "OPTIONS * HTTP/1.1", "{id}.test")
            .by_host()
            .check(refused_or(&[400, 405], |request| same("target", request.target(), "*"))),
        asked(
            must("options-without-a-path", "RFC 9112 3.2.4"),
            "OPTIONS http://{id}.test HTTP/1.1",
            "other.test",
        )
        .by_host()
        .check(passed(|request| {
            same("target", request.target(), "*")?;
            host(request, "options-without-a-path.test")
        })),
        asked(
            must("options-with-a-path", "RFC 9112 3.2.4"),
            "OPTIONS http://{id}.test/ HTTP/1.1",
            "other.test",
        )
        .by_host()
        .check(passed(|request| same("target", request.target(), "/"))),
        asked(
            must("get-without-a-path", "RFC 9112 3.2.1"),
            "GET http://{id}.test HTTP/1.1",
            "other.test",
        )
        .by_host()
        .check(passed(|request| same("target", request.target(), "/"))),
        asked(
            must("asterisk-form-without-options", "RFC 9112 3.2.4"),
            "GET * HTTP/1.1",
            "{id}.test",
        )
        .by_host()
        .check(refused(&[400, 404])),
    ]
}

fn kept_paths() -> Vec<Case> {
    let kept = [
        ("path-with-query", "?a=b&c=%20+&&=;/?"),
        ("path-with-an-empty-query", "x?"),
        ("path-with-two-question-marks", "x??y"),
        ("path-with-encoded-letters", "%41%7e%2D%7Ex"),
        ("path-with-encoded-percent", "%2541%25"),
        ("path-with-parameters", "a;b=c,d;e"),
        ("path-with-marks", "-._~!$&'()*+,=:@"),
        ("path-with-slashes", "a//b///c"),
        ("path-in-capitals", "A/b/C"),
        ("path-with-many-dots", "a/.../b/.hidden"),
        ("path-with-encoded-slash", "a%2Fb%2fc"),
        ("path-with-encoded-question-mark", "a%3Fb%23c"),
    ];
    // What these mean at an origin is anybody's guess.
    let dangerous = [
        ("path-with-encoded-nul", "a%00b"),
        ("path-with-encoded-line-end", "a%0d%0aX-Evil:%201"),
        ("path-with-encoded-backslash", "a%5C..%5Cb"),
        ("path-with-bad-encoding", "a%zz%"),
        ("path-with-backslash", "a\\..\\b"),
        ("path-with-quotes-and-brackets", "a\"<b>`{c}|^"),
    ];
    let asks = |name, tail: &str| {
        let line = format!("GET /{{id}}/{tail} HTTP/1.1");
        asked(must(name, "RFC 9110 7.7"), &line, "{id}.test")
    };
    let is_kept = |name: &str, tail: &str, request: &Message| {
        same("target", request.target().to_string(), format!("/{name}/{tail}"))
    };
    let passing = kept.into_iter().map(|(name, tail)| {
        asks(name, tail).check(passed(move |request| is_kept(name, tail, request)))
    });
    let doubtful = dangerous.into_iter().map(|(name, tail)| {
        asks(name, tail).check(refused_or(&[400], move |request| is_kept(name, tail, request)))
    });
    passing.chain(doubtful).collect()
}

fn odd_paths() -> Vec<Case> {
    let mut cases = Vec::new();
    let strict = [
        ("target-with-fragment", "x#y"),
        ("target-with-control", "x\x01y"),
        ("target-with-delete", "x\x7fy"),
        ("target-with-nul", "x\0y"),
        ("target-with-space", "x y"),
        ("target-with-tab", "x\ty"),
        ("target-with-bare-cr", "x\ry"),
    ];
    for (name, tail) in strict {
        let case = asked(
            should(name, "RFC 9112 3.2"),
            &format!("GET /{{id}}/{tail} HTTP/1.1"),
            "{id}.test",
        );
        let case = case.check(turned_away(&[400]));
        cases.push(if tail.contains('#') { case.departs(RECORD) } else { case });
    }
    let elsewhere = [
        ("path-that-climbs-out", "a/../../{id}-victim/"),
        ("path-that-climbs-out-encoded", "%2e%2e/{id}-victim/"),
        ("path-that-climbs-out-half-encoded", ".%2E/{id}-victim/"),
    ];
    for (name, tail) in elsewhere {
        let case = asked(
            should(name, "RFC 9110 4.2.3"),
            &format!("GET /{{id}}/{tail} HTTP/1.1"),
            "{id}.test",
        );
        cases.push(case.check(stays_inside));
    }
    for (name, tail) in [("path-with-dots-inside", "a/../b"), ("path-with-one-dot", "./a")] {
        let case = asked(
            should(name, "RFC 9110 4.2.3"),
            &format!("GET /{{id}}/{tail} HTTP/1.1"),
            "{id}.test",
        );
        cases.push(case.check(refused_or(&[400], |request| {
            demand(request.target().starts_with("/path-with-"), || "moved".into())
        })));
    }
    cases
}

/// What does not lie under the route must not reach its target.
fn stays_inside(seen: &Seen) -> Verdict {
    let code = seen.answer()?.status();
    demand(matches!(code, 400 | 403 | 404), || format!("{code} is no refusal"))?;
    untouched(seen)
}

/// What the parser decides before the proxy is asked.
const RECORD: &str = "docs/decisions/0007-what-the-parser-decides.md";
