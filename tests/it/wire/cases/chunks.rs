//! The syntax of chunks and trailers in requests.

use crate::wire::case::{Case, Verdict, must, should};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, demand, passed, same};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

pub fn cases() -> Vec<Case> {
    let mut cases = broken();
    cases.extend(allowed());
    cases.extend(trailers());
    cases
}

/// Nobody takes it for whole, and the client is told or cut off.
fn broken_off(seen: &Seen) -> Verdict {
    same("whole requests at the origin", seen.requests()?.len(), 0)?;
    let told = seen.answers()?.first().is_some_and(|answer| answer.status() >= 400);
    demand(told || seen.has_ended(), || "the client must be told or cut off".into())
}

fn hello(request: &Message) -> Verdict {
    same("the body", String::from_utf8_lossy(&request.body).into_owned(), "hello".into())
}

/// Broken off, or passed on with nothing left to be guessed.
fn clean(seen: &Seen) -> Verdict {
    if broken_off(seen).is_ok() { Ok(()) } else { passed(hello)(seen) }
}

fn broken() -> Vec<Case> {
    let cases = [
        ("chunk-size-over-64-bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-of-many-digits", "fffffffffffffffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-with-plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-with-0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-no-hex", "5g\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-missing", "\r\nhello\r\n0\r\n\r\n"),
        ("chunk-size-with-space-inside", "0 5\r\nhello\r\n0\r\n\r\n"),
        ("chunk-without-line-end", "5\r\nhello0\r\n\r\n"),
        ("chunk-longer-than-it-says", "5\r\nhello!\r\n0\r\n\r\n"),
        ("chunk-ended-by-bare-cr", "5\rhello\r\n0\r\n\r\n"),
        ("chunk-with-other-bytes-behind", "5\r\nhelloXX0\r\n\r\n"),
    ];
    cases
        .into_iter()
        .map(|(name, body)| must(name, "RFC 9112 7.1").post(CHUNKED, body).end().check(broken_off))
        .chain([
            must("chunk-extension-with-line-feed", "RFC 9112 7.1.1")
                .post(CHUNKED, "5;a\nhello\r\n0\r\n\r\nGET /{id}/smuggled HTTP/1.1\r\n\r\n")
                .end()
                .check(clean),
            should("chunk-extension-without-end", "RFC 9112 7.1.1")
                .post(CHUNKED, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100 << 10)))
                .answers(1)
                .check(broken_off),
            should("chunk-extensions-too-many", "RFC 9112 7.1.1")
                .post(
                    CHUNKED,
                    &format!(
                        "{}0\r\n\r\n",
                        format!("1;{}\r\nx\r\n", "y".repeat(100)).repeat(1_000)
                    ),
                )
                .answers(1)
                .check(broken_off),
        ])
        .collect()
}

fn allowed() -> Vec<Case> {
    let one = |name, body: &str| must(name, "RFC 9112 7.1").post(CHUNKED, body).answers(1);
    vec![
        one("chunk-size-with-zeros", "0005\r\nhello\r\n0\r\n\r\n").check(passed(hello)),
        one("last-chunk-of-many-zeros", "5\r\nhello\r\n000\r\n\r\n").check(passed(hello)),
        one("chunk-size-in-capitals", "A\r\n0123456789\r\nB\r\n01234567890\r\n0\r\n\r\n")
            .check(passed(|request| same("bytes", request.body.len(), 21))),
        one("chunk-size-in-small-letters", "a\r\n0123456789\r\n0\r\n\r\n")
            .check(passed(|request| same("bytes", request.body.len(), 10))),
        one("chunks-of-nothing", "0\r\n\r\n")
            .check(passed(|request| same("bytes", request.body.len(), 0))),
        one("chunks-of-one-byte", &format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(300)))
            .check(passed(|request| same("bytes", request.body.len(), 300))),
        one("chunk-size-with-space-behind", "5 \r\nhello\r\n0\r\n\r\n").check(clean),
        one("chunk-ended-by-bare-lf", "5\nhello\r\n0\r\n\r\n").check(clean),
        one("chunk-data-ended-by-bare-lf", "5\r\nhello\n0\r\n\r\n").check(clean),
        must("chunk-extension", "RFC 9112 7.1.1")
            .post(CHUNKED, "5;a=b\r\nhello\r\n0;c\r\n\r\n")
            .answers(1)
            .check(passed(hello)),
        must("chunk-extension-quoted", "RFC 9112 7.1.1")
            .post(CHUNKED, "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n")
            .answers(1)
            .check(passed(hello)),
        must("chunked-then-another-request", "RFC 9112 7.1")
            .post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n")
            .get("")
            .answers(2)
            .check(|seen| {
                same("answers", seen.answers()?.len(), 2)?;
                same("requests", seen.requests()?.len(), 2)
            }),
    ]
}

fn trailers() -> Vec<Case> {
    let with = |level: fn(_, _) -> Case, name, trailer: &str| {
        let body = format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n");
        let announced = trailer.split(':').next().unwrap_or_default();
        let fields = format!("{CHUNKED}Trailer: {announced}\r\n");
        level(name, "RFC 9110 6.5.1").post(&fields, &body).answers(1)
    };
    let forbidden = [
        ("trailer-content-length", "Content-Length: 99", "content-length"),
        ("trailer-transfer-encoding", "Transfer-Encoding: chunked", "transfer-encoding"),
        ("trailer-host", "Host: other.test", "host"),
        ("trailer-trailer", "Trailer: x", "trailer"),
        ("trailer-authorization", "Authorization: Basic eA==", "authorization"),
        ("trailer-connection", "Connection: close", "connection"),
        ("trailer-cookie", "Cookie: a=b", "cookie"),
        ("trailer-content-type", "Content-Type: text/html", "content-type"),
        ("trailer-expect", "Expect: 100-continue", "expect"),
    ];
    let mut cases: Vec<Case> = forbidden
        .into_iter()
        .map(|(name, trailer, field)| {
            with(must, name, trailer).check(move |seen| {
                if broken_off(seen).is_ok() {
                    return Ok(());
                }
                let request = seen.exchange()?.0;
                hello(&request)?;
                let merged = field != "host"
                    && field != "trailer"
                    && field != "connection"
                    && field != "content-length"
                    && field != "transfer-encoding"
                    && request.fields.has(field);
                let kept = request.trailers.has(field);
                let host = request.fields.one("host").unwrap_or_default();
                demand(!merged && !kept && host != "other.test", || {
                    format!("{field} must not come out of a trailer")
                })
            })
        })
        .collect();
    cases.push(with(must, "trailer-is-no-field", "X-Check: 1").check(passed(|request| {
        demand(!request.fields.has("x-check"), || "merged into the head".into())
    })));
    cases.push(with(should, "trailer-is-kept", "X-Check: 1").check(passed(|request| {
        same("x-check", request.trailers.one("x-check"), Some("1".into()))
    })));
    cases.push(
        with(should, "trailers-too-long", &format!("X: {}", "y".repeat(200 << 10)))
            .check(broken_off),
    );
    for (name, trailer) in [
        ("trailer-folded", "X: a\r\n b"),
        ("trailer-with-space-in-name", "X Y: a"),
        ("trailer-without-colon", "junk"),
        ("trailer-with-nul", "X: a\0b"),
    ] {
        cases.push(with(must, name, trailer).check(clean));
    }
    cases
}
