//! Connections to targets, kept per traffic thread: last in, first out.
//!
//! Nothing is shared between threads. Invariants: an HTTP/1.1 connection with unread or unsent
//! bytes never comes back; at most `MOST_IDLE` of them wait per target, none longer than
//! `IDLE_AGE`. Over HTTP/2 a connection carries as many exchanges as the target allows, and only
//! one is opened at a time, so that a burst does not open one for each request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::body::{Patience, RequestBody};
use super::broken::Broken;
use super::dial::{Dialer, Opened};
use super::http1_target::connection::{Connection, Stream};
use super::http1_target::request::Announced;
use super::http1_target::upload::Upload;
use super::http2_target::connection::{Exchange, Multiplexed};
use super::noted::Noted;
use super::reply::Failure;
use crate::model::rule::{Scheme, TargetAddress};

/// One thread's connections to targets.
pub(crate) struct Pool {
    idle: RefCell<ByEndpoint<Vec<Idle>>>,
    /// Of targets that may speak HTTP/2.
    shared: RefCell<ByEndpoint<Shared>>,
    dialer: Dialer,
}

/// Where to connect, and who must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Of the rest, made once instead of twice a request. Endpoints stand in rules: nobody outside
    /// makes them collide.
    hash: u64,
    pub(crate) address: Arc<TargetAddress>,
    /// The name that the target's certificate must have, where it is not the address's.
    pub(crate) server_name: Option<Arc<str>>,
}

/// Takes a hash that is there already.
#[derive(Default)]
struct AsItIs(u64);

/// By endpoint.
type ByEndpoint<T> = HashMap<Endpoint, T, BuildHasherDefault<AsItIs>>;

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// What is known of a target that may speak HTTP/2.
#[derive(Default)]
struct Shared {
    connections: Vec<Rc<Multiplexed>>,
    /// Whoever opens a connection holds it.
    turn: Arc<Mutex<()>>,
    /// It was heard to speak HTTP/1.1 instead.
    http1: bool,
}

/// A connection in use; it goes back to its pool only by `give_back`.
pub(crate) struct Lease {
    carrier: Carrier,
    /// Whether it was used before: the target may have closed it by now.
    pub(crate) reused: bool,
    spoilt: bool,
    endpoint: Endpoint,
    pool: Rc<Pool>,
}

enum Carrier {
    Http1(Box<Connection>),
    /// The same while the request goes on by itself.
    Uploading(Upload),
    Http2(Box<Exchange>),
    /// The exchange is over.
    Over,
}

/// What is left of a request whose answer is whole.
pub(super) enum Rest {
    Http1(Upload),
    Http2(Box<Exchange>),
}

impl Endpoint {
    pub(crate) fn new(address: Arc<TargetAddress>, server_name: Option<Arc<str>>) -> Endpoint {
        let hash =
            BuildHasherDefault::<DefaultHasher>::default().hash_one((&address, &server_name));
        Endpoint { hash, address, server_name }
    }

    /// The name that the target's certificate must have.
    pub(super) fn name(&self) -> &str {
        self.server_name.as_deref().unwrap_or(&self.address.host)
    }
}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, into: &mut H) {
        into.write_u64(self.hash);
    }
}

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        // Only for what is not an endpoint.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Pool {
    pub(crate) fn new(dialer: Dialer) -> Rc<Pool> {
        Rc::new(Pool { idle: RefCell::default(), shared: RefCell::default(), dialer })
    }

    /// The connection to the target that was used last, if there is one that may be used again.
    pub(crate) fn kept(
        self: &Rc<Self>,
        to: &Endpoint,
        http1_only: bool,
        now: Instant,
    ) -> Option<Lease> {
        if to.address.scheme != Scheme::Http
            && !http1_only
            && let Some(connection) = self.with_room(to)
        {
            return Some(self.lend(Carrier::among_others(connection), true, to));
        }
        loop {
            let mut idle = self.idle.borrow_mut().get_mut(to)?.pop()?;
            let waited = now.saturating_duration_since(idle.since);
            if waited < IDLE_AGE && idle.connection.is_ready() {
                return Some(self.lend(Carrier::Http1(idle.connection), true, to));
            }
        }
    }

    /// A connection, and the round trip that opening it took; none where another request had
    /// opened one meanwhile.
    pub(crate) async fn open(
        self: &Rc<Self>,
        to: &Endpoint,
        http1_only: bool,
    ) -> Result<(Lease, Option<Duration>), Failure> {
        let may_be_shared = to.address.scheme != Scheme::Http && !http1_only;
        let turn = if may_be_shared { self.turn(to).await } else { None };
        if turn.is_some()
            && let Some(connection) = self.first_with_room(to).await
        {
            return Ok((self.lend(Carrier::among_others(connection), true, to), None));
        }
        let (opened, rtt) = self.dialer.open(to, http1_only).await?;
        let carrier = match opened {
            Opened::Http1(connection) => {
                if may_be_shared {
                    self.shared.borrow_mut().entry(to.clone()).or_default().http1 = true;
                }
                Carrier::Http1(connection)
            }
            Opened::Http2(connection) => Carrier::among_others(self.share(to, connection)),
        };
        Ok((self.lend(carrier, false, to), Some(rtt)))
    }

    /// The round trip of a connection to the target; nothing is said over it.
    pub(crate) async fn reach(&self, to: &Endpoint) -> Result<Duration, Failure> {
        self.dialer.reach(to).await
    }

    /// Waits until nobody else opens a connection there; at once where each request needs one.
    async fn turn(&self, to: &Endpoint) -> Option<OwnedMutexGuard<()>> {
        let speaks_http1 = || self.shared.borrow().get(to).is_some_and(|known| known.http1);
        if speaks_http1() {
            return None;
        }
        let turn = self.shared.borrow_mut().entry(to.clone()).or_default().turn.clone();
        let held = turn.lock_owned().await;
        Some(held).filter(|_| !speaks_http1())
    }

    fn share(&self, to: &Endpoint, connection: Multiplexed) -> Rc<Multiplexed> {
        let connection = Rc::new(connection);
        let mut shared = self.shared.borrow_mut();
        let known = shared.entry(to.clone()).or_default();
        known.http1 = false;
        known.connections.retain(|other| other.is_good());
        known.connections.push(connection.clone());
        connection
    }

    fn with_room(&self, to: &Endpoint) -> Option<Rc<Multiplexed>> {
        let shared = self.shared.borrow();
        shared.get(to)?.connections.iter().rev().find(|it| it.has_room()).cloned()
    }

    /// The same; how much room there is the target says with its first word.
    async fn first_with_room(&self, to: &Endpoint) -> Option<Rc<Multiplexed>> {
        let room = self.with_room(to);
        if room.is_none()
            && let Some(newest) = self.about_to_say(to)
        {
            // Without a word there is no room.
            let _ = timeout(WORD, newest.told()).await;
            return self.with_room(to);
        }
        room
    }

    /// The connection whose target is to say how much it allows. It has said so if it was one over
    /// another one, and where it keeps silent for long nobody waits for it any more.
    fn about_to_say(&self, to: &Endpoint) -> Option<Rc<Multiplexed>> {
        let shared = self.shared.borrow();
        let good = shared.get(to)?.connections.iter().filter(|it| it.is_good());
        let mut newest = None;
        for connection in good {
            match connection.most() {
                Some(1) => return None,
                Some(_) => {}
                None if connection.age() > WORD => return None,
                None => newest = Some(connection.clone()),
            }
        }
        newest
    }

    fn lend(self: &Rc<Self>, carrier: Carrier, reused: bool, to: &Endpoint) -> Lease {
        Lease { carrier, reused, spoilt: false, endpoint: to.clone(), pool: self.clone() }
    }

    fn put(&self, to: &Endpoint, connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        let new = Idle { connection, since: Instant::now() };
        match idle.get_mut(to) {
            Some(waiting) if waiting.len() < MOST_IDLE => waiting.push(new),
            Some(_) => {}
            None => drop(idle.insert(to.clone(), vec![new])),
        }
    }

    /// Drops what has waited too long or was closed; runs as long as its thread.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.idle.borrow_mut().retain(|_, waiting| {
                waiting.retain_mut(|idle| {
                    idle.since.elapsed() < IDLE_AGE && idle.connection.is_ready()
                });
                !waiting.is_empty()
            });
            self.shared.borrow_mut().retain(|_, known| {
                known.connections.retain(|it| it.is_good() && it.idle() < IDLE_AGE);
                !known.connections.is_empty() || Arc::strong_count(&known.turn) > 1
            });
        }
    }
}

impl Carrier {
    /// One more exchange over this connection.
    fn among_others(connection: Rc<Multiplexed>) -> Carrier {
        Carrier::Http2(Box::new(Exchange::begin(connection)))
    }
}

impl Lease {
    /// Whether the exchange is carried by HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.carrier, Carrier::Http2(_))
    }

    /// Begins an exchange over HTTP/1.1; the head is written without framing and last line.
    pub(super) fn begin_http1(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        to_head: bool,
        announced: Announced,
        body: RequestBody,
    ) {
        if let Carrier::Http1(connection) = &mut self.carrier {
            connection.begin(head, to_head, announced, body);
        }
    }

    /// Begins an exchange over HTTP/2.
    pub(super) fn begin_http2(&mut self, request: Request<RequestBody>) {
        if let Carrier::Http2(exchange) = &mut self.carrier {
            exchange.ask(request);
        }
    }

    /// Sends, and waits for the answer's head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Noted>, Broken>> {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.poll_head(cx),
            Carrier::Http2(exchange) => exchange.poll_head(cx),
            _ => Poll::Ready(Err(Broken::Ended)),
        }
    }

    /// The request's body, where nothing of the request was sent.
    pub(super) fn take_unsent(&mut self) -> Option<RequestBody> {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.take_unsent(),
            Carrier::Http2(exchange) => exchange.take_unsent(),
            _ => None,
        }
    }

    /// The next frame of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.poll_frame(cx),
            Carrier::Uploading(upload) => upload.with(|connection| connection.poll_frame(cx)),
            Carrier::Http2(exchange) => exchange.poll_frame(cx),
            Carrier::Over => Poll::Ready(None),
        }
    }

    /// How much of the answer's body is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        let left = match &self.carrier {
            Carrier::Http1(connection) => connection.left(),
            Carrier::Uploading(upload) => upload.with(|connection| connection.left()),
            Carrier::Http2(exchange) => return exchange.size_hint(),
            Carrier::Over => Some(0),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether nothing of the answer's body is still to come.
    pub(super) fn is_end_stream(&self) -> bool {
        match &self.carrier {
            Carrier::Http2(exchange) => exchange.is_end_stream(),
            _ => self.size_hint().exact() == Some(0),
        }
    }

    /// What is left of the request goes on by itself, also while nobody takes in the answer.
    pub(super) fn let_go(&mut self) {
        let sending = matches!(&self.carrier, Carrier::Http1(connection) if !connection.is_sent());
        if sending && let Carrier::Http1(connection) = self.take() {
            self.carrier = Carrier::Uploading(Upload::begin(connection));
        }
    }

    /// What came over it makes it unfit for another exchange.
    pub(super) fn spoil(&mut self) {
        self.spoilt = true;
        if let Carrier::Http2(exchange) = &self.carrier {
            exchange.spoil();
        }
    }

    /// The answer did not come. A connection over which nothing came at all may be dead, which its
    /// target is not: the next exchange takes another one.
    pub(super) fn gives_up(&mut self) {
        let dead = match &self.carrier {
            Carrier::Http2(exchange) => exchange.is_silent(),
            _ => true,
        };
        if dead {
            self.spoil();
        }
    }

    /// The answer is whole: somebody else may use the connection, if nothing is left of this
    /// exchange. What is left of the request ends with what is returned.
    pub(super) fn give_back(&mut self) -> Option<Rest> {
        let connection = match self.take() {
            Carrier::Http1(connection) => connection,
            Carrier::Uploading(upload) => match upload.into_connection() {
                Ok(connection) => connection,
                Err(upload) => return Some(Rest::Http1(upload)),
            },
            Carrier::Http2(exchange) if !exchange.is_sent() => return Some(Rest::Http2(exchange)),
            Carrier::Http2(_) | Carrier::Over => return None,
        };
        if !self.spoilt && connection.is_clean() {
            self.pool.put(&self.endpoint, connection);
        }
        None
    }

    /// The connection that is not one of HTTP any more, and what came over it already.
    pub(super) fn into_stream(mut self) -> Option<(Box<dyn Stream>, Bytes)> {
        match self.take() {
            Carrier::Http1(connection) => Some(connection.into_parts()),
            _ => None,
        }
    }

    fn take(&mut self) -> Carrier {
        std::mem::replace(&mut self.carrier, Carrier::Over)
    }
}

impl Rest {
    /// It goes on alone, and `counted` ends with it, once it is gone or moves too slowly.
    pub(super) fn go_on(self, patience: Patience, counted: impl Sized + 'static) {
        match self {
            Rest::Http1(upload) => upload.go_on(patience, counted),
            Rest::Http2(exchange) => exchange.go_on(patience, counted),
        }
    }
}

/// Connections that may wait per target and thread.
const MOST_IDLE: usize = 128;
/// How long a burst waits for a target's first word before it takes more connections.
const WORD: Duration = Duration::from_secs(1);
/// How long one may wait: below the keep-alive of common servers.
const IDLE_AGE: Duration = Duration::from_secs(55);
/// How often the waiting ones are looked through.
const SWEEP: Duration = Duration::from_secs(5);
