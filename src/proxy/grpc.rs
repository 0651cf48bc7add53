//! gRPC on its way through: calls are HTTP/2 like any other, but for their deadlines and failures.
//!
//! Follows the gRPC over HTTP/2 protocol: `grpc-timeout` bounds the wait for an answer, and what
//! the proxy itself has to say comes as a status of gRPC.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version, request};

use super::body::ProxyBody;
use super::reply::Failure;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a request is a call.
pub(super) fn is_spoken(parts: &request::Parts) -> bool {
    parts.version == Version::HTTP_2
        && parts.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().strip_prefix(b"application/grpc").is_some_and(|rest| {
                // gRPC-Web has bodies of its own.
                rest.first().is_none_or(|next| matches!(next, b'+' | b';'))
            })
        })
}

/// Whether the head of an answer says that the call failed, and that its target is to blame. What
/// may as well be the caller's doing is not held against it: a deadline that it set, a method that
/// is not there.
pub(super) fn is_failure(headers: &HeaderMap) -> bool {
    headers
        .get(GRPC_STATUS)
        .is_some_and(|status| matches!(status.as_bytes(), b"2" | b"13" | b"14" | b"15"))
}

/// How long the caller of this call waits for an answer, where it says so: at most eight digits and
/// a unit.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Turns the answer that stands for a failure into one that a caller understands: a head that is
/// trailers at once. A misdirected request is left as it is, for the caller's HTTP to repeat.
pub(super) fn say(response: &mut Response<ProxyBody>, failure: Failure) {
    if failure == Failure::Misdirected {
        return;
    }
    *response.status_mut() = StatusCode::OK;
    *response.body_mut() = ProxyBody::empty();
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status(failure)));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(failure.detail()));
}

/// The status of gRPC that stands for a failure.
fn status(failure: Failure) -> u16 {
    match failure {
        Failure::ResponseTimeout | Failure::ConnectTimeout => DEADLINE_EXCEEDED,
        Failure::NoRoute | Failure::MethodRefused => UNIMPLEMENTED,
        Failure::BadRequest(_) | Failure::Internal | Failure::Loop | Failure::BadResponse => {
            INTERNAL
        }
        Failure::SlowRequest => CANCELLED,
        _ => UNAVAILABLE,
    }
}

const CANCELLED: u16 = 1;
const DEADLINE_EXCEEDED: u16 = 4;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_and_an_end() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            patience(&headers)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("99999999H").map(|long| long.as_secs()), Some(99_999_999 * 3_600));
        assert_eq!(read("150m"), Some(Duration::from_millis(150)));
        assert_eq!(read("0u"), Some(Duration::ZERO));
        for odd in ["", "5", "m", "-1S", "100000000S", "1s", "1 S", "+1S"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
