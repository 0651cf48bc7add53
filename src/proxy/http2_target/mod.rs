//! HTTP/2 to a target: a request in its form, its errors understood, and in `connection` what the
//! pool keeps.

pub(super) mod connection;

use std::error::Error;
use std::io::{self, ErrorKind};

use h2::Reason;
use http::header::{HOST, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING};
use http::uri::{self, Authority};
use http::{Request, Uri, Version};

use super::headers;
use crate::model::rule::Scheme;

/// Puts a request that was made for HTTP/1.1 into the form of HTTP/2 (RFC 9113, section 8.3.1):
/// Host becomes the authority, and framing is not said. Trailers are wanted where the client wants
/// them, the one thing that TE may still say.
pub(super) fn rewrite<B>(request: &mut Request<B>, received: &HeaderMap, target: Scheme) {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let secure = target == Scheme::Https;
    parts.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.authority = authority;
    // Host was parsed before, as the authority of a rule or of the client's request.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    let out = request.headers_mut();
    out.remove(TRANSFER_ENCODING);
    if headers::lists(received, &TE, "trailers") {
        out.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether the target says that it has not looked at the request (RFC 9113, section 8.7).
pub(super) fn is_unseen(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| {
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        let left = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
        error.is_remote() && (refused || left)
    })
}

/// Whether the target has reset the stream.
pub(super) fn is_reset(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| error.is_reset() && error.is_remote())
}

/// Whether the connection can carry nothing more, or shall not: all but the reset of one stream.
pub(super) fn ends_connection(error: &hyper::Error) -> bool {
    cause(error).is_none_or(|error| !error.is_reset())
}

/// Whether what the target said is no HTTP/2.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    // What `http2_frames` finds, as hyper passes it on of heads, and of bodies.
    let io = error.source().and_then(|error| error.downcast_ref::<io::Error>());
    let io = io.or_else(|| cause(error)?.get_io());
    if io.is_some_and(|error| error.kind() == ErrorKind::InvalidData) {
        return true;
    }
    cause(error).is_some_and(|error| {
        let odd = [Reason::PROTOCOL_ERROR, Reason::FRAME_SIZE_ERROR, Reason::COMPRESSION_ERROR];
        !error.is_remote() && error.reason().is_some_and(|reason| odd.contains(&reason))
    })
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
