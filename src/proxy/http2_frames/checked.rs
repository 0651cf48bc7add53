//! A connection whose frames are looked at on their way, in both directions.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::coming::Coming;
use super::going::Going;
use super::streams::Streams;
use super::tunnels::Tunnels;

/// A connection that fails where the other side says what it must not.
pub(in crate::proxy) struct Checked<T> {
    inner: T,
    comes: Coming,
    goes: Going,
}

impl<T> Checked<T> {
    /// A client's, of which nothing was read yet, or written.
    pub(in crate::proxy) fn of_client(inner: T) -> Checked<T> {
        let tunnels = Rc::<Tunnels>::default();
        let comes = Coming::of_client(tunnels.clone());
        Checked { inner, comes, goes: Going::to_client(tunnels) }
    }

    /// A target's in the same way; its frames tell `streams` what becomes of those.
    pub(in crate::proxy) fn of_target(inner: T, streams: Rc<RefCell<Streams>>) -> Checked<T> {
        let comes = Coming::of_target(streams.clone());
        Checked { inner, comes, goes: Going::to_target(streams) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Checked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        Poll::Ready(self.comes.take_in(&mut buffer.filled_mut()[before..]))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Checked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.goes.take_in(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let taken = slice.len().min(left);
            self.goes.take_in(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
