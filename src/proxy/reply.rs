//! What the proxy says to a client by itself: refusals, failures, redirects, fixed answers.
//!
//! Failures name their cause in Proxy-Status (RFC 9209), so that a 502 of this proxy is not
//! mistaken for one of the target.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue, LOCATION, RETRY_AFTER,
};
use http::{Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::authority::Authority;
use super::body::ProxyBody;
use super::headers::{Fields, PROXY_STATUS};
use crate::model::rule::{Redirect, Respond};

/// The methods that are served; others that a target knows pass as well.
pub(crate) const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");

/// What neither a path nor a query contains (RFC 3986, section 3.3); brackets do in practice, and
/// what is not ASCII is always encoded.
const NOT_IN_URIS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Why there is no answer from a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// What the client sent is not acceptable.
    BadRequest(&'static str),
    /// The request target is longer than any.
    TargetTooLong,
    /// The connection is for other hosts.
    Misdirected,
    /// This method is not served.
    MethodRefused,
    /// No rule takes the request.
    NoRoute,
    /// The request has been here before.
    Loop,
    /// No target may be sent to.
    NoTarget,
    /// The target's name has no address.
    NameUnknown,
    /// The target's address is one that is never connected to.
    AddressRefused,
    /// No connection.
    ConnectRefused,
    /// No connection in time.
    ConnectTimeout,
    /// TLS with the target failed.
    TlsFailed,
    /// The target could not prove who it is.
    TlsCertificate,
    /// The connection ended before a response head.
    ConnectionEnded,
    /// The target's response could not be understood.
    BadResponse,
    /// No response head in time.
    ResponseTimeout,
    /// The client did not send its body in time.
    SlowRequest,
    /// The body is longer than the rule allows.
    TooLarge,
    /// This node has as much to do as it can.
    Overloaded,
    /// The rule has as many requests under way as it allows.
    RuleFull,
    /// A defect of this proxy.
    Internal,
}

impl Failure {
    /// The status that the client sees.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Failure::BadRequest(_) => StatusCode::BAD_REQUEST,
            Failure::TargetTooLong => StatusCode::URI_TOO_LONG,
            Failure::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Failure::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Failure::NoRoute => StatusCode::NOT_FOUND,
            Failure::Loop => StatusCode::LOOP_DETECTED,
            Failure::NoTarget | Failure::RuleFull | Failure::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Failure::NameUnknown
            | Failure::AddressRefused
            | Failure::ConnectRefused
            | Failure::TlsFailed
            | Failure::TlsCertificate
            | Failure::ConnectionEnded
            | Failure::BadResponse => StatusCode::BAD_GATEWAY,
            Failure::ConnectTimeout | Failure::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Failure::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Failure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error type of RFC 9209, section 2.3.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Failure::BadRequest(_)
            | Failure::TargetTooLong
            | Failure::Misdirected
            | Failure::MethodRefused
            | Failure::SlowRequest
            | Failure::TooLarge => "http_request_error",
            Failure::RuleFull | Failure::Overloaded => "http_request_denied",
            Failure::NoRoute => "destination_not_found",
            Failure::Loop => "proxy_loop_detected",
            Failure::NoTarget => "destination_unavailable",
            Failure::NameUnknown => "dns_error",
            Failure::AddressRefused => "destination_ip_prohibited",
            Failure::ConnectRefused => "connection_refused",
            Failure::ConnectTimeout => "connection_timeout",
            Failure::TlsFailed => "tls_protocol_error",
            Failure::TlsCertificate => "tls_certificate_error",
            Failure::ConnectionEnded => "connection_terminated",
            Failure::BadResponse => "http_protocol_error",
            Failure::ResponseTimeout => "http_response_timeout",
            Failure::Internal => "proxy_internal_error",
        }
    }

    /// In words.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Failure::BadRequest(why) => why,
            Failure::TargetTooLong => "the request target is too long",
            Failure::Misdirected => "this connection is for other hosts",
            Failure::MethodRefused => "this method is not served here",
            Failure::NoRoute => "no rule takes this request",
            Failure::Loop => "the request has passed this proxy before",
            Failure::NoTarget => "no target is ready",
            Failure::NameUnknown => "the target's name has no address",
            Failure::AddressRefused => "the target's address is not allowed",
            Failure::ConnectRefused => "the target could not be connected to",
            Failure::ConnectTimeout => "the target did not accept a connection in time",
            Failure::TlsFailed => "the target could not be spoken TLS with",
            Failure::TlsCertificate => "the target's certificate is not valid for it",
            Failure::ConnectionEnded => "the target ended the connection",
            Failure::BadResponse => "the target's response is not valid",
            Failure::ResponseTimeout => "the target did not answer in time",
            Failure::SlowRequest => "the request body did not come in time",
            Failure::TooLarge => "the request body is larger than allowed",
            Failure::Overloaded => "this proxy has too much to do",
            Failure::RuleFull => "as many requests as allowed are under way",
            Failure::Internal => "the proxy failed",
        }
    }
}

/// The answer that stands for a failure.
pub(crate) fn failed(
    failure: Failure,
    node: &str,
    accept: Option<&HeaderValue>,
) -> Response<ProxyBody> {
    let status = failure.status();
    let (kind, body) = if wants_json(accept) {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": failure.detail(),
        });
        ("application/problem+json", body.to_string())
    } else {
        ("text/plain; charset=utf-8", format!("{}\n", failure.detail()))
    };
    let mut response = Response::new(ProxyBody::full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if failure == Failure::MethodRefused {
        headers.insert(ALLOW, ALLOWED);
    }
    if matches!(failure, Failure::RuleFull | Failure::Overloaded) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let said = format!("tradewind-{node}; error={}", failure.cause());
    if let Ok(said) = HeaderValue::from_str(&said) {
        headers.insert(PROXY_STATUS, said);
    }
    response
}

/// Leaves out what an answer to HEAD must not bring (RFC 9110, section 9.3.2) but says how much it
/// would be.
pub(super) fn without_content(response: &mut Response<ProxyBody>) {
    let ProxyBody::Full(Some(content)) = response.body() else { return };
    let length = HeaderValue::from(content.len());
    *response.body_mut() = ProxyBody::empty();
    response.headers_mut().insert(CONTENT_LENGTH, length);
}

/// A refusal to a client that HTTP/1.1 has already given up on, and the last thing it is told.
pub(super) fn farewell(failure: Failure, node: &str) -> Vec<u8> {
    let (mut head, body) = failed(failure, node, None).into_parts();
    let ProxyBody::Full(Some(body)) = body else { return Vec::new() };
    let date = httpdate::fmt_http_date(SystemTime::now());
    if let Ok(date) = HeaderValue::try_from(date) {
        head.headers.insert(DATE, date);
    }
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    // With its reason phrase.
    let mut out = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        out.add(name, value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    out
}

fn wants_json(accept: Option<&HeaderValue>) -> bool {
    accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("json"))
}

/// The answer of a rule that sends the client elsewhere; `asked` is the scheme it came with.
pub(crate) fn redirected(
    rule: &Redirect,
    asked: &str,
    uri: &Uri,
    authority: &Authority<'_>,
) -> Response<ProxyBody> {
    let scheme = rule.scheme.as_deref().unwrap_or(asked);
    // The port belongs to the scheme that was asked.
    let same = if scheme == asked { authority.whole } else { &authority.host };
    let host = rule.host.as_deref().unwrap_or(same);
    let received = uri.path_and_query().map_or("/", |both| both.as_str());
    // `*` asks about the host itself (RFC 9112, section 3.2.4); behind a name it would be its end.
    let received = if received == "*" { "/" } else { received };
    let path = rule.path.as_deref().unwrap_or(received);
    // The parser takes more than a URI may contain.
    let path = utf8_percent_encode(path, NOT_IN_URIS);
    let location = if host.is_empty() {
        // HTTP/1.0 without Host: relative to wherever the client believes to be.
        path.to_string()
    } else {
        format!("{scheme}://{host}{path}")
    };
    let mut response = Response::new(ProxyBody::empty());
    *response.status_mut() = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::FOUND);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The answer of a rule that answers by itself.
pub(crate) fn responded(rule: &Respond) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::full(Bytes::copy_from_slice(rule.body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if !rule.body.is_empty() {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, text);
    }
    for (name, value) in &rule.headers {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::try_from(name.as_str()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    response
}
