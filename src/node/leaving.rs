//! Leaving: in good order, to a process that takes over, or at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::driver::Note;
use super::{Node, hand_over};
use crate::engine::port::Input;

impl Node {
    /// Out of service in good order: unready, no new connections, what runs comes to its end, or is
    /// cut off at `hurry`.
    pub(crate) async fn shutdown(
        self,
        delay: Duration,
        patience: Duration,
        hurry: CancellationToken,
    ) {
        self.draining.store(true, Relaxed);
        let _ = self.notes.send(Note::input(Input::Drain(true))).await;
        hurry.run_until_cancelled(tokio::time::sleep(delay)).await;
        self.proxy.drain(patience, hurry).await;
        let (done, waiting) = oneshot::channel();
        if self.notes.send(Note::End(done)).await.is_ok() {
            // The loop answers once the disk is closed, or is gone.
            let _ = waiting.await;
        }
        self.ended.send_replace(true);
    }

    /// Resolves when another process has taken this one's place; `leave` then.
    pub(crate) async fn replaced(&self, door: &UnixListener) {
        loop {
            let Ok((stream, _)) = door.accept().await else {
                // Descriptors may have run out; the next moment is better than a busy loop.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            match self.give_way(stream).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "nobody took over; going on"),
            }
            self.disk.take_back();
        }
    }

    async fn give_way(&self, stream: tokio::net::UnixStream) -> std::io::Result<()> {
        let blocking = tokio::task::spawn_blocking(|| hand_over::greeted(stream));
        let stream = blocking.await??;
        // The disk's thread may hang with the disk; the newcomer sees then that it is in use.
        let _ = tokio::time::timeout(LENDING, self.disk.lend()).await;
        let own = self.proxy.sockets().iter().chain([&self.peer_socket]);
        let sockets =
            own.map(std::net::TcpListener::try_clone).collect::<std::io::Result<Vec<_>>>()?;
        tokio::task::spawn_blocking(move || hand_over::give(stream, &sockets)).await?
    }

    /// Leaves to the process that has taken over: what runs here comes to its end, everything
    /// else is the other's from now on.
    pub(crate) async fn leave(self, patience: Duration, hurry: CancellationToken) {
        self.draining.store(true, Relaxed);
        self.ended.send_replace(true);
        drop(self.peer_socket);
        let (done, _) = oneshot::channel();
        // The loop may be gone already.
        let _ = self.notes.send(Note::End(done)).await;
        self.proxy.drain(patience, hurry).await;
    }

    /// Ends at once, as a crash would: nothing more is said or stored.
    pub(crate) fn kill(self) {
        self.driver.abort();
        self.ended.send_replace(true);
    }
}

/// How long the disk may take to let its directory go.
const LENDING: Duration = Duration::from_secs(3);
