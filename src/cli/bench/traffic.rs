//! Clients of a proxy under measurement: as fast as it answers, or at a rate that it does not set.
//!
//! At a rate, a request's time counts from when it was due, not from when it could be sent: a proxy
//! that stalls is charged for everybody who would have come meanwhile (no coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cli::failure::Failure;

/// What clients ask for, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// Bytes that each request brings; 0: a GET.
    pub(super) upload: usize,
    /// Whether each request has a connection of its own.
    pub(super) fresh: bool,
    /// Bytes that an answer has to have: a proxy that answers by itself is quick and wrong.
    pub(super) expected: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// From being sent, or being due, to the last byte; in milliseconds, sorted.
    pub(super) times: Vec<f64>,
    pub(super) errors: usize,
    pub(super) took: Duration,
}

/// A connection of a client, and the bytes that it sends.
struct Client {
    at: SocketAddr,
    body: Bytes,
    expected: usize,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// So many requests, each as soon as another one is answered.
pub(super) async fn flat_out(
    at: SocketAddr,
    shape: Shape,
    requests: usize,
) -> Result<Outcome, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    run(shape.connections, move |_| {
        let (mut client, next) = (Client::new(at, shape), next.clone());
        async move {
            let mut outcome = Outcome::default();
            while next.fetch_add(1, Relaxed) < requests {
                let begun = Instant::now();
                outcome.count(client.ask(shape.fresh).await, begun);
            }
            outcome
        }
    })
    .await
}

/// So many requests, spread evenly over time.
pub(super) async fn at_rate(
    at: SocketAddr,
    shape: Shape,
    rate: f64,
    requests: usize,
) -> Result<Outcome, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    run(shape.connections, move |_| {
        let (mut client, next) = (Client::new(at, shape), next.clone());
        async move {
            let mut outcome = Outcome::default();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= requests {
                    return outcome;
                }
                let due = begun + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                outcome.count(client.ask(shape.fresh).await, due);
            }
        }
    })
    .await
}

/// So many connections that have each had one answer; they stay as long as what is returned.
pub(super) async fn idle(
    at: SocketAddr,
    connections: usize,
    expected: usize,
) -> Result<Vec<impl Sized>, Failure> {
    let shape = Shape { connections, upload: 0, fresh: false, expected };
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = Client::new(at, shape);
        if client.ask(false).await.is_none() {
            return Err(Failure::failed(format!("{at} does not take {connections} connections")));
        }
        held.push(client);
    }
    Ok(held)
}

/// Waits until there is a good answer.
pub(super) async fn wait_until_up(at: SocketAddr, expected: usize) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let shape = Shape { connections: 1, upload: 0, fresh: false, expected };
        if Client::new(at, shape).ask(false).await.is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

async fn run<F>(clients: usize, client: impl Fn(usize) -> F) -> Result<Outcome, Failure>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients).map(|number| tokio::spawn(client(number))).collect();
    let mut all = Outcome::default();
    for task in tasks {
        let some = task.await.map_err(|error| Failure::failed(error.to_string()))?;
        all.times.extend(some.times);
        all.errors += some.errors;
    }
    all.took = begun.elapsed();
    all.times.sort_by(f64::total_cmp);
    Ok(all)
}

impl Outcome {
    fn count(&mut self, answered: Option<()>, since: Instant) {
        match answered {
            Some(()) => self.times.push(since.elapsed().as_secs_f64() * 1e3),
            None => self.errors += 1,
        }
    }
}

impl Client {
    fn new(at: SocketAddr, shape: Shape) -> Client {
        let body = Bytes::from(vec![b'x'; shape.upload]);
        Client { at, body, expected: shape.expected, sender: None }
    }

    /// One request and its whole answer; none when anything went wrong.
    async fn ask(&mut self, fresh: bool) -> Option<()> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => connect(self.at).await?,
        };
        let method = if self.body.is_empty() { Method::GET } else { Method::POST };
        let request = Request::builder().method(method).uri("/").header(HOST, "bench.example");
        let request = request.body(Full::new(self.body.clone())).ok()?;
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let good = response.status().is_success();
        let good =
            good && response.into_body().collect().await.ok()?.to_bytes().len() == self.expected;
        if !fresh {
            self.sender = Some(sender);
        }
        good.then_some(())
    }
}

/// A connection whose rest is driven beside.
pub(super) async fn connect(at: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(at).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut builder = http1::Builder::new();
    let (sender, connection) =
        builder.max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with its sender.
    tokio::spawn(connection);
    Some(sender)
}

/// How long a proxy may take to come up.
const PATIENCE: Duration = Duration::from_secs(15);
/// The least that hyper allows.
const BUFFER: usize = 8 << 10;
