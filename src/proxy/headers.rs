//! The header duties of an intermediary (RFC 9110, sections 7.6 and 7.7; RFC 8586).
//!
//! Headers are copied from what was received, never edited in place, so that another attempt can
//! begin from the same. Framing is not here: no Content-Length or Transfer-Encoding is ever
//! passed on, `http1_target` and hyper say their own.

use std::time::Duration;

use http::StatusCode;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    TRAILER, VIA,
};

use super::authority::transfer_coding;
use super::noted::Noted;
use crate::model::rule::HeaderEdits;

/// Names that this proxy itself writes.
pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// See RFC 9209.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The id of a request through all its hops.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a field concerns one hop only.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Told apart by their lengths mostly, which is less work than to compare one by one.
    matches!(
        name.as_str(),
        "connection"
            | "close"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a field is this proxy's to say to a target: how the message is framed, and where it came
/// from.
fn is_said_anew(name: &HeaderName) -> bool {
    match name.as_str() {
        "host" | "content-length" | "forwarded" => true,
        other => other.starts_with('x') && tells_of_the_way(other.as_bytes()),
    }
}

/// Whether a field tells, in a proxy's name, where a request came from. What descends from CGI
/// takes `_` for `-`.
fn tells_of_the_way(name: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        let same = |(one, other): (&u8, &u8)| one == other || (*one, *other) == (b'_', b'-');
        name.len() >= with.len() && name.iter().zip(with).all(same)
    };
    begins(b"x-forwarded-") || name.len() == REAL_IP.len() && begins(REAL_IP)
}

/// What nginx calls the client's address.
const REAL_IP: &[u8] = b"x-real-ip";

/// Whether a field frames, routes, authenticates or describes a message: never believed of
/// trailers.
fn is_for_heads(name: &HeaderName) -> bool {
    let described = matches!(
        name.as_str(),
        "via"
            | "cdn-loop"
            | "authorization"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "cookie"
            | "set-cookie"
            | "expect"
    );
    described || is_said_anew(name)
}

/// Takes out all fields of a kind; mostly there are none.
fn take_out(headers: &mut HeaderMap, kind: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| kind(name)).cloned() {
        headers.remove(name);
    }
}

/// Hops after which a request goes in circles.
const MOST_HOPS: usize = 16;

/// Whether a request has been here before, or has been passed on too often.
pub(crate) fn loops(headers: &HeaderMap, own: &[u8]) -> bool {
    // A hop in CDN-Loop is an id with parameters, one in Via a protocol with a name behind it.
    let mut cdn = members(headers, &CDN_LOOP).filter_map(|hop| hop.split(|b| *b == b';').next());
    let mut hops = 0;
    let mut via = members(headers, &VIA).filter_map(|hop| {
        hops += 1;
        hop.split(|b| *b == b' ').filter(|word| !word.is_empty()).nth(1)
    });
    cdn.any(|hop| hop.trim_ascii() == own) || via.any(|hop| hop == own) || hops >= MOST_HOPS
}

/// Whether a field is a list with this token in it.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

/// Whether a header name is listed in Connection.
fn listed(headers: &HeaderMap, name: &HeaderName) -> bool {
    lists(headers, &CONNECTION, name.as_str())
}

/// Whether Connection names more than what every hop drops anyway; mostly it does not.
fn names_fields(headers: &HeaderMap) -> bool {
    let usual: [&[u8]; 2] = [b"keep-alive", b"close"];
    let is_usual = |said: &[u8]| usual.iter().any(|usual| said.eq_ignore_ascii_case(usual));
    headers.get_all(CONNECTION).iter().any(|said| !is_usual(said.as_bytes()))
}

/// What is said about the client and this hop.
pub(crate) struct Hop<'a> {
    /// The client's address.
    pub(crate) client: &'a HeaderValue,
    /// The scheme that the client used.
    pub(crate) scheme: &'static str,
    /// The Host that the target shall see.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The Host that the client sent.
    pub(crate) received_host: Option<&'a HeaderValue>,
    /// This node's name in CDN-Loop.
    pub(crate) own: &'a HeaderValue,
    /// The received protocol and this node's name.
    pub(crate) via: &'a HeaderValue,
    /// Made here when the client sent none.
    pub(crate) request_id: Option<&'a HeaderValue>,
}

/// Something that takes the fields of a head, one after the other.
pub(crate) trait Fields {
    /// Adds one behind the others.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);
}

impl Fields for HeaderMap {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name.clone(), value.clone());
    }
}

/// As HTTP/1.1 writes them (RFC 9112, section 5).
impl Fields for Vec<u8> {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        self.reserve(name.len() + value.len() + 4);
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

/// Says to a target what was received, as far as it concerns it, and what this hop adds.
pub(crate) fn for_target(received: &HeaderMap, noted: Noted, hop: &Hop<'_>, out: &mut impl Fields) {
    if let Some(host) = hop.host {
        out.add(&HOST, host);
    }
    let names_fields = noted.connection && names_fields(received);
    for (name, value) in received {
        let dropped =
            is_said_anew(name) || is_hop_by_hop(name) || names_fields && listed(received, name);
        if !dropped {
            out.add(name, value);
        }
    }
    out.add(&VIA, hop.via);
    out.add(&CDN_LOOP, hop.own);
    out.add(&X_FORWARDED_FOR, hop.client);
    out.add(&X_FORWARDED_PROTO, &HeaderValue::from_static(hop.scheme));
    if let Some(host) = hop.received_host {
        out.add(&X_FORWARDED_HOST, host);
    }
    if let Some(id) = hop.request_id {
        out.add(&REQUEST_ID, id);
    }
}

/// Puts a cookie that came in pieces together again (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Parts of valid values make a valid value.
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// The first cookie of this name (RFC 6265, section 5.4).
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).find_map(|crumb| {
        let crumb = crumb.trim_ascii();
        let at = crumb.iter().position(|byte| *byte == b'=')?;
        (crumb[..at] == *name.as_bytes()).then(|| &crumb[at + 1..])
    })
}

/// Whether a value begins or ends with a blank: malformed in HTTP/2 (RFC 9113, section 8.2.1),
/// where nothing between a name and its value is there to be passed over.
pub(crate) fn have_blanks_around(fields: &HeaderMap) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = fields.values().map(HeaderValue::as_bytes);
    values.any(|value| is_blank(value.first()) || is_blank(value.last()))
}

/// Takes out of trailers what only a head may say (RFC 9110, section 6.5.1), and what is `named` as
/// being of one hop.
pub(crate) fn for_trailers(trailers: &mut HeaderMap, named: &[HeaderName]) {
    take_out(trailers, |name| is_hop_by_hop(name) || is_for_heads(name) || named.contains(name));
}

/// The fields, of the head and behind the body, that Connection says are of one hop (RFC 9110,
/// section 7.6.1); mostly none.
pub(crate) fn named_by_connection(headers: &HeaderMap, noted: Noted) -> Vec<HeaderName> {
    if !noted.connection || !names_fields(headers) {
        return Vec::new();
    }
    members(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// The names of the trailers that a message says are behind its body, without those that never go
/// on.
pub(crate) fn names_of_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    members(headers, &TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !is_hop_by_hop(name) && !is_for_heads(name) && !listed(headers, name))
        .collect()
}

/// Says so; without that nobody in HTTP/1.1 waits for them (RFC 9110, section 6.6.2).
pub(crate) fn announcement(names: &[HeaderName]) -> Option<HeaderValue> {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|_| !names.is_empty())
}

/// How a response says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Whether its Content-Length may be passed on.
    has_length: bool,
    /// Whether that says the same number more than once.
    repeats_length: bool,
}

impl Framing {
    /// Of a head that nothing follows.
    pub(crate) const NONE: Framing = Framing { has_length: false, repeats_length: false };
}

/// How a response is framed; none for one that cannot be passed on: in a coding that nobody asked
/// for (RFC 9112, section 6.1), or of a length that is not one number.
pub(crate) fn framing(status: StatusCode, headers: &HeaderMap, noted: Noted) -> Option<Framing> {
    let (coded, sized) = (noted.transfer_encoding, noted.content_length);
    if coded && transfer_coding(headers).is_err() {
        return None;
    }
    // RFC 9112, section 6.3, and RFC 9110, section 8.6.
    let has_length = sized && !coded && status != StatusCode::NO_CONTENT;
    let repeats_length = has_length && length(headers)?.1;
    Some(Framing { has_length, repeats_length })
}

/// The length that a message says, be it more than once; none where it is not one number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let (digits, _) = length(headers)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// The digits of a length, and whether they are said more than once; none where it is not one
/// number (RFC 9112, section 6.3). What answers a HEAD is looked at by nobody else.
fn length(headers: &HeaderMap) -> Option<(&[u8], bool)> {
    let is_number = |said: &[u8]| !said.is_empty() && said.iter().all(u8::is_ascii_digit);
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let line = lines.next()?.as_bytes();
    if lines.next().is_none() && is_number(line) {
        return Some((line, false));
    }
    let mut said = members(headers, &CONTENT_LENGTH);
    let first = said.next().filter(|first| is_number(first))?;
    let mut repeats = false;
    for other in said {
        if other != first {
            return None;
        }
        repeats = true;
    }
    Some((first, repeats))
}

/// The members of a list, over all its lines.
fn members<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// How long a target wants to be left alone.
pub(crate) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Takes out of a response what concerns the hop to the target only.
pub(crate) fn for_client(headers: &mut HeaderMap, noted: Noted, framing: Framing) {
    if noted.connection && names_fields(headers) {
        let named: Vec<HeaderName> =
            headers.keys().filter(|name| listed(headers, name)).cloned().collect();
        // Framing stays hyper's: what Connection names is never the length.
        for name in named.iter().filter(|name| **name != CONTENT_LENGTH) {
            headers.remove(name);
        }
    }
    if noted.hop_by_hop {
        let trailers =
            if framing.has_length { None } else { announcement(&names_of_trailers(headers)) };
        take_out(headers, is_hop_by_hop);
        if let Some(trailers) = trailers {
            headers.insert(TRAILER, trailers);
        }
    }
    if !framing.has_length {
        if noted.content_length {
            headers.remove(CONTENT_LENGTH);
        }
    } else if framing.repeats_length {
        let once = members(headers, &CONTENT_LENGTH).next().map(HeaderValue::from_bytes);
        if let Some(Ok(once)) = once {
            headers.insert(CONTENT_LENGTH, once);
        }
    }
}

/// Applies a rule's edits. Names and values were checked when the rule was parsed.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name.as_str());
    }
    let pairs = |list: &[(String, String)]| -> Vec<(HeaderName, HeaderValue)> {
        list.iter()
            .filter_map(|(name, value)| {
                Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?))
            })
            .collect()
    };
    for (name, value) in pairs(&edits.set) {
        headers.insert(name, value);
    }
    for (name, value) in pairs(&edits.add) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn hop<'a>(value: &'a HeaderValue, host: &'a HeaderValue) -> Hop<'a> {
        Hop {
            client: value,
            scheme: "http",
            host: Some(host),
            received_host: Some(value),
            own: value,
            via: value,
            request_id: Some(value),
        }
    }

    #[test]
    fn what_concerns_one_hop_stays_on_it() {
        let own = HeaderValue::from_static("fra1");
        let received = map(&[
            ("host", "shop.example"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "h2c"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded-for", "1.2.3.4"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/evil"),
            ("x-real-ip", "1.2.3.4"),
            ("x_real_ip", "1.2.3.4"),
            ("x-real-ips", "1"),
            ("accept", "*/*"),
        ]);
        let (host, mut out) = (HeaderValue::from_static("shop.internal"), HeaderMap::new());
        for_target(&received, Noted::of(&received), &hop(&own, &host), &mut out);
        for gone in ["connection", "x-secret", "keep-alive", "te", "transfer-encoding"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
        for gone in ["content-length", "upgrade", "forwarded", "x_forwarded-for"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
        for gone in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "x_real_ip"] {
            assert!(!out.contains_key(gone), "a client may say what it likes: {gone}");
        }
        assert_eq!(out["x-real-ips"], "1");
        assert_eq!(out["accept"], "*/*");
        assert_eq!(out["host"], "shop.internal");
        assert_eq!(out["x-forwarded-for"], "fra1", "what came is not believed");
        assert_eq!(out["x-forwarded-host"], "fra1");
    }

    #[test]
    fn trailers_say_nothing_of_the_way() {
        let mut trailers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("via", "1.1 a"),
            ("cdn-loop", "a"),
            ("x-checksum", "7"),
        ]);
        for_trailers(&mut trailers, &[]);
        assert_eq!(trailers, map(&[("x-checksum", "7")]));
        let announced = map(&[("trailer", "X-Forwarded-For, X-Checksum, Via")]);
        assert_eq!(names_of_trailers(&announced), ["x-checksum"]);
    }

    #[test]
    fn a_request_that_was_here_before_is_a_loop() {
        assert!(loops(&map(&[("cdn-loop", "a, fra1; x=1")]), b"fra1"));
        assert!(!loops(&map(&[("cdn-loop", "fra10")]), b"fra1"));
        assert!(loops(&map(&[("via", "1.1 a, 1.1  fra1 (x)")]), b"fra1"));
        assert!(!loops(&map(&[("via", "1.1 a (fra1), 1.1 fra10")]), b"fra1"));
        let many = "1.1 a, 1.1 b, 1.1 c, 1.1 d, 1.1 e, 1.1 f, 1.1 g, 1.1 h";
        assert!(loops(&map(&[("via", many), ("via", many)]), b"fra1"));
        assert!(!loops(&map(&[("via", many)]), b"fra1"));
    }
}
