//! Clients that come when they are due, whatever became of those before them.
//!
//! A request's time counts from when it was due (no coordinated omission). Connections are kept
//! and more are opened on demand, so that requests that hang do not hold up those that come.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::targets;
use crate::cli::bench::traffic;
use crate::cli::failure::Failure;

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// From the beginning.
    pub(super) due: Duration,
    /// Until the last byte, from when it was due.
    pub(super) took_ms: f64,
    /// Whether the answer was a good one.
    pub(super) good: bool,
}

type Sender = SendRequest<Full<Bytes>>;

/// The connections of all clients of one proxy.
struct Connections {
    at: SocketAddr,
    /// The last one that was used is used next.
    kept: Mutex<Vec<Sender>>,
    room: Semaphore,
}

/// Asks a proxy at these times after `begun`; what became of it, in that order.
pub(super) async fn ask(
    at: SocketAddr,
    due: &[Duration],
    begun: Instant,
) -> Result<Vec<Fate>, Failure> {
    let room = Semaphore::new(CONNECTIONS);
    let connections = Arc::new(Connections { at, kept: Mutex::default(), room });
    let mut asking = JoinSet::new();
    for due in due.iter().copied() {
        tokio::time::sleep_until(begun + due).await;
        let connections = connections.clone();
        asking.spawn(async move {
            let good = tokio::time::timeout(PATIENCE, connections.exchange()).await;
            let took = begun.elapsed().saturating_sub(due);
            Fate { due, took_ms: took.as_secs_f64() * 1e3, good: good.is_ok_and(|it| it.is_some()) }
        });
    }
    let mut fates = Vec::with_capacity(due.len());
    while let Some(fate) = asking.join_next().await {
        fates.push(fate.map_err(|error| Failure::failed(error.to_string()))?);
    }
    fates.sort_by_key(|fate| fate.due);
    Ok(fates)
}

impl Connections {
    /// One request and its whole answer; none when anything went wrong.
    async fn exchange(&self) -> Option<()> {
        let _place = self.room.acquire().await.ok()?;
        let mut sender = match self.take() {
            Some(sender) => sender,
            None => traffic::connect(self.at).await?,
        };
        sender.ready().await.ok()?;
        let request = Request::builder().uri("/").header(HOST, "bench.example");
        let request = request.body(Full::new(Bytes::new())).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let good = response.status().is_success();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        (good && body.len() == targets::SIZE).then_some(())
    }

    /// A kept connection that the proxy has not closed.
    fn take(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|sender| !sender.is_closed());
        kept.pop()
    }
}

/// At a time, to one proxy.
const CONNECTIONS: usize = 2_048;
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(10);
