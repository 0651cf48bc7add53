//! Bodies and trailers over HTTP/2, whole and not.

use super::{begun, get, head, is_refused, request, served, statuses};
use crate::wire::case::{Case, Play, Step, Verdict, must};
use crate::wire::frames::{DATA, END_STREAM, RESET, frame, read};
use crate::wire::seen::{Seen, demand, same};

pub fn cases() -> Vec<Case> {
    let mut cases = whole();
    cases.extend(not_whole());
    cases.extend(behind_a_length());
    cases.extend(trailers());
    cases.extend(cut());
    cases
}

/// A POST with these fields and what follows its head.
fn post(name: &'static str, rfc: &'static str, more: &[(&str, &str)], frames: &[Vec<u8>]) -> Case {
    let head = request(name, "POST", 0, 1, more);
    begun(must, name, rfc).send(head).send(frames.concat()).then(Step::Streams(1))
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

fn is_not_whole(seen: &Seen) -> Verdict {
    same("whole requests at the origin", seen.requests()?.len(), 0)?;
    demand(is_refused(seen), || "it was not refused".into())
}

fn whole() -> Vec<Case> {
    let length: &[(&str, &str)] = &[("content-length", "5")];
    [
        ("h2-body", "RFC 9113 8.1", &[][..], vec![data(0, b"hel"), data(END_STREAM, b"lo")]),
        ("h2-body-with-length", "RFC 9113 8.1.1", length, vec![data(END_STREAM, b"hello")]),
        ("h2-body-padded", "RFC 9113 6.1", &[], vec![data(0x8 | END_STREAM, b"\x02hello\0\0")]),
        (
            "h2-body-ended-by-nothing",
            "RFC 9113 6.1",
            &[],
            vec![data(0, b"hello"), data(END_STREAM, b"")],
        ),
        (
            "h2-body-with-length-ended-by-nothing",
            "RFC 9113 8.1.1",
            length,
            vec![data(0, b"hello"), data(0, b""), data(END_STREAM, b"")],
        ),
        (
            "h2-body-with-length-ended-by-trailers",
            "RFC 9113 8.1",
            length,
            vec![data(0, b"hel"), data(0, b"lo"), head(END_STREAM, 1, &[("x-check", "1")])],
        ),
    ]
    .into_iter()
    .map(|(name, rfc, more, frames)| {
        let holds = served(|request| same("the body", &request.body[..], b"hello"));
        post(name, rfc, more, &frames).check(holds)
    })
    .collect()
}

fn not_whole() -> Vec<Case> {
    let lengths: [(&'static str, &[(&str, &str)]); 3] = [
        ("h2-body-longer-than-said", &[("content-length", "4")]),
        ("h2-body-shorter-than-said", &[("content-length", "6")]),
        ("h2-two-lengths", &[("content-length", "5"), ("content-length", "6")]),
    ];
    let body = [data(END_STREAM, b"hello")];
    let mut cases: Vec<Case> = lengths
        .into_iter()
        .map(|(name, more)| post(name, "RFC 9113 8.1.1", more, &body).check(is_not_whole))
        .collect();
    cases.push(
        begun(must, "h2-body-given-up", "RFC 9113 8.1")
            .send(request("h2-body-given-up", "POST", 0, 1, &[]))
            .send(data(0, b"hello"))
            .then(Step::Await("begun"))
            .send(frame(RESET, 0, 1, &[0, 0, 0, 8]))
            .plays([Play::Mark("begun"), Play::Body])
            .then(Step::Left)
            .check(|seen| {
                same("whole requests at the origin", seen.requests()?.len(), 0)?;
                let left = seen.origin.iter().all(|side| side.end.is_some());
                demand(!seen.near().bytes.is_empty() && left, || "the origin is not told".into())
            }),
    );
    cases
}

/// All bytes that were announced, and then something in place of the end.
fn behind_a_length() -> Vec<Case> {
    let trailers = |field: (&str, &str)| head(END_STREAM, 1, &[field]);
    let mut cases: Vec<Case> = [
        ("h2-length-then-more", "RFC 9113 8.1.1", data(END_STREAM, b"x")),
        ("h2-length-then-path-in-trailers", "RFC 9113 8.1", trailers((":path", "/x"))),
        ("h2-length-then-trailer-behind-a-space", "RFC 9113 8.2.1", trailers(("x-check", " 1"))),
    ]
    .into_iter()
    .map(|(name, rfc, last)| {
        let more = [("content-length", "5")];
        post(name, rfc, &more, &[data(0, b"hello"), last]).check(is_not_whole)
    })
    .collect();
    let nothing = [("content-length", "0")];
    cases.push(
        post("h2-length-of-nothing-then-more", "RFC 9113 8.1.1", &nothing, &[data(0, b"x")])
            .check(is_not_whole),
    );
    cases.push(
        post("h2-length-of-nothing", "RFC 9113 8.1.1", &nothing, &[data(END_STREAM, b"")])
            .check(served(|request| same("the body", &request.body[..], b""))),
    );
    let name = "h2-length-then-reset";
    let post = request(name, "POST", 0, 1, &[("content-length", "5")]);
    let sent = [post, data(0, b"hello"), frame(RESET, 0, 1, &[0, 0, 0, 8])].concat();
    let case = begun(must, name, "RFC 9113 8.1").send(sent).then(Step::Left);
    cases.push(case.check(|seen| {
        same("whole requests at the origin", seen.requests()?.len(), 0)?;
        demand(seen.far().end.is_some(), || "the origin is not left".into())
    }));
    cases
}

fn trailers() -> Vec<Case> {
    let with = |name, rfc, flags, fields: &[(&str, &str)]| {
        post(name, rfc, &[], &[data(0, b"hello"), head(flags, 1, fields)])
    };
    let plain = [("x-check", "1")];
    vec![
        with("h2-trailers", "RFC 9113 8.1", END_STREAM, &plain).check(served(|request| {
            same("the body", &request.body[..], b"hello")?;
            demand(!request.fields.has("x-check"), || "merged into the head".into())
        })),
        with(
            "h2-trailers-that-frame",
            "RFC 9110 6.5.1",
            END_STREAM,
            &[("host", "evil"), ("authorization", "x")],
        )
        .check(|seen| {
            if is_not_whole(seen).is_ok() {
                return Ok(());
            }
            let trailers = seen.request()?.trailers;
            demand(!trailers.has("host") && !trailers.has("authorization"), || "kept".into())
        }),
        with("h2-trailers-with-a-pseudo-field", "RFC 9113 8.1", END_STREAM, &[(":path", "/x")])
            .check(is_not_whole),
        with("h2-trailer-behind-a-space", "RFC 9113 8.2.1", END_STREAM, &[("x-check", " 1")])
            .check(is_not_whole),
        with("h2-trailers-without-end", "RFC 9113 8.1", 0, &plain).check(is_not_whole),
    ]
}

fn cut() -> Vec<Case> {
    [
        ("h2-answer-cut-before-its-length", "Content-Length: 100\r\n\r\nhello"),
        ("h2-answer-cut-between-chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ]
    .into_iter()
    .map(|(name, answer)| {
        let case = begun(must, name, "RFC 9113 8.1").send(get(name, 1, &[]));
        let case = case.ends(format!("HTTP/1.1 200 OK\r\n{answer}")).then(Step::Streams(1));
        case.check(|seen| {
            let frames = read(&seen.near().bytes);
            let clean = frames.iter().any(|it| it.kind != RESET && it.ends_stream());
            let failed = statuses(seen).first().is_some_and(|status| *status >= 500);
            demand(failed || (!clean && is_refused(seen)), || {
                "the client takes a part for the whole".into()
            })
        })
    })
    .collect()
}
