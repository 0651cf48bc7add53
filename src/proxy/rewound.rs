//! A connection as HTTP sees it: what was read of it too early comes first, again; a client that
//! takes nothing in is noticed, and so is a first line of HTTP/1.1 that is too long.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::connection::REQUEST_HEAD_BYTES;
use super::first_line::FirstLine;

/// A connection with its first bytes put back.
pub(super) struct Rewound<T> {
    early: Bytes,
    inner: T,
    activity: Rc<Activity>,
    /// None while it is not HTTP/1.1 that is read.
    line: Option<FirstLine>,
    says_its_end: bool,
}

impl<T> Rewound<T> {
    /// Nothing was read of it yet.
    pub(super) fn new(inner: T, activity: Rc<Activity>) -> Rewound<T> {
        Rewound { early: Bytes::new(), inner, activity, line: None, says_its_end: true }
    }

    /// These bytes were read of it too early.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.early = if self.early.is_empty() {
            bytes
        } else {
            [bytes, self.early.split_off(0)].concat().into()
        };
    }

    /// Whether anything was put back that nobody has read since.
    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Whether lines are looked for in what is read: it is HTTP/1.1, or something else.
    pub(super) fn looks_for_lines(&mut self, looks: bool) {
        self.line = looks.then(FirstLine::default);
    }

    /// Whether its end is said before it is dropped. In clear text dropping says as much, with one
    /// system call less; it is not enough behind TLS, nor where the other direction lives on.
    pub(super) fn says_its_end(&mut self, says: bool) {
        self.says_its_end = says;
    }

    fn tell<R>(&self, done: Poll<R>) -> Poll<R> {
        self.activity.is_held_up(done.is_pending());
        done
    }
}

impl<T: AsyncRead + Unpin> Rewound<T> {
    /// Waits until there is something to read, which is put back; false at the end. Space is only
    /// taken when there is something.
    pub(super) async fn has_more(&mut self) -> io::Result<bool> {
        if !self.early.is_empty() {
            return Ok(true);
        }
        self.early = poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); 512];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            Poll::Ready(io::Result::Ok(Bytes::copy_from_slice(buffer.filled())))
        })
        .await?;
        Ok(!self.early.is_empty())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        } else {
            let some = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..some]);
            self.early.advance(some);
        }
        let Rewound { line, activity, .. } = &mut *self;
        Poll::Ready(match (line, activity.expects()) {
            (Some(line), Some(next)) => {
                line.take_in(next, &buffer.filled()[before..], REQUEST_HEAD_BYTES as usize)
            }
            _ => Ok(()),
        })
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.tell(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.tell(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        self.tell(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.says_its_end {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
