//! A connection that is over for the proxy and not yet for its client.
//!
//! To close a socket to which the client still sends is to reset it, and the reset may overtake the
//! last answer. So the proxy's own direction is closed first, and what comes is thrown away until
//! the client closes too, or has had time to read (RFC 9112, section 9.6). Answers nothing.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// Waits for the client to close; at most for `patience`, and less where nothing comes.
pub(super) async fn linger<T>(mut stream: T, patience: Duration)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let end = Instant::now() + patience;
    // Where this fails reading does, too.
    let _ = timeout_at(end, stream.shutdown()).await;
    while Instant::now() < end {
        let silent = (Instant::now() + SILENT).min(end);
        if !matches!(timeout_at(silent, thrown_away(&mut stream)).await, Ok(true)) {
            return;
        }
    }
}

/// Whether something came, and not the end.
async fn thrown_away<T: AsyncRead + Unpin>(stream: &mut T) -> bool {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); 16 << 10];
        let mut buffer = ReadBuf::uninit(&mut space);
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
        Poll::Ready(read.is_ok() && !buffer.filled().is_empty())
    })
    .await
}

/// How long nothing may come.
const SILENT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_until_the_client_closes_falls_silent_or_has_had_its_time() {
        let patience = Duration::from_secs(30);
        for (every, times, lasts) in [(1, 3, 3), (1, 100, 30), (6, 9, 5), (4, 9, 30)] {
            let (near, mut far) = tokio::io::duplex(64);
            let begun = Instant::now();
            let sending = tokio::spawn(async move {
                assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "no more is to come");
                for _ in 0..times {
                    tokio::time::sleep(Duration::from_secs(every)).await;
                    let _ = far.write_all(b"more").await;
                }
            });
            linger(near, patience).await;
            assert_eq!(begun.elapsed().as_secs(), lasts, "{every} s, {times} times");
            sending.abort();
        }
    }
}
