//! The peer port: what peers and people ask a node over HTTP.
//!
//! Reads are served from the published view and never touch the mind; writes and digests go to
//! its mailbox. Every body is capped, every request judged before it is read.

mod configuration;
mod explain;
mod gossip;
mod look;
mod problem;
mod write;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tower::ServiceExt;

use super::activation::Activator;
use super::address_policy::PeerPolicy;
use super::disk::Disk;
use super::driver::{Note, View};
use super::metrics::NodeMetrics;
use super::peer_client::{NODE_HEADER, REGION_HEADER};
use super::subscriber::writes::Orchestrators;
use crate::model::head::Position;
use crate::model::ids::NodeId;
use crate::proxy::routes::{Routes, RoutesState};
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;
pub(crate) use look::event_json;

/// What the handlers work with.
pub(crate) struct Door {
    pub(crate) node: NodeId,
    pub(crate) region: String,
    pub(crate) view: Arc<ArcSwap<View>>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) routes: Arc<Mutex<RoutesState>>,
    pub(crate) published: Arc<ArcSwap<Routes>>,
    pub(crate) activator: Activator,
    pub(crate) active: watch::Receiver<Option<Position>>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) policy: Arc<PeerPolicy>,
    pub(crate) token: Option<String>,
    /// Names that this port answers to besides address literals.
    pub(crate) hosts: Vec<String>,
    pub(crate) events: broadcast::Sender<Arc<str>>,
    pub(crate) orchestrators: Orchestrators,
    pub(crate) disk: Disk,
    pub(crate) answers: Mutex<VecDeque<write::Remembered>>,
    pub(crate) rules_file: Arc<ArcSwap<String>>,
    pub(crate) ended: Arc<AtomicBool>,
}

fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/v1/configuration", get(configuration::many).post(write::many))
        .route(
            "/v1/configuration/{rule}",
            get(configuration::one).post(write::one).delete(write::delete),
        )
        .route(
            "/v1/configuration-update",
            post(gossip::update).layer(DefaultBodyLimit::max(DIGEST_BYTES)),
        )
        .route("/v1/neighbours", get(gossip::neighbours))
        .route("/v1/latency-info", get(gossip::latency_info))
        .route("/v1/status", get(look::status))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/events", get(look::events))
        .route("/v1/drain", post(look::drain))
        .route("/v1/undrain", post(look::undrain))
        .route("/livez", get(look::livez))
        .route("/readyz", get(look::readyz))
        .route("/healthz", get(look::readyz))
        .route("/metrics", get(look::metrics))
        .route("/version", get(look::version))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(CONFIGURATION_BYTES))
        .layer(middleware::from_fn_with_state(door.clone(), guard))
        .with_state(door)
}

/// Serves the peer port until `ended` says so.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Door>, ended: watch::Receiver<bool>) {
    let router = router(door);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut over = ended.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = over.wait_for(|over| *over) => return,
        };
        let Ok((stream, _)) = accepted else {
            // Descriptors may have run out; the next moment is better than a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
        let router = router.clone();
        let mut over = ended.clone();
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                router.clone().oneshot(request.map(axum::body::Body::new))
            });
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // How a peer's connection ends is the peer's business.
                _ = serving => {}
                _ = over.wait_for(|over| *over) => {}
            }
            drop(permit);
        });
    }
}

/// Judges a request before anything of it is read: Host, token, media type.
async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let known = host.is_none_or(|host| is_own_name(host, &door.hosts));
    let path = request.uri().path();
    let open = matches!(path, "/livez" | "/readyz" | "/healthz" | "/version");
    let authorized = door
        .token
        .as_ref()
        .is_none_or(|token| headers.get(AUTHORIZATION).is_some_and(|given| bearer(given, token)));
    let writes = request.method() == Method::POST && path.starts_with("/v1/configuration");
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.split(';').next().unwrap_or(kind).trim().ends_with("json"));
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let digest = path == "/v1/configuration-update";
    let most = if digest { DIGEST_BYTES } else { CONFIGURATION_BYTES };
    let mut response = if !known {
        problem::answer(&problem::of(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            "this port does not answer to that Host",
        ))
    } else if !open && !authorized {
        problem::answer(&problem::of(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a bearer token is needed (--token-file)",
        ))
    } else if writes && !json {
        problem::answer(&problem::of(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the content type must be application/json",
        ))
    } else if declared > most {
        StatusCode::PAYLOAD_TOO_LARGE.into_response()
    } else {
        let answered = tokio::time::timeout(ANSWER_DEADLINE, next.run(request)).await;
        answered.unwrap_or_else(|_| {
            let detail = "the request did not come to its end in time";
            problem::answer(&problem::of(StatusCode::REQUEST_TIMEOUT, "too_slow", detail))
        })
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = "the body is larger than this endpoint takes";
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        response = problem::answer(&problem::of(status, "too_large", detail));
    }
    let out = response.headers_mut();
    if let Ok(node) = HeaderValue::from_str(door.node.as_str()) {
        out.insert(NODE_HEADER, node);
    }
    if let Ok(region) = HeaderValue::from_str(&door.region) {
        out.insert(REGION_HEADER, region);
    }
    response
}

/// Address literals, localhost and the names that were configured: nothing a web page could have
/// a browser send here under another name (DNS rebinding).
fn is_own_name(host: &str, names: &[String]) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    literal.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Compares in constant time: both sides are hashed first.
fn bearer(given: &HeaderValue, token: &str) -> bool {
    let expected = blake3::hash(format!("Bearer {token}").as_bytes());
    // `blake3::Hash` compares in constant time.
    blake3::hash(given.as_bytes()) == expected
}

/// Connections to the peer port at a time.
const CONNECTIONS: usize = 2_048;
/// From a connection's first moment, or the end of a request, to the next head.
const HEAD_DEADLINE: Duration = Duration::from_secs(120);
/// From a request's head to the head of its answer: slow bodies end here.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// The largest digest.
const DIGEST_BYTES: usize = 1 << 20;
/// The largest configuration posted by hand.
const CONFIGURATION_BYTES: usize = 64 << 20;
