//! Which fields a head has, of those that this proxy looks at: one pass over the names in place of
//! a look-up for each. What they say is for those who ask.

use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, COOKIE, HeaderMap, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Version, request};

use super::headers::{self, CDN_LOOP, REQUEST_ID};

/// Whether a head has these fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) accept: bool,
    pub(crate) cdn_loop: bool,
    pub(crate) connection: bool,
    pub(crate) content_length: bool,
    pub(crate) cookie: bool,
    pub(crate) request_id: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) upgrade: bool,
    pub(crate) via: bool,
    /// Any that concerns one hop only.
    pub(crate) hop_by_hop: bool,
}

impl Noted {
    /// What a request has, and puts together a cookie that came in pieces.
    pub(crate) fn of_request(parts: &mut request::Parts) -> Noted {
        let noted = Noted::of(&parts.headers);
        let crumbs = noted.cookie && parts.version == Version::HTTP_2;
        // What is malformed is refused as it is.
        if crumbs && !headers::have_blanks_around(&parts.headers) {
            headers::join_cookies(&mut parts.headers);
        }
        noted
    }

    /// What these have.
    pub(crate) fn of(fields: &HeaderMap) -> Noted {
        let mut noted = Noted::default();
        for name in fields.keys() {
            match *name {
                ACCEPT => noted.accept = true,
                CONTENT_LENGTH => noted.content_length = true,
                COOKIE => noted.cookie = true,
                VIA => noted.via = true,
                CONNECTION => (noted.connection, noted.hop_by_hop) = (true, true),
                TRANSFER_ENCODING => (noted.transfer_encoding, noted.hop_by_hop) = (true, true),
                UPGRADE => (noted.upgrade, noted.hop_by_hop) = (true, true),
                _ if *name == CDN_LOOP => noted.cdn_loop = true,
                _ if *name == REQUEST_ID => noted.request_id = true,
                _ => noted.hop_by_hop |= headers::is_hop_by_hop(name),
            }
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_is_noted_is_there() {
        let of = |name: &str| {
            let name: HeaderName = name.parse().unwrap();
            Noted::of(&[(name, HeaderValue::from_static("1"))].into_iter().collect())
        };
        let none = Noted::default();
        let hop = Noted { hop_by_hop: true, ..none };
        let cases = [
            ("x-other", none),
            ("accept", Noted { accept: true, ..none }),
            ("cdn-loop", Noted { cdn_loop: true, ..none }),
            ("Connection", Noted { connection: true, ..hop }),
            ("content-length", Noted { content_length: true, ..none }),
            ("cookie", Noted { cookie: true, ..none }),
            ("x-request-id", Noted { request_id: true, ..none }),
            ("transfer-encoding", Noted { transfer_encoding: true, ..hop }),
            ("upgrade", Noted { upgrade: true, ..hop }),
            ("via", Noted { via: true, ..none }),
            ("keep-alive", hop),
            ("proxy-connection", hop),
            ("te", hop),
            ("trailer", hop),
        ];
        for (name, noted) in cases {
            assert_eq!(of(name), noted, "{name}");
        }
    }
}
