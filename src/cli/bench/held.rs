//! WebSockets held open through a proxy: each echoes when asked to, some all the time, and one that
//! ends before its time is counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::websockets::{Shared, WebSocket};
use crate::cli::failure::Failure;

/// Many of them, held open; they are closed when it goes.
pub(super) struct Held {
    orders: watch::Sender<Order>,
    tally: Arc<Tally>,
    sockets: JoinSet<()>,
    count: usize,
    talking: usize,
}

/// What all are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    /// Each once, within the time; the number tells one order from the next.
    Echo(usize),
}

/// What they did.
#[derive(Default)]
struct Tally {
    echoed: AtomicUsize,
    /// Ended before their time.
    closed: AtomicUsize,
    /// Times of the echoes of those that talk all the time, in milliseconds.
    times: Mutex<Vec<f64>>,
}

impl Held {
    /// Opens so many with a connection each, and so many as streams of shared ones; a few of them,
    /// spread over all, talk all the time.
    pub(super) async fn open(
        at: SocketAddr,
        host: &'static str,
        single: usize,
        shared: usize,
        talking: usize,
    ) -> Result<Held, Failure> {
        let count = single + shared;
        let (orders, _) = watch::channel(Order::Hold);
        let mut held =
            Held { orders, tally: Arc::default(), sockets: JoinSet::new(), count, talking };
        while held.sockets.len() < single {
            let mut opening = JoinSet::new();
            for _ in 0..AT_ONCE.min(single - held.sockets.len()) {
                opening.spawn(WebSocket::open(at, host));
            }
            while let Some(opened) = opening.join_next().await {
                held.add(opened.map_err(|error| error.to_string()).flatten())?;
            }
        }
        while held.sockets.len() < count {
            let connection = Shared::connect(at, host).await.map_err(Failure::failed)?;
            for _ in 0..STREAMS.min(count - held.sockets.len()) {
                held.add(connection.open().await)?;
            }
        }
        Ok(held)
    }

    fn add(&mut self, opened: Result<WebSocket, String>) -> Result<(), Failure> {
        let (number, count) = (self.sockets.len(), self.count);
        let socket = opened
            .map_err(|why| Failure::failed(format!("WebSocket {number} of {count}: {why}")))?;
        let talks = number * self.talking / count != (number + 1) * self.talking / count;
        let (orders, tally) = (self.orders.subscribe(), self.tally.clone());
        self.sockets.spawn(hold(socket, number, talks, orders, tally));
        Ok(())
    }

    /// Has each say something once; how many heard the same.
    pub(super) async fn echo_all(&self) -> usize {
        let before = self.tally.echoed.load(Relaxed);
        self.orders.send_modify(|order| {
            *order = match *order {
                Order::Hold => Order::Echo(1),
                Order::Echo(number) => Order::Echo(number + 1),
            };
        });
        let begun = Instant::now();
        loop {
            let echoed = self.tally.echoed.load(Relaxed) - before;
            if echoed + self.closed() >= self.count || begun.elapsed() > PATIENCE {
                return echoed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many ended before their time.
    pub(super) fn closed(&self) -> usize {
        self.tally.closed.load(Relaxed)
    }

    /// Times in milliseconds, sorted, of those that talk all the time, since this was asked last.
    pub(super) fn times(&self) -> Vec<f64> {
        let mut times = self.tally.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = std::mem::take(&mut *times);
        times.sort_by(f64::total_cmp);
        times
    }

    pub(super) async fn end(mut self) {
        self.sockets.shutdown().await;
    }
}

async fn hold(
    mut socket: WebSocket,
    number: usize,
    talks: bool,
    mut orders: watch::Receiver<Order>,
    tally: Arc<Tally>,
) {
    // Spread out, so that thousands do not speak in the same instant.
    let spread = SPREAD.mul_f64(number as f64 % 10_000.0 / 10_000.0);
    let mut next = tokio::time::interval(EVERY);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
                true
            }
            _ = next.tick(), if talks => false,
            () = socket.disturbed() => break,
        };
        if asked {
            tokio::time::sleep(spread).await;
        }
        let begun = Instant::now();
        if !socket.echo(&format!("{number} says so")).await {
            break;
        }
        if asked {
            tally.echoed.fetch_add(1, Relaxed);
        } else {
            let mut times = tally.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    tally.closed.fetch_add(1, Relaxed);
}

/// WebSockets that are opened at once.
const AT_ONCE: usize = 64;
/// Over how long an echo of all is spread.
const SPREAD: Duration = Duration::from_secs(4);
/// How often those that talk do.
const EVERY: Duration = Duration::from_millis(100);
/// How long an echo of all may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Streams over one connection; fewer than a node takes.
const STREAMS: usize = 100;
