//! The gRPC port's connections: how many, from whom, and how long until they speak HTTP/2.
//!
//! Knows nothing of calls. What a connection does after its beginning, keep-alive and the limits on
//! streams hold. Running out of descriptors delays new connections and ends none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::proxy::control_port::{ACCEPT_PAUSE, Crowd, Place, PortBounds};

/// What followers and writers may hold of an orchestrator: a large fleet, behind few addresses.
pub(in crate::orchestrator) const BOUNDS: PortBounds = PortBounds {
    connections: 16_384,
    per_source: 8_192,
    head: Duration::from_secs(10),
    stalled: Duration::from_secs(20),
};

/// Connections as they come, within bounds; those beyond are closed at once.
pub(super) fn incoming(
    listener: TcpListener,
    bounds: PortBounds,
) -> ReceiverStream<io::Result<Guest>> {
    let (guests, stream) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let crowd = Crowd::new(bounds);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = guests.closed() => return,
            };
            let Ok((stream, peer)) = accepted else {
                // Descriptors may have run out; the next moment is better than a busy loop.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(place) = crowd.enter(peer) else { continue };
            // A lost option costs latency, not correctness.
            let _ = stream.set_nodelay(true);
            let beginning = Some((0, Box::pin(tokio::time::sleep(bounds.head))));
            let guest = Guest { stream, beginning, _place: place };
            if guests.send(Ok(guest)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// A connection that has to begin in time.
pub(super) struct Guest {
    stream: TcpStream,
    /// Bytes that came and when it is too late, until a beginning is whole.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
    _place: Place,
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guest = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut guest.stream).poll_read(cx, buffer);
        let Some((heard, late)) = &mut guest.beginning else { return read };
        *heard += buffer.filled().len() - before;
        if *heard >= BEGINNING {
            guest.beginning = None;
            return read;
        }
        // Also when bytes came: one now and then holds no connection.
        if late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Guest {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

/// Accepted and not yet served.
const WAITING: usize = 64;
/// The preface and the head of the SETTINGS frame that has to follow it (RFC 9113, section 3.4).
const BEGINNING: usize = 24 + 9;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    async fn port(bounds: PortBounds) -> (SocketAddr, ReceiverStream<io::Result<Guest>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), incoming(listener, bounds))
    }

    #[tokio::test]
    async fn who_does_not_begin_in_time_is_let_go() {
        let quick = Duration::from_millis(100);
        let (at, mut guests) = port(PortBounds { head: quick, ..BOUNDS }).await;
        for beginning in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let begun = Instant::now();
            let mut client = TcpStream::connect(at).await.unwrap();
            client.write_all(beginning.as_bytes()).await.unwrap();
            let mut guest = guests.next().await.unwrap().unwrap();
            let mut heard = Vec::new();
            let error = guest.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() >= quick);
            assert_eq!(heard, beginning.as_bytes());
        }
        let mut client = TcpStream::connect(at).await.unwrap();
        let whole = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0; 9]].concat();
        client.write_all(&whole).await.unwrap();
        let mut guest = guests.next().await.unwrap().unwrap();
        guest.read_exact(&mut vec![0; whole.len()]).await.unwrap();
        tokio::time::sleep(2 * quick).await;
        client.write_all(b"later").await.unwrap();
        guest.read_exact(&mut [0; 5]).await.unwrap();
    }

    #[tokio::test]
    async fn one_too_many_is_closed_and_a_place_is_given_back() {
        let (at, mut guests) = port(PortBounds { per_source: 1, ..BOUNDS }).await;
        let _first = TcpStream::connect(at).await.unwrap();
        let held = guests.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(at).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        drop(held);
        let _third = TcpStream::connect(at).await.unwrap();
        assert!(guests.next().await.is_some());
    }
}
