//! One parsed authority and one path of a request, for matching and forwarding alike.
//!
//! Everything that two parsers could read differently is refused here (RFC 9112, section 3.2).

use std::borrow::Cow;

use http::header::{HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Uri, Version, request};

use super::headers;
use super::noted::Noted;

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
    /// HTTP/1.1 or later without Host.
    NoHost,
    /// More than one Host.
    ManyHosts,
    /// A Host that is not `name[:port]`.
    BadHost,
    /// Absolute form and Host disagree in a way that matters.
    BadTarget,
    /// Dot segments, a fragment or control characters in the path.
    BadPath,
    /// Blanks around a value, over HTTP/2.
    Blanks,
    /// A length that is not one number.
    BadLength,
    /// A transfer coding other than one `chunked`.
    BadTransferCoding,
}

impl BadRequest {
    /// For the client.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            BadRequest::NoHost => "the request has no Host",
            BadRequest::ManyHosts => "the request has more than one Host",
            BadRequest::BadHost => "the Host is not a valid authority",
            BadRequest::BadTarget => "the request target is not acceptable",
            BadRequest::BadPath => "the path has dot segments, a fragment or control characters",
            BadRequest::Blanks => "there are blanks around the value of a field",
            BadRequest::BadLength => "the length is not one number",
            BadRequest::BadTransferCoding => "the only transfer coding accepted is chunked",
        }
    }
}

/// The authority of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'r> {
    /// As it came, for the Host that the target sees; empty where HTTP/1.0 named none.
    pub(crate) whole: &'r str,
    /// Lower case, without port and trailing dot, for matching.
    pub(crate) host: Cow<'r, str>,
    /// The field that says so, where there is one.
    field: Option<&'r HeaderValue>,
}

impl Authority<'_> {
    /// As a header field; the received one is shared, not copied, where it says the same.
    pub(crate) fn field(&self) -> Option<HeaderValue> {
        match self.field {
            Some(field) => Some(field.clone()),
            None if self.whole.is_empty() => None,
            None => HeaderValue::from_str(self.whole).ok(),
        }
    }
}

/// The one authority of a request. In absolute form it replaces Host (RFC 9112, 3.2.2).
pub(crate) fn authority<'r>(
    uri: &'r Uri,
    headers: &'r HeaderMap,
    version: Version,
) -> Result<Authority<'r>, BadRequest> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::ManyHosts);
    }
    let field = host;
    let host = host.map(|value| value.to_str().map_err(|_| BadRequest::BadHost)).transpose()?;
    if let Some(scheme) = uri.scheme_str() {
        let authority = uri.authority().ok_or(BadRequest::BadTarget)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BadRequest::BadTarget);
        }
        if let Some(host) = host {
            parse(host)?;
            // RFC 9113, section 8.3.1; in HTTP/1.1 the absolute form simply wins.
            let agree = host.eq_ignore_ascii_case(authority.as_str());
            if version == Version::HTTP_2 && !agree {
                return Err(BadRequest::BadTarget);
            }
        } else if version == Version::HTTP_11 {
            // Also where it would not be looked at (RFC 9112, section 3.2).
            return Err(BadRequest::NoHost);
        }
        return parse(authority.as_str());
    }
    match host {
        Some(host) => Ok(Authority { field, ..parse(host)? }),
        None if version < Version::HTTP_11 => {
            Ok(Authority { whole: "", host: Cow::Borrowed(""), field: None })
        }
        None => Err(BadRequest::NoHost),
    }
}

/// What h2 takes and no request over HTTP/2 may say (RFC 9113): blanks around a value (section
/// 8.2.1), a path that begins with its query (8.3.1), a length that is no number (8.1.1).
pub(crate) fn http2(parts: &request::Parts, noted: Noted) -> Result<(), BadRequest> {
    if headers::have_blanks_around(&parts.headers) {
        return Err(BadRequest::Blanks);
    }
    if parts.uri.path_and_query().is_some_and(|path| path.as_str().starts_with('?')) {
        return Err(BadRequest::BadTarget);
    }
    if noted.content_length && headers::content_length(&parts.headers).is_none() {
        return Err(BadRequest::BadLength);
    }
    Ok(())
}

/// Parses `name[:port]`; no user information, nothing odd.
pub(crate) fn parse(text: &str) -> Result<Authority<'_>, BadRequest> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']').ok_or(BadRequest::BadHost)?;
            if inside.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(BadRequest::BadHost);
            }
            (&text[..inside.len() + 2], after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => match text.bytes().position(|byte| byte == b':') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, Some("")),
        },
    };
    let port = port.ok_or(BadRequest::BadHost)?;
    let numeric = port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5;
    let named = host.starts_with('[') || host.bytes().all(is_host_byte);
    let host = host.strip_suffix('.').unwrap_or(host);
    let oddly_dotted = host.starts_with('.') || has_empty_label(host) || host.ends_with('.');
    if host.is_empty() || host.len() > 253 || !numeric || !named || oddly_dotted {
        return Err(BadRequest::BadHost);
    }
    let lower = if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    Ok(Authority { whole: text, host: lower, field: None })
}

fn has_empty_label(host: &str) -> bool {
    host.as_bytes().windows(2).any(|pair| pair == b"..")
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// The path for matching and forwarding; `*` only for OPTIONS.
pub(crate) fn path<'u>(uri: &'u Uri, method: &Method) -> Result<&'u str, BadRequest> {
    let path = uri.path();
    if path == "*" {
        return if method == Method::OPTIONS { Ok(path) } else { Err(BadRequest::BadTarget) };
    }
    let plain = path.bytes().all(|b| b > b' ' && b != 0x7f && b != b'#' && b != b'\\');
    if !path.starts_with('/') || !plain || path.split('/').any(is_dot_segment) {
        return Err(BadRequest::BadPath);
    }
    Ok(path)
}

/// `.` and `..`, also where the dots are percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    let mut dots = 0;
    let mut rest = segment;
    while !rest.is_empty() {
        let encoded = rest.len() >= 3 && rest.as_bytes()[..3].eq_ignore_ascii_case(b"%2e");
        rest = if encoded {
            &rest[3..]
        } else if let Some(after) = rest.strip_prefix('.') {
            after
        } else {
            return false;
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

/// Refuses any transfer coding but a single `chunked` (RFC 9112, section 6.1).
pub(crate) fn transfer_coding(headers: &HeaderMap) -> Result<(), BadRequest> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if chunked && codings.next().is_none() { Ok(()) } else { Err(BadRequest::BadTransferCoding) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_one_name_and_a_port() {
        let good = [
            ("Shop.Example.COM", "shop.example.com"),
            ("shop.example.com:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("[::1]:80", "[::1]"),
            ("127.0.0.1:9", "127.0.0.1"),
        ];
        for (text, host) in good {
            assert_eq!(parse(text).map(|a| a.host), Ok(host.into()), "{text}");
        }
        for bad in
            ["", ":80", "a b", "a/b", "u@h", "h:x", "h:1:2", "[::1", "[x]", "a..b", ".a", "é"]
        {
            assert_eq!(parse(bad), Err(BadRequest::BadHost), "{bad}");
        }
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for bad in ["/a/../b", "/./a", "/a/%2e%2E/b", "/.%2e", "/a/.."] {
            let uri: Uri = bad.parse().unwrap();
            assert_eq!(path(&uri, &Method::GET), Err(BadRequest::BadPath), "{bad}");
        }
        for good in ["/", "/a/...", "/a/.b", "/%2e%2e%2e", "/a..b/c"] {
            let uri: Uri = good.parse().unwrap();
            assert_eq!(path(&uri, &Method::GET), Ok(good));
        }
    }
}
