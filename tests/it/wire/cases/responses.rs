//! Answers of the origin: their framing, and origins that do not keep to the rules.

use crate::wire::case::{Case, Level, Play, Step, Verdict, must, ok, say, should};
use crate::wire::seen::{Seen, answered, bad_gateway, demand, same, visibly_cut};

pub fn cases() -> Vec<Case> {
    let mut cases = framings();
    cases.extend(trailers());
    cases.extend(to_head());
    cases.extend(without_bodies());
    cases.extend(cut());
    cases.extend(odd_lengths());
    cases.extend(odd_codings());
    cases.extend(odd_heads());
    cases
}

fn hello(answer: &crate::wire::message::Message) -> Verdict {
    same("the body", String::from_utf8_lossy(&answer.body).into_owned(), "hello".into())
}

fn framings() -> Vec<Case> {
    let gives = |name, rfc, answer: &str| must(name, rfc).get("").ends(answer).answers(1);
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        gives("answer-with-length", "RFC 9112 6.2", &ok("hello")).check(answered(hello)),
        gives("answer-with-length-zero", "RFC 9112 6.2", &ok(""))
            .check(answered(|answer| same("bytes", answer.body.len(), 0))),
        gives(
            "answer-in-chunks",
            "RFC 9112 7.1",
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        )
        .check(answered(hello)),
        gives(
            "answer-in-chunks-with-extensions",
            "RFC 9112 7.1.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
        )
        .check(answered(hello)),
        gives("answer-ended-by-closing", "RFC 9112 6.3", "HTTP/1.1 200 OK\r\n\r\nhello")
            .check(answered(hello)),
        gives("answer-of-an-old-version", "RFC 9110 2.5", "HTTP/1.0 200 OK\r\n\r\nhello").check(
            answered(|answer| {
                hello(answer)?;
                demand(answer.start.starts_with("HTTP/1.1 "), || "the version is ours".into())
            }),
        ),
        must("answer-ended-by-closing-to-an-old-version", "RFC 9112 6.3")
            .send("GET /{id}/ HTTP/1.0\r\nHost: {id}.test\r\n\r\n")
            .ends("HTTP/1.1 200 OK\r\n\r\nhello")
            .end()
            .check(answered(hello)),
        gives(
            "answer-with-length-and-coding",
            "RFC 9112 6.3",
            &format!("HTTP/1.1 200 OK\r\n{both}{chunks}"),
        )
        .check(refused_or_hello),
        should("answer-with-length-and-coding-is-the-last", "RFC 9112 6.3")
            .get("")
            .says(format!("HTTP/1.1 200 OK\r\n{both}{chunks}"))
            .answers(1)
            .get("")
            .answers(2)
            .check(|seen| same("connections to the origin", seen.origin.len(), 2)),
    ]
}

fn trailers() -> Vec<Case> {
    let gives = |name, rfc, answer: &str| must(name, rfc).get("").ends(answer).answers(1);
    vec![
        gives(
            "answer-trailer-is-no-field",
            "RFC 9110 6.5.1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
             Set-Cookie: a=b\r\nContent-Length: 9\r\nX-Check: 1\r\n\r\n",
        )
        .check(answered(|answer| {
            hello(answer)?;
            let fields = ["set-cookie", "x-check", "content-length"];
            let merged = fields.iter().find(|name| answer.fields.has(name));
            demand(merged.is_none(), || format!("{merged:?} was merged into the head"))?;
            let kept = fields[0..3].iter().find(|n| **n != "x-check" && answer.trailers.has(n));
            demand(kept.is_none(), || format!("{kept:?} may not be a trailer"))
        })),
        must("answer-trailer-is-named-by-connection", "RFC 9110 7.6.1")
            .get("TE: trailers\r\nConnection: te\r\n")
            .says(
                "HTTP/1.1 200 OK\r\nTrailer: X-Hop\r\nConnection: X-Hop\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Hop: 1\r\n\r\n",
            )
            .answers(1)
            .check(answered(|answer| {
                hello(answer)?;
                demand(!answer.trailers.has("x-hop"), || "it must stay on its hop".into())
            })),
        should("answer-trailer-is-kept", "RFC 9110 6.5.2")
            .get("TE: trailers\r\nConnection: te\r\n")
            .says(
                "HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\nX-Check: 1\r\n\r\n",
            )
            .answers(1)
            .check(answered(|answer| {
                same("x-check", answer.trailers.one("x-check"), Some("1".into()))
            })),
    ]
}

/// Two answers, and in neither the bytes that belong to nobody.
fn twice(seen: &Seen) -> Verdict {
    same("answers", seen.answers()?.len(), 2)?;
    demand(!seen.near().has("forged"), || "bytes that belong to nobody".into())
}

fn to_head() -> Vec<Case> {
    let head = |name, rfc| {
        must(name, rfc).send("HEAD /{id}/ HTTP/1.1\r\nHost: {id}.test\r\n\r\n").bodiless()
    };
    vec![
        head("head-keeps-the-length", "RFC 9110 8.6")
            .says("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
            .answers(1)
            .check(|seen| {
                let length = seen.answer()?.fields.one("content-length");
                same("length", length, Some("1234".into()))
            }),
        head("head-of-chunks", "RFC 9110 9.3.2")
            .says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 200)),
        head("head-answered-with-a-body", "RFC 9110 9.3.2")
            .says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            .says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .answers(1)
            .then(Step::Left)
            .send("HEAD /{id}/ HTTP/1.1\r\nHost: {id}.test\r\n\r\n")
            .answers(2)
            .check(twice),
        head("head-with-a-bad-length", "RFC 9110 8.6")
            .says("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n")
            .answers(1)
            .check(bad_gateway),
        head("head-with-a-length-twice", "RFC 9110 8.6")
            .says("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n")
            .answers(1)
            .check(|seen| {
                let answer = seen.answer()?;
                let once = answer.fields.one("content-length") == Some("5".into());
                demand(once || answer.status() == 502, || "neither refused nor mended".into())
            }),
    ]
}

fn without_bodies() -> Vec<Case> {
    vec![
        must("no-content", "RFC 9110 15.3.5")
            .get("")
            .says("HTTP/1.1 204 No Content\r\n\r\n")
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 204)),
        must("no-content-with-length", "RFC 9110 8.6")
            .get("")
            .says("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n")
            .answers(1)
            .check(|seen| demand(matches!(seen.answer()?.status(), 204 | 502), || "what?".into())),
        must("no-content-with-a-body", "RFC 9110 15.3.5")
            .get("")
            .says("HTTP/1.1 204 No Content\r\n\r\nforged")
            .says(ok("two"))
            .answers(1)
            .then(Step::Left)
            .get("")
            .answers(2)
            .check(twice),
        must("not-modified-with-length", "RFC 9110 15.4.5")
            .get("If-None-Match: \"x\"\r\n")
            .says("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n")
            .answers(1)
            .get("If-None-Match: \"x\"\r\n")
            .answers(2)
            .check(|seen| {
                let answers = seen.answers()?;
                same("answers", answers.len(), 2)?;
                same("etag", answers[0].fields.one("etag"), Some("\"x\"".into()))
            }),
        must("not-modified-with-a-body", "RFC 9110 15.4.5")
            .get("")
            .says("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nforged")
            .says(ok("two"))
            .answers(1)
            .then(Step::Left)
            .get("")
            .answers(2)
            .check(twice),
    ]
}

fn cut() -> Vec<Case> {
    let parts = [
        ("cut-before-its-length", "Content-Length: 100\r\n\r\nhello"),
        ("cut-without-a-byte-of-its-length", "Content-Length: 100\r\n\r\n"),
        ("cut-between-chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("cut-inside-a-chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        ("cut-inside-a-chunk-size", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1"),
        ("cut-before-the-last-line-end", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
        ("cut-inside-the-trailers", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y"),
        ("cut-before-any-chunk", "Transfer-Encoding: chunked\r\n\r\n"),
        ("cut-by-a-bad-chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
        ("cut-by-a-chunk-without-end", "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n"),
        (
            "cut-by-a-chunk-over-64-bits",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
             10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
    ];
    let mut cases: Vec<Case> = parts
        .into_iter()
        .map(|(name, rest)| {
            let answer = format!("HTTP/1.1 200 OK\r\n{rest}");
            must(name, "RFC 9112 8").get("").ends(answer).end().check(visibly_cut)
        })
        .collect();
    cases.push(
        must("cut-to-an-old-version", "RFC 9112 8")
            .send("GET /{id}/ HTTP/1.0\r\nHost: {id}.test\r\n\r\n")
            .ends("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
            .end()
            .check(visibly_cut),
    );
    cases.push(
        must("cut-inside-a-head", "RFC 9112 8")
            .get("")
            .ends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
            .answers(1)
            .check(bad_gateway),
    );
    cases.push(
        must("cut-by-silence", "RFC 9112 8")
            .get("")
            .plays([
                Play::Body,
                say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"),
                Play::Hang,
            ])
            .hurried()
            .end()
            .check(visibly_cut),
    );
    cases
}

/// 502, or a visible end, and never an answer.
fn discarded(seen: &Seen) -> Verdict {
    if bad_gateway(seen).is_ok() { Ok(()) } else { visibly_cut(seen) }
}

/// A bad answer is refused, or mended.
fn refused_or_hello(seen: &Seen) -> Verdict {
    if bad_gateway(seen).is_ok() { Ok(()) } else { answered(hello)(seen) }
}

fn odd_lengths() -> Vec<Case> {
    let fields = [
        ("answer-length-with-plus", "Content-Length: +5"),
        ("answer-length-negative", "Content-Length: -5"),
        ("answer-length-in-hex", "Content-Length: 0x5"),
        ("answer-length-empty", "Content-Length:"),
        ("answer-length-in-words", "Content-Length: five"),
        ("answer-length-over-64-bits", "Content-Length: 18446744073709551621"),
        ("answer-length-list-of-two-values", "Content-Length: 5, 6"),
        ("answer-length-in-two-lines", "Content-Length: 5\r\nContent-Length: 6"),
    ];
    let mut cases: Vec<Case> = fields
        .into_iter()
        .map(|(name, field)| {
            let answer = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nhello");
            must(name, "RFC 9112 6.3").get("").ends(answer).answers(1).check(bad_gateway)
        })
        .collect();
    for (name, fields) in [
        ("answer-length-twice-the-same", "Content-Length: 5\r\nContent-Length: 5"),
        ("answer-length-list-of-one-value", "Content-Length: 5, 5"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello");
        cases.push(
            must(name, "RFC 9112 6.3").get("").ends(answer).answers(1).check(refused_or_hello),
        );
    }
    cases
}

fn odd_codings() -> Vec<Case> {
    let fields = [
        ("answer-coding-gzip", "Transfer-Encoding: gzip, chunked"),
        ("answer-coding-chunked-twice", "Transfer-Encoding: chunked, chunked"),
        ("answer-coding-in-two-lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("answer-coding-unknown", "Transfer-Encoding: xchunked"),
        ("answer-coding-not-last", "Transfer-Encoding: chunked, identity"),
        ("answer-coding-unknown-with-length", "Content-Length: 5\r\nTransfer-Encoding: cow"),
    ];
    fields
        .into_iter()
        .map(|(name, field)| {
            let answer = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
            must(name, "RFC 9112 6.1").get("").ends(answer).answers(1).check(discarded)
        })
        .chain([must("answer-coding-of-an-old-version", "RFC 9112 6.1")
            .get("")
            .ends("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .answers(1)
            .check(|seen| if discarded(seen).is_ok() { Ok(()) } else { answered(hello)(seen) })])
        .collect()
}

fn odd_heads() -> Vec<Case> {
    let lines = [
        ("status-line-no-number", "HTTP/1.1 abc OK"),
        ("status-line-of-two-digits", "HTTP/1.1 20 OK"),
        ("status-line-of-four-digits", "HTTP/1.1 2000 OK"),
        ("status-line-negative", "HTTP/1.1 -20 OK"),
        ("status-line-of-another-protocol", "ICY 200 OK"),
        ("status-line-of-version-2", "HTTP/2.0 200 OK"),
        ("status-line-without-status", "HTTP/1.1"),
        ("status-line-junk", "what is this"),
    ];
    let mut cases: Vec<Case> = lines
        .into_iter()
        .map(|(name, line)| {
            let answer = format!("{line}\r\nContent-Length: 5\r\n\r\nhello");
            must(name, "RFC 9112 4").get("").ends(answer).answers(1).check(bad_gateway)
        })
        .collect();
    cases.push(
        must("status-line-without-reason", "RFC 9112 4")
            .get("")
            .ends("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello")
            .answers(1)
            .check(refused_or_hello),
    );
    cases.push(
        must("status-line-with-an-empty-reason", "RFC 9112 4")
            .get("")
            .ends("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello")
            .answers(1)
            .check(answered(hello)),
    );
    let fields = [
        ("answer-field-with-space-behind-name", "RFC 9112 5.1", "X-Odd : 1"),
        ("answer-field-name-no-token", "RFC 9110 5.1", "X(Odd): 1"),
        ("answer-field-name-empty", "RFC 9110 5.1", ": 1"),
        ("answer-field-without-colon", "RFC 9112 5", "junk"),
        ("answer-field-with-nul", "RFC 9110 5.5", "X-Odd: a\0b"),
        ("answer-field-with-bare-cr", "RFC 9110 5.5", "X-Odd: a\rSet-Cookie: evil=1"),
        ("answer-field-folded", "RFC 9112 5.2", "X-Odd: a\r\n Set-Cookie: evil=1"),
        ("answer-field-first-with-space", "RFC 9112 2.2", " X-Odd: 1"),
    ];
    for (name, rfc, field) in fields {
        let answer = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 5\r\n\r\nhello");
        cases.push(must(name, rfc).get("").ends(answer).answers(1).check(move |seen| {
            refused_or_hello(seen)?;
            demand(!seen.answer()?.fields.has("set-cookie"), || "split".into())
        }));
    }
    let endless =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 5\r\n\r\nhello", "y".repeat(1 << 20));
    cases.push(
        Case { level: Level::Should, ..must("answer-head-endless", "RFC 9110 5.4") }
            .get("")
            .ends(endless)
            .answers(1)
            .check(bad_gateway),
    );
    cases.push(
        must("answer-lines-ended-by-bare-lf", "RFC 9112 2.2")
            .get("")
            .ends("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello")
            .answers(1)
            .check(refused_or_hello),
    );
    cases
}
