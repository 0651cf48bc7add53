//! One request, end to end: routed, sent to a target, sent again where that is right, answered.
//!
//! Runs on a traffic thread. Reads an immutable snapshot of the routes once, without an await in
//! between; holds no lock across an await; nothing here waits for the control side. One attempt at
//! one target is `attempt`'s business.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{ACCEPT, ALLOW, CONNECTION, HeaderMap, HeaderValue, MAX_FORWARDS};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::attempt::{Answered, Trying};
use super::authority::{self, Authority};
use super::body::{Progress, ProxyBody, RequestBody, ResponseBody};
use super::headers::{self, REQUEST_ID};
use super::listener::Bounds;
use super::pool::Pool;
use super::reply::{self, Failure};
use super::routes::{Filters, Routes, RunningRoute};
use crate::model::rule::{Action, RetryOn};
use crate::routing::cell::Outcome;
use crate::routing::matcher::Asked;
use crate::routing::pick::{self, Candidate, Picked};
use crate::routing::table::Matched;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

/// What one traffic thread works with.
pub(crate) struct Worker {
    pub(crate) node: String,
    /// `tradewind-NODE`: this node in CDN-Loop and Via.
    pub(crate) own: HeaderValue,
    /// What Via says of a request that came in HTTP/1.1, and in HTTP/1.0.
    pub(crate) via: [HeaderValue; 2],
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<RequestMetrics>,
    pub(crate) bounds: Bounds,
    /// Connections close after the response under way.
    pub(crate) draining: Cell<bool>,
}

/// The other end of a connection, written out once for all its requests.
pub(crate) struct Client {
    text: HeaderValue,
}

/// A request's head, and what the rule made of it.
pub(super) struct Asking {
    pub(super) parts: request::Parts,
    pub(super) onward: Onward,
    pub(super) client: Rc<Client>,
    /// Made here when the client sent none.
    pub(super) request_id: Option<HeaderValue>,
    pub(super) begun: Instant,
}

/// What the target shall see.
pub(super) struct Onward {
    pub(super) uri: Uri,
    /// None: the target's own authority (the client named none).
    pub(super) host: Option<HeaderValue>,
    /// As the client sent it.
    pub(super) received_host: Option<HeaderValue>,
}

/// What becomes of a request, decided before anything is awaited.
enum Decided {
    Answered(Option<Arc<RunningRoute>>, Response<ProxyBody>),
    Onward(Arc<RunningRoute>, Onward),
}

/// Counts a request until its last byte is gone, however that comes about.
pub(crate) struct Underway {
    worker: Rc<Worker>,
    begun: Instant,
}

impl Client {
    pub(crate) fn new(address: IpAddr) -> Client {
        let text = HeaderValue::try_from(address.to_canonical().to_string());
        // An address is always visible ASCII.
        Client { text: text.unwrap_or(HeaderValue::from_static("unknown")) }
    }

    pub(super) fn text(&self) -> &HeaderValue {
        &self.text
    }
}

impl Worker {
    /// Answers a request; what goes wrong is an answer too.
    pub(crate) async fn serve(
        self: Rc<Self>,
        client: Rc<Client>,
        request: Request<Incoming>,
    ) -> Response<ProxyBody> {
        let underway = Underway::begin(self.clone());
        let begun = underway.begun;
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let accept = parts.headers.get(ACCEPT).cloned();
        let (route, answered) = match self.decide(&parts) {
            Ok(Decided::Answered(route, response)) => (route, Ok(response)),
            Ok(Decided::Onward(route, onward)) => {
                let request_id = self.request_id(&parts.headers);
                let asking = Asking { parts, onward, client, request_id, begun };
                let answered = self.forward(&asking, &route, body, underway).await;
                (Some(route), answered)
            }
            Err(failure) => (None, Err(failure)),
        };
        let mut response = answered.unwrap_or_else(|failure| {
            if failure == Failure::Internal {
                tracing::error!("a request failed inside the proxy");
            }
            reply::failed(failure, &self.node, accept.as_ref())
        });
        let status = response.status().as_u16();
        let rule = route.as_ref().map(|route| &route.payload);
        let counters = rule.map_or(&self.metrics.unrouted, |running| &running.counters);
        counters.request(method.as_str(), status);
        tracing::debug!(
            rule = route.as_ref().map(|route| route.id.as_str()),
            version = rule.and_then(|running| running.version).map(|version| version.get()),
            method = method.as_str(),
            status,
            "answered"
        );
        if self.draining.get() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn decide(&self, parts: &request::Parts) -> Result<Decided, Failure> {
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Failure::MethodRefused);
        }
        let bad = |why: authority::BadRequest| Failure::BadRequest(why.as_str());
        authority::transfer_coding(&parts.headers).map_err(bad)?;
        let authority =
            authority::authority(&parts.uri, &parts.headers, parts.version).map_err(bad)?;
        let path = authority::path(&parts.uri, &parts.method).map_err(bad)?;
        if headers::loops(&parts.headers, self.own.as_bytes()) {
            return Err(Failure::Loop);
        }
        if parts.method == Method::OPTIONS && max_forwards(&parts.headers) == Some(0) {
            let mut response = Response::new(ProxyBody::empty());
            response.headers_mut().insert(ALLOW, reply::ALLOWED);
            return Ok(Decided::Answered(None, response));
        }
        let asked = Asked {
            host: &authority.host,
            method: parts.method.as_str(),
            path,
            query: parts.uri.query(),
        };
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let routes = self.routes.load();
        let matched = routes.find(&asked, &header).ok_or(Failure::NoRoute)?;
        let filters = Filters::of(&matched.route.rule);
        let mut response = match &matched.route.rule.action {
            Action::Redirect(redirect) => reply::redirected(redirect, &parts.uri, &authority),
            Action::Respond(respond) => reply::responded(respond),
            Action::Forward(_) => {
                let onward = onward(&filters, &matched, parts, &authority)?;
                return Ok(Decided::Onward(matched.route.clone(), onward));
            }
        };
        filters.respond(response.headers_mut());
        Ok(Decided::Answered(Some(matched.route.clone()), response))
    }

    fn request_id(&self, received: &HeaderMap) -> Option<HeaderValue> {
        if received.contains_key(REQUEST_ID) {
            return None;
        }
        let id = format!("{:032x}", self.rng.borrow_mut().random::<u128>());
        HeaderValue::try_from(id).ok()
    }

    async fn forward(
        self: &Rc<Self>,
        asking: &Asking,
        route: &Arc<RunningRoute>,
        body: Incoming,
        underway: Underway,
    ) -> Result<Response<ProxyBody>, Failure> {
        let rule = &route.rule;
        let repeats = rule.retry.on.contains(&RetryOn::ConnectFailure);
        let attempts = if repeats { rule.retry.attempts.max(1) } else { 1 };
        let progress = Progress::new(self.clock);
        let mut body = Some(RequestBody::new(body, rule.timeouts.idle, progress.clone()));
        let mut tried = Vec::new();
        let mut waited = Duration::ZERO;
        let mut last = Failure::NoTarget;
        for _ in 0..attempts {
            // Without time left the next target would only be blamed for the last one.
            if !tried.is_empty() && asking.begun.elapsed() >= rule.timeouts.request {
                break;
            }
            let Some(sending) = body.take() else { break };
            let Some(index) = self.pick(route, &tried) else { break };
            let mut trying = Trying::begin(self.clone(), route.clone(), index);
            match trying.send(asking, sending, &progress, &mut waited).await {
                Ok(answered) => {
                    let overhead = asking.begun.elapsed().saturating_sub(waited);
                    self.metrics.overhead.observe(overhead);
                    return answer(answered, trying, route, underway);
                }
                Err(missed) => {
                    last = missed.failure;
                    trying.fail(last);
                    body = missed.body;
                    tried.push(index);
                }
            }
        }
        Err(last)
    }

    fn pick(&self, route: &RunningRoute, tried: &[usize]) -> Option<usize> {
        let running = &route.payload;
        let upstreams = &running.upstreams;
        let of = |at: usize| {
            let upstream = &upstreams[at];
            Candidate { cell: &upstream.cell, weight: upstream.weight }
        };
        let now = self.clock.now();
        let rng = &mut *self.rng.borrow_mut();
        let last = upstreams.len().checked_sub(1)?;
        let policy = (&route.rule.balance, &route.rule.health.outlier);
        let picked = if upstreams.len() <= ON_STACK {
            let few: [Candidate<'_>; ON_STACK] = std::array::from_fn(|at| of(at.min(last)));
            let few = &few[..=last];
            pick::pick(policy.0, policy.1, few, &running.selector, now, rng, tried)
        } else {
            let many: Vec<Candidate<'_>> = (0..=last).map(of).collect();
            pick::pick(policy.0, policy.1, &many, &running.selector, now, rng, tried)
        };
        match picked {
            Picked::Target(index) => Some(index),
            Picked::NoneReady(_) => None,
        }
    }
}

/// The target's answer as the client sees it, its body still on the way.
fn answer(
    answered: Answered,
    mut trying: Trying,
    route: &RunningRoute,
    underway: Underway,
) -> Result<Response<ProxyBody>, Failure> {
    let Answered { response, mut lease, progress } = answered;
    let (mut parts, body) = response.into_parts();
    let framing = headers::framing(parts.status, &parts.headers);
    let Some(framing) = framing else {
        trying.fail(Failure::BadResponse);
        return Err(Failure::BadResponse);
    };
    if framing.contradicts {
        lease.spoil();
    }
    let outcome = if parts.status.is_server_error() {
        Outcome::ServerFailure { retry_after: headers::retry_after(&parts) }
    } else {
        Outcome::Success
    };
    trying.finish(outcome);
    // The hop to the client is this proxy's own (RFC 9112, section 2.3).
    parts.version = Version::HTTP_11;
    headers::for_client(&mut parts.headers, framing);
    Filters::of(&route.rule).respond(&mut parts.headers);
    let cell = trying.cell().clone();
    let idle = route.rule.timeouts.idle;
    let body = ResponseBody::new(body, idle, lease, progress, cell, underway);
    Ok(Response::from_parts(parts, ProxyBody::Streamed(Box::new(body))))
}

/// What the target shall see of this request.
fn onward<T>(
    filters: &Filters<'_>,
    matched: &Matched<'_, T>,
    parts: &request::Parts,
    authority: &Authority<'_>,
) -> Result<Onward, Failure> {
    let uri = if filters.rewrite.is_none_or(|rewrite| rewrite.path.is_none()) {
        let same = parts.uri.path_and_query().cloned();
        Uri::from(same.unwrap_or(PathAndQuery::from_static("/")))
    } else {
        let text = filters.path(matched, parts.uri.path(), parts.uri.query());
        PathAndQuery::try_from(text).map(Uri::from).map_err(|_| Failure::Internal)?
    };
    let received_host = authority.field(&parts.headers);
    let rewritten = filters.rewrite.and_then(|rewrite| rewrite.host.as_ref());
    let host = match rewritten {
        Some(host) => Some(HeaderValue::from_str(host).map_err(|_| Failure::Internal)?),
        None => received_host.clone(),
    };
    Ok(Onward { uri, host, received_host })
}

impl Underway {
    fn begin(worker: Rc<Worker>) -> Underway {
        worker.metrics.in_flight.fetch_add(1, Relaxed);
        Underway { worker, begun: Instant::now() }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.worker.metrics.in_flight.fetch_sub(1, Relaxed);
        self.worker.metrics.duration.observe(self.begun.elapsed());
    }
}

/// How many more proxies may pass on a request (RFC 9110, section 7.6.2).
pub(super) fn max_forwards(headers: &HeaderMap) -> Option<u32> {
    headers.get(MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()
}

/// Candidates laid out on the stack.
const ON_STACK: usize = 32;
