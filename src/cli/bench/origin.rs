//! A fast origin for measurements: answers every request with the same bytes.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::cli::failure::Failure;

/// Serves `size` bytes to everybody, until the process ends.
pub(super) async fn start(size: usize) -> Result<SocketAddr, Failure> {
    let fail = |error: std::io::Error| Failure::failed(format!("no port: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let body = Bytes::from(vec![b'x'; size]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A lost option costs latency, not correctness.
            let _ = stream.set_nodelay(true);
            let body = body.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let body = body.clone();
                    async move {
                        let mut upload = request.into_body();
                        // Taken in and forgotten; one that breaks off has nobody to answer to.
                        while let Some(Ok(_)) = upload.frame().await {}
                        Ok::<_, Infallible>(Response::new(Full::new(body)))
                    }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // How a connection ends is the client's business.
                let _ = serving.await;
            });
        }
    });
    Ok(address)
}
