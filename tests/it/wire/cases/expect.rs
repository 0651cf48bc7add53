//! Expect: 100-continue, and interim answers.

use crate::wire::case::{Case, Play, Step, must, ok, say, should};
use crate::wire::seen::{Seen, demand, passed, refused_or, same};

pub fn cases() -> Vec<Case> {
    let mut cases = continued();
    cases.extend(not_continued());
    cases.extend(interim());
    cases
}

fn hello(request: &crate::wire::message::Message) -> crate::wire::case::Verdict {
    same("the body", String::from_utf8_lossy(&request.body).into_owned(), "hello".into())
}

fn interims(seen: &Seen) -> Result<Vec<u16>, String> {
    let all = seen.all_answers()?;
    Ok(all.iter().filter(|answer| answer.is_interim()).map(|answer| answer.status()).collect())
}

/// What a client says that waits for a word before it sends five bytes.
const WAITS: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n";

fn continued() -> Vec<Case> {
    let waits = |name| must(name, "RFC 9110 10.1.1").post(WAITS, "");
    let told = |seen: &Seen| {
        passed(hello)(seen)?;
        demand(interims(seen)?.contains(&100), || "the client was not told to go on".into())
    };
    vec![
        waits("expect-is-answered")
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .answers(1)
            .check(told),
        waits("expect-is-answered-by-the-origin")
            .plays([say("HTTP/1.1 100 Continue\r\n\r\n"), Play::Body, say(ok("ok"))])
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .answers(1)
            .check(told),
        must("expect-in-capitals", "RFC 9110 10.1.1")
            .post("Content-Length: 5\r\nexpect: 100-CONTINUE\r\n", "")
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .answers(1)
            .check(told),
        must("expect-with-chunks", "RFC 9110 10.1.1")
            .post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "")
            .then(Step::Until(b"\r\n\r\n"))
            .send("5\r\nhello\r\n0\r\n\r\n")
            .answers(1)
            .check(told),
        must("expect-without-waiting", "RFC 9110 10.1.1")
            .post(WAITS, "hello")
            .answers(1)
            .check(passed(hello)),
        must("expect-without-a-body", "RFC 9110 10.1.1")
            .get("Expect: 100-continue\r\n")
            .answers(1)
            .check(refused_or(&[417], |request| same("the body", request.body.len(), 0))),
    ]
}

fn not_continued() -> Vec<Case> {
    vec![
        must("expect-of-an-old-version", "RFC 9110 10.1.1")
            .send(format!("POST /{{id}}/ HTTP/1.0\r\nHost: {{id}}.test\r\n{WAITS}\r\nhello"))
            .end()
            .check(|seen| {
                passed(hello)(seen)?;
                same("interim answers", interims(seen)?, vec![])
            }),
        must("expect-refused-by-the-origin", "RFC 9110 10.1.1")
            .post(WAITS, "")
            .plays([say("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"), Play::Hang])
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 401)),
        must("expect-refused-by-failing", "RFC 9110 10.1.1")
            .post(WAITS, "")
            .plays([
                say("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                Play::Close,
            ])
            .then(Step::Until(b"\r\n\r\n"))
            .answers(1)
            .check(|seen| demand(seen.answer()?.status() >= 400, || "it was refused".into())),
        must("expect-of-something-else", "RFC 9110 10.1.1")
            .post("Content-Length: 5\r\nExpect: a-miracle\r\n", "hello")
            .answers(1)
            .check(refused_or(&[417], hello)),
        must("expect-does-not-stick", "RFC 9110 10.1.1")
            .post(WAITS, "")
            .then(Step::Until(b"\r\n\r\n"))
            .send("hello")
            .get("")
            .answers(2)
            .check(|seen| {
                same("answers", seen.answers()?.len(), 2)?;
                demand(interims(seen)?.len() <= 1, || "once is enough".into())
            }),
    ]
}

fn interim() -> Vec<Case> {
    let final_one = |seen: &Seen| {
        let answer = seen.answer()?;
        same("the status", answer.status(), 200)?;
        same("the body", &answer.body[..], b"ok")
    };
    let after = |case: Case, interims: &str| {
        case.get("").says(format!("{interims}{}", ok("ok"))).answers(1)
    };
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n";
    vec![
        after(must("interim-100-unasked", "RFC 9110 15.2.1"), "HTTP/1.1 100 Continue\r\n\r\n")
            .check(final_one),
        after(must("interim-102", "RFC 9110 15.2"), "HTTP/1.1 102 Processing\r\n\r\n")
            .check(final_one),
        after(must("interim-103", "RFC 8297 2"), hints).check(final_one),
        after(must("interim-unknown", "RFC 9110 15.2"), "HTTP/1.1 199 Odd\r\nX: y\r\n\r\n")
            .check(final_one),
        after(must("interim-many", "RFC 9110 15.2"), &hints.repeat(20)).check(final_one),
        after(must("interim-103-is-passed-on", "RFC 9110 15.2"), hints)
            .departs("docs/decisions/0005-interim-answers.md")
            .check(|seen| same("interim answers", interims(seen)?, vec![103])),
        must("interim-to-an-old-version", "RFC 9110 15.2")
            .send("GET /{id}/ HTTP/1.0\r\nHost: {id}.test\r\n\r\n")
            .says(format!("{hints}{}", ok("ok")))
            .end()
            .check(move |seen| {
                final_one(seen)?;
                same("interim answers", interims(seen)?, vec![])
            }),
        must("interim-and-nothing-more", "RFC 9110 15.6.3")
            .get("")
            .ends(hints)
            .answers(1)
            .check(|seen| same("the status", seen.answer()?.status(), 502)),
        should("interim-and-silence", "RFC 9110 15.6.5")
            .get("")
            .plays([Play::Body, say(hints), Play::Hang])
            .hurried()
            .answers(1)
            .check(|seen| {
                demand(matches!(seen.answer()?.status(), 502 | 504), || "not told".into())
            }),
    ]
}
