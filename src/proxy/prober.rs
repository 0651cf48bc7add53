//! Probes targets for the checks of rules, and measures how far those are that nobody goes to; on a
//! thread of its own: no request waits for a probe.
//!
//! A probe is a GET, a question of grpc.health.v1, or a bare connection, always over a connection
//! of its own (one that HTTP/2 shares may carry several). What does not come within the time-out is
//! bad. The policy on addresses holds as for requests. A probe tells nothing about latency,
//! and a connection that measures the distance asks for nothing.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use rand::RngExt;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::body::{Progress, RequestBody};
use super::checks::Check;
use super::dial::{Dialer, Distance};
use super::http1_target::request::{self, Announced};
use super::http2_target;
use super::noted::Noted;
use super::pool::{Endpoint, Lease, Pool};
use super::reply::Failure;
use super::resolve::{AddressPolicy, Resolver};
use super::routes::RoutesState;
use super::target_tls::TargetTls;
use crate::model::moment::Moment;
use crate::model::rule::Probe;
use crate::telemetry::clock::Clock;
use crate::wire::grpc_health;

/// What the prober works with.
pub(crate) struct Prober {
    pub(crate) routes: Arc<Mutex<RoutesState>>,
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) distance: Option<Distance>,
    pub(crate) target_tls: Arc<TargetTls>,
    pub(crate) clock: Clock,
}

impl Prober {
    /// Starts its thread, which ends with the last request: when `last_served` closes.
    pub(crate) fn start(self, last_served: watch::Receiver<()>) -> std::io::Result<()> {
        let named = std::thread::Builder::new().name("prober".to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        named.spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, self.run(last_served));
            drop(local);
            // A name that is being looked up is nobody's business any more.
            runtime.shutdown_background();
        })?;
        Ok(())
    }

    async fn run(self, mut last_served: watch::Receiver<()>) {
        let pool = Pool::new(Dialer {
            resolver: Resolver::new(self.policy),
            distance: self.distance,
            tls: self.target_tls,
        });
        tokio::task::spawn_local(pool.clone().keep());
        tokio::task::spawn_local(visits(self.routes.clone(), pool.clone(), self.clock));
        let routes = || self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let added = routes().checks_added();
        loop {
            let fresh = routes().fresh_checks();
            for check in fresh {
                tokio::task::spawn_local(probe_on(check, pool.clone(), self.clock));
            }
            tokio::select! {
                () = added.notified() => {}
                _ = last_served.changed() => return,
            }
        }
    }
}

/// Goes to targets that nobody has gone to for long, again and again.
async fn visits(routes: Arc<Mutex<RoutesState>>, pool: Rc<Pool>, clock: Clock) {
    loop {
        tokio::time::sleep(VISITS).await;
        visit(&routes, &pool, clock.now()).await;
    }
}

/// A target that has come nearer while nobody went there would be taken for far until it is
/// forgotten: the wire's part of a latency never decays. A connection tells, and risks no request.
pub(super) async fn visit(routes: &Mutex<RoutesState>, pool: &Rc<Pool>, now: Moment) {
    let unvisited = routes.lock().unwrap_or_else(PoisonError::into_inner).unvisited(MOST, now);
    let mut visiting = JoinSet::new();
    for known in unvisited {
        let pool = pool.clone();
        visiting.spawn_local(async move {
            // Who cannot be reached stays as far as it was.
            if let Ok(Ok(rtt)) = timeout(REACHED, pool.reach(&known.endpoint)).await {
                known.cell.observe_connect(rtt, now);
            }
        });
    }
    visiting.join_all().await;
}

/// Probes for as long as a rule wants to know.
async fn probe_on(check: Weak<Check>, pool: Rc<Pool>, clock: Clock) {
    while let Some(held) = check.upgrade() {
        let probed = timeout(held.health.timeout, probe(&held, &pool, clock)).await;
        // Without the means to look there is no news.
        let news = probed.unwrap_or(Some(false)).filter(|good| held.tell(*good));
        if let Some(good) = news {
            let (target, check) = (&held.endpoint.address, &held.health.probe);
            if good {
                tracing::info!(%target, %check, "the target passes its health check");
            } else {
                tracing::warn!(%target, %check, "the target fails its health check");
            }
        }
        // Those that began together drift apart.
        let next = held.health.interval.mul_f64(rand::rng().random_range(0.9..1.1));
        drop(held);
        tokio::time::sleep(next).await;
    }
}

/// Whether the target is well; none where this node has not the means to know.
async fn probe(check: &Check, pool: &Rc<Pool>, clock: Clock) -> Option<bool> {
    let endpoint = &check.endpoint;
    let progress = Progress::new(clock, Instant::now().into());
    let well = match &check.health.probe {
        Probe::Tcp => pool.reach(endpoint).await.map(|_| true),
        Probe::Http(path) => {
            let request = request(endpoint, Method::GET, path).header(ACCEPT, "*/*");
            let request = request.body(RequestBody::empty(&progress));
            let answer = ask(endpoint, request, pool).await;
            answer.map(|(status, _)| (200..400).contains(&status.as_u16()))
        }
        Probe::Grpc(service) => {
            let body = grpc_health::question(service);
            let request = request(endpoint, Method::POST, grpc_health::METHOD)
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .body(RequestBody::own(body, &progress));
            match ask(endpoint, request, pool).await {
                Ok((StatusCode::OK, lease)) => Ok(is_serving(lease).await.unwrap_or(false)),
                other => other.map(|_| false),
            }
        }
    };
    match well {
        Err(Failure::Overloaded) => None,
        well => Some(well.unwrap_or(false)),
    }
}

fn request(endpoint: &Endpoint, method: Method, path: &str) -> http::request::Builder {
    let agent = concat!("tradewind/", env!("CARGO_PKG_VERSION"), " (health check)");
    let authority = endpoint.address.authority();
    Request::builder().method(method).uri(path).header(HOST, authority).header(USER_AGENT, agent)
}

/// The answer's head; what follows lives as long as the lease. A request that was not made well
/// (the rule was parsed, so that is nobody's) is a failure of our own.
async fn ask(
    endpoint: &Endpoint,
    request: http::Result<Request<RequestBody>>,
    pool: &Rc<Pool>,
) -> Result<(StatusCode, Lease), Failure> {
    let mut request = request.map_err(|_| Failure::Internal)?;
    let (mut lease, _) = pool.open(endpoint, false).await?;
    if lease.is_http2() {
        // What it says of trailers it says itself.
        http2_target::rewrite(&mut request, &HeaderMap::new(), endpoint.address.scheme);
        lease.begin_http2(request);
    } else {
        let (parts, body) = request.into_parts();
        let announced = Announced::of(&body, &parts.headers, Noted::of(&parts.headers));
        let head = |out: &mut Vec<u8>| {
            request::line(&parts.method, &parts.uri, out);
            request::fields(&parts.headers, out);
        };
        lease.begin_http1(head, false, announced, body);
    }
    let answered = poll_fn(|cx| lease.poll_head(cx)).await;
    let response = answered.map_err(|_| Failure::ConnectionEnded)?;
    Ok((response.status(), lease))
}

/// Whether this is what gRPC calls a good answer, and says so; none where it breaks off.
async fn is_serving(mut lease: Lease) -> Option<bool> {
    let (mut message, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| lease.poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(data) if message.len() + data.len() > grpc_health::MOST_BYTES => return None,
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    let well = trailers.get("grpc-status").is_some_and(|status| status == "0");
    Some(well && grpc_health::is_serving(&message))
}

/// Between looks for targets that nobody goes to.
const VISITS: Duration = Duration::from_secs(30);
/// Targets gone to at a time.
const MOST: usize = 256;
/// How long that may take.
const REACHED: Duration = Duration::from_secs(5);
