//! Connections: how long they last, the order of their answers, and what is never sent twice.

use crate::wire::case::{Case, Play, Step, must, ok, say, should};
use crate::wire::seen::{Seen, demand, passed, same};

pub fn cases() -> Vec<Case> {
    let mut cases = lasting();
    cases.extend(of_old_versions());
    cases.extend(in_order());
    cases.extend(in_pieces());
    cases.extend(pooled());
    cases.extend(unasked_bytes());
    cases.extend(early());
    cases
}

fn bodies(seen: &Seen) -> Result<Vec<String>, String> {
    let answers = seen.answers()?;
    Ok(answers.iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect())
}

fn lasting() -> Vec<Case> {
    vec![
        should("connection-lasts", "RFC 9112 9.3").get("").answers(1).get("").answers(2).check(
            |seen| {
                same("answers", seen.answers()?.len(), 2)?;
                demand(!seen.has_ended(), || "closed".into())
            },
        ),
        must("connection-close-is-heeded", "RFC 9112 9.6")
            .get("Connection: close\r\n")
            .end()
            .check(|seen| {
                demand(seen.has_ended(), || "left open".into())?;
                demand(seen.answer()?.closes(), || "the answer does not say so".into())
            }),
        must("connection-close-in-capitals", "RFC 9110 7.6.1")
            .get("CONNECTION: CLOSE\r\n")
            .end()
            .check(|seen| demand(seen.has_ended(), || "left open".into())),
        must("connection-close-in-a-list", "RFC 9110 7.6.1")
            .get("Connection: x, close\r\n")
            .end()
            .check(|seen| demand(seen.has_ended(), || "left open".into())),
        must("nothing-behind-connection-close", "RFC 9112 9.6")
            .get("Connection: close\r\n")
            .send("GET /{id}/smuggled HTTP/1.1\r\nHost: {id}.test\r\n\r\n")
            .end()
            .check(|seen| same("requests", seen.requests()?.len(), 1)),
    ]
}

fn of_old_versions() -> Vec<Case> {
    let old = |fields: &str| format!("GET /{{id}}/ HTTP/1.0\r\nHost: {{id}}.test\r\n{fields}\r\n");
    vec![
        must("old-version-closes", "RFC 9112 9.3").send(old("")).end().check(|seen| {
            passed(|_| Ok(()))(seen)?;
            demand(seen.has_ended(), || "left open".into())
        }),
        must("old-version-that-wants-to-stay", "RFC 9112 9.3")
            .send(old("Connection: keep-alive\r\n"))
            .answers(1)
            .check(|seen| {
                let answer = seen.answer()?;
                demand(seen.has_ended() || !answer.closes(), || "left open, not said".into())
            }),
        must("old-version-gets-no-chunks", "RFC 9112 6.1")
            .send(old(""))
            .says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .end()
            .check(|seen| {
                let answer = seen.answer()?;
                demand(!answer.fields.has("transfer-encoding"), || "chunked".into())?;
                same("the body", &answer.body[..], b"hello")
            }),
        left_after(
            "origin-that-closes-costs-nothing",
            "RFC 9112 9.6",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        ),
        left_after(
            "origin-of-an-old-version-is-left",
            "RFC 9112 9.3",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        should("connection-to-the-origin-is-kept", "RFC 9112 9.3")
            .get("")
            .answers(1)
            .get("")
            .answers(2)
            .check(|seen| same("connections to the origin", seen.origin.len(), 1)),
    ]
}

fn in_order() -> Vec<Case> {
    let ordered = |seen: &Seen| {
        same("bodies", bodies(seen)?, ["one", "two", "three"].map(String::from).to_vec())
    };
    let three = |case: Case| case.says(ok("one")).says(ok("two")).says(ok("three")).answers(3);
    vec![
        three(must("requests-in-one-go", "RFC 9112 9.3.2").get("").get("").get("")).check(ordered),
        three(
            must("requests-with-bodies-in-one-go", "RFC 9112 9.3.2")
                .post("Content-Length: 5\r\n", "hello")
                .post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")
                .get(""),
        )
        .check(move |seen| {
            ordered(seen)?;
            let lengths: Vec<usize> = seen.requests()?.iter().map(|it| it.body.len()).collect();
            same("bodies at the origin", lengths, vec![5, 5, 0])
        }),
        must("request-behind-a-bad-one", "RFC 9112 9.3.2")
            .get("")
            .send("GET /{id}/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            .send("GET /{id}/ HTTP/1.1\r\nHost: {id}.test\r\n\r\n")
            .answers(2)
            .check(|seen| {
                let codes: Vec<u16> = seen.answers()?.iter().map(|it| it.status()).collect();
                let first = codes.get(..2) == Some(&[200, 400][..]);
                demand(first, || format!("200 and 400 are expected first, not {codes:?}"))
            }),
        must("many-requests-in-one-go", "RFC 9112 9.3.2")
            .send("GET /{id}/ HTTP/1.1\r\nHost: {id}.test\r\n\r\n".repeat(20))
            .answers(20)
            .check(|seen| same("answers", seen.answers()?.len(), 20)),
    ]
}

fn in_pieces() -> Vec<Case> {
    let text = "POST /{id}/ HTTP/1.1\r\nHost: {id}.test\r\nContent-Length: 5\r\n\r\nhello";
    let bytes = must("request-byte-by-byte", "RFC 9112 2.2");
    let filled = text.replace("{id}", bytes.name);
    let single = filled.bytes().fold(bytes, |case, byte| case.send([byte]));
    vec![
        single.answers(1).check(passed(|request| same("bytes", request.body.len(), 5))),
        must("request-cut-inside-a-line-end", "RFC 9112 2.2")
            .send("GET /{id}/ HTTP/1.1\r")
            .send("\nHost: {id}.test\r\n\r")
            .send("\n")
            .answers(1)
            .check(passed(|_| Ok(()))),
        must("answer-byte-by-byte", "RFC 9112 2.2")
            .get("")
            .plays([Play::Body].into_iter().chain(ok("hello").bytes().map(|byte| say([byte]))))
            .answers(1)
            .check(|seen| same("bodies", bodies(seen)?, vec!["hello".into()])),
    ]
}

fn pooled() -> Vec<Case> {
    let post = "Content-Length: 3\r\n";
    let posts = |seen: &Seen| {
        let sent = seen.origin.iter().filter(|side| side.has("POST /")).count();
        same("times that the POST was sent", sent, 1)
    };
    vec![
        should("get-over-a-stale-connection", "RFC 9112 9.3.1")
            .get("")
            .says(ok("one"))
            .plays([Play::Close])
            .says(ok("two"))
            .answers(1)
            .get("")
            .answers(2)
            .check(|seen| same("bodies", bodies(seen)?, vec!["one".into(), "two".into()])),
        must("post-is-never-sent-twice", "RFC 9110 9.2.2")
            .get("")
            .says(ok("one"))
            .plays([Play::Body, Play::Close])
            .says(ok("two"))
            .answers(1)
            .post(post, "buy")
            .answers(2)
            .check(move |seen| {
                posts(seen)?;
                demand(seen.answers()?.last().is_some_and(|it| it.status() >= 500), || {
                    "the client must be told".into()
                })
            }),
        must("post-to-a-fresh-connection-is-never-sent-twice", "RFC 9110 9.2.2")
            .post(post, "buy")
            .plays([Play::Body, Play::Close])
            .says(ok("two"))
            .answers(1)
            .check(posts),
        must("post-that-is-answered-in-part-is-never-sent-twice", "RFC 9110 9.2.2")
            .post(post, "buy")
            .ends("HTTP/1.1 200 OK\r\nContent-Le")
            .answers(1)
            .check(posts),
    ]
}

fn unasked_bytes() -> Vec<Case> {
    vec![
        must("bytes-behind-an-answer-answer-nobody", "RFC 9112 9.2")
            .get("")
            .says(format!("{}{}", ok("one"), ok("forged")))
            .says(ok("two"))
            .answers(1)
            .then(Step::Left)
            .get("")
            .answers(2)
            .check(|seen| {
                same("answers", seen.answers()?.len(), 2)?;
                demand(!bodies(seen)?.contains(&"forged".into()), || "it was believed".into())
            }),
        must("bytes-on-an-idle-connection-answer-nobody", "RFC 9112 9.2")
            .get("")
            .plays([Play::Body, say(ok("one")), Play::Await("idle"), say(ok("forged"))])
            .says(ok("two"))
            .answers(1)
            .then(Step::Mark("idle"))
            .then(Step::Left)
            .get("")
            .answers(2)
            .check(|seen| {
                same("answers", seen.answers()?.len(), 2)?;
                demand(!bodies(seen)?.contains(&"forged".into()), || "it was believed".into())
            }),
        must("answer-before-the-request", "RFC 9112 9.2")
            .get("")
            .says(ok("one"))
            .answers(1)
            .then(Step::Connect)
            .get("")
            .answers(1)
            .check(|seen| same("bodies", bodies(seen)?, vec!["one".into(), "one".into()])),
    ]
}

fn early() -> Vec<Case> {
    let large = 4 << 20;
    let head = format!("Content-Length: {large}\r\n");
    let told = "HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    vec![
        must("early-answer-is-passed-on", "RFC 9112 9.3")
            .post(&head, "some")
            .plays([say(told), Play::Hang])
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 413)),
        must("body-behind-an-early-answer-is-no-request", "RFC 9112 9.3")
            .post("Content-Length: 200000\r\n", "some")
            .plays([say(told), Play::Hang])
            .answers(1)
            .send("GET /{id}/smuggled HTTP/1.1\r\nHost: {id}.test\r\nConnection: close\r\n\r\n")
            .send("x".repeat(100_000))
            .check(|seen| same("answers", seen.answers()?.len(), 1)),
        must("unread-body-is-no-request-at-the-origin", "RFC 9112 9.3")
            .post(&head, &"x".repeat(1 << 20))
            .plays([say(ok("early")), Play::Hang])
            .says(ok("two"))
            .answers(1)
            .then(Step::Connect)
            .get("")
            .answers(1)
            .check(|seen| same("bodies", bodies(seen)?, vec!["early".into(), "two".into()])),
    ]
}

/// The connection to an origin that answers like this carries no other request.
fn left_after(name: &'static str, rfc: &'static str, answer: &str) -> Case {
    must(name, rfc).get("").says(answer).answers(1).get("").answers(2).check(|seen| {
        same("answers", seen.answers()?.len(), 2)?;
        let busy = seen.origin.iter().filter(|side| !side.bytes.is_empty()).count();
        same("connections to the origin", busy, 2)
    })
}
