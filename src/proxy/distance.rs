//! Distance in user space: every byte arrives a fixed time later, in each direction.
//!
//! For demonstrations and tests on machines without a traffic shaper. Bandwidth is not limited;
//! what is under way is bounded by `UNDER_WAY`. Order and ends of stream are kept.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::http1_target::connection::Stream;

/// A connection as if its other end were far away.
pub(crate) struct Delayed<T> {
    inner: T,
    delay: Duration,
    coming: Line,
    ended: bool,
    going: Line,
    closing: bool,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
}

/// Bytes under way in one direction.
#[derive(Default)]
struct Line {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl<T> Delayed<T> {
    /// `delay` is one way: a round trip takes twice as long.
    pub(crate) fn new(inner: T, delay: Duration) -> Delayed<T> {
        Delayed {
            inner,
            delay,
            coming: Line::default(),
            ended: false,
            going: Line::default(),
            closing: false,
            read_timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            write_timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

impl<T: Stream> Stream for Delayed<T> {
    fn break_off(&mut self) {
        self.inner.break_off();
    }
}

impl Line {
    fn push(&mut self, due: Instant, bytes: Bytes) {
        self.bytes += bytes.len();
        self.chunks.push_back((due, bytes));
    }

    fn due(&self) -> Option<Instant> {
        self.chunks.front().map(|(due, _)| *due)
    }
}

impl<T: AsyncRead + Unpin> Delayed<T> {
    /// Takes in what has come, with the time at which it may be seen.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut space = [0u8; 16 << 10];
        while !self.ended && self.coming.bytes < UNDER_WAY {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => {
                    let due = Instant::now() + self.delay;
                    self.coming.push(due, Bytes::copy_from_slice(buffer.filled()));
                }
            }
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Delayed<T>
where
    T: AsyncWrite,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What is under way must go on even while nobody writes.
        let _ = this.send_due(cx)?;
        this.take_in(cx)?;
        match this.coming.due() {
            None if this.ended => Poll::Ready(Ok(())),
            None => Poll::Pending,
            Some(due) => {
                this.read_timer.as_mut().reset(due);
                ready!(this.read_timer.as_mut().poll(cx));
                if let Some((_, bytes)) = this.coming.chunks.front_mut() {
                    let some = bytes.len().min(buffer.remaining());
                    buffer.put_slice(&bytes[..some]);
                    bytes.advance(some);
                    this.coming.bytes -= some;
                    if bytes.is_empty() {
                        this.coming.chunks.pop_front();
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Delayed<T> {
    /// Hands on what has been under way for long enough; ready when nothing is left.
    fn send_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(due) = self.going.due() {
            self.write_timer.as_mut().reset(due);
            ready!(self.write_timer.as_mut().poll(cx));
            if let Some((_, bytes)) = self.going.chunks.front_mut() {
                let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                bytes.advance(sent);
                self.going.bytes -= sent;
                if bytes.is_empty() {
                    self.going.chunks.pop_front();
                }
            }
        }
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        if self.closing {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Delayed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let moved = this.send_due(cx)?;
        if this.going.bytes >= UNDER_WAY {
            ready!(moved);
        }
        let due = Instant::now() + this.delay;
        this.going.push(due, Bytes::copy_from_slice(bytes));
        // Arms the timer for what was just put under way.
        let _ = this.send_due(cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Under way counts as flushed: the sender of a far connection does not wait either.
        let _ = self.get_mut().send_due(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.closing = true;
        this.send_due(cx)
    }
}

/// Bytes that may be under way in one direction.
const UNDER_WAY: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_trip_takes_twice_the_distance() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Delayed::new(near, Duration::from_millis(40));
        let echo = tokio::spawn(async move {
            let mut byte = [0u8; 5];
            far.read_exact(&mut byte).await.unwrap();
            far.write_all(&byte).await.unwrap();
        });
        let begun = Instant::now();
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        let mut back = [0u8; 5];
        near.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        let took = begun.elapsed();
        assert!((80..=85).contains(&took.as_millis()), "{took:?}");
        echo.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_stream_comes_after_its_bytes() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Delayed::new(near, Duration::from_millis(10));
        far.write_all(b"last words").await.unwrap();
        drop(far);
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last words");
    }
}
