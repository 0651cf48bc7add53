//! Outgoing control connections: to orchestrators and peers, with a deadline, maybe from afar.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

use crate::proxy::distance::Delayed;

/// One-way distance to `host:port`, for demonstrations.
pub(crate) type ControlDistance = Arc<dyn Fn(&str) -> Duration + Send + Sync>;

/// Opens control connections.
#[derive(Clone)]
pub(crate) struct Connector {
    distance: Option<ControlDistance>,
}

/// A control connection, near or far.
pub(crate) enum Line {
    /// As it is.
    Near(TcpStream),
    /// As if far away.
    Far(Box<Delayed<TcpStream>>),
}

impl Connector {
    pub(crate) fn new(distance: Option<ControlDistance>) -> Connector {
        Connector { distance }
    }

    async fn open(self, uri: Uri) -> io::Result<TokioIo<Line>> {
        let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let port = uri.port_u16().unwrap_or(80);
        let delay =
            self.distance.map_or(Duration::ZERO, |distance| distance(&format!("{host}:{port}")));
        let open = async {
            // The hand-shake takes a round trip.
            tokio::time::sleep(delay * 2).await;
            TcpStream::connect((host.as_str(), port)).await
        };
        let stream = tokio::time::timeout(CONNECT_DEADLINE, open)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(if delay.is_zero() {
            Line::Near(stream)
        } else {
            Line::Far(Box::new(Delayed::new(stream, delay)))
        }))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Line>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Near(stream) => Pin::new(stream).poll_read(cx, buffer),
            Line::Far(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Line::Near(stream) => Pin::new(stream).poll_write(cx, bytes),
            Line::Far(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Near(stream) => Pin::new(stream).poll_flush(cx),
            Line::Far(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Line::Near(stream) => Pin::new(stream).poll_shutdown(cx),
            Line::Far(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Longer than any honest hand-shake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
