//! Refuses writes with fields that this release does not have.
//!
//! Generated code passes such fields over in silence: a rule of a later release would be stored
//! without them, and would mean something else. Only the requests that carry rules are looked at;
//! what is no message at all is left to the service behind. Invariant: the requests that are read
//! at one time take bounded memory, and none is read for ever.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
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
    inner: S,
    // Permits are KiB of requests in memory.
    room: Arc<Semaphore>,
}

impl<S> Strict<S> {
    pub(super) fn new(inner: S) -> Strict<S> {
        Strict { inner, room: Arc::new(Semaphore::new(ROOM_KIB)) }
    }
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
        let room = self.room.clone();
        Box::pin(async move {
            match check(request, message, &room).await {
                Ok((request, held)) => {
                    let answered = inner.call(request).await;
                    drop(held);
                    answered
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Reads the request whole, and gives it on as it was, with the room that it takes.
async fn check(
    request: http::Request<Body>,
    message: &'static str,
    room: &Arc<Semaphore>,
) -> Result<(http::Request<Body>, Option<OwnedSemaphorePermit>), Status> {
    let (head, body) = request.into_parts();
    let read = timeout(PATIENCE, read(body, room)).await;
    let (bytes, held) =
        read.map_err(|_| Status::deadline_exceeded("the request did not come to its end"))??;
    let sent = bytes.clone();
    let unknown =
        tokio::task::spawn_blocking(move || request_unknown_fields(message, content(&sent))).await;
    match unknown {
        Ok(Some(problems)) => Err(status::invalid(&problems)),
        _ => Ok((http::Request::from_parts(head, Body::new(Full::new(bytes))), held)),
    }
}

/// A request takes room as it grows: who sends nothing holds nothing.
async fn read(
    mut body: Body,
    room: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Status> {
    let mut bytes = BytesMut::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::cancelled("the request broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits::RULE_TEXT_BYTES + PREFIX {
            let most = limits::RULE_TEXT_BYTES;
            return Err(Status::out_of_range(format!("a request has at most {most} bytes")));
        }
        bytes.extend_from_slice(&data);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = u32::try_from(bytes.len().div_ceil(1 << 10) - has).unwrap_or(u32::MAX);
        if wanted == 0 {
            continue;
        }
        let more = room.clone().try_acquire_many_owned(wanted);
        let more = more.map_err(|_| Status::resource_exhausted("too much is written at once"))?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
    }
    Ok((bytes.freeze(), held))
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
/// KiB of requests that are read and carried out at one time: four of the largest.
const ROOM_KIB: usize = (4 * limits::RULE_TEXT_BYTES) >> 10;
/// How long a request may take to come whole.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn sending() -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Body) {
        let (sender, frames) = mpsc::channel(1);
        (sender, Body::new(StreamBody::new(ReceiverStream::new(frames))))
    }

    fn data(bytes: usize) -> Result<Frame<Bytes>, Infallible> {
        Ok(Frame::data(Bytes::from(vec![1; bytes])))
    }

    #[tokio::test]
    async fn requests_share_room_and_give_it_back() {
        let room = Arc::new(Semaphore::new(3));
        let (sender, body) = sending();
        let first = tokio::spawn({
            let room = room.clone();
            async move { read(body, &room).await }
        });
        for _ in 0..2 {
            sender.send(data(1_000)).await.unwrap();
        }
        drop(sender);
        let (bytes, held) = first.await.unwrap().unwrap();
        assert_eq!((bytes.len(), room.available_permits()), (2_000, 1));
        let refused = read(Body::new(Full::new(Bytes::from(vec![1; 1_025]))), &room).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::ResourceExhausted);
        drop(held);
        assert_eq!(room.available_permits(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_given_up() {
        let room = Arc::new(Semaphore::new(3));
        let (sender, body) = sending();
        sender.send(data(5)).await.unwrap();
        let request = http::Request::new(body);
        let refused = check(request, "PutRuleRequest", &room).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(room.available_permits(), 3);
    }
}
