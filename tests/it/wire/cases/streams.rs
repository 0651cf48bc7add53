//! HTTP/2 from a client that minds no rules, and what becomes of it in HTTP/1.1.

use super::super::case::{Case, Play, Step, Verdict, must, ok, say, should};
use super::super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RESET, SETTINGS, WINDOW,
    block, frame, preface, read,
};
use super::super::message::Message;
use super::super::seen::{Seen, demand, same, untouched};

type Line = [(&'static str, String); 4];

pub fn cases() -> Vec<Case> {
    let mut cases = well_formed();
    cases.extend(malformed());
    cases.extend(bodies());
    cases.extend(broken_frames());
    cases.extend(floods());
    cases
}

fn line(name: &str, method: &'static str) -> Line {
    [
        (":method", method.into()),
        (":scheme", "http".into()),
        (":path", format!("/{name}/")),
        (":authority", format!("{name}.test")),
    ]
}

fn head(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// A request's head with more fields behind its line.
fn request(
    name: &str,
    method: &'static str,
    flags: u8,
    stream: u32,
    more: &[(&str, &str)],
) -> Vec<u8> {
    let line = line(name, method);
    let mut fields: Vec<(&str, &str)> =
        line.iter().map(|(key, value)| (*key, &value[..])).collect();
    fields.extend_from_slice(more);
    head(flags, stream, &fields)
}

fn get(name: &str, stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    request(name, "GET", END_STREAM, stream, more)
}

/// A case that says the preface first.
fn begun(
    level: fn(&'static str, &'static str) -> Case,
    name: &'static str,
    rfc: &'static str,
) -> Case {
    level(name, rfc).http2().send(preface())
}

/// The statuses of all answers.
fn statuses(seen: &Seen) -> Vec<u16> {
    seen.client.iter().flat_map(|side| read(&side.bytes)).filter_map(|it| it.status()).collect()
}

fn served(
    holds: impl Fn(&Message) -> Verdict + Send + Sync,
) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        same("statuses", statuses(seen), vec![200])?;
        holds(&seen.request()?)
    }
}

/// The stream or the connection ends with an error, or the answer is a 400; nobody hears of it.
fn refused(seen: &Seen) -> Verdict {
    untouched(seen)?;
    demand(is_refused(seen), || "it was not refused".into())
}

fn is_refused(seen: &Seen) -> bool {
    let side = &seen.client[0];
    let frames = read(&side.bytes);
    let error = frames.iter().any(|it| it.error().is_some_and(|code| code != 0));
    let told = frames
        .iter()
        .filter_map(|it| it.status())
        .any(|status| (400..500).contains(&status) && status != 404);
    error || told || side.end.is_some()
}

/// The connection ends with an error.
fn ended(seen: &Seen) -> Verdict {
    let side = &seen.client[0];
    let said = read(&side.bytes).iter().any(|it| it.kind == GOAWAY && it.error() != Some(0));
    demand(said || side.end.is_some(), || "the connection goes on".into())
}

fn well_formed() -> Vec<Case> {
    let name = "h2-request";
    let crumbs = "h2-cookie-crumbs";
    let mut split = get("h2-head-in-pieces", 1, &[("x-test", "1")]);
    let rest = split.split_off(9 + 10);
    split =
        [frame(HEADERS, END_STREAM, 1, &split[9..]), frame(CONTINUATION, END_HEADERS, 1, &rest)]
            .concat();
    let padded = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/h2-padded-head/"),
        (":authority", "a"),
    ]);
    let padded = [&[3u8][..], &padded, &[0, 0, 0]].concat();
    vec![
        begun(must, name, "RFC 9113 8.3.1").send(get(name, 1, &[])).then(Step::Streams(1)).check(
            served(|request| {
                same("line", &request.start[..], "GET /h2-request/ HTTP/1.1")?;
                same("host", request.fields.one("host"), Some("h2-request.test".into()))
            }),
        ),
        begun(must, "h2-via-names-the-version", "RFC 9110 7.6.3")
            .send(get("h2-via-names-the-version", 1, &[]))
            .then(Step::Streams(1))
            .check(served(|request| {
                let via = request.fields.list("via").pop().unwrap_or_default();
                demand(via.starts_with("2 ") || via.starts_with("2.0 "), || format!("Via: {via}"))
            })),
        begun(must, crumbs, "RFC 9113 8.2.3")
            .send(get(crumbs, 1, &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]))
            .then(Step::Streams(1))
            .check(served(|request| {
                same("cookie", request.fields.one("cookie"), Some("a=b; c=d".into()))
            })),
        begun(must, "h2-te-trailers", "RFC 9113 8.2.2")
            .send(get("h2-te-trailers", 1, &[("te", "trailers")]))
            .then(Step::Streams(1))
            .check(served(|_| Ok(()))),
        begun(must, "h2-host-without-authority", "RFC 9113 8.3.1")
            .send(head(
                END_STREAM,
                1,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/h2-host-without-authority/"),
                    ("host", "h2-host-without-authority.test"),
                ],
            ))
            .then(Step::Streams(1))
            .check(served(|request| {
                same(
                    "host",
                    request.fields.one("host"),
                    Some("h2-host-without-authority.test".into()),
                )
            })),
        begun(must, "h2-head-in-pieces", "RFC 9113 6.10").send(split).then(Step::Streams(1)).check(
            served(|request| same("x-test", request.fields.one("x-test"), Some("1".into()))),
        ),
        begun(must, "h2-padded-head", "RFC 9113 6.2")
            .send(frame(HEADERS, 0x8 | END_STREAM | END_HEADERS, 1, &padded))
            .then(Step::Streams(1))
            .check(served(|_| Ok(()))),
        begun(must, "h2-unknown-frame", "RFC 9113 4.1")
            .send(frame(0xbe, 0xff, 0, b"whatever"))
            .send(frame(SETTINGS, 0, 0, &[0x7e, 0x57, 0, 0, 0, 1]))
            .send(get("h2-unknown-frame", 1, &[]))
            .then(Step::Streams(1))
            .check(served(|_| Ok(()))),
        begun(must, "h2-ping-is-answered", "RFC 9113 6.7")
            .send(frame(PING, 0, 0, b"12345678"))
            .send(get("h2-ping-is-answered", 1, &[]))
            .then(Step::Streams(1))
            .check(|seen| {
                let frames = read(&seen.client[0].bytes);
                let back = frames
                    .iter()
                    .any(|it| it.kind == PING && it.flags == 1 && it.payload == b"12345678");
                demand(back, || "no answer to the ping".into())
            }),
        begun(must, "h2-many-at-once", "RFC 9113 5.1")
            .send(
                (0..20).flat_map(|at| get("h2-many-at-once", 2 * at + 1, &[])).collect::<Vec<u8>>(),
            )
            .then(Step::Streams(20))
            .check(|seen| same("statuses", statuses(seen), vec![200; 20])),
        begun(should, "h2-connection-fields-of-the-origin", "RFC 9113 8.2.2")
            .send(get("h2-connection-fields-of-the-origin", 1, &[]))
            .says(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nX-Hop: zzz\r\n\
                   Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            )
            .then(Step::Streams(1))
            .check(served(|_| Ok(()))),
    ]
}

fn malformed() -> Vec<Case> {
    let with = |name: &'static str, rfc, field: (&str, &str)| {
        begun(must, name, rfc).send(get(name, 1, &[field])).then(Step::Streams(1)).check(refused)
    };
    let mut cases: Vec<Case> = [
        ("h2-name-in-capitals", "RFC 9113 8.2", ("X-Upper", "1")),
        ("h2-name-with-space", "RFC 9113 8.2.1", ("x y", "1")),
        ("h2-name-with-colon", "RFC 9113 8.2.1", ("x:y", "1")),
        ("h2-name-with-line-end", "RFC 9113 8.2.1", ("x\r\nsmuggled", "1")),
        ("h2-name-empty", "RFC 9113 8.2.1", ("", "1")),
        ("h2-value-with-line-end", "RFC 9113 8.2.1", ("x", "a\r\nHost: smuggled")),
        ("h2-value-with-line-feed", "RFC 9113 8.2.1", ("x", "a\nb: c")),
        ("h2-value-with-return", "RFC 9113 8.2.1", ("x", "a\rb")),
        ("h2-value-with-nul", "RFC 9113 8.2.1", ("x", "a\0b")),
        ("h2-connection-field", "RFC 9113 8.2.2", ("connection", "close")),
        ("h2-keep-alive-field", "RFC 9113 8.2.2", ("keep-alive", "5")),
        ("h2-proxy-connection-field", "RFC 9113 8.2.2", ("proxy-connection", "x")),
        ("h2-transfer-encoding-field", "RFC 9113 8.2.2", ("transfer-encoding", "chunked")),
        ("h2-upgrade-field", "RFC 9113 8.2.2", ("upgrade", "websocket")),
        ("h2-te-gzip", "RFC 9113 8.2.2", ("te", "gzip")),
        ("h2-pseudo-field-unknown", "RFC 9113 8.3", (":x", "1")),
        ("h2-pseudo-field-of-answers", "RFC 9113 8.3", (":status", "200")),
        ("h2-path-twice", "RFC 9113 8.3", (":path", "/other")),
        ("h2-method-twice", "RFC 9113 8.3", (":method", "GET")),
        ("h2-length-without-a-body", "RFC 9113 8.1.1", ("content-length", "7")),
        ("h2-length-with-plus", "RFC 9113 8.1.1", ("content-length", "+0")),
        ("h2-host-against-authority", "RFC 9113 8.3.1", ("host", "other.test")),
    ]
    .into_iter()
    .map(|(name, rfc, field)| with(name, rfc, field))
    .collect();
    let lines: [(&'static str, &'static str, [(&str, &str); 4]); 13] = [
        ("h2-without-method", "RFC 9113 8.3.1", [("", ""), SCHEME, PATH, HOST]),
        ("h2-without-scheme", "RFC 9113 8.3.1", [METHOD, ("", ""), PATH, HOST]),
        ("h2-without-path", "RFC 9113 8.3.1", [METHOD, SCHEME, ("", ""), HOST]),
        ("h2-path-empty", "RFC 9113 8.3.1", [METHOD, SCHEME, (":path", ""), HOST]),
        ("h2-path-without-slash", "RFC 9113 8.3.1", [METHOD, SCHEME, (":path", "x"), HOST]),
        ("h2-path-with-space", "RFC 9113 8.3.1", [METHOD, SCHEME, (":path", "/a HTTP/1.1"), HOST]),
        (
            "h2-path-with-line-end",
            "RFC 9113 8.3.1",
            [METHOD, SCHEME, (":path", "/a\r\nx: y"), HOST],
        ),
        ("h2-path-with-fragment", "RFC 9113 8.3.1", [METHOD, SCHEME, (":path", "/a#b"), HOST]),
        (
            "h2-method-with-space",
            "RFC 9113 8.3.1",
            [(":method", "GET / HTTP/1.1"), SCHEME, PATH, HOST],
        ),
        (
            "h2-method-with-line-end",
            "RFC 9113 8.3.1",
            [(":method", "GET\r\nx: y"), SCHEME, PATH, HOST],
        ),
        ("h2-authority-with-user", "RFC 9113 8.3.1", [METHOD, SCHEME, PATH, (":authority", "u@a")]),
        (
            "h2-authority-with-line-end",
            "RFC 9113 8.3.1",
            [METHOD, SCHEME, PATH, (":authority", "a\r\nx: y")],
        ),
        ("h2-authority-with-path", "RFC 9113 8.3.1", [METHOD, SCHEME, PATH, (":authority", "a/b")]),
    ];
    for (name, rfc, line) in lines {
        let path = format!("/{name}/");
        let fields: Vec<(&str, String)> = line
            .into_iter()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key, value.replacen("/", &path, 1)))
            .collect();
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(key, value)| (*key, &value[..])).collect();
        let case = begun(must, name, rfc).send(head(END_STREAM, 1, &fields));
        let case = case.then(Step::Streams(1)).check(refused);
        cases.push(if path_has_fragment(&fields) { case.departs(RECORD) } else { case });
    }
    let late = [METHOD, SCHEME, ("x", "y"), (":path", "/h2-pseudo-field-late/"), HOST];
    cases.push(
        begun(must, "h2-pseudo-field-late", "RFC 9113 8.3")
            .send(head(END_STREAM, 1, &late))
            .then(Step::Streams(1))
            .check(refused),
    );
    let connect = [(":method", "CONNECT"), (":authority", "h2-connect.test:80")];
    cases.push(
        begun(must, "h2-connect", "RFC 9113 8.5")
            .send(head(END_STREAM, 1, &connect))
            .then(Step::Streams(1))
            .check(refused),
    );
    cases
}

fn path_has_fragment(fields: &[(&str, &str)]) -> bool {
    fields.iter().any(|(key, value)| *key == ":path" && value.contains('#'))
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const HOST: (&str, &str) = (":authority", "a");

fn bodies() -> Vec<Case> {
    let post = |name: &'static str, rfc, more: &[(&str, &str)], frames: &[Vec<u8>]| {
        let head = request(name, "POST", 0, 1, more);
        begun(must, name, rfc).send(head).send(frames.concat()).then(Step::Streams(1))
    };
    let hello = || served(|request| same("the body", &request.body[..], b"hello"));
    let not_whole = |seen: &Seen| {
        same("whole requests at the origin", seen.requests()?.len(), 0)?;
        demand(is_refused(seen), || "it was not refused".into())
    };
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let cut = |name: &'static str, answer: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
        begun(must, name, "RFC 9113 8.1")
            .send(get(name, 1, &[]))
            .ends(answer)
            .then(Step::Streams(1))
            .check(|seen| {
                let frames = read(&seen.client[0].bytes);
                let clean = frames.iter().any(|it| it.kind != RESET && it.ends_stream());
                let failed = statuses(seen).first().is_some_and(|status| *status >= 500);
                demand(!clean || failed, || "the client takes a part for the whole".into())
            })
    };
    vec![
        post("h2-body", "RFC 9113 8.1", &[], &[data(0, b"hel"), data(END_STREAM, b"lo")])
            .check(hello()),
        post(
            "h2-body-with-length",
            "RFC 9113 8.1.1",
            &[("content-length", "5")],
            &[data(END_STREAM, b"hello")],
        )
        .check(hello()),
        post("h2-body-padded", "RFC 9113 6.1", &[], &[data(0x8 | END_STREAM, b"\x02hello\0\0")])
            .check(hello()),
        post(
            "h2-body-ended-by-nothing",
            "RFC 9113 6.1",
            &[],
            &[data(0, b"hello"), data(END_STREAM, b"")],
        )
        .check(hello()),
        post(
            "h2-body-longer-than-said",
            "RFC 9113 8.1.1",
            &[("content-length", "4")],
            &[data(END_STREAM, b"hello")],
        )
        .check(not_whole),
        post(
            "h2-body-shorter-than-said",
            "RFC 9113 8.1.1",
            &[("content-length", "6")],
            &[data(END_STREAM, b"hello")],
        )
        .check(not_whole),
        post(
            "h2-two-lengths",
            "RFC 9113 8.1.1",
            &[("content-length", "5"), ("content-length", "6")],
            &[data(END_STREAM, b"hello")],
        )
        .check(not_whole),
        post(
            "h2-body-given-up",
            "RFC 9113 8.1",
            &[],
            &[data(0, b"hello"), frame(RESET, 0, 1, &[0, 0, 0, 8])],
        )
        .then(Step::Left)
        .check(|seen| same("whole requests at the origin", seen.requests()?.len(), 0)),
        post(
            "h2-trailers",
            "RFC 9113 8.1",
            &[],
            &[data(0, b"hello"), head(END_STREAM, 1, &[("x-check", "1")])],
        )
        .check(served(|request| {
            same("the body", &request.body[..], b"hello")?;
            demand(!request.fields.has("x-check"), || "merged into the head".into())
        })),
        post(
            "h2-trailers-that-frame",
            "RFC 9110 6.5.1",
            &[],
            &[data(0, b"hello"), head(END_STREAM, 1, &[("host", "evil"), ("authorization", "x")])],
        )
        .check(move |seen| {
            if not_whole(seen).is_ok() {
                return Ok(());
            }
            let trailers = seen.request()?.trailers;
            demand(!trailers.has("host") && !trailers.has("authorization"), || "kept".into())
        }),
        post(
            "h2-trailers-with-a-pseudo-field",
            "RFC 9113 8.1",
            &[],
            &[data(0, b"hello"), head(END_STREAM, 1, &[(":path", "/x")])],
        )
        .departs(RECORD)
        .check(not_whole),
        post(
            "h2-trailers-without-end",
            "RFC 9113 8.1",
            &[],
            &[data(0, b"hello"), head(0, 1, &[("x-check", "1")])],
        )
        .check(not_whole),
        cut("h2-answer-cut-before-its-length", "Content-Length: 100\r\n\r\nhello"),
        cut("h2-answer-cut-between-chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ]
}

fn broken_frames() -> Vec<Case> {
    let frames = [
        ("h2-data-on-an-idle-stream", "RFC 9113 5.1", frame(DATA, END_STREAM, 1, b"x")),
        ("h2-data-on-the-connection", "RFC 9113 6.1", frame(DATA, END_STREAM, 0, b"x")),
        ("h2-head-on-the-connection", "RFC 9113 6.2", frame(HEADERS, 5, 0, &block(&[METHOD]))),
        ("h2-head-on-an-even-stream", "RFC 9113 5.1.1", get("h2-head-on-an-even-stream", 2, &[])),
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

/// What the parser decides before the proxy is asked.
const RECORD: &str = "docs/decisions/0007-what-the-parser-decides.md";
