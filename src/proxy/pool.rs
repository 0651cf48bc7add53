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
    spoilt: bool,
    target: Arc<TargetAddress>,
    pool: Rc<Pool>,
}

impl Pool {
    pub(crate) fn new(resolver: Resolver, distance: Option<Distance>) -> Rc<Pool> {
        Rc::new(Pool { idle: RefCell::default(), resolver, distance })
    }

    /// The connection to the target that was used last, if there is one that may be used again.
    pub(crate) fn kept(self: &Rc<Self>, target: &Arc<TargetAddress>) -> Option<Lease> {
        loop {
            let idle = self.idle.borrow_mut().get_mut(target)?.pop()?;
            if idle.since.elapsed() < IDLE_AGE && idle.sender.is_ready() {
                return Some(self.lend(idle.sender, true, target));
            }
        }
    }

    /// A new connection, and the round trip that opening it took (finding the address apart).
    pub(crate) async fn open(
        self: &Rc<Self>,
        target: &Arc<TargetAddress>,
    ) -> Result<(Lease, Duration), Failure> {
        let addresses = self.resolver.resolve(target).await?;
        let mut last = Failure::NameUnknown;
        for address in addresses {
            let begun = Instant::now();
            match self.open_at(target, address).await {
                Ok(sender) => {
                    return Ok((self.lend(sender, false, target), begun.elapsed()));
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn lend(
        self: &Rc<Self>,
        sender: SendRequest<RequestBody>,
        reused: bool,
        target: &Arc<TargetAddress>,
    ) -> Lease {
        Lease { sender, reused, spoilt: false, target: target.clone(), pool: self.clone() }
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

impl Lease {
    /// What came over it makes it unfit for another exchange.
    pub(crate) fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// The exchange is over: somebody else may use the connection once it is clean.
    pub(crate) fn give_back(mut self) {
        if self.spoilt || self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            self.pool.put(self.target, self.sender);
            return;
        }
        // Its last bytes may still be on their way out; a target that takes no more of them would
        // keep it for ever. No request waits for it meanwhile.
        tokio::task::spawn_local(async move {
            let settled = tokio::time::timeout(SETTLED, self.sender.ready()).await;
            if matches!(settled, Ok(Ok(()))) {
                self.pool.put(self.target, self.sender);
            }
        });
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
const SETTLED: Duration = Duration::from_secs(1);
/// How often the waiting ones are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// The largest response head.
const RESPONSE_HEAD_BYTES: usize = 128 << 10;
