//! A demo target: answers after about two milliseconds, or later when it is told to be slow.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::cli::failure::Failure;
use crate::cli::roles::{Signals, control_runtime};
use crate::telemetry::logs;

/// A running target. It ends with its process.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) region: String,
    /// Milliseconds added to every answer.
    slowness: Arc<AtomicU64>,
}

impl Target {
    pub(super) async fn start(listen: SocketAddr, region: &str) -> Result<Target, Failure> {
        let fail = |error: std::io::Error| {
            Failure::failed(format!("a target cannot listen on {listen}: {error}"))
        };
        let listener = TcpListener::bind(listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let slowness = Arc::new(AtomicU64::new(0));
        let target = Target { address, region: region.to_string(), slowness };
        tokio::spawn(serve(listener, target.clone()));
        Ok(target)
    }

    pub(super) fn slow(&self, ms: u64) {
        self.slowness.store(ms, Relaxed);
    }

    pub(super) fn slowness(&self) -> u64 {
        self.slowness.load(Relaxed)
    }
}

async fn serve(listener: TcpListener, target: Target) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let target = target.clone();
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(target.clone(), request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            // How a connection ends is the client's business.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    target: Target,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/readyz" {
        return Ok(Response::new(Full::new(Bytes::from_static(b"ready\n"))));
    }
    let added = target.slowness();
    tokio::time::sleep(Duration::from_millis(2 + added)).await;
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("-").to_string()
    };
    let body = serde_json::json!({
        "target": target.address.to_string(),
        "region": target.region,
        "via": header("via"),
        "path": request.uri().path(),
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(name) = HeaderValue::from_str(&target.address.to_string()) {
        headers.insert(TARGET_HEADER, name);
    }
    Ok(response)
}

/// Who answered, for the load's counts.
pub(super) const TARGET_HEADER: &str = "x-demo-target";

/// `tradewind demo target`.
pub(super) fn alone(listen: SocketAddr, region: &str) -> Result<(), Failure> {
    logs::begin("info");
    control_runtime()?.block_on(async move {
        let mut signals = Signals::new()?;
        let target = Target::start(listen, region).await?;
        tracing::info!(address = %target.address, region, "the target is up");
        signals.ended().await;
        Ok(())
    })
}
