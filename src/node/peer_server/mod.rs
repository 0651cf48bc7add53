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
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue,
};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use super::activation::Activator;
use super::address_policy::PeerPolicy;
use super::disk::Disk;
use super::driver::{Note, View};
use super::metrics::NodeMetrics;
use super::names::Unresolved;
use super::peer_client::{NODE_HEADER, REGION_HEADER};
use super::subscriber::writes::Orchestrators;
use crate::model::head::Position;
use crate::model::ids::NodeId;
use crate::proxy::control_port::{self, PortBounds};
use crate::proxy::routes::RoutesState;
use crate::proxy::running::Routes;
use crate::telemetry::access_log::AccessLog;
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
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) policy: Arc<PeerPolicy>,
    pub(crate) token: Option<String>,
    /// Names that this port answers to besides address literals.
    pub(crate) hosts: Vec<String>,
    pub(crate) events: broadcast::Sender<Arc<str>>,
    pub(crate) orchestrators: Orchestrators,
    pub(crate) disk: Disk,
    pub(crate) answers: Mutex<VecDeque<write::Remembered>>,
    pub(crate) rules_file: Arc<ArcSwap<String>>,
    pub(crate) unresolved: Unresolved,
    pub(crate) ended: Arc<AtomicBool>,
    pub(crate) bodies: Bodies,
}

/// Bodies that may be held in memory at a time.
pub(crate) struct Bodies {
    digests: Semaphore,
    configurations: Semaphore,
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies {
            // More than one source has connections: none can take them all.
            digests: Semaphore::new(384),
            // Of up to 64 MiB each.
            configurations: Semaphore::new(4),
        }
    }
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
    control_port::serve(listener, router(door), PortBounds::default(), ended).await;
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
    } else if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        problem::answer(&problem::of(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoded",
            "the body must not be compressed",
        ))
    } else if declared > most {
        StatusCode::PAYLOAD_TOO_LARGE.into_response()
    } else {
        answer(&door, digest, request, next).await
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

/// Reads and answers it, within what bodies and time there are.
async fn answer(door: &Door, digest: bool, request: Request, next: Next) -> Response {
    let (bodies, deadline) = if digest {
        (&door.bodies.digests, DIGEST_DEADLINE)
    } else {
        (&door.bodies.configurations, ANSWER_DEADLINE)
    };
    let brings = request.method() == Method::POST && !request.body().is_end_stream();
    let held = if brings { bodies.try_acquire().map(Some) } else { Ok(None) };
    let Ok(_held) = held else {
        let detail = "too many bodies are being read; try again";
        return problem::answer(&problem::of(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    };
    let answered = tokio::time::timeout(deadline, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let detail = "the request did not come to its end in time";
        problem::answer(&problem::of(StatusCode::REQUEST_TIMEOUT, "too_slow", detail))
    })
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

/// From a request's head to the head of its answer: slow bodies end here.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// The same for a digest.
const DIGEST_DEADLINE: Duration = Duration::from_secs(5);
/// The largest digest.
const DIGEST_BYTES: usize = 1 << 20;
/// The largest configuration posted by hand.
const CONFIGURATION_BYTES: usize = 64 << 20;
