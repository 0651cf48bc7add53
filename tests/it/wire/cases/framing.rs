//! Where a request's body ends: Content-Length, Transfer-Encoding, and both at odds.

use crate::wire::case::Verdict;
use crate::wire::case::{Case, Step, must, should};
use crate::wire::message::{Framing, Message};
use crate::wire::seen::{Seen, demand, passed, refused, refused_or, same};

pub fn cases() -> Vec<Case> {
    let mut cases = contradictions();
    cases.extend(lengths());
    cases.extend(codings());
    cases.extend(whole());
    cases
}

fn hello(request: &Message) -> Verdict {
    same("the body", String::from_utf8_lossy(&request.body).into_owned(), "hello".into())
}

/// Refused or read by its coding; in both cases nothing more is read from the connection.
fn coded_and_over(seen: &Seen) -> Verdict {
    refused_or(&[400], hello)(seen)?;
    demand(seen.has_ended(), || "the connection must be closed".into())
}

fn refused_and_over(seen: &Seen) -> Verdict {
    refused(&[400])(seen)?;
    demand(seen.has_ended(), || "the connection must be closed".into())
}

fn contradictions() -> Vec<Case> {
    let body = "5\r\nhello\r\n0\r\n\r\nGET /{id}/smuggled HTTP/1.1\r\nHost: {id}.test\r\n\r\n";
    let both = |name, fields: &str| {
        must(name, "RFC 9112 6.3").post(fields, body).end().check(coded_and_over)
    };
    vec![
        both("length-then-coding", "Content-Length: 100\r\nTransfer-Encoding: chunked\r\n"),
        both("coding-then-length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
        both("length-zero-and-coding", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        both("length-invalid-and-coding", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
        must("old-version-with-coding", "RFC 9112 6.1")
            .send(format!(
                "POST /{{id}}/ HTTP/1.0\r\nHost: {{id}}.test\r\nConnection: keep-alive\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{body}"
            ))
            .end()
            .check(coded_and_over),
        must("old-version-with-coding-and-length", "RFC 9112 6.1")
            .send(format!(
                "POST /{{id}}/ HTTP/1.0\r\nHost: {{id}}.test\r\nConnection: keep-alive\r\n\
                 Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            ))
            .end()
            .check(coded_and_over),
    ]
}

fn lengths() -> Vec<Case> {
    let invalid = [
        ("length-with-plus", "Content-Length: +5"),
        ("length-negative", "Content-Length: -5"),
        ("length-in-hex", "Content-Length: 0x5"),
        ("length-in-words", "Content-Length: five"),
        ("length-empty", "Content-Length:"),
        ("length-with-fraction", "Content-Length: 5.0"),
        ("length-with-exponent", "Content-Length: 5e0"),
        ("length-with-space-inside", "Content-Length: 5 5"),
        ("length-with-parameter", "Content-Length: 5;x"),
        ("length-quoted", "Content-Length: \"5\""),
        ("length-in-other-digits", "Content-Length: \u{665}"),
        ("length-over-64-bits", "Content-Length: 18446744073709551621"),
        ("length-far-too-large", "Content-Length: 99999999999999999999999999999999999"),
        ("length-list-of-two-values", "Content-Length: 5, 6"),
        ("length-in-two-lines", "Content-Length: 5\r\nContent-Length: 6"),
        ("length-in-two-lines-one-empty", "Content-Length: 5\r\nContent-Length:"),
        ("length-in-two-lines-one-odd", "Content-Length: 5\r\nContent-Length: +5"),
    ];
    let mut cases: Vec<Case> = invalid
        .into_iter()
        .map(|(name, field)| {
            let case = must(name, "RFC 9112 6.3").post(&format!("{field}\r\n"), "hello");
            case.end().check(refused_and_over)
        })
        .collect();
    let one = |request: &Message| {
        same("framing", request.framing, Framing::Length(5))?;
        hello(request)
    };
    let twice = [
        ("length-twice-the-same", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("length-list-of-one-value", "Content-Length: 5, 5\r\n"),
        ("length-with-empty-member", "Content-Length: 5,\r\n"),
    ];
    for (name, fields) in twice {
        let case = must(name, "RFC 9112 6.3").post(fields, "hello");
        cases.push(case.answers(1).check(refused_or(&[400], one)));
    }
    let valid = [
        ("length-with-zeros", "Content-Length: 0005\r\n"),
        ("length-with-space-around", "Content-Length: \t 5 \t\r\n"),
        ("length-in-capitals", "CONTENT-LENGTH: 5\r\n"),
    ];
    for (name, fields) in valid {
        let case = must(name, "RFC 9110 8.6").post(fields, "hello");
        cases.push(case.answers(1).check(passed(hello)));
    }
    cases
}

fn codings() -> Vec<Case> {
    let refused_codings = [
        ("coding-chunked-twice", "Transfer-Encoding: chunked, chunked"),
        ("coding-chunked-in-two-lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("coding-identity", "Transfer-Encoding: identity"),
        ("coding-identity-line-first", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        ("coding-identity-line-last", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("coding-chunked-not-last", "Transfer-Encoding: chunked, gzip"),
        ("coding-gzip-first", "Transfer-Encoding: gzip, chunked"),
        ("coding-unknown", "Transfer-Encoding: xchunked"),
        ("coding-unknown-with-length", "Content-Length: 5\r\nTransfer-Encoding: cow"),
        ("coding-quoted", "Transfer-Encoding: \"chunked\""),
        ("coding-with-parameter", "Transfer-Encoding: chunked;x=y"),
        ("coding-with-junk-behind", "Transfer-Encoding: chunked x"),
        ("coding-with-vertical-tab", "Transfer-Encoding: \x0bchunked"),
        ("coding-empty", "Content-Length: 5\r\nTransfer-Encoding:"),
    ];
    let body = "5\r\nhello\r\n0\r\n\r\nGET /{id}/smuggled HTTP/1.1\r\nHost: {id}.test\r\n\r\n";
    let mut cases: Vec<Case> = refused_codings
        .into_iter()
        .map(|(name, field)| {
            let case = must(name, "RFC 9112 6.1").post(&format!("{field}\r\n"), body);
            case.end().check(refused(&[400, 501]))
        })
        .collect();
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let chunked = [
        ("coding-in-capitals", "Transfer-Encoding: CHUNKED\r\n"),
        ("coding-with-space-around", "Transfer-Encoding: \t chunked \t\r\n"),
        ("coding-with-tab", "Transfer-Encoding:\tchunked\r\n"),
    ];
    for (name, fields) in chunked {
        let case = must(name, "RFC 9112 7").post(fields, body);
        cases.push(case.answers(1).check(passed(hello)));
    }
    let either = [
        ("coding-with-empty-member", "Transfer-Encoding: chunked,\r\n"),
        ("coding-with-empty-member-first", "Transfer-Encoding: , chunked\r\n"),
        ("coding-folded", "Transfer-Encoding:\r\n chunked\r\n"),
    ];
    for (name, fields) in either {
        let case = must(name, "RFC 9110 5.6.1").post(fields, body);
        cases.push(case.answers(1).check(refused_or(&[400, 501], hello)));
    }
    cases.push(
        must("coding-name-with-space", "RFC 9112 5.1")
            .post("Transfer-Encoding : chunked\r\n", body)
            .end()
            .check(refused(&[400])),
    );
    cases.push(
        must("coding-name-with-underscore", "RFC 9110 5.1")
            .post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello")
            .answers(1)
            .check(passed(hello)),
    );
    cases
}

fn whole() -> Vec<Case> {
    let cut = |seen: &Seen| {
        same("whole requests at the origin", seen.requests()?.len(), 0)?;
        let told = seen.answers()?.first().is_some_and(|answer| answer.status() >= 400);
        demand(told || seen.has_ended(), || "the client must be told or cut off".into())?;
        let left = seen.origin.iter().all(|side| side.end.is_some());
        demand(left, || "the origin must be told, too".into())
    };
    vec![
        must("chunked-request-framed-anew", "RFC 9112 6.1")
            .post("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
            .answers(1)
            .check(passed(hello)),
        must("no-length-is-no-body", "RFC 9112 6.3")
            .post("", "")
            .answers(1)
            .check(refused_or(&[411], |request| same("the body", request.body.len(), 0))),
        must("length-zero-stays", "RFC 9110 8.6")
            .post("Content-Length: 0\r\n", "")
            .answers(1)
            .check(passed(|request| same("the body", request.body.len(), 0))),
        must("body-of-a-get", "RFC 9110 9.3.1")
            .send("GET /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nContent-Length: 5\r\n\r\nhello")
            .answers(1)
            .check(refused_or(&[400], hello)),
        must("chunked-body-of-a-delete", "RFC 9110 9.3.5")
            .send(
                "DELETE /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n",
            )
            .answers(1)
            .check(refused_or(&[400], hello)),
        must("request-cut-by-half-close", "RFC 9112 8")
            .post("Content-Length: 10\r\n", "hello")
            .then(Step::HalfClose)
            .end()
            .then(Step::Left)
            .check(cut),
        must("request-cut-by-hang-up", "RFC 9112 8")
            .post("Content-Length: 10\r\n", "hello")
            .then(Step::Hangup)
            .then(Step::Left)
            .check(cut),
        must("chunked-request-cut", "RFC 9112 8")
            .post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")
            .then(Step::HalfClose)
            .end()
            .then(Step::Left)
            .check(cut),
        must("chunked-request-cut-in-a-chunk", "RFC 9112 8")
            .post("Transfer-Encoding: chunked\r\n", "5\r\nhel")
            .then(Step::HalfClose)
            .end()
            .then(Step::Left)
            .check(cut),
        should("empty-line-before-a-request", "RFC 9112 2.2")
            .send("\r\nGET /{id}/ HTTP/1.1\r\nHost: {id}.test\r\n\r\n")
            .answers(1)
            .check(passed(|_| Ok(()))),
        should("line-end-behind-a-body", "RFC 9112 2.2")
            .post("Content-Length: 5\r\n", "hello\r\n")
            .get("")
            .answers(2)
            .check(|seen| same("answers", seen.answers()?.len(), 2)),
    ]
}
