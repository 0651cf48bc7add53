//! Connections to targets, kept per traffic thread: last in, first out.
//!
//! Nothing is shared between threads. Invariants: a connection with unread or unsent bytes never
//! comes back; at most `MOST_IDLE` wait per target, none longer than `IDLE_AGE`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::distance::Delayed;
use super::reply::Failure;
use super::resolve::Resolver;
use crate::model::rule::TargetAddress;

/// One thread's connections to targets.
pub(crate) struct Pool {
    idle: RefCell<HashMap<Arc<TargetAddress>, Vec<Idle>>>,
    resolver: Resolver,
    distance: Option<Distance>,
}

/// One-way distance to a target, for demonstrations.
pub(crate) type Distance = Arc<dyn Fn(&TargetAddress) -> Duration + Send + Sync>;

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use; it goes back to its pool only by `give_back`.
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<RequestBody>,
    /// Whether it was used before: the target may have closed it by now.
    pub(crate) reused: bool,
    target: Arc<TargetAddress>,
    pool: Rc<Pool>,
}

impl Pool {
    pub(crate) fn new(resolver: Resolver, distance: Option<Distance>) -> Rc<Pool> {
        Rc::new(Pool { idle: RefCell::default(), resolver, distance })
    }

    /// A connection to the target: the one used last, or a new one.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        target: &Arc<TargetAddress>,
        connect: Duration,
        fresh: bool,
    ) -> Result<(Lease, Option<Duration>), Failure> {
        while let Some(mut idle) = self.take(target).filter(|_| !fresh) {
            let young = idle.since.elapsed() < IDLE_AGE;
            if young && !idle.sender.is_closed() && is_ready(&mut idle.sender).await {
                let lease = self.lend(idle.sender, true, target);
                return Ok((lease, None));
            }
        }
        let begun = Instant::now();
        let opened = tokio::time::timeout(connect, self.open(target)).await;
        let sender = opened.map_err(|_| Failure::ConnectTimeout)??;
        Ok((self.lend(sender, false, target), Some(begun.elapsed())))
    }

    fn lend(
        self: &Rc<Self>,
        sender: SendRequest<RequestBody>,
        reused: bool,
        target: &Arc<TargetAddress>,
    ) -> Lease {
        Lease { sender, reused, target: target.clone(), pool: self.clone() }
    }

    fn take(&self, target: &Arc<TargetAddress>) -> Option<Idle> {
        self.idle.borrow_mut().get_mut(target)?.pop()
    }

    async fn open(&self, target: &TargetAddress) -> Result<SendRequest<RequestBody>, Failure> {
        let addresses = self.resolver.resolve(target).await?;
        let mut last = Failure::NameUnknown;
        for address in addresses {
            match self.open_at(target, address).await {
                Ok(sender) => return Ok(sender),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn open_at(
        &self,
        target: &TargetAddress,
        address: SocketAddr,
    ) -> Result<SendRequest<RequestBody>, Failure> {
        let distance = self.distance.as_ref().map(|distance| distance(target));
        if let Some(delay) = distance.filter(|delay| !delay.is_zero()) {
            // The hand-shake takes a round trip.
            tokio::time::sleep(delay * 2).await;
        }
        let stream = TcpStream::connect(address).await.map_err(|_| Failure::ConnectRefused)?;
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let (sender, driven) = match distance.filter(|delay| !delay.is_zero()) {
            Some(delay) => {
                let io = TokioIo::new(Delayed::new(stream, delay));
                let (sender, connection) = handshake(io).await?;
                (sender, tokio::task::spawn_local(drive(connection)))
            }
            None => {
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                (sender, tokio::task::spawn_local(drive(connection)))
            }
        };
        drop(driven);
        Ok(sender)
    }

    fn put(&self, target: Arc<TargetAddress>, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry(target).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Drops what has waited too long or was closed; runs as long as its thread.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.idle.borrow_mut().retain(|_, waiting| {
                waiting.retain(|idle| idle.since.elapsed() < IDLE_AGE && !idle.sender.is_closed());
                !waiting.is_empty()
            });
        }
    }
}

/// Whether the exchange before has left the connection, which shows a moment after its last byte.
/// A target that takes no more bytes in keeps it for ever: such a connection is not waited for.
async fn is_ready(sender: &mut SendRequest<RequestBody>) -> bool {
    sender.is_ready()
        || tokio::time::timeout(SETTLED, sender.ready()).await.is_ok_and(|r| r.is_ok())
}

impl Lease {
    /// The exchange is over and the connection clean: somebody else may use it.
    pub(crate) fn give_back(self) {
        self.pool.clone().put(self.target, self.sender);
    }
}

type Connection<T> = http1::Connection<T, RequestBody>;

async fn handshake<T>(io: T) -> Result<(SendRequest<RequestBody>, Connection<T>), Failure>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    http1::Builder::new()
        .max_buf_size(RESPONSE_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(|_| Failure::ConnectRefused)
}

async fn drive<T>(connection: Connection<T>)
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    // How a connection ended is told to whoever used it; an idle one may end as it likes.
    let _ = connection.await;
}

/// Connections that may wait per target and thread.
const MOST_IDLE: usize = 128;
/// How long one may wait: below the keep-alive of common servers.
const IDLE_AGE: Duration = Duration::from_secs(55);
/// How long a connection may take to come to rest after an exchange.
const SETTLED: Duration = Duration::from_millis(5);
/// How often the waiting ones are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// The largest response head.
const RESPONSE_HEAD_BYTES: usize = 128 << 10;
