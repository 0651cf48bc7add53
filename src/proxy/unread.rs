//! The body of a request that is answered without it: taken in where that is soon done.
//!
//! A connection whose next request begins behind bytes that nobody reads cannot be kept. Reads no
//! body that anybody wants, and never asks for one: who waits to be told to send is not told.

use std::pin::Pin;
use std::time::Duration;

use http::header::{EXPECT, HeaderMap};
use http_body::Body;
use tokio::time::timeout;

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
