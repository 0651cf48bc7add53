//! Heads that are malformed: refused, and told to nobody.

use super::{HOST, METHOD, PATH, SCHEME, begun, get, head, refused};
use crate::wire::case::{Case, Step, must, should};
use crate::wire::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, block, frame};

pub fn cases() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(lines());
    cases
}

fn fields() -> Vec<Case> {
    let with = |level: fn(_, _) -> Case, name: &'static str, rfc, field: (&str, &str)| {
        begun(level, name, rfc).send(get(name, 1, &[field])).then(Step::Streams(1)).check(refused)
    };
    [
        ("h2-name-in-capitals", "RFC 9113 8.2", ("X-Upper", "1")),
        ("h2-name-with-space", "RFC 9113 8.2.1", ("x y", "1")),
        ("h2-name-with-colon", "RFC 9113 8.2.1", ("x:y", "1")),
        ("h2-name-with-line-end", "RFC 9113 8.2.1", ("x\r\nsmuggled", "1")),
        ("h2-name-empty", "RFC 9113 8.2.1", ("", "1")),
        ("h2-value-with-line-end", "RFC 9113 8.2.1", ("x", "a\r\nHost: smuggled")),
        ("h2-value-with-line-feed", "RFC 9113 8.2.1", ("x", "a\nb: c")),
        ("h2-value-with-return", "RFC 9113 8.2.1", ("x", "a\rb")),
        ("h2-value-with-nul", "RFC 9113 8.2.1", ("x", "a\0b")),
        ("h2-value-behind-a-space", "RFC 9113 8.2.1", ("x", " a")),
        ("h2-value-before-a-tab", "RFC 9113 8.2.1", ("x", "a\t")),
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
        ("h2-length-empty", "RFC 9113 8.1.1", ("content-length", "")),
        ("h2-length-with-plus", "RFC 9113 8.1.1", ("content-length", "+0")),
    ]
    .into_iter()
    .map(|(name, rfc, field)| with(must, name, rfc, field))
    .chain([with(should, "h2-host-against-authority", "RFC 9113 8.3.1", ("host", "other.test"))])
    .collect()
}

/// Heads in two frames, the first of which ends within a field.
fn in_pieces() -> Vec<Case> {
    let fields: [(&'static str, &[(&str, &str)]); 4] = [
        ("h2-connection-field-in-pieces", &[("connection", "close")]),
        ("h2-te-gzip-in-pieces", &[("te", "gzip")]),
        ("h2-path-twice-in-pieces", &[(":path", "/other")]),
        ("h2-name-empty-in-pieces", &[("", "a")]),
    ];
    let pieces = |name: &'static str, fields: &[(&str, &str)]| {
        let path = format!("/{name}/");
        let head = [METHOD, SCHEME, (":path", &path[..]), HOST];
        let whole = block(&[&head[..], fields, &[("x-cut", "here")]].concat());
        let (first, rest) = whole.split_at(whole.len() - 2);
        let first = frame(HEADERS, END_STREAM, 1, first);
        [first, frame(CONTINUATION, END_HEADERS, 1, rest)].concat()
    };
    fields
        .into_iter()
        .map(|(name, fields)| {
            let case = begun(must, name, "RFC 9113 8.1.1").send(pieces(name, fields));
            case.then(Step::Streams(1)).check(refused)
        })
        .collect()
}

fn lines() -> Vec<Case> {
    let lines: [(&'static str, [(&str, &str); 4]); 17] = [
        ("h2-without-method", [("", ""), SCHEME, PATH, HOST]),
        ("h2-without-scheme", [METHOD, ("", ""), PATH, HOST]),
        ("h2-without-path", [METHOD, SCHEME, ("", ""), HOST]),
        ("h2-path-empty", [METHOD, SCHEME, (":path", ""), HOST]),
        ("h2-path-without-slash", [METHOD, SCHEME, (":path", "x"), HOST]),
        ("h2-path-with-space", [METHOD, SCHEME, (":path", "/a HTTP/1.1"), HOST]),
        ("h2-path-with-line-end", [METHOD, SCHEME, (":path", "/a\r\nx: y"), HOST]),
        ("h2-path-with-fragment", [METHOD, SCHEME, (":path", "/a#b"), HOST]),
        ("h2-path-of-options", [METHOD, SCHEME, (":path", "*"), HOST]),
        ("h2-path-of-a-query", [METHOD, SCHEME, (":path", "?h2-path-of-a-query"), HOST]),
        ("h2-scheme-empty", [METHOD, (":scheme", ""), PATH, ("host", "a")]),
        ("h2-scheme-with-space", [METHOD, (":scheme", "ht tp"), PATH, HOST]),
        ("h2-method-with-space", [(":method", "GET / HTTP/1.1"), SCHEME, PATH, HOST]),
        ("h2-method-with-line-end", [(":method", "GET\r\nx: y"), SCHEME, PATH, HOST]),
        ("h2-authority-with-user", [METHOD, SCHEME, PATH, (":authority", "u@a")]),
        ("h2-authority-with-line-end", [METHOD, SCHEME, PATH, (":authority", "a\r\nx: y")]),
        ("h2-authority-with-path", [METHOD, SCHEME, PATH, (":authority", "a/b")]),
    ];
    let mut cases = Vec::new();
    for (name, line) in lines {
        let path = format!("/{name}/");
        let fields: Vec<(&str, String)> = line
            .into_iter()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key, value.replacen("/", &path, 1)))
            .collect();
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(key, value)| (*key, &value[..])).collect();
        let case = begun(must, name, "RFC 9113 8.3.1").send(head(END_STREAM, 1, &fields));
        cases.push(case.then(Step::Streams(1)).check(refused));
    }
    cases.extend(in_pieces());
    let name = "h2-cookie-crumb-before-a-space";
    let crumbs = get(name, 1, &[("cookie", "a=1 "), ("cookie", "b=2")]);
    let case = begun(must, name, "RFC 9113 8.2.1").send(crumbs).then(Step::Streams(1));
    cases.push(case.check(refused));
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
