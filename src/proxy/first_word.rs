//! Notices that the other side of a connection has said something.
//!
//! Over HTTP/2 its first word is what it allows (RFC 9113, section 3.4), and hyper has no other way
//! to tell a limit that was said from the one assumed before. Understands nothing of what is said.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether there was a word.
#[derive(Default)]
pub(super) struct FirstWord {
    said: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

/// A connection that is listened to.
pub(super) struct Listening<T> {
    inner: T,
    word: Rc<FirstWord>,
}

impl FirstWord {
    /// Ready once something was said.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.said.get() {
            return Poll::Ready(());
        }
        self.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn say(&self) {
        if !self.said.replace(true)
            && let Some(waiting) = self.waiting.take()
        {
            waiting.wake();
        }
    }
}

impl<T> Listening<T> {
    pub(super) fn new(inner: T) -> Listening<T> {
        Listening { inner, word: Rc::default() }
    }

    pub(super) fn word(&self) -> Rc<FirstWord> {
        self.word.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.word.say();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_word_hears_of_the_first_and_an_end_is_none() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Listening::new(near);
        let word = near.word();
        near.write_all(b"hello").await.unwrap();
        let silent = poll_fn(|cx| Poll::Ready(word.poll(cx).is_pending())).await;
        assert!(silent, "what is said here does not count");
        far.write_all(b"hi").await.unwrap();
        // Polled in turns on one thread: the wait is there before the word is read.
        let heard = poll_fn(|cx| word.poll(cx));
        let (_, read) = tokio::join!(heard, near.read_u8());
        assert_eq!(read.unwrap(), b'h');

        let (near, far) = tokio::io::duplex(64);
        let mut near = Listening::new(near);
        drop(far);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert!(poll_fn(|cx| Poll::Ready(near.word().poll(cx).is_pending())).await);
    }
}
