//! The head of a response, from its bytes (RFC 9112, sections 4 to 6).
//!
//! httparse finds the fields, without copying them; what they mean for the connection and for what
//! follows is decided here. What they mean for the client is `headers`' business.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use httparse::{Header, Status};
use hyper::ext::ReasonPhrase;

use super::super::authority::transfer_coding;
use super::super::headers;
use super::super::noted::Noted;
use super::decoder::Decoder;

/// What a head says.
pub(super) struct Head {
    pub(super) response: Response<Noted>,
    pub(super) body: Decoder,
    /// Whether the target keeps the connection for another exchange.
    pub(super) keeps: bool,
}

/// What bytes are the beginning of.
pub(super) enum Parsed {
    /// An interim answer: the one that counts is still to come.
    Interim,
    Head(Box<Head>),
    /// There is no telling yet.
    Partial,
}

/// Takes a head off the front; none for what is no head.
pub(super) fn head(bytes: &mut Bytes, to_head: bool) -> Option<Parsed> {
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut space) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Some(Parsed::Partial),
        Err(_) => return None,
    };
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        bytes.advance(length);
        return Some(Parsed::Interim);
    }
    let fields = map(parsed.headers, bytes)?;
    let mut response = Response::new(Noted::of(&fields));
    *response.status_mut() = status;
    let newest = parsed.version == Some(1);
    *response.version_mut() = if newest { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason.filter(|said| Some(*said) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    *response.headers_mut() = fields;
    let body = body(&response, to_head)?;
    let keeps = keeps(&response, &body);
    bytes.advance(length);
    Some(Parsed::Head(Box::new(Head { response, body, keeps })))
}

/// The fields of trailers, up to the empty line; none for what are no fields.
pub(super) fn fields(bytes: &Bytes) -> Option<HeaderMap> {
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(bytes, &mut space) {
        // It also ends where two bare LF stand: others would read what follows as an answer.
        Ok(Status::Complete((length, fields))) if length == bytes.len() => map(fields, bytes),
        _ => None,
    }
}

/// Fields that share the bytes they stand in.
fn map(fields: &[Header<'_>], bytes: &Bytes) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        map.append(name, value);
    }
    Some(map)
}

/// What follows the head (RFC 9112, section 6.3); none where that cannot be told.
fn body(response: &Response<Noted>, to_head: bool) -> Option<Decoder> {
    let (status, headers, noted) = (response.status(), response.headers(), response.body());
    let never = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if never || to_head {
        return Some(Decoder::NOTHING);
    }
    if noted.transfer_encoding {
        // Of HTTP/1.0 it cannot be, and another coding goes nowhere (section 6.1).
        let chunked = response.version() == Version::HTTP_11 && transfer_coding(headers).is_ok();
        return chunked.then(Decoder::chunked);
    }
    if noted.content_length {
        return headers::content_length(headers).map(Decoder::Length);
    }
    Some(Decoder::UntilClose)
}

/// RFC 9112, section 9.3.
fn keeps(response: &Response<Noted>, body: &Decoder) -> bool {
    let noted = response.body();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || matches!(body, Decoder::UntilClose) {
        return false;
    }
    // Two framings are one too many to believe what follows (section 6.1).
    if noted.transfer_encoding && noted.content_length {
        return false;
    }
    if !noted.connection {
        return response.version() == Version::HTTP_11;
    }
    let says = |token| headers::lists(response.headers(), &CONNECTION, token);
    !says("close") && (response.version() == Version::HTTP_11 || says("keep-alive"))
}

/// Fields of a head, and of trailers.
const MOST_FIELDS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, to_head: bool) -> Option<(Parsed, usize)> {
        let mut bytes = Bytes::copy_from_slice(text.as_bytes());
        head(&mut bytes, to_head).map(|parsed| (parsed, bytes.len()))
    }

    fn understood(text: &str, to_head: bool) -> Option<(Head, usize)> {
        match parsed(text, to_head)? {
            (Parsed::Head(head), left) => Some((*head, left)),
            _ => panic!("{text:?} is no whole head"),
        }
    }

    #[test]
    fn the_end_of_a_body_is_where_the_head_says() {
        let (one, zero) = ("HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n");
        let cases = [
            (one, "content-length: 5\r\n", Some(5), true),
            (one, "content-length: 5, 5\r\n", Some(5), true),
            (one, "content-length: 5\r\ncontent-length: 5\r\n", Some(5), true),
            (one, "content-length: 5\r\nconnection: Close\r\n", Some(5), false),
            (one, "content-length: 5\r\nconnection: a\r\nconnection: b, close\r\n", Some(5), false),
            (one, "transfer-encoding: chunked\r\n", None, true),
            (one, "transfer-encoding: Chunked\r\ncontent-length: 5\r\n", None, false),
            (one, "", None, false),
            (zero, "content-length: 5\r\n", Some(5), false),
            (zero, "content-length: 5\r\nconnection: keep-alive\r\n", Some(5), true),
            (zero, "content-length: 5\r\nconnection: keep-alive, close\r\n", Some(5), false),
            ("HTTP/1.1 204 No Content\r\n", "content-length: 5\r\n", Some(0), true),
            ("HTTP/1.1 304 Not Modified\r\n", "content-length: 5\r\n", Some(0), true),
            ("HTTP/1.1 101 Switching Protocols\r\n", "upgrade: websocket\r\n", Some(0), false),
        ];
        for (line, fields, left, keeps) in cases {
            let (head, _) = understood(&format!("{line}{fields}\r\nrest"), false).unwrap();
            assert_eq!((head.body.left(), head.keeps), (left, keeps), "{line}{fields}");
        }
        let (head, left) =
            understood(&format!("{one}content-length: 5\r\n\r\nrest"), true).unwrap();
        assert_eq!((head.body.left(), head.keeps, left), (Some(0), true, 4), "an answer to HEAD");
    }

    #[test]
    fn a_head_that_cannot_be_told_apart_is_none() {
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: 1\u{0}\r\n\r\n",
            "HTTP/1.1 099 Odd\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert!(parsed(bad, false).is_none(), "{bad:?}");
        }
        let many = "x: 1\r\n".repeat(MOST_FIELDS + 1);
        assert!(parsed(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), false).is_none());
    }

    #[test]
    fn interim_answers_are_passed_over_and_reasons_kept() {
        let text = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 Fine\r\n\r\n";
        let mut bytes = Bytes::copy_from_slice(text.as_bytes());
        assert!(matches!(head(&mut bytes, false), Some(Parsed::Interim)));
        let Some(Parsed::Head(head)) = head(&mut bytes, false) else { panic!("no head") };
        let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Fine");
        assert!(matches!(parsed("HTTP/1.1 200 OK\r\nx: 1\r\n", false), Some((Parsed::Partial, _))));
    }
}
