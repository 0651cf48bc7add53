//! Whether a client's connection outlives an answer, and what is done so that it may.
//!
//! A connection whose next request begins behind bytes that nobody reads cannot be kept: what is
//! left of a body is taken in where that is soon done. Reads no body that anybody wants, and asks
//! for none: who waits to be told to send is not told.

use std::pin::Pin;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::activity::Activity;
use super::body::{Progress, ProxyBody};
use super::forward::Worker;
use super::reply::Failure;

impl Worker {
    /// Ends the connection with this answer where that is necessary, and says so. What an answer of
    /// its own leaves of the request nobody reads.
    pub(super) fn close(
        &self,
        activity: &Activity,
        version: Version,
        response: &mut Response<ProxyBody>,
        failure: Option<Failure>,
        own: bool,
    ) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let crowded = self.is_crowded();
        if version >= Version::HTTP_2 {
            if crowded || failure == Some(Failure::Overloaded) {
                activity.hangs_up();
            }
            return;
        }
        let ends = own && activity.is_unread() || self.ends(failure);
        if ends && !crowded {
            activity.hangs_up();
        }
        if ends || crowded {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if version == Version::HTTP_10 {
                // Else hyper says the contrary, too, to a client that would like it to stay.
                *response.version_mut() = Version::HTTP_10;
            }
        }
    }

    /// Takes in a body that nobody wants, if the connection may be kept then.
    pub(super) async fn take_in(
        &self,
        activity: &Activity,
        failure: Option<Failure>,
        (mut body, headers): (Incoming, HeaderMap),
    ) {
        let progress = Progress::new(self.clock, Instant::now());
        activity.reads(progress.clone());
        let stays = !self.ends(failure) && !self.is_crowded();
        if stays && take_in(&mut body, &headers).await {
            progress.is_taken();
        }
    }

    /// Whether a connection of HTTP/1 ends with this answer in any case. After what could not be
    /// understood it is not certain where the request ends, either (RFC 9112, section 6.3).
    fn ends(&self, failure: Option<Failure>) -> bool {
        let always = matches!(failure, Some(Failure::Overloaded | Failure::BadRequest(_)));
        always || self.draining.get()
    }

    /// Whether places for connections run short: those who wait for another request make room.
    fn is_crowded(&self) -> bool {
        self.connections.available_permits() < self.bounds.connections / CROWDED
    }
}

/// Whether all of the body is gone, so that the connection may be kept.
pub(super) async fn take_in<B: Body + Unpin>(body: &mut B, headers: &HeaderMap) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if headers.contains_key(EXPECT) || body.size_hint().lower() > MOST {
        return false;
    }
    let all = async {
        let mut room = MOST;
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let Some(frame) = frame else { return true };
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64);
            match room.checked_sub(length) {
                Some(left) => room = left,
                None => return false,
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap_or(false)
}

/// Bytes that are taken in; more cost more than a new connection.
const MOST: u64 = 64 << 10;
/// How long they may take: the answer waits for them.
const PATIENCE: Duration = Duration::from_millis(100);
/// Below this part of all places connections are not kept for another request.
const CROWDED: usize = 16;
