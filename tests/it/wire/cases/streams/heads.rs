//! Heads that are well formed, and what they become in HTTP/1.1.

use super::{begun, get, head, served, statuses};
use crate::wire::case::{Case, Step, must, should};
use crate::wire::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, block, frame, read,
};
use crate::wire::seen::{demand, same};

pub fn cases() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(frames());
    cases
}

fn fields() -> Vec<Case> {
    let name = "h2-request";
    let crumbs = "h2-cookie-crumbs";
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
        begun(must, "h2-options-of-the-server", "RFC 9113 8.3.1")
            .by_host()
            .send(head(
                END_STREAM,
                1,
                &[
                    (":method", "OPTIONS"),
                    (":scheme", "http"),
                    (":path", "*"),
                    (":authority", "h2-options-of-the-server.test"),
                ],
            ))
            .then(Step::Streams(1))
            .check(served(|request| same("line", &request.start[..], "OPTIONS * HTTP/1.1"))),
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
    ]
}

fn frames() -> Vec<Case> {
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
                let frames = read(&seen.near().bytes);
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
