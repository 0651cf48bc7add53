//! What broke an exchange with a target, whatever protocol it was in.

use super::http2_target;

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The request's own body broke off.
    Request,
    /// The connection ended.
    Ended,
    /// The stream was reset in the middle of a body, by somebody who saw no error.
    Reset,
    /// What the target said is no HTTP/1.1.
    Malformed,
    /// A message over HTTP/2 is malformed (RFC 9113, section 8.1.1), the connection is as good as
    /// before.
    Message,
    /// hyper says why: over HTTP/2 to a target, or with a client.
    Hyper(hyper::Error),
}

impl Broken {
    /// Whether it was the request's body. Over HTTP/2 that body says so itself: what hyper calls
    /// the user's fault is, there, a connection that ended before the request was sent.
    pub(super) fn is_requests(&self) -> bool {
        matches!(self, Broken::Request)
    }

    /// Whether the target said something that it must not say.
    pub(super) fn is_malformed(&self) -> bool {
        match self {
            Broken::Hyper(error) => error.is_parse() || http2_target::is_malformed(error),
            _ => matches!(self, Broken::Malformed | Broken::Message),
        }
    }

    /// Whether the target has reset the stream.
    pub(super) fn is_reset(&self) -> bool {
        match self {
            Broken::Reset => true,
            Broken::Hyper(error) => http2_target::is_reset(error),
            _ => false,
        }
    }

    /// Whether the target says that it has not looked at the request.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self, Broken::Hyper(error) if http2_target::is_unseen(error))
    }

    /// Whether the connection can carry nothing more.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Broken::Hyper(error) => http2_target::ends_connection(error),
            Broken::Reset | Broken::Message => false,
            _ => true,
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Request => f.write_str("the request's body broke off"),
            Broken::Ended => f.write_str("the connection ended"),
            Broken::Reset => f.write_str("the stream was reset"),
            Broken::Malformed => f.write_str("what came is no HTTP/1.1"),
            Broken::Message => f.write_str("the message is malformed"),
            Broken::Hyper(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {}
