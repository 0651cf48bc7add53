//! The connections of a control port (a node's peer port, an orchestrator's ports): who is let in,
//! and how long they may do nothing.
//!
//! Knows bytes and deadlines, not what is asked, and nothing of the traffic port. Every connection
//! ends when its peer is silent, slow to ask or slow to read, and one source can never hold all of
//! them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

use super::stall::Watched;

/// What peers may hold of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortBounds {
    /// Connections at once; beyond them a new one is closed at once.
    pub(crate) connections: usize,
    /// The same from one address.
    pub(crate) per_source: usize,
    /// From a connection's first moment, or the end of a request, to the next whole head.
    pub(crate) head: Duration,
    /// How long a peer may take in nothing of what is sent to it.
    pub(crate) stalled: Duration,
}

impl Default for PortBounds {
    fn default() -> Self {
        PortBounds {
            connections: 2_048,
            // Several nodes may share an address, behind NAT or on one machine.
            per_source: 256,
            // Longer than neighbours are silent between two comparisons.
            head: Duration::from_secs(60),
            stalled: Duration::from_secs(30),
        }
    }
}

/// Serves `router` until `ended` says so.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: PortBounds,
    ended: watch::Receiver<bool>,
) {
    let crowd = Crowd::new(bounds);
    let mut over = ended.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = over.wait_for(|over| *over) => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Descriptors may have run out; the next moment is better than a busy loop.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = crowd.enter(peer) else { continue };
        let (router, mut over) = (router.clone(), ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, router, bounds) => {}
                _ = over.wait_for(|over| *over) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: Router, bounds: PortBounds) {
    // A lost option costs latency, not correctness.
    let _ = stream.set_nodelay(true);
    let asked = Arc::new(Notify::new());
    let heard = asked.clone();
    let service = hyper::service::service_fn(move |request: http::Request<_>| {
        heard.notify_one();
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(bounds.head)
        .keep_alive_timeout(bounds.stalled);
    let stream = TokioIo::new(Watched::new(stream, bounds.stalled));
    let mut serving = std::pin::pin!(builder.serve_connection(stream, service));
    // Until the first request the protocol is not known, and no deadline of its own runs.
    tokio::select! {
        // How a peer's connection ends is the peer's business.
        _ = serving.as_mut() => return,
        first = tokio::time::timeout(bounds.head, asked.notified()) => {
            if first.is_err() {
                return;
            }
        }
    }
    let _ = serving.await;
}

/// Everybody who is connected, by address.
pub(crate) struct Crowd {
    room: Arc<Semaphore>,
    per_source: usize,
    /// Invariant: no entry is zero; as many at most as there are connections.
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place, given back when it ends.
pub(crate) struct Place {
    source: IpAddr,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    pub(crate) fn new(bounds: PortBounds) -> Crowd {
        Crowd {
            room: Arc::new(Semaphore::new(bounds.connections)),
            per_source: bounds.per_source,
            sources: Arc::default(),
        }
    }

    /// A place, while there is one: for all, and for this source.
    pub(crate) fn enter(&self, peer: SocketAddr) -> Option<Place> {
        let source = peer.ip().to_canonical();
        let permit = self.room.clone().try_acquire_owned().ok()?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.get(&source).is_some_and(|held| *held >= self.per_source) {
            return None;
        }
        *sources.entry(source).or_default() += 1;
        drop(sources);
        Some(Place { source, sources: self.sources.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = sources.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// After an accept that failed.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The largest request head; peers send small ones.
const HEAD_BYTES: usize = 32 << 10;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 64;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use axum::routing::get;

    use super::*;

    const QUICK: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(10);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    struct Bed {
        at: SocketAddr,
        runtime: tokio::runtime::Runtime,
        _ended: watch::Sender<bool>,
    }

    impl Bed {
        fn start(bounds: PortBounds) -> Bed {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let at = listener.local_addr().unwrap();
            let (ended, over) = watch::channel(false);
            let router = Router::new()
                .route("/", get(|| async { "here" }))
                .route("/large", get(|| async { vec![b'x'; 64 << 20] }));
            runtime.spawn(serve(listener, router, bounds, over));
            Bed { at, runtime, _ended: ended }
        }

        fn client(&self) -> TcpStream {
            let stream = TcpStream::connect(self.at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        }

        fn answers(&self) -> bool {
            is_answered(&mut self.client())
        }
    }

    fn is_answered(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 15];
        stream.write_all(GET).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer.starts_with(b"HTTP/1.1 200 OK")
    }

    /// How long until the other side ends the connection, whatever it says before.
    fn ends(stream: &mut TcpStream) -> Duration {
        let begun = Instant::now();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        begun.elapsed()
    }

    #[test]
    fn whoever_does_not_come_to_the_point_is_let_go() {
        let bed = Bed::start(PortBounds { head: QUICK, ..PortBounds::default() });
        // Nothing; what could be either protocol; half a head; half a preface; a whole preface.
        let beginnings: [&[u8]; 5] = [
            b"",
            b"P",
            b"GET / HTTP/1.1\r\nhost:",
            b"PRI * HTTP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ];
        for beginning in beginnings {
            let mut client = bed.client();
            client.write_all(beginning).unwrap();
            let took = ends(&mut client);
            assert!(took >= QUICK / 2 && took < PATIENCE, "{beginning:?}: {took:?}");
        }
        let mut drip = bed.client();
        let begun = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if drip.write_all(&[*byte]).is_err() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "a byte now and then holds a connection");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut kept = bed.client();
        assert!(is_answered(&mut kept));
        assert!(ends(&mut kept) < PATIENCE, "an idle connection ends too");
    }

    #[test]
    fn whoever_does_not_read_is_let_go() {
        let bounds = PortBounds { stalled: QUICK, connections: 1, ..PortBounds::default() };
        let bed = Bed::start(bounds);
        let mut deaf = bed.client();
        deaf.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut first = [0; 1];
        deaf.read_exact(&mut first).unwrap();
        let begun = Instant::now();
        while !bed.answers() {
            assert!(begun.elapsed() < PATIENCE, "its place is never given back");
        }
    }

    #[test]
    fn no_source_holds_all_connections_and_a_place_is_given_back() {
        let bounds = PortBounds { connections: 8, per_source: 4, ..PortBounds::default() };
        let bed = Bed::start(bounds);
        let mut held: Vec<TcpStream> = (0..4).map(|_| bed.client()).collect();
        assert!(held.iter_mut().all(is_answered));
        assert_eq!(ends(&mut bed.client()).as_secs(), 0, "one too many is closed at once");
        let crowd = Crowd::new(bounds);
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 1));
        let places: Vec<_> = (0..8).filter_map(|_| crowd.enter(at(1))).collect();
        assert_eq!(places.len(), 4);
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:1".parse().unwrap();
        assert!(crowd.enter(mapped).is_none(), "the same source in other clothes");
        let others: Vec<_> = (2..9).filter_map(|host| crowd.enter(at(host))).collect();
        assert_eq!(others.len(), 4, "and all together are bounded");
        drop((places, others));
        assert!(crowd.sources.lock().unwrap().is_empty());
        held.pop();
        let begun = Instant::now();
        while !bed.answers() {
            assert!(begun.elapsed() < PATIENCE, "a place that is free is given");
        }
        drop(bed.runtime);
    }

    #[test]
    fn a_head_that_never_ends_is_refused() {
        let bed = Bed::start(PortBounds::default());
        let mut client = bed.client();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").unwrap();
        let line = [b"x-more: ".as_slice(), &[b'x'; 1_000], b"\r\n"].concat();
        let sent = (0..1_000).take_while(|_| client.write_all(&line).is_ok()).count();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert!(sent < 1_000 || answer.starts_with("HTTP/1.1 431"), "{sent}: {answer}");
        assert!(bed.answers());
    }
}
