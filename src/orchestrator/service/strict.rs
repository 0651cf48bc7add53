//! Refuses writes with fields that this release does not have.
//!
//! Generated code passes such fields over in silence: a rule of a later release would be stored
//! without them, and would mean something else. Only the requests that carry rules are looked at;
//! what is no message at all is left to the service behind.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::status;
use crate::model::limits;
use crate::wire::rule_unknown::request_unknown_fields;

/// A service that is asked only what it understands whole.
#[derive(Clone)]
pub(super) struct Strict<S> {
    pub(super) inner: S,
}

impl<S: NamedService> NamedService for Strict<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Strict<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that was asked whether it is ready is the one to call.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Some(message) = CHECKED.iter().find(|(name, _)| *name == method).map(|(_, of)| *of)
        else {
            return Box::pin(inner.call(request));
        };
        Box::pin(async move {
            match check(request, message).await {
                Ok(request) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Reads the request whole, and gives it on as it was.
async fn check(
    request: http::Request<Body>,
    message: &'static str,
) -> Result<http::Request<Body>, Status> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, limits::RULE_TEXT_BYTES + PREFIX).collect().await;
    let bytes = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => {
            Status::out_of_range(format!("a request has at most {} bytes", limits::RULE_TEXT_BYTES))
        }
        Err(_) => Status::cancelled("the request broke off"),
    })?;
    let bytes = bytes.to_bytes();
    let sent = bytes.clone();
    let unknown =
        tokio::task::spawn_blocking(move || request_unknown_fields(message, content(&sent))).await;
    match unknown {
        Ok(Some(problems)) => Err(status::invalid(&problems)),
        _ => Ok(http::Request::from_parts(head, Body::new(Full::new(bytes)))),
    }
}

/// The message of a unary call; nothing where it is compressed, which the service refuses.
fn content(sent: &Bytes) -> &[u8] {
    match sent.split_at_checked(PREFIX) {
        Some(([0, ..], message)) => message,
        _ => &[],
    }
}

/// Methods that carry rules, with their messages.
const CHECKED: [(&str, &str); 3] = [
    ("PutRule", "PutRuleRequest"),
    ("ApplyRules", "ApplyRulesRequest"),
    ("ValidateRules", "ValidateRulesRequest"),
];
/// A flag and a length stand before a message.
const PREFIX: usize = 5;
