//! A client's side of a WebSocket: over a connection of its own, or as one stream of many over
//! HTTP/2.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, Request};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::RngExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{CLOSE, Frame, accepted};
use super::traffic;

/// A client's side of a WebSocket.
pub(super) struct WebSocket {
    stream: Box<dyn Duplex>,
}

/// A connection of HTTP/2 over which WebSockets are streams (RFC 8441).
pub(super) struct Shared {
    host: &'static str,
    sender: http2::SendRequest<Empty<Bytes>>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl WebSocket {
    /// Connects and agrees on it; an error says at what that failed.
    pub(super) async fn open(at: SocketAddr, host: &str) -> Result<WebSocket, String> {
        let mut stream = traffic::dial(at).await.ok_or("no connection")?;
        let key = BASE64.encode(rand::rng().random::<[u8; 16]>());
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        // The server has nothing to say before it was asked, so what is read is the head.
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read_buf(&mut head).await.map_err(|error| error.to_string())?;
            if read == 0 || head.len() > HEAD {
                return Err("the head of the answer broke off".to_string());
            }
        }
        let head = String::from_utf8_lossy(&head);
        let accept = accepted(key.as_bytes());
        let agreed = head.starts_with("HTTP/1.1 101 ") && head.contains(&accept);
        let first = head.lines().next().unwrap_or_default();
        if !agreed {
            return Err(format!("no agreement: {first}"));
        }
        Ok(WebSocket { stream: Box::new(stream) })
    }

    /// Says something, and has to hear the same; whether it did.
    pub(super) async fn echo(&mut self, text: &str) -> bool {
        let frame = Frame::text(text.as_bytes());
        let mask = rand::rng().random();
        frame.write(&mut self.stream, Some(mask)).await.is_ok()
            && Frame::read(&mut self.stream).await.is_ok_and(|heard| heard == frame)
    }

    /// Takes leave as one should; whether the other side did, too.
    pub(super) async fn close(mut self) -> bool {
        let frame = Frame { kind: CLOSE, payload: 1000u16.to_be_bytes().to_vec() };
        let mask = rand::rng().random();
        frame.write(&mut self.stream, Some(mask)).await.is_ok()
            && Frame::read(&mut self.stream).await.is_ok_and(|heard| heard.kind == CLOSE)
    }

    /// Ends when the other side says something, or ends: neither is asked for.
    pub(super) async fn disturbed(&mut self) {
        let mut byte = [0];
        // Whatever comes is not what should.
        let _ = self.stream.read(&mut byte).await;
    }
}

impl Shared {
    /// Has had an answer of any kind: before it, nobody knows whether the other side takes
    /// WebSockets.
    pub(super) async fn connect(at: SocketAddr, host: &'static str) -> Result<Shared, String> {
        let stream = traffic::dial(at).await.ok_or("no connection")?;
        let shaking = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = shaking.await.map_err(|error| error.to_string())?;
        // Ends with its sender and its streams.
        tokio::spawn(connection);
        let request = Request::builder().uri(format!("http://{host}/")).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| error.to_string())?;
        Ok(Shared { host, sender })
    }

    pub(super) async fn open(&self) -> Result<WebSocket, String> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{}/", self.host))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let mut sender = self.sender.clone();
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("no agreement over HTTP/2: {}", response.status()));
        }
        let stream = hyper::upgrade::on(response).await.map_err(|error| error.to_string())?;
        Ok(WebSocket { stream: Box::new(TokioIo::new(stream)) })
    }
}

/// Bytes of the longest head of an answer.
const HEAD: usize = 16 << 10;
