//! Clients of a proxy under measurement: as fast as it answers, or at a rate that it does not set.
//!
//! At a rate, a request's time counts from when it was due, not from when it could be sent: a proxy
//! that stalls is charged for everybody who would have come meanwhile (no coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::header::{HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Tls;
use crate::cli::failure::Failure;

/// What clients ask for, and how.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// Bytes that each request brings; 0: a GET.
    pub(super) upload: usize,
    /// Whether each request has a connection of its own.
    pub(super) fresh: bool,
    /// Bytes that an answer has to have: a proxy that answers by itself is quick and wrong.
    pub(super) expected: usize,
    /// How TLS is spoken, if it is.
    pub(super) tls: Option<Tls>,
    /// What is asked for, by turns; never empty.
    pub(super) asked: Arc<[Asked]>,
}

/// Whom a request is for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    host: HeaderValue,
    uri: Uri,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// From being sent, or being due, to the last byte; in milliseconds, sorted.
    pub(super) times: Vec<f64>,
    pub(super) errors: usize,
    pub(super) took: Duration,
}

/// A connection of a client, and what it does with it.
pub(super) struct Client {
    at: SocketAddr,
    body: Bytes,
    shape: Shape,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Shape {
    /// GETs over kept connections for the name that all rules of a plain run serve.
    pub(super) fn new(connections: usize, expected: usize) -> Shape {
        let asked = Asked {
            host: HeaderValue::from_static(super::certificate::NAME),
            uri: Uri::from_static("/"),
        };
        let asked = Arc::from([asked]);
        Shape { connections, upload: 0, fresh: false, expected, tls: None, asked }
    }

    /// The same for another host and path.
    pub(super) fn asking(self, host: &str, path: &str) -> Result<Shape, Failure> {
        Ok(Shape { asked: Arc::from([Asked::new(host, path)?]), ..self })
    }

    /// All are asked for equally often, neighbours far apart from each other in time: what was
    /// asked for just now is of no help to what comes next.
    fn asked(&self, number: usize) -> &Asked {
        &self.asked[number.wrapping_mul(STRIDE) % self.asked.len()]
    }
}

impl Asked {
    pub(super) fn new(host: &str, path: &str) -> Result<Asked, Failure> {
        let wrong = |what: &str| Failure::failed(format!("{what} cannot be asked for"));
        Ok(Asked {
            host: HeaderValue::from_str(host).map_err(|_| wrong(host))?,
            uri: path.parse().map_err(|_| wrong(path))?,
        })
    }
}

/// So many requests, the first of them with this number, each as soon as another one is answered.
pub(super) async fn flat_out(
    at: SocketAddr,
    shape: &Shape,
    first: usize,
    requests: usize,
) -> Result<Outcome, Failure> {
    let next = Arc::new(AtomicUsize::new(first));
    run(shape.connections, move |_| {
        let (mut client, next) = (Client::new(at, shape), next.clone());
        async move {
            let mut outcome = Outcome::default();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number - first >= requests {
                    return outcome;
                }
                let begun = Instant::now();
                outcome.count(client.ask(number).await, begun);
            }
        }
    })
    .await
}

/// So many requests, spread evenly over time.
pub(super) async fn at_rate(
    at: SocketAddr,
    shape: &Shape,
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
                outcome.count(client.ask(number).await, due);
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
    let shape = Shape::new(connections, expected);
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut client = Client::new(at, &shape);
        if client.ask(number).await.is_none() {
            return Err(Failure::failed(format!("{at} does not take {connections} connections")));
        }
        held.push(client);
    }
    Ok(held)
}

/// Waits until there is a good answer.
pub(super) async fn wait_until_up(at: SocketAddr, expected: usize) -> bool {
    wait_until_answered(at, &Shape::new(1, expected)).await
}

/// The same for an answer to what the shape asks for first.
pub(super) async fn wait_until_answered(at: SocketAddr, shape: &Shape) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if Client::new(at, shape).ask(0).await.is_some() {
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
    pub(super) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    fn count(&mut self, answered: Option<()>, since: Instant) {
        match answered {
            Some(()) => self.times.push(since.elapsed().as_secs_f64() * 1e3),
            None => self.errors += 1,
        }
    }
}

impl Client {
    pub(super) fn new(at: SocketAddr, shape: &Shape) -> Client {
        let body = Bytes::from(vec![b'x'; shape.upload]);
        Client { at, body, shape: shape.clone(), sender: None }
    }

    /// One request and its whole answer; none when anything went wrong.
    pub(super) async fn ask(&mut self, number: usize) -> Option<()> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => match &self.shape.tls {
                None => connect(self.at).await?,
                Some(tls) => {
                    let stream = tls.shake_hands(dial(self.at).await?).await.ok()?;
                    over(stream).await?
                }
            },
        };
        let method = if self.body.is_empty() { Method::GET } else { Method::POST };
        let mut request = Request::new(Full::new(self.body.clone()));
        let asked = self.shape.asked(number);
        *request.method_mut() = method;
        *request.uri_mut() = asked.uri.clone();
        request.headers_mut().insert(HOST, asked.host.clone());
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let good = response.status().is_success();
        let length = response.into_body().collect().await.ok()?.to_bytes().len();
        if !self.shape.fresh {
            self.sender = Some(sender);
        }
        (good && length == self.shape.expected).then_some(())
    }
}

/// A connection whose rest is driven beside.
pub(super) async fn connect(at: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    over(dial(at).await?).await
}

pub(super) async fn dial(at: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(at).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

async fn over<T>(stream: T) -> Option<SendRequest<Full<Bytes>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let (sender, connection) =
        builder.max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with its sender.
    tokio::spawn(connection);
    Some(sender)
}

/// How long a proxy may take to come up; one with 100,000 rules that nobody optimised, too.
const PATIENCE: Duration = Duration::from_secs(60);
/// The least that hyper allows.
const BUFFER: usize = 8 << 10;
/// A large prime: no multiple of how many things are asked for.
const STRIDE: usize = 2_654_435_761;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_asked_for_equally_often() {
        let all: Vec<Asked> =
            (0..1000).map(|n| Asked::new(&format!("h{n}"), "/").unwrap()).collect();
        let shape = Shape { asked: Arc::from(all), ..Shape::new(1, 0) };
        let mut hosts: Vec<&HeaderValue> =
            (0..1000).map(|number| &shape.asked(number).host).collect();
        hosts.sort_by_key(|host| host.as_bytes());
        hosts.dedup();
        assert_eq!(hosts.len(), 1000);
    }

    #[test]
    fn what_is_no_host_or_path_is_not_asked_for() {
        assert!(Asked::new("a\nb", "/").is_err());
        assert!(Asked::new("a", "\u{1}").is_err());
    }
}
