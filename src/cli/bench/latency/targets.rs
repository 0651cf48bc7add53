//! Eight targets: each at a distance, with few servers and a queue, and with faults on demand.
//!
//! A target listens twice: at one port every byte of a connection is held back as long as the
//! distance says, in each direction; at the other nothing is, for a proxy that simulates the
//! distance at its own end. The kernel accepts connections at once either way. What waits for a
//! server waits in the order in which it came.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::schedule::ServiceTimes;
use crate::cli::failure::Failure;
use crate::proxy::distance::Delayed;

/// What is wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Every service takes so many times as long.
    Slow(f64),
    /// 503, at once.
    Failing,
    /// Requests are taken and not answered until it is healed.
    Hanging,
    /// Connections are closed as soon as they are accepted.
    Dead,
}

/// A running target. It ends with its process.
#[derive(Clone)]
pub(super) struct Target {
    /// Where bytes take their time.
    pub(super) far: SocketAddr,
    /// Where they do not.
    pub(super) near: SocketAddr,
    state: Arc<State>,
}

struct State {
    number: usize,
    servers: Semaphore,
    times: Mutex<ServiceTimes>,
    fault: watch::Sender<Fault>,
    came: Mutex<Vec<Instant>>,
}

impl Target {
    pub(super) async fn start(number: usize, seed: u64) -> Result<Target, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("no port: {error}"));
        let times = ServiceTimes::new(MEDIAN_MS, SIGMA, seed.wrapping_mul(100) + number as u64);
        let state = Arc::new(State {
            number,
            servers: Semaphore::new(SERVERS),
            times: Mutex::new(times),
            fault: watch::Sender::new(Fault::None),
            came: Mutex::default(),
        });
        let one_way = round_trip(number) / 2;
        let mut addresses = Vec::new();
        for delay in [one_way, Duration::ZERO] {
            let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
            addresses.push(listener.local_addr().map_err(fail)?);
            tokio::spawn(listen(listener, state.clone(), delay));
        }
        Ok(Target { far: addresses[0], near: addresses[1], state })
    }

    pub(super) fn set(&self, fault: Fault) {
        self.state.fault.send_replace(fault);
    }

    /// When requests came, from the beginning on.
    pub(super) fn came(&self, begun: Instant) -> Vec<f64> {
        let came = self.state.came.lock().unwrap_or_else(PoisonError::into_inner);
        let since = came.iter().filter_map(|at| at.checked_duration_since(begun));
        since.map(|since| since.as_secs_f64()).collect()
    }
}

async fn listen(listener: TcpListener, state: Arc<State>, one_way: Duration) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if *state.fault.borrow() == Fault::Dead {
            continue;
        }
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            if one_way.is_zero() {
                serve(stream, state).await;
            } else {
                serve(Delayed::new(stream, one_way), state).await;
            }
        });
    }
}

/// Serves a connection until either end closes it, or the target dies.
async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T, state: Arc<State>) {
    let mut fault = state.fault.subscribe();
    let service = service_fn(move |request| answer(state.clone(), request));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How it ends is the proxy's business.
        _ = serving => {}
        _ = fault.wait_for(|fault| *fault == Fault::Dead) => {}
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let probed = request.uri().path() == HEALTH;
    if !probed {
        state.came.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
    let mut faults = state.fault.subscribe();
    // A sender that is gone is a target that is gone.
    let _ = faults.wait_for(|fault| *fault != Fault::Hanging).await;
    if *faults.borrow() == Fault::Failing {
        tokio::time::sleep(FAILING).await;
        return Ok(reply(&state, StatusCode::SERVICE_UNAVAILABLE));
    }
    if !probed {
        let times = || state.times.lock().unwrap_or_else(PoisonError::into_inner).draw();
        // It is never closed; a server is free again when the proxy has gone away, too.
        let _server = state.servers.acquire().await;
        let slowness = match *faults.borrow() {
            Fault::Slow(slowness) => slowness,
            _ => 1.0,
        };
        let took = times().mul_f64(slowness);
        tokio::time::sleep(took).await;
    }
    Ok(reply(&state, StatusCode::OK))
}

fn reply(state: &State, status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(&[b'x'; SIZE])));
    *response.status_mut() = status;
    response.headers_mut().insert(TARGET, HeaderValue::from(state.number));
    response
}

/// From the proxy to a target and back.
pub(super) fn round_trip(number: usize) -> Duration {
    Duration::from_millis(ROUND_TRIPS_MS[number % ROUND_TRIPS_MS.len()])
}

/// Two targets each in the same house, the same city, the same continent, and beyond.
pub(super) const ROUND_TRIPS_MS: [u64; 8] = [2, 2, 10, 10, 35, 35, 80, 80];
/// Half of the requests are served in less.
pub(super) const MEDIAN_MS: f64 = 16.0;
/// Spread of the logarithm: one in a hundred takes five times the median.
pub(super) const SIGMA: f64 = 0.7;
/// Requests that a target serves at a time.
pub(super) const SERVERS: usize = 2;
/// Bytes of an answer.
pub(super) const SIZE: usize = 256;
/// Answered at once, by a target that is well.
const HEALTH: &str = "/health";
/// How long it takes to fail.
const FAILING: Duration = Duration::from_millis(1);
/// Who answered.
pub(super) const TARGET: &str = "x-target";
