//! Opening a connection to a target: address, distance, TLS, and the protocol spoken over it.
//!
//! Keeps nothing: that is `pool`'s. Which of several addresses it is `racing` decides.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::distance::Delayed;
use super::first_word::FirstWord;
use super::http1_target::connection::{self, Connection, Stream};
use super::pool::Endpoint;
use super::racing;
use super::reply::Failure;
use super::resolve::Resolver;
use super::target_tls::TargetTls;
use crate::model::rule::{Scheme, TargetAddress};

/// One-way distance to a target, for demonstrations.
pub(crate) type Distance = Arc<dyn Fn(&TargetAddress) -> Duration + Send + Sync>;

/// Opens connections.
pub(crate) struct Dialer {
    pub(crate) resolver: Resolver,
    pub(crate) distance: Option<Distance>,
    pub(crate) tls: Arc<TargetTls>,
}

/// A connection just opened, and what it can carry.
pub(super) enum Opened {
    /// One exchange at a time.
    Http1(Box<Connection>),
    /// As many as the target allows, which it may say at any time.
    Http2(http2::SendRequest<RequestBody>, Rc<Cell<usize>>),
}

impl Dialer {
    /// A new connection, and the round trip that opening it took (finding the address and
    /// coming to terms apart).
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        http1_only: bool,
    ) -> Result<(Opened, Duration), Failure> {
        let mut addresses = self.resolver.resolve(&endpoint.address).await?;
        let distance = self.distance_of(endpoint);
        loop {
            // Its failure is that of all who were left.
            let connect = |address| connect(address, distance);
            let (stream, rtt) = racing::first(&mut addresses, connect).await?;
            match self.agree(endpoint, stream, distance, http1_only).await {
                Ok(opened) => return Ok((opened, rtt)),
                Err(failure) if addresses.is_empty() => return Err(failure),
                Err(_) => {}
            }
        }
    }

    /// Whether the target takes a connection; nothing is said over it.
    pub(super) async fn reach(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        let mut addresses = self.resolver.resolve(&endpoint.address).await?;
        let distance = self.distance_of(endpoint);
        racing::first(&mut addresses, |address| connect(address, distance)).await.map(drop)
    }

    fn distance_of(&self, endpoint: &Endpoint) -> Option<Duration> {
        let distance = self.distance.as_ref().map(|distance| distance(&endpoint.address));
        distance.filter(|delay| !delay.is_zero())
    }

    /// Comes to terms with who is at the other end, and on the protocol.
    async fn agree(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
        distance: Option<Duration>,
        http1_only: bool,
    ) -> Result<Opened, Failure> {
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = match distance {
            None => Box::new(stream),
            Some(delay) => Box::new(Delayed::new(stream, delay)),
        };
        match endpoint.address.scheme {
            Scheme::Http => Ok(Opened::Http1(Box::new(Connection::new(stream)))),
            Scheme::H2c => speak_http2(stream).await,
            Scheme::Https => {
                // The state of TLS is large, and plain targets shall not pay for it.
                let agreed = self.tls.connect(stream, endpoint.name(), http1_only);
                let (stream, http2) = Box::pin(agreed).await?;
                let stream: Box<dyn Stream> = Box::new(stream);
                if http2 {
                    speak_http2(stream).await
                } else {
                    Ok(Opened::Http1(Box::new(Connection::new(stream))))
                }
            }
        }
    }
}

/// A connection, and the round trip that it took.
async fn connect(
    address: SocketAddr,
    distance: Option<Duration>,
) -> Result<(TcpStream, Duration), Failure> {
    let begun = Instant::now();
    if let Some(delay) = distance {
        // The hand-shake takes a round trip.
        tokio::time::sleep(delay * 2).await;
    }
    let stream = TcpStream::connect(address).await.map_err(|error| not_connected(&error))?;
    Ok((stream, begun.elapsed()))
}

/// Why there is no connection: what this machine has too little of says nothing of the target.
fn not_connected(error: &io::Error) -> Failure {
    const OURS: [Errno; 5] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let ours = Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno));
    if ours { Failure::Overloaded } else { Failure::ConnectRefused }
}

async fn speak_http2(stream: Box<dyn Stream>) -> Result<Opened, Failure> {
    let word = Rc::<FirstWord>::default();
    let stream = word.clone().listen(stream);
    let (sender, connection) = http2::Builder::new(OnThisThread)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_max_send_streams(UNTOLD)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS)
        .max_header_list_size(connection::HEAD_BYTES as u32)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::ConnectRefused)?;
    let most = Rc::new(Cell::new(STREAMS as usize));
    tokio::task::spawn_local(drive(connection, word, most.clone()));
    Ok(Opened::Http2(sender, most))
}

/// Drives a connection, and keeps in mind how many streams the target allows.
async fn drive<T>(
    connection: http2::Connection<T, RequestBody, OnThisThread>,
    word: Rc<FirstWord>,
    most: Rc<Cell<usize>>,
) where
    T: Read + Write + Unpin + 'static,
{
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        // Until then it is `UNTOLD`, which a target may say as well.
        if word.poll(cx).is_ready() {
            most.set(connection.current_max_send_streams().min(STREAMS as usize));
        }
        polled
    });
    // How it ended is told to whoever used it.
    let _ = ended.await;
}

/// Runs hyper's tasks where everything else of a connection runs.
#[derive(Clone)]
struct OnThisThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Requests at once over one connection, where the target allows as many.
const STREAMS: u32 = 100;
/// Requests at once before the target has said how many it allows; more wait for its word, which
/// comes with its first bytes.
const UNTOLD: usize = 1;
/// What a target may send ahead of a client, per request; for all together it is the sum, so that
/// clients that take nothing in do not hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
/// What of a request's body may wait in memory.
const SEND_BUFFER: usize = 64 << 10;
/// How often a silent target is asked whether it is there, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
