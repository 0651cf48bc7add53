//! An exchange that stopped being HTTP: bytes both ways until one side is done or nothing moves.
//!
//! Only WebSocket gets here, and only where client and target both agreed on it (RFC 9110,
//! section 7.8; RFC 6455): any other protocol, and above all `h2c`, would let a client speak past
//! the rules. A tunnel that is silent holds no buffer.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::ready;

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version, request, response};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::body::{OpenBody, Patience};
use super::forward::Underway;
use super::headers;

/// The target's side of a tunnel, before the client's side is there.
pub(crate) struct Tunnel {
    /// Comes once the target's connection has stopped being HTTP.
    target: OnUpgrade,
    patience: Patience,
    _open: OpenBody,
    _underway: Underway,
}

impl Tunnel {
    pub(super) fn new(
        target: OnUpgrade,
        patience: Patience,
        open: OpenBody,
        underway: Underway,
    ) -> Tunnel {
        Tunnel { target, patience, _open: open, _underway: underway }
    }

    /// Carries bytes until the end; `early` came behind the client's request already.
    pub(crate) async fn carry<C>(self, client: C, early: &[u8])
    where
        C: AsyncRead + AsyncWrite,
    {
        // A target that breaks off here has broken off a tunnel: the client sees its end.
        let Ok(target) = self.target.await else { return };
        let mut target = TokioIo::new(target);
        if target.write_all(early).await.is_err() {
            return;
        }
        let moved = Cell::new(Instant::now());
        let (from_client, to_client) = tokio::io::split(client);
        let (from_target, to_target) = tokio::io::split(target);
        let both = async {
            tokio::try_join!(
                copy(from_client, to_target, &moved),
                copy(from_target, to_client, &moved)
            )
        };
        tokio::select! {
            // How a tunnel ends is its ends' business.
            _ = both => {}
            () = silence(&moved, &self.patience) => {}
        }
    }
}

/// Whether the client asks for a WebSocket in a way that may be passed on: HTTP/1.1, GET, no body.
///
/// Everything else that stands in Upgrade is ignored, as RFC 9110 allows.
pub(super) fn is_asked(parts: &request::Parts, body: &Incoming) -> bool {
    parts.version == Version::HTTP_11
        && parts.headers.contains_key(UPGRADE)
        && parts.method == Method::GET
        && body.is_end_stream()
        && names_websocket(&parts.headers)
        && headers::lists(&parts.headers, &CONNECTION, "upgrade")
}

/// Whether the target agreed to what was asked.
pub(super) fn is_agreed(parts: &response::Parts) -> bool {
    parts.status == StatusCode::SWITCHING_PROTOCOLS && names_websocket(&parts.headers)
}

/// Says what this hop is about to become.
pub(super) fn announce(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Exactly one protocol, since a list leaves open which one is meant.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let first = protocols.next();
    let named = first.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    named && protocols.next().is_none()
}

/// One direction; its end is passed on, the other direction may go on.
async fn copy<R, W>(mut from: R, mut to: W, moved: &Cell<Instant>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let bytes = read(&mut from).await?;
        moved.set(Instant::now());
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&bytes).await?;
        to.flush().await?;
        moved.set(Instant::now());
    }
}

/// What there is to read; the space for it is only taken when there is something.
async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); MOST_AT_ONCE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        std::task::Poll::Ready(Ok(buffer.filled().to_vec()))
    })
    .await
}

/// Returns when nothing has moved for too long, or when all of it has taken too long.
async fn silence(moved: &Cell<Instant>, patience: &Patience) {
    let mut timer = pin!(tokio::time::sleep_until(patience.deadline(moved.get())));
    loop {
        timer.as_mut().await;
        let until = patience.deadline(moved.get());
        if until <= Instant::now() {
            return;
        }
        timer.as_mut().reset(until);
    }
}

/// The one protocol that is passed on.
const WEBSOCKET: &str = "websocket";
/// Bytes carried in one step.
const MOST_AT_ONCE: usize = 16 << 10;
