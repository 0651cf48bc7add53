//! An open loop that keeps its times: origin and clients on one thread, on a processor of their
//! own, which never sleeps while requests are due.
//!
//! What `traffic` does at a rate waits on timers of a millisecond, so that requests come in bunches
//! of as many as are due in one, and shares the processors with the proxy, so that a slow answer
//! may be the machine's. Here the proxy has a processor, everything else another one, and a request
//! leaves within microseconds of when it is due; it counts from then (no coordinated omission).
//! Speaks as much HTTP/1.1 as it needs: GETs, and answers with a length.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::certificate::NAME;
use super::processors::Processors;
use super::traffic::Outcome;
use crate::cli::failure::Failure;

/// The thread.
pub(super) struct Pacer {
    orders: mpsc::UnboundedSender<(Order, oneshot::Sender<Result<Outcome, Failure>>)>,
    /// Where its origin listens.
    pub(super) origin: SocketAddr,
}

/// Requests to one proxy.
pub(super) struct Order {
    pub(super) at: SocketAddr,
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) arrivals: Arrivals,
}

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrivals {
    /// So many a second, at equal distances.
    Even(f64),
    /// So many a second on average, each whenever it likes (a Poisson process); the same moments
    /// for the same number.
    Random(f64, u64),
}

impl Arrivals {
    /// Other moments in each round, the same for all in one.
    pub(super) fn in_round(self, number: usize) -> Arrivals {
        match self {
            Arrivals::Even(rate) => Arrivals::Even(rate),
            Arrivals::Random(rate, seed) => Arrivals::Random(rate, seed + number as u64),
        }
    }
}

impl Pacer {
    /// Begins with an origin of answers with so many bytes.
    pub(super) fn start(size: usize, processors: Option<&Processors>) -> Result<Pacer, Failure> {
        let fail = |error: io::Error| Failure::failed(format!("the pacing thread: {error}"));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let origin = listener.local_addr().map_err(fail)?;
        let (orders, mut taken) = mpsc::unbounded_channel::<(Order, oneshot::Sender<_>)>();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let processors = processors.cloned();
        let run = move || {
            if let Some(processors) = processors {
                processors.stay_on_others();
            }
            LocalSet::new().block_on(&runtime, async move {
                spawn_local(serve(listener, size));
                let kept = Kept::default();
                while let Some((order, done)) = taken.recv().await {
                    // Whoever asked may have gone.
                    let _ = done.send(order.run(&kept, size).await);
                }
            });
        };
        std::thread::Builder::new().name("pacer".to_string()).spawn(run).map_err(fail)?;
        Ok(Pacer { orders, origin })
    }

    /// Sends requests, and waits for all their answers.
    pub(super) async fn run(&self, order: Order) -> Result<Outcome, Failure> {
        let gone = || Failure::failed("the pacing thread has ended");
        let (done, outcome) = oneshot::channel();
        self.orders.send((order, done)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

/// Clients that go on with the next order.
type Kept = Rc<RefCell<HashMap<SocketAddr, Vec<Client>>>>;

impl Order {
    async fn run(self, kept: &Kept, size: usize) -> Result<Outcome, Failure> {
        let due = Rc::new(Due::default());
        let outcome = Rc::new(RefCell::new(Outcome::default()));
        let mut clients = kept.borrow_mut().remove(&self.at).unwrap_or_default();
        while clients.len() < self.connections {
            clients.push(Client::connect(self.at, size).await.map_err(|error| {
                Failure::failed(format!("{} takes no connection: {error}", self.at))
            })?);
        }
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let (kept, due, outcome) = (kept.clone(), due.clone(), outcome.clone());
                spawn_local(async move {
                    if let Some(client) = client.ask(&due, &outcome).await {
                        kept.borrow_mut().entry(self.at).or_default().push(client);
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        let mut arrivals = Moments::of(self.arrivals);
        for _ in 0..self.requests {
            let at = begun + arrivals.next();
            while Instant::now() < at {
                yield_now().await;
            }
            due.add(at);
        }
        due.left.close();
        let last = Instant::now();
        for client in clients {
            // Not just awaited: the thread would sleep, and be woken late.
            while !client.is_finished() && last.elapsed() < PATIENCE {
                yield_now().await;
            }
            client.abort();
        }
        let mut outcome = outcome.take();
        outcome.took = begun.elapsed();
        outcome.times.sort_by(f64::total_cmp);
        outcome.errors = self.requests - outcome.times.len();
        Ok(outcome)
    }
}

/// Requests that are due, for whichever client is free.
struct Due {
    waiting: RefCell<VecDeque<Instant>>,
    /// How many there are; closed after the last.
    left: Semaphore,
}

impl Default for Due {
    fn default() -> Due {
        Due { waiting: RefCell::default(), left: Semaphore::new(0) }
    }
}

impl Due {
    fn add(&self, at: Instant) {
        self.waiting.borrow_mut().push_back(at);
        self.left.add_permits(1);
    }

    /// The next one; none when there will be no more.
    async fn next(&self) -> Option<Instant> {
        if let Ok(permit) = self.left.acquire().await {
            permit.forget();
        }
        self.waiting.borrow_mut().pop_front()
    }
}

/// The moments of arrivals, from the beginning on.
struct Moments {
    arrivals: Arrivals,
    rng: SmallRng,
    number: u64,
    at: f64,
}

impl Moments {
    fn of(arrivals: Arrivals) -> Moments {
        let seed = match arrivals {
            Arrivals::Even(_) => 0,
            Arrivals::Random(_, seed) => seed,
        };
        Moments { arrivals, rng: SmallRng::seed_from_u64(seed), number: 0, at: 0.0 }
    }

    fn next(&mut self) -> Duration {
        self.number += 1;
        self.at = match self.arrivals {
            Arrivals::Even(rate) => self.number as f64 / rate,
            // Distances of a Poisson process are exponential.
            Arrivals::Random(rate, _) => self.at - (1.0 - self.rng.random::<f64>()).ln() / rate,
        };
        Duration::from_secs_f64(self.at)
    }
}

struct Client {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
    size: usize,
}

impl Client {
    async fn connect(at: SocketAddr, size: usize) -> io::Result<Client> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
        Ok(Client { stream, request, buffer: vec![0; size + HEAD_BYTES], size })
    }

    /// Asks for as long as something is due; none once an answer is not good.
    async fn ask(mut self, due: &Due, outcome: &RefCell<Outcome>) -> Option<Client> {
        while let Some(at) = due.next().await {
            self.ask_once().await?;
            outcome.borrow_mut().times.push(at.elapsed().as_secs_f64() * 1e3);
        }
        Some(self)
    }

    async fn ask_once(&mut self) -> Option<()> {
        self.stream.write_all(self.request.as_bytes()).await.ok()?;
        let buffer = &mut self.buffer;
        let (mut read, mut whole) = (0, None);
        while whole != Some(read) {
            let more = self.stream.read(buffer.get_mut(read..)?).await.ok()?;
            if more == 0 {
                return None;
            }
            read += more;
            if whole.is_none() {
                whole = answer_bytes(&buffer[..read], self.size)?;
            }
        }
        Some(())
    }
}

/// Bytes of a good answer with a body of this size; none within while its head is not whole, none
/// when it is not good.
fn answer_bytes(read: &[u8], size: usize) -> Option<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(bytes) = head.parse(read).ok()? else { return Some(None) };
    let length = head.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = str::from_utf8(length.value).ok()?.parse().ok()?;
    (head.code == Some(200) && length == size).then_some(Some(bytes + size))
}

async fn serve(listener: TcpListener, size: usize) {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b'x');
    let answer: Rc<[u8]> = answer.into();
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        spawn_local(converse(stream, answer.clone()));
    }
}

/// Answers each head that ends; how the connection ends is the proxy's business.
async fn converse(mut stream: TcpStream, answer: Rc<[u8]>) {
    let (mut buffer, mut read) = (vec![0; HEAD_BYTES], 0);
    loop {
        match stream.read(&mut buffer[read..]).await {
            Ok(0) | Err(_) => return,
            Ok(more) => read += more,
        }
        if buffer[..read].ends_with(b"\r\n\r\n") {
            read = 0;
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the largest head.
const HEAD_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(arrivals: Arrivals) -> Vec<Duration> {
        let mut moments = Moments::of(arrivals);
        (0..10_000).map(|_| moments.next()).collect()
    }

    #[test]
    fn requests_are_due_as_often_as_is_said() {
        let even = moments(Arrivals::Even(1_000.0));
        assert_eq!((even[0].as_millis(), even[9_999].as_millis()), (1, 10_000));
        let random = Arrivals::Random(1_000.0, 7);
        let some = moments(random.in_round(1));
        assert!(some.is_sorted());
        // Of a Poisson process the deviation here is a hundredth.
        assert!((9_500..10_500).contains(&some[9_999].as_millis()), "{:?}", some[9_999]);
        let together = some.windows(2).filter(|two| two[1] - two[0] < Duration::from_millis(1));
        assert!((6_000..6_600).contains(&together.count()));
        assert_eq!(some, moments(random.in_round(1)));
        assert_ne!(some, moments(random.in_round(2)));
    }

    #[tokio::test]
    async fn requests_are_answered_and_none_before_it_is_due() {
        let pacer = Pacer::start(100, None).unwrap();
        for _ in 0..3 {
            let arrivals = Arrivals::Even(10_000.0);
            let order = Order { at: pacer.origin, connections: 4, requests: 500, arrivals };
            let outcome = pacer.run(order).await.unwrap();
            assert_eq!((outcome.times.len(), outcome.errors), (500, 0));
            assert!(outcome.took >= Duration::from_millis(50) && outcome.times.is_sorted());
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_the_right_one_is_an_error() {
        let (pacer, other) = (Pacer::start(100, None).unwrap(), Pacer::start(99, None).unwrap());
        let arrivals = Arrivals::Even(f64::INFINITY);
        let order = Order { at: other.origin, connections: 4, requests: 10, arrivals };
        let outcome = pacer.run(order).await.unwrap();
        assert_eq!((outcome.times.len(), outcome.errors), (0, 10));
    }

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let whole = format!("{head}abc");
        for read in 0..head.len() {
            assert_eq!(answer_bytes(&whole.as_bytes()[..read], 3), Some(None), "{read}");
        }
        assert_eq!(answer_bytes(head.as_bytes(), 3), Some(Some(whole.len())));
        assert_eq!(answer_bytes(head.as_bytes(), 4), None);
        assert_eq!(answer_bytes(b"HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\n", 3), None);
        assert_eq!(answer_bytes(b"HTTP/1.1 200 OK\r\n\r\n", 0), None);
    }
}
