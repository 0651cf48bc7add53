//! Frames that break the protocol, and more of them than anybody needs.

use super::{METHOD, SCHEME, begun, ended, get, is_refused, refused, request};
use crate::wire::case::{Case, Play, Step, must, ok, say, should};
use crate::wire::frames::{
    CONTINUATION, DATA, END_STREAM, HEADERS, PING, PREFACE, RESET, SETTINGS, WINDOW, block, frame,
    preface, read,
};
use crate::wire::seen::{Seen, demand, same, untouched};

pub fn cases() -> Vec<Case> {
    let mut cases = broken_frames();
    cases.extend(floods());
    cases
}

fn broken_frames() -> Vec<Case> {
    let frames = [
        ("h2-data-on-an-idle-stream", "RFC 9113 5.1", frame(DATA, END_STREAM, 1, b"x")),
        ("h2-data-on-the-connection", "RFC 9113 6.1", frame(DATA, END_STREAM, 0, b"x")),
        ("h2-head-on-the-connection", "RFC 9113 6.2", frame(HEADERS, 5, 0, &block(&[METHOD]))),
        ("h2-head-on-an-even-stream", "RFC 9113 5.1.1", get("h2-head-on-an-even-stream", 2, &[])),
        (
            "h2-malformed-head-on-an-even-stream",
            "RFC 9113 5.1.1",
            get("h2-malformed-head-on-an-even-stream", 2, &[("connection", "x")]),
        ),
        (
            "h2-continuation-of-nothing",
            "RFC 9113 6.10",
            frame(CONTINUATION, 4, 1, &block(&[METHOD])),
        ),
        ("h2-settings-of-odd-size", "RFC 9113 6.5", frame(SETTINGS, 0, 0, &[0; 5])),
        ("h2-settings-on-a-stream", "RFC 9113 6.5", frame(SETTINGS, 0, 1, &[])),
        ("h2-ping-of-odd-size", "RFC 9113 6.7", frame(PING, 0, 0, b"1234567")),
        ("h2-window-of-zero", "RFC 9113 6.9", frame(WINDOW, 0, 0, &[0; 4])),
        ("h2-window-too-large", "RFC 9113 6.9.1", frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("h2-reset-of-an-idle-stream", "RFC 9113 6.4", frame(RESET, 0, 1, &[0; 4])),
        ("h2-frame-too-large", "RFC 9113 4.2", frame(PING, 0, 0, &[0; 16_385])),
        ("h2-head-no-hpack", "RFC 9113 4.3", frame(HEADERS, 5, 1, &[0xff; 20])),
        ("h2-padding-too-long", "RFC 9113 6.2", frame(HEADERS, 0x8 | 5, 1, &[200, 0x82])),
    ];
    let mut cases: Vec<Case> = frames
        .into_iter()
        .map(|(name, rfc, bytes)| {
            begun(must, name, rfc).send(bytes).end().check(move |seen| {
                untouched(seen)?;
                ended(seen)
            })
        })
        .collect();
    let other = get("h2-head-between-others", 3, &[]);
    let first = block(&[METHOD, SCHEME]);
    cases.push(
        begun(must, "h2-head-between-others", "RFC 9113 6.2")
            .send(frame(HEADERS, END_STREAM, 1, &first))
            .send(other)
            .end()
            .check(refused),
    );
    let name = "h2-without-settings";
    cases.push(
        must(name, "RFC 9113 3.4")
            .http2()
            .send(PREFACE)
            .send(get(name, 1, &[]))
            .then(Step::Streams(1))
            .check(|seen| {
                untouched(seen)?;
                ended(seen)
            }),
    );
    let name = "h2-stream-that-goes-back";
    cases.push(
        begun(must, name, "RFC 9113 5.1.1")
            .send(get(name, 5, &[]))
            .then(Step::Streams(1))
            .send(get(name, 3, &[]))
            .end()
            .check(|seen| {
                same("requests", seen.requests()?.len(), 1)?;
                ended(seen)
            }),
    );
    cases
}

fn floods() -> Vec<Case> {
    // Whatever becomes of the flood, somebody else is served.
    let beside = |case: Case| {
        let name = case.name;
        case.then(Step::Connect).send(preface()).send(get(name, 1, &[])).then(Step::Streams(1))
    };
    let other_served = |seen: &Seen| {
        let frames = seen.client.last().map(|side| read(&side.bytes)).unwrap_or_default();
        demand(frames.iter().any(|it| it.status() == Some(200)), || "nobody else is served".into())
    };
    let flood = |name, rfc, bytes: Vec<u8>| begun(should, name, rfc).send(bytes).then(Step::Linger);
    let endless: Vec<u8> = (0..400)
        .flat_map(|_| frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(4_000))])))
        .collect();
    let endless = [frame(HEADERS, END_STREAM, 1, &block(&[METHOD])), endless].concat();
    let resets: Vec<u8> = (0..2_000u32)
        .flat_map(|at| {
            let stream = 2 * at + 1;
            [get("h2-rapid-reset", stream, &[]), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let empty = request("h2-empty-data", "POST", 0, 1, &[]);
    let empty = [empty, frame(DATA, 0, 1, b"").repeat(50_000)].concat();
    vec![
        beside(flood("h2-head-without-end", "RFC 9113 10.5.1", endless)).check(move |seen| {
            demand(is_refused(seen), || "no end to it".into())?;
            other_served(seen)
        }),
        beside(flood("h2-rapid-reset", "RFC 9113 10.5", resets).plays([Play::Body, say(ok("ok"))]))
            .check(move |seen| {
                ended(seen)?;
                other_served(seen)
            }),
        beside(flood("h2-empty-data", "RFC 9113 10.5", empty)).check(other_served),
        beside(flood("h2-pings", "RFC 9113 10.5", frame(PING, 0, 0, b"12345678").repeat(50_000)))
            .check(other_served),
        beside(flood("h2-settings", "RFC 9113 10.5", frame(SETTINGS, 0, 0, &[]).repeat(50_000)))
            .check(other_served),
        beside(flood(
            "h2-streams-beyond-the-limit",
            "RFC 9113 5.1.2",
            (0..400)
                .flat_map(|at| request("h2-streams-beyond-the-limit", "POST", 0, 2 * at + 1, &[]))
                .collect(),
        ))
        .check(other_served),
    ]
}
