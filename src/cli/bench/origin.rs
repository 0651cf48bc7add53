//! A fast origin for measurements: answers every request with the same bytes, or as many as the
//! request names (`/?bytes=N`), and echoes what comes over a WebSocket.
//!
//! Part of the measuring process, or a process of its own where sockets are many or where it is to
//! be ended.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::frames::{CLOSE, Frame, PING, PONG, accepted};
use super::process::Process;
use crate::cli::failure::Failure;
use crate::cli::roles::{Signals, control_runtime};

/// Serves `size` bytes to everybody, until the process ends.
pub(super) async fn start(size: usize) -> Result<SocketAddr, Failure> {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let (staying, leaving) = watch::channel(false);
    tokio::spawn(async move {
        serve(listener, size, leaving).await;
        drop(staying);
    });
    Ok(address)
}

/// The same as a process of its own at this address, once it takes connections.
pub(super) async fn spawn(
    directory: &Path,
    at: SocketAddr,
    size: usize,
) -> Result<Process, Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("the origin: {error}"));
    std::fs::create_dir_all(directory).map_err(fail)?;
    let mut command = Command::new(std::env::current_exe().map_err(fail)?);
    command.args(["bench", "origin", "--listen", &at.to_string(), "--size", &size.to_string()]);
    let process = Process::start("the origin", command, directory)?;
    let begun = Instant::now();
    while TcpStream::connect(at).await.is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(process.is_not_up());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(process)
}

/// `tradewind bench origin`: until it is told to end, or whoever started it has ended; what is
/// under way is answered first.
pub(super) fn alone(at: SocketAddr, size: usize) -> Result<(), Failure> {
    let signal = Some(rustix::process::Signal::TERM);
    // Where the system does not know of this, somebody else has to end the origin.
    let _ = rustix::process::set_parent_process_death_signal(signal);
    control_runtime()?.block_on(async move {
        let mut signals = Signals::new()?;
        let listener = listen(at)?;
        let (leave, leaving) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, size, leaving));
        signals.ended().await;
        serving.abort();
        let _ = leave.send(true);
        // Each connection holds a receiver.
        let _ = tokio::time::timeout(FAREWELL, leave.closed()).await;
        Ok(())
    })
}

fn listen(at: SocketAddr) -> Result<TcpListener, Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("no port at {at}: {error}"));
    let socket = TcpSocket::new_v4().map_err(fail)?;
    // Whoever comes back to a port finds connections of before waiting for their end there.
    socket.set_reuseaddr(true).map_err(fail)?;
    socket.bind(at).map_err(fail)?;
    socket.listen(BACKLOG).map_err(fail)
}

async fn serve(listener: TcpListener, size: usize, leaving: watch::Receiver<bool>) {
    let body = Bytes::from(vec![b'x'; size]);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        tokio::spawn(converse(stream, body.clone(), leaving.clone()));
    }
}

async fn converse(stream: TcpStream, body: Bytes, mut leaving: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let body = body.clone();
        async move { Ok::<_, Infallible>(answer(request, body).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving.with_upgrades());
    tokio::select! {
        // How a connection ends is the client's business.
        _ = serving.as_mut() => return,
        left = leaving.wait_for(|leaving| *leaving) => {
            if left.is_err() {
                return;
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

async fn answer(mut request: Request<Incoming>, body: Bytes) -> Response<Full<Bytes>> {
    if request.headers().contains_key(UPGRADE) {
        return echo(&mut request);
    }
    let named = request.uri().query().and_then(|query| query.strip_prefix("bytes="));
    let body = match named.and_then(|bytes| bytes.parse::<usize>().ok()) {
        Some(bytes) => Bytes::from(vec![b'x'; bytes.min(MOST)]),
        None => body,
    };
    let mut upload = request.into_body();
    // Taken in and forgotten; one that breaks off has nobody to answer to.
    while let Some(Ok(_)) = upload.frame().await {}
    Response::new(Full::new(body))
}

/// Agrees to a WebSocket; one that ends, or speaks nonsense, is let go.
fn echo(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(Ok(accept)) = key.map(|key| HeaderValue::try_from(accepted(key))) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut stream = TokioIo::new(stream);
        while let Ok(mut frame) = Frame::read(&mut stream).await {
            if frame.kind == PING {
                frame.kind = PONG;
            }
            let ends = frame.write(&mut stream, None).await.is_err() || frame.kind == CLOSE;
            if ends {
                return;
            }
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Connections that wait to be taken; thousands of WebSockets may come at once.
const BACKLOG: u32 = 4_096;
/// Bytes that a request may name.
const MOST: usize = 64 << 20;
/// How long the origin may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what is under way may take when it ends.
const FAREWELL: Duration = Duration::from_secs(2);
