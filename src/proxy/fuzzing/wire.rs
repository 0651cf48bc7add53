//! Connections that are memory, and a body that remembers what it gave.
//!
//! Nothing here waits for anything: a future is polled until it wants no more, then it is over.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::http1_target::connection::Stream;

/// What a client sends; what it is answered is dropped.
pub(super) struct Received<'b> {
    bytes: &'b [u8],
    /// Whether it goes away after that, instead of waiting.
    pub(super) ends: Rc<Cell<bool>>,
}

/// What a target gets; it never answers.
#[derive(Clone, Default)]
pub(super) struct Sent(Rc<RefCell<Vec<u8>>>);

/// What a body gave.
#[derive(Default)]
pub(super) struct Recorded {
    /// All bytes of it.
    pub(super) bytes: RefCell<Vec<u8>>,
    /// It came to its end.
    pub(super) whole: Cell<bool>,
}

/// A body that is recorded.
pub(super) struct Recording<B> {
    body: B,
    into: Rc<Recorded>,
}

/// Polls until nothing more happens by itself; whether the future has ended.
pub(super) fn until_quiet<F: Future>(mut future: Pin<&mut F>) -> bool {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    while woken.0.swap(false, Relaxed) {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
    }
    false
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl<'b> Received<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Received<'b> {
        Received { bytes, ends: Rc::default() }
    }
}

impl Sent {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }
}

impl Recorded {
    pub(super) fn of<B: Body<Data = Bytes>>(self: &Rc<Self>, body: B) -> Recording<B> {
        self.whole.set(body.is_end_stream());
        Recording { body, into: self.clone() }
    }
}

impl AsyncRead for Received<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return if self.ends.get() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let taken = self.bytes.len().min(buffer.remaining());
        buffer.put_slice(&self.bytes[..taken]);
        self.bytes = &self.bytes[taken..];
        Poll::Ready(Ok(()))
    }
}

impl Stream for Sent {}

impl AsyncRead for Sent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Received<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sent {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recording<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
                self.into.bytes.borrow_mut().extend_from_slice(data);
                self.into.whole.set(frame.is_trailers() || self.body.is_end_stream());
            }
            Some(Err(_)) => {}
            None => self.into.whole.set(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
