//! Bodies arrive byte for byte, both ways, however they are framed.

use crate::wire::case::{Case, Play, Step, Verdict, must, ok, say};
use crate::wire::message::Message;
use crate::wire::seen::{demand, passed, same};

pub fn cases() -> Vec<Case> {
    let mut cases = sent();
    cases.extend(received());
    cases
}

/// Bytes of all values, without a pattern that a cut would leave in step.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

fn is_whole(message: &Message) -> Verdict {
    let expected = bytes(LARGE);
    same("bytes", message.body.len(), expected.len())?;
    demand(message.body == expected, || "bytes were changed".into())
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let mut out: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn sent() -> Vec<Case> {
    let post = |name, framing: String, body: Vec<u8>| {
        let head = format!("POST /{name}/ HTTP/1.1\r\nHost: {name}.test\r\n{framing}\r\n\r\n");
        must(name, "RFC 9110 7.7").send([head.into_bytes(), body].concat()).answers(1)
    };
    let coding = || "Transfer-Encoding: chunked".to_string();
    vec![
        post("large-request-with-length", format!("Content-Length: {LARGE}"), bytes(LARGE))
            .check(passed(is_whole)),
        post("large-request-in-large-chunks", coding(), chunked(&bytes(LARGE), 100_000))
            .check(passed(is_whole)),
        post("large-request-in-odd-chunks", coding(), chunked(&bytes(LARGE), 1_231))
            .check(passed(is_whole)),
        post(
            "request-that-looks-like-requests",
            "Content-Length: 54".into(),
            b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n0\r\n".to_vec(),
        )
        .check(passed(|request| same("bytes", request.body.len(), 54))),
    ]
}

fn received() -> Vec<Case> {
    let gives = |name, framing: String, body: Vec<u8>| {
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n");
        must(name, "RFC 9110 7.7").get("").ends([head.into_bytes(), body].concat()).answers(1)
    };
    let whole = |seen: &crate::wire::seen::Seen| is_whole(&seen.exchange()?.1);
    let coding = || "Transfer-Encoding: chunked\r\n".to_string();
    vec![
        gives("large-answer-with-length", format!("Content-Length: {LARGE}\r\n"), bytes(LARGE))
            .check(whole),
        gives("large-answer-in-large-chunks", coding(), chunked(&bytes(LARGE), 100_000))
            .check(whole),
        gives("large-answer-in-odd-chunks", coding(), chunked(&bytes(LARGE), 1_231)).check(whole),
        gives("large-answer-ended-by-closing", String::new(), bytes(LARGE)).check(whole),
        must("answer-flows-before-it-ends", "RFC 9110 7.6")
            .get("")
            .plays([
                Play::Body,
                say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
                Play::Await("seen"),
                say("4\r\nlast\r\n0\r\n\r\n"),
            ])
            .then(Step::Until(b"first"))
            .then(Step::Mark("seen"))
            .answers(1)
            .check(|seen| same("the body", &seen.exchange()?.1.body[..], b"firstlast")),
        must("request-flows-before-it-ends", "RFC 9110 7.6")
            .post("Transfer-Encoding: chunked\r\n", "5\r\nfirst\r\n")
            .plays([Play::Mark("begun"), Play::Body, say(ok("ok"))])
            .then(Step::Await("begun"))
            .send("4\r\nlast\r\n0\r\n\r\n")
            .answers(1)
            .check(passed(|request| same("the body", &request.body[..], b"firstlast"))),
    ]
}

/// More than the buffers on the way take in at once.
const LARGE: usize = 1 << 20;
