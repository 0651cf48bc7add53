//! The header duties of an intermediary (RFC 9110, sections 7.6 and 7.7; RFC 8586).
//!
//! Headers are copied from what was received, never edited in place, so that another attempt can
//! begin from the same. Framing is hyper's alone: no Content-Length or Transfer-Encoding is ever
//! passed on by hand.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::model::rule::HeaderEdits;

/// Names that this proxy itself writes.
pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// See RFC 9209.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The id of a request through all its hops.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that concern one hop only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Hops after which a request goes in circles.
const MOST_HOPS: usize = 16;

/// Whether a request has been here before, or has been passed on too often.
pub(crate) fn loops(headers: &HeaderMap, own: &str) -> bool {
    let seen = headers
        .get_all(CDN_LOOP)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split(';').next().unwrap_or(hop).trim() == own);
    let hops = headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| value.split(',').count())
        .sum::<usize>();
    seen || hops >= MOST_HOPS
}

/// Whether a header name is listed in Connection.
fn listed(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// What is said about the client and this hop.
pub(crate) struct Hop<'a> {
    /// The client.
    pub(crate) client: IpAddr,
    /// The Host that the target shall see.
    pub(crate) host: &'a str,
    /// The Host that the client sent.
    pub(crate) received_host: &'a str,
    /// This node's name in Via and CDN-Loop.
    pub(crate) own: &'a HeaderValue,
    /// `1.1 NAME`.
    pub(crate) via: &'a HeaderValue,
    /// Made here when the client sent none.
    pub(crate) request_id: &'a HeaderValue,
}

/// The headers that the target sees.
pub(crate) fn for_target(received: &HeaderMap, hop: &Hop<'_>) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(received.len() + 8);
    if let Ok(host) = HeaderValue::from_str(hop.host) {
        out.insert(HOST, host);
    }
    let has_connection = received.contains_key(CONNECTION);
    for (name, value) in received {
        let dropped = *name == HOST
            || *name == CONTENT_LENGTH
            || *name == FORWARDED
            || *name == X_FORWARDED_FOR
            || *name == X_FORWARDED_PROTO
            || *name == X_FORWARDED_HOST
            || HOP_BY_HOP.contains(name)
            || has_connection && listed(received, name);
        if !dropped {
            out.append(name.clone(), value.clone());
        }
    }
    out.append(VIA, hop.via.clone());
    out.append(CDN_LOOP, hop.own.clone());
    if let Ok(client) = HeaderValue::from_str(&hop.client.to_string()) {
        out.insert(X_FORWARDED_FOR, client);
    }
    out.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Ok(host) = HeaderValue::from_str(hop.received_host) {
        out.insert(X_FORWARDED_HOST, host);
    }
    if !out.contains_key(REQUEST_ID) {
        out.insert(REQUEST_ID, hop.request_id.clone());
    }
    out
}

/// Takes out of a response what concerns the hop to the target only.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> =
            headers.keys().filter(|name| listed(headers, name)).cloned().collect();
        // Framing stays hyper's: what Connection names is never the length.
        for name in named.iter().filter(|name| **name != CONTENT_LENGTH) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
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

    fn hop<'a>(value: &'a HeaderValue) -> Hop<'a> {
        Hop {
            client: IpAddr::from([192, 0, 2, 7]),
            host: "shop.internal",
            received_host: "shop.example",
            own: value,
            via: value,
            request_id: value,
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
            ("accept", "*/*"),
        ]);
        let out = for_target(&received, &hop(&own));
        for gone in ["connection", "x-secret", "keep-alive", "te", "transfer-encoding"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
        for gone in ["content-length", "upgrade", "forwarded"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
        assert_eq!(out["accept"], "*/*");
        assert_eq!(out["host"], "shop.internal");
        assert_eq!(out["x-forwarded-for"], "192.0.2.7");
        assert_eq!(out["x-forwarded-host"], "shop.example");
    }

    #[test]
    fn a_request_that_was_here_before_is_a_loop() {
        assert!(loops(&map(&[("cdn-loop", "a, fra1; x=1")]), "fra1"));
        assert!(!loops(&map(&[("cdn-loop", "fra10")]), "fra1"));
        let many = "1.1 a, 1.1 b, 1.1 c, 1.1 d, 1.1 e, 1.1 f, 1.1 g, 1.1 h";
        assert!(loops(&map(&[("via", many), ("via", many)]), "fra1"));
        assert!(!loops(&map(&[("via", many)]), "fra1"));
    }
}
