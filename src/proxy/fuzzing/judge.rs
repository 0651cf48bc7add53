//! What a request to a target has to be, read byte by byte.
//!
//! Strict where real targets are not: a thing that two parsers could read differently is a fault
//! here. Knows RFC 9112 and nothing of how the proxy makes its requests.

use http::{Request, Response, Uri, request};

use super::wire::Recorded;
use crate::proxy::body::{ProxyBody, RequestBody};
use crate::proxy::running::{Filters, RunningRoute};

/// What the client asked for, as far as the target may be told.
pub(super) struct Seen {
    method: String,
    /// Path and query.
    target: String,
    /// The authority; none where HTTP/1.0 named none.
    pub(super) host: Option<String>,
    pub(super) rewritten_host: Option<String>,
    pub(super) rewrites_path: bool,
    /// Names that Connection lists, in lower case.
    listed: Vec<String>,
    /// Names that the rule itself adds.
    added: Vec<String>,
    tunnel: bool,
}

/// A request head, taken apart.
struct Head<'b> {
    method: &'b str,
    target: &'b str,
    fields: Vec<(String, &'b [u8])>,
}

impl Seen {
    pub(super) fn new(parts: &request::Parts, route: &RunningRoute, tunnel: bool) -> Seen {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let connection = parts.headers.get_all("connection").iter();
        let listed = connection.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let listed = listed.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_lowercase());
        let absolute = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let filters = Filters::of(route);
        let edits = filters.request.map(|edits| edits.set.iter().chain(&edits.add));
        Seen {
            method: parts.method.to_string(),
            target: parts.uri.path_and_query().map_or("/".into(), |both| both.to_string()),
            host: absolute.or_else(|| parts.headers.get("host").map(text)),
            rewritten_host: filters.rewrite.and_then(|rewrite| rewrite.host.clone()),
            rewrites_path: filters.rewrite.is_some_and(|rewrite| rewrite.path.is_some()),
            listed: listed.collect(),
            added: edits.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            tunnel,
        }
    }

    fn judge_target(&self, target: &str) {
        assert!(target.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{target:?}");
        if self.rewrites_path {
            let uri: Uri = target.parse().unwrap_or_else(|why| panic!("{target:?}: {why}"));
            assert!(target.starts_with('/'), "{target:?}");
            let query = self.target.split_once('?').map(|(_, query)| query);
            assert_eq!(uri.query(), query, "{target:?}");
        } else {
            assert_eq!(target, self.target);
        }
    }

    fn judge_host(&self, host: &str) {
        let wanted = self.rewritten_host.as_ref().or(self.host.as_ref());
        assert_eq!(host, wanted.map_or(TARGET, String::as_str));
        let odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-._:[]".contains(&byte);
        assert!(!host.is_empty() && !host.bytes().any(odd), "{host:?}");
    }

    /// Fields that are there in any version of HTTP.
    fn judge_fields<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let names: Vec<&str> = names.collect();
        for once in ["host", "x-forwarded-for", "x-forwarded-proto", "content-length"] {
            assert!(names.iter().filter(|name| **name == once).count() <= 1, "{once} twice");
        }
        for own in ["via", "cdn-loop", "x-forwarded-for", "x-forwarded-proto"] {
            assert!(names.contains(&own), "no {own}");
        }
        for name in names {
            assert!(!HOP_BY_HOP.contains(&name), "{name} goes on");
            let ours = OURS.contains(&name) || self.added.iter().any(|added| added == name);
            let listed = self.listed.iter().any(|listed| listed == name);
            assert!(ours || !listed, "{name} is listed in Connection and goes on");
        }
    }
}

/// Judges what was sent to a target so far, and whether it is whole exactly when the body is.
pub(super) fn judge(seen: &Seen, sent: &[u8], body: &Recorded) {
    let Some(end) = sent.windows(4).position(|four| four == b"\r\n\r\n") else {
        // A body that breaks off at once leaves nothing to send.
        assert!(sent.is_empty(), "half a head: {:?}", String::from_utf8_lossy(sent));
        assert!(!body.whole.get(), "a whole request is sent");
        return;
    };
    let head = Head::read(&sent[..end]);
    assert_eq!(head.method, seen.method);
    seen.judge_target(head.target);
    seen.judge_host(&head.one("host").unwrap_or_else(|| panic!("no Host")));
    if seen.tunnel {
        assert_eq!(head.one("upgrade").as_deref(), Some("websocket"));
        assert_eq!(head.one("connection").as_deref(), Some("upgrade"));
    }
    let names = head.fields.iter().map(|(name, _)| name.as_str());
    let framing = |name: &&str| ["transfer-encoding", "trailer"].contains(name);
    if let Some(trailers) = head.one("trailer") {
        assert!(head.one("transfer-encoding").is_some(), "trailers behind no chunks");
        judge_announced(&trailers);
    }
    let tunnel = |name: &&str| seen.tunnel && ["upgrade", "connection"].contains(name);
    seen.judge_fields(names.filter(|name| !framing(name) && !tunnel(name)));

    let given = body.bytes.borrow();
    let rest = &sent[end + 4..];
    let (carried, whole) = match (head.one("transfer-encoding"), head.one("content-length")) {
        (Some(_), Some(_)) => panic!("framed twice"),
        (Some(coding), None) => {
            assert_eq!(coding, "chunked");
            chunked(rest)
        }
        (None, length) => {
            let length = length.map_or(0, |length| digits(&length));
            assert!(rest.len() <= length, "{} bytes behind the request", rest.len() - length);
            (rest.to_vec(), rest.len() == length)
        }
    };
    assert!(given.starts_with(&carried), "the body is another");
    if body.whole.get() {
        assert!(whole && carried.len() == given.len(), "a whole body does not arrive");
    } else {
        let shown = String::from_utf8_lossy(sent);
        assert!(!whole, "a body that broke off arrives as whole: {shown}");
    }
}

/// Judges a request in the form of HTTP/2, where framing is not text.
pub(super) fn judge_http2(seen: &Seen, request: &Request<RequestBody>) {
    let uri = request.uri();
    assert_eq!(request.method().as_str(), seen.method);
    seen.judge_target(uri.path_and_query().map_or("", |both| both.as_str()));
    seen.judge_host(uri.authority().map_or("", |authority| authority.as_str()));
    assert_eq!(uri.scheme_str(), Some("http"));
    let headers = request.headers();
    assert!(!headers.contains_key("host"));
    let own = |name: &&str| !["te", "trailer"].contains(name);
    if let Some(te) = headers.get("te") {
        assert_eq!(te, "trailers");
    }
    seen.judge_fields(headers.iter().map(|(name, _)| name.as_str()).filter(own));
}

/// Judges an answer that a rule gives by itself.
pub(super) fn answered(response: &Response<ProxyBody>) {
    if let Some(location) = response.headers().get("location") {
        let text = location.to_str().unwrap_or_else(|why| panic!("{location:?}: {why}"));
        let uri: Uri = text.parse().unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert!(uri.authority().is_none_or(|at| at.host() == "moved.example"), "{text:?}");
    }
}

impl<'b> Head<'b> {
    /// Lines that end in CRLF, nothing else that could be an end, no folding.
    fn read(bytes: &'b [u8]) -> Head<'b> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            lines.push(&rest[..at]);
            rest = &rest[at + 2..];
        }
        lines.push(rest);
        for line in &lines {
            let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
            assert!(!line.iter().any(ends), "{:?}", String::from_utf8_lossy(line));
        }
        let first = std::str::from_utf8(lines[0]).unwrap_or_else(|why| panic!("{why}"));
        let words: Vec<&str> = first.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else { panic!("{first:?}") };
        assert!(method.bytes().all(is_token) && !method.is_empty(), "{method:?}");
        let fields = lines[1..].iter().map(|line| {
            let at = line.iter().position(|byte| *byte == b':');
            let at = at.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(line)));
            assert!(at > 0 && line[..at].iter().copied().all(is_token));
            let name = String::from_utf8_lossy(&line[..at]).to_lowercase();
            (name, line[at + 1..].trim_ascii())
        });
        Head { method, target, fields: fields.collect() }
    }

    /// The one value of a field.
    fn one(&self, name: &str) -> Option<String> {
        let mut values = self.fields.iter().filter(|(this, _)| this == name);
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice");
        Some(String::from_utf8_lossy(value.1).into_owned())
    }
}

/// Chunks, and whether the last one is among them.
fn chunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut carried = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.unwrap_or_else(|| panic!("{:?} is no size", &rest[..at]));
        rest = &rest[at + 2..];
        if size == 0 {
            return (carried, judge_trailers(rest));
        }
        let taken = size.min(rest.len());
        carried.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
        match rest.split_at_checked(2) {
            Some((end, more)) => {
                assert_eq!(end, b"\r\n");
                rest = more;
            }
            None => return (carried, false),
        }
    }
    assert!(rest.len() < 20, "a size without an end");
    (carried, false)
}

/// Trailers are fields that may go on; returns whether they have come to their end.
fn judge_trailers(mut rest: &[u8]) -> bool {
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let (line, more) = (&rest[..at], &rest[at + 2..]);
        if line.is_empty() {
            assert!(more.is_empty(), "{} bytes behind the trailers", more.len());
            return true;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        judge_announced(&String::from_utf8_lossy(&line[..colon]));
        // A tab may stand within a value (RFC 9110, section 5.5).
        let odd = line[colon..].iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        assert!(!odd, "{:?}", String::from_utf8_lossy(line));
        rest = more;
    }
    false
}

/// What is said of trailers names none that never go on.
fn judge_announced(trailers: &str) {
    for name in trailers.split(", ") {
        assert!(!name.is_empty() && name.bytes().all(is_token), "{trailers:?}");
        let name = name.to_ascii_lowercase();
        let dropped = HOP_BY_HOP.iter().chain(&FOR_HEADS).any(|it| *it == name);
        assert!(!dropped || name == "forwarded", "{name} is announced");
    }
}

fn digits(text: &str) -> usize {
    assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
    text.parse().unwrap_or_else(|why| panic!("{text:?}: {why}"))
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The authority of every target in the rules.
const TARGET: &str = "10.0.0.1:81";

/// RFC 9110, section 7.6.1, and what came before it.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "forwarded",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// RFC 9110, section 6.5.1: no trailer says these.
const FOR_HEADS: [&str; 9] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "set-cookie",
];

/// What the proxy says itself, whatever Connection lists.
const OURS: [&str; 9] = [
    "cdn-loop",
    "content-length",
    "host",
    "max-forwards",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
