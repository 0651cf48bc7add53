//! A relay in front of the orchestrator, so that streams can be made silent without being closed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cli::failure::Failure;

/// A relay that can be told to pass nothing on.
pub(super) struct Gate {
    silent: watch::Sender<bool>,
}

impl Gate {
    /// Relays connections at `listen` to `to`.
    pub(super) async fn start(listen: SocketAddr, to: SocketAddr) -> Result<Gate, Failure> {
        let fail = |error: std::io::Error| {
            Failure::failed(format!("the demo cannot listen on {listen}: {error}"))
        };
        let listener = TcpListener::bind(listen).await.map_err(fail)?;
        let (silent, watched) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                tokio::spawn(relay(near, to, watched.clone()));
            }
        });
        Ok(Gate { silent })
    }

    /// Streams stay open and nothing passes.
    pub(super) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    pub(super) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }
}

async fn relay(near: TcpStream, to: SocketAddr, silent: watch::Receiver<bool>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    // Lost options cost latency, not correctness.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = pass(near_read, far_write, silent.clone()) => {}
        () = pass(far_read, near_write, silent) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let mut space = vec![0u8; 64 << 10];
    loop {
        let Ok(some) = from.read(&mut space).await else { return };
        if silent.wait_for(|silent| !*silent).await.is_err() {
            return;
        }
        if some == 0 || to.write_all(&space[..some]).await.is_err() {
            return;
        }
    }
}
