//! Answers of an origin that speaks HTTP/2 and minds no rules, and what becomes of them.

use super::streams::{self, get, is_refused};
use crate::wire::case::{Case, Play, Step, Verdict, must, say};
use crate::wire::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PROMISE, RESET,
    SETTINGS, WINDOW, block, frame, preface, read,
};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, Side, bad_gateway, demand, same, visibly_cut};

pub fn cases() -> Vec<Case> {
    let mut cases = well_formed();
    cases.extend(heads());
    cases.extend(statuses());
    cases.extend(trailers());
    cases.extend(bodies());
    cases.extend(behind_a_length());
    cases.extend(broken_frames());
    cases.push(leaves());
    cases
}

/// A GET; the origin says this once it is asked, and stays.
fn gives(name: &'static str, rfc: &'static str, frames: &[Vec<u8>]) -> Case {
    let said = [settings(&[]), frames.concat()].concat();
    asked(name, rfc, said)
}

/// The same without what an origin has to say first.
fn asked(name: &'static str, rfc: &'static str, said: Vec<u8>) -> Case {
    let case = must(name, rfc).http2_origin().get("TE: trailers\r\nConnection: TE\r\n");
    case.plays([Play::Stream, say(said), Play::Hang]).answers(1)
}

/// The client is told that what the origin says is no HTTP.
fn is_malformed(seen: &Seen) -> Verdict {
    bad_gateway(seen)?;
    let says = seen.answer()?.fields.one("proxy-status").unwrap_or_default();
    demand(says.contains("error=http_protocol_error"), || format!("it says {says:?}"))
}

fn settings(payload: &[u8]) -> Vec<u8> {
    frame(SETTINGS, 0, 0, payload)
}

fn head(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, 1, &block(fields))
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

fn hello() -> [Vec<u8>; 2] {
    [head(0, &[OK]), data(0, b"hello")]
}

fn well_formed() -> Vec<Case> {
    let answered = |holds: fn(&Message) -> Verdict| {
        move |seen: &Seen| {
            let answer = seen.answer()?;
            same("status", answer.status(), 200)?;
            holds(&answer)
        }
    };
    let has_hello = answered(|answer| same("the body", &answer.body[..], b"hello"));
    let early = [(":status", "103"), ("link", "</a>")];
    let none = |name, frames: &[Vec<u8>]| {
        let case = gives(name, "RFC 9113 8.1", frames);
        case.check(|seen| same("status", seen.answer()?.status(), 204))
    };
    // `:status: 103` enters the table, and is said by its place there.
    let repeats = [&[0x48, 3][..], b"103", &[0xbe]];
    let indexed = |bytes: &[u8]| frame(HEADERS, END_HEADERS, 1, bytes);
    vec![
        gives("h2-origin-answer", "RFC 9113 8.1", &[&hello()[..1], &[data(1, b"hello")]].concat())
            .check(has_hello),
        gives(
            "h2-origin-trailers",
            "RFC 9113 8.1",
            &[
                head(0, &[OK, ("trailer", "x-check")]),
                data(0, b"hello"),
                head(END_STREAM, &[("x-check", "1")]),
            ],
        )
        .check(answered(|answer| {
            same("the body", &answer.body[..], b"hello")?;
            same("x-check", answer.trailers.one("x-check"), Some("1".into()))
        })),
        gives(
            "h2-origin-trailers-without-a-body",
            "RFC 9113 8.1",
            &[head(0, &[OK, ("trailer", "x-check")]), head(END_STREAM, &[("x-check", "1")])],
        )
        .check(answered(|answer| {
            same("x-check", answer.trailers.one("x-check"), Some("1".into()))
        })),
        none("h2-origin-head-alone", &[head(END_STREAM, &[(":status", "204")])]),
        none(
            "h2-origin-interim-heads-before",
            &[
                head(0, &[(":status", "100")]),
                head(0, &early),
                head(END_STREAM, &[(":status", "204")]),
            ],
        ),
        none(
            "h2-origin-interim-heads-by-their-place",
            &[
                indexed(&repeats[..2].concat()),
                indexed(repeats[2]),
                head(END_STREAM, &[(":status", "204")]),
            ],
        ),
    ]
}

fn heads() -> Vec<Case> {
    [
        ("h2-origin-name-in-capitals", "RFC 9113 8.2", ("X-Upper", "1")),
        ("h2-origin-name-with-space", "RFC 9113 8.2.1", ("x y", "1")),
        ("h2-origin-name-with-colon", "RFC 9113 8.2.1", ("x:y", "1")),
        ("h2-origin-name-empty", "RFC 9113 8.2.1", ("", "1")),
        ("h2-origin-value-with-line-end", "RFC 9113 8.2.1", ("x", "a\r\nb: c")),
        ("h2-origin-value-with-line-feed", "RFC 9113 8.2.1", ("x", "a\nb")),
        ("h2-origin-value-with-nul", "RFC 9113 8.2.1", ("x", "a\0b")),
        ("h2-origin-value-behind-a-space", "RFC 9113 8.2.1", ("x", " a")),
        ("h2-origin-value-before-a-tab", "RFC 9113 8.2.1", ("x", "a\t")),
        ("h2-origin-value-of-a-space", "RFC 9113 8.2.1", ("x", " ")),
        ("h2-origin-connection-field", "RFC 9113 8.2.2", ("connection", "close")),
        ("h2-origin-keep-alive-field", "RFC 9113 8.2.2", ("keep-alive", "timeout=5")),
        ("h2-origin-transfer-encoding-field", "RFC 9113 8.2.2", ("transfer-encoding", "chunked")),
        ("h2-origin-upgrade-field", "RFC 9113 8.2.2", ("upgrade", "h2c")),
        ("h2-origin-te-field", "RFC 9113 8.2.2", ("te", "trailers")),
        ("h2-origin-pseudo-field-of-requests", "RFC 9113 8.3", (":path", "/")),
        ("h2-origin-pseudo-method", "RFC 9113 8.3", (":method", "GET")),
        ("h2-origin-pseudo-authority", "RFC 9113 8.3", (":authority", "a")),
        ("h2-origin-pseudo-protocol", "RFC 8441 4", (":protocol", "websocket")),
        ("h2-origin-pseudo-field-unknown", "RFC 9113 8.3", (":x", "1")),
        ("h2-origin-length-with-plus", "RFC 9113 8.1.1", ("content-length", "+5")),
    ]
    .into_iter()
    .map(|(name, rfc, field)| {
        let frames = [head(0, &[OK, field]), data(END_STREAM, b"hello")];
        gives(name, rfc, &frames).check(is_malformed)
    })
    .collect()
}

fn statuses() -> Vec<Case> {
    let heads: [(&'static str, &[(&str, &str)]); 8] = [
        ("h2-origin-without-status", &[("x", "1")]),
        ("h2-origin-without-anything", &[]),
        ("h2-origin-status-twice", &[OK, (":status", "404")]),
        ("h2-origin-status-late", &[("x", "1"), OK]),
        ("h2-origin-status-too-short", &[(":status", "20")]),
        ("h2-origin-status-too-long", &[(":status", "2000")]),
        ("h2-origin-status-signed", &[(":status", "+20")]),
        ("h2-origin-status-empty", &[(":status", "")]),
    ];
    heads
        .into_iter()
        .map(|(name, fields)| {
            let frames = [head(0, fields), data(END_STREAM, b"hello")];
            gives(name, "RFC 9113 8.3.2", &frames).check(is_malformed)
        })
        .collect()
}

fn trailers() -> Vec<Case> {
    let with = |name, rfc, flags, fields: &[(&str, &str)]| {
        gives(name, rfc, &[&hello()[..], &[head(flags, fields)]].concat()).check(visibly_cut)
    };
    vec![
        with("h2-origin-status-in-trailers", "RFC 9113 8.1", END_STREAM, &[OK]),
        with("h2-origin-path-in-trailers", "RFC 9113 8.1", END_STREAM, &[(":path", "/")]),
        with(
            "h2-origin-pseudo-field-late-in-trailers",
            "RFC 9113 8.1",
            END_STREAM,
            &[("x-check", "1"), OK],
        ),
        with("h2-origin-trailers-without-end", "RFC 9113 8.1", 0, &[("x-check", "1")]),
        with("h2-origin-second-head", "RFC 9113 8.1", 0, &[OK]),
        with("h2-origin-interim-head-behind", "RFC 9113 8.1", 0, &[(":status", "100")]),
        with("h2-origin-trailer-in-capitals", "RFC 9113 8.2", END_STREAM, &[("X-Check", "1")]),
        with(
            "h2-origin-trailer-behind-a-space",
            "RFC 9113 8.2.1",
            END_STREAM,
            &[("x-check", " 1")],
        ),
        with(
            "h2-origin-connection-in-trailers",
            "RFC 9113 8.2.2",
            END_STREAM,
            &[("connection", "close")],
        ),
        gives(
            "h2-origin-status-in-trailers-without-a-body",
            "RFC 9113 8.1",
            &[head(0, &[OK]), head(END_STREAM, &[OK])],
        )
        .check(visibly_cut),
        gives(
            "h2-origin-interim-head-at-the-end",
            "RFC 9113 8.1",
            &[head(END_STREAM, &[(":status", "103")])],
        )
        .check(is_malformed),
    ]
}

fn bodies() -> Vec<Case> {
    let sized = |name, length, last: &[Vec<u8>]| {
        let head = [head(0, &[OK, ("content-length", length)])];
        gives(name, "RFC 9113 8.1.1", &[&head[..], last].concat()).check(visibly_cut)
    };
    vec![
        sized("h2-origin-body-longer-than-said", "4", &[data(END_STREAM, b"hello")]),
        sized("h2-origin-body-shorter-than-said", "6", &[data(END_STREAM, b"hello")]),
        sized("h2-origin-no-body-of-a-length", "6", &[head(END_STREAM, &[("x-check", "1")])]),
        gives(
            "h2-origin-length-and-no-body",
            "RFC 9113 8.1.1",
            &[head(END_STREAM, &[OK, ("content-length", "5")])],
        )
        .check(is_malformed),
        gives(
            "h2-origin-two-lengths",
            "RFC 9113 8.1.1",
            &[
                head(0, &[OK, ("content-length", "5"), ("content-length", "6")]),
                data(END_STREAM, b"hello"),
            ],
        )
        .check(is_malformed),
        gives(
            "h2-origin-body-given-up",
            "RFC 9113 8.1",
            &[hello().concat(), frame(RESET, 0, 1, &[0, 0, 0, 2])],
        )
        .check(visibly_cut),
        gives(
            "h2-origin-body-before-a-head",
            "RFC 9113 8.1",
            &[data(0, b"hello"), head(END_STREAM, &[OK])],
        )
        .check(is_malformed),
    ]
}

/// All bytes that were announced, and then something in place of the end.
fn behind_a_length() -> Vec<Case> {
    let answer = |length| head(0, &[OK, ("content-length", length)]);
    let trailers = |field: (&str, &str)| head(END_STREAM, &[field]);
    let bad = [
        ("h2-origin-length-then-more", "RFC 9113 8.1.1", data(END_STREAM, b"x")),
        ("h2-origin-length-then-reset", "RFC 9113 8.1", frame(RESET, 0, 1, &[0, 0, 0, 8])),
        ("h2-origin-length-then-error", "RFC 9113 8.1", frame(RESET, 0, 1, &[0, 0, 0, 2])),
        ("h2-origin-length-then-status-in-trailers", "RFC 9113 8.1", trailers(OK)),
        ("h2-origin-length-then-trailer-behind-a-space", "RFC 9113 8.2.1", trailers(("x", " 1"))),
    ];
    let good = [
        ("h2-origin-length-then-nothing", "RFC 9113 8.1.1", data(END_STREAM, b"")),
        ("h2-origin-length-then-trailers", "RFC 9113 8.1", trailers(("x", "1"))),
    ];
    let said = |last: Vec<u8>| [answer("5"), data(0, b"hello"), data(0, b""), last];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|(name, rfc, last)| gives(name, rfc, &said(last)).check(visibly_cut))
        .collect();
    cases.extend(good.into_iter().map(|(name, rfc, last)| {
        gives(name, rfc, &said(last))
            .check(|seen| same("the body", &seen.answer()?.body[..], b"hello"))
    }));
    let none = [answer("0"), data(END_STREAM, b"x")];
    cases.push(
        gives("h2-origin-length-of-nothing-then-more", "RFC 9113 8.1.1", &none).check(visibly_cut),
    );
    let none = [answer("0"), data(END_STREAM, b"")];
    cases.push(
        gives("h2-origin-length-of-nothing", "RFC 9113 8.1.1", &none)
            .check(|seen| same("status", seen.answer()?.status(), 200)),
    );
    let name = "h2-origin-length-then-trailer-behind-a-space-to-http2";
    let case = must(name, "RFC 9113 8.2.1").http2().http2_origin().send(preface());
    let said = [vec![settings(&[])], said(trailers(("x", " 1"))).to_vec()].concat().concat();
    cases.push(
        case.send(get(name, 1, &[]))
            .then(Step::Streams(1))
            .plays([Play::Stream, say(said), Play::Hang])
            .check(|seen| {
                let frames = read(&seen.near().bytes);
                let clean = frames.iter().any(|it| it.kind != RESET && it.ends_stream());
                demand(!clean && is_refused(seen), || "passed on as if it were whole".into())
            }),
    );
    cases
}

/// An origin that takes its leave, for everything but what it was asked before, once it is asked.
fn leaves() -> Case {
    let name = "h2-origin-that-leaves";
    let (all, none) = (0x7fff_ffff_u32.to_be_bytes(), [0; 4]);
    let leave = frame(GOAWAY, 0, 0, &[all, none].concat());
    let answer = head(END_STREAM, &[OK]);
    must(name, "RFC 9113 6.8")
        .http2()
        .http2_origin()
        .send([preface(), get(name, 1, &[]), get(name, 3, &[])].concat())
        .then(Step::Streams(2))
        .plays([
            Play::Stream,
            say([settings(&[]), leave].concat()),
            Play::Await("another connection"),
            say(answer.clone()),
            Play::Hang,
        ])
        .plays([
            Play::Stream,
            say([settings(&[]), answer].concat()),
            Play::Mark("another connection"),
            Play::Hang,
        ])
        .check(|seen| {
            let asked = |side: &Side| {
                let frames = side.bytes.get(PREFACE.len()..).map(read).unwrap_or_default();
                frames.iter().filter(|it| it.kind == HEADERS).count()
            };
            let asked: Vec<usize> = seen.origin.iter().map(asked).collect();
            same("requests over each connection", asked, vec![1, 1])?;
            same("answers", streams::statuses(seen), vec![200, 200])
        })
}

/// What breaks the connection, before an answer that could otherwise be taken.
fn broken_frames() -> Vec<Case> {
    let answer = [head(0, &[OK]), data(END_STREAM, b"hello")].concat();
    let mut cases: Vec<Case> = [
        ("h2-origin-data-on-the-connection", "RFC 9113 6.1", frame(DATA, 0, 0, b"x")),
        ("h2-origin-head-on-the-connection", "RFC 9113 6.2", frame(HEADERS, 5, 0, &block(&[OK]))),
        ("h2-origin-head-on-an-idle-stream", "RFC 9113 5.1", frame(HEADERS, 5, 7, &block(&[OK]))),
        (
            "h2-origin-malformed-head-on-an-idle-stream",
            "RFC 9113 5.1",
            frame(HEADERS, 5, 7, &block(&[OK, ("connection", "x")])),
        ),
        ("h2-origin-head-on-an-even-stream", "RFC 9113 5.1", frame(HEADERS, 5, 2, &block(&[OK]))),
        (
            "h2-origin-promise",
            "RFC 9113 6.6",
            frame(
                PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat(),
            ),
        ),
        ("h2-origin-settings-that-push", "RFC 9113 6.5.2", settings(&[0, 2, 0, 0, 0, 1])),
        ("h2-origin-window-beyond-all", "RFC 9113 6.5.2", settings(&[0, 4, 0x80, 0, 0, 0])),
        ("h2-origin-frames-below-all", "RFC 9113 6.5.2", settings(&[0, 5, 0, 0, 0x3f, 0xff])),
        ("h2-origin-settings-of-odd-size", "RFC 9113 6.5", settings(&[0; 5])),
        ("h2-origin-ping-of-odd-size", "RFC 9113 6.7", frame(PING, 0, 0, b"1234567")),
        ("h2-origin-window-of-zero", "RFC 9113 6.9", frame(WINDOW, 0, 0, &[0; 4])),
        ("h2-origin-frame-too-large", "RFC 9113 4.2", frame(PING, 0, 0, &[0; 16_385])),
        ("h2-origin-head-no-hpack", "RFC 9113 4.3", frame(HEADERS, 5, 1, &[0xff; 20])),
        (
            "h2-origin-continuation-of-nothing",
            "RFC 9113 6.10",
            frame(CONTINUATION, END_HEADERS, 1, &block(&[OK])),
        ),
    ]
    .into_iter()
    .map(|(name, rfc, broken)| gives(name, rfc, &[broken, answer.clone()]).check(is_malformed))
    .collect();
    cases.push(
        asked("h2-origin-without-settings", "RFC 9113 3.4", answer.clone()).check(is_malformed),
    );
    cases.push(
        asked("h2-origin-of-another-protocol", "RFC 9113 3.4", b"HTTP/1.1 200 OK\r\n\r\n".into())
            .check(|seen| {
                is_malformed(seen)?;
                demand(!seen.far().bytes.is_empty(), || "nobody was asked".into())
            }),
    );
    cases
}

const OK: (&str, &str) = (":status", "200");
