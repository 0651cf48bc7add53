//! One request, end to end: routed, sent to a target, sent again where that is right, answered.
//!
//! Runs on a traffic thread. Reads an immutable snapshot of the routes once; holds no lock across
//! an await; nothing here waits for the control side.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::{Body, Incoming};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::authority::{self, Authority};
use super::body::{Progress, ProxyBody, RequestBody, ResponseBody};
use super::headers::{self, Hop, REQUEST_ID};
use super::listener::Bounds;
use super::pool::{Lease, Pool};
use super::reply::{self, Failure};
use super::routes::{Filters, Routes, Running, Upstream};
use crate::model::moment::Moment;
use crate::model::rule::{Action, RetryOn, Rule};
use crate::routing::cell::{Attempt, Outcome, TargetCell};
use crate::routing::matcher::Asked;
use crate::routing::pick::{self, Candidate, Picked};
use crate::routing::selector::Selector;
use crate::routing::table::Matched;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::{AttemptEnd, RequestMetrics, RuleCounters, TargetCounters};

/// What one traffic thread works with.
pub(crate) struct Worker {
    pub(crate) node: String,
    /// `tradewind-NODE`: this node in CDN-Loop.
    pub(crate) own: HeaderValue,
    /// What stands in Via for a request of HTTP/1.1, and of HTTP/1.0.
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

/// A request's head, apart from its body.
struct Asking {
    parts: request::Parts,
    authority: Authority,
    client: IpAddr,
    request_id: HeaderValue,
    begun: Instant,
}

/// An attempt that counts as aborted unless it is finished.
struct Trying {
    cell: Arc<TargetCell>,
    selector: Arc<Selector>,
    rule: Arc<Rule>,
    clock: Clock,
    counters: Arc<TargetCounters>,
    attempt: Option<Attempt>,
}

/// An attempt without a response head.
struct Missed {
    failure: Failure,
    /// The body, when nothing of it was sent.
    body: Option<RequestBody>,
}

/// An attempt with one.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    progress: Rc<Progress>,
    waited: Duration,
}

impl Worker {
    /// Answers a request; what goes wrong is an answer too.
    pub(crate) async fn serve(
        self: Rc<Self>,
        client: IpAddr,
        request: Request<Incoming>,
    ) -> Response<ProxyBody> {
        let begun = Instant::now();
        let counted = InFlight::begin(&self.metrics);
        let method = request.method().clone();
        let accept = request.headers().get(ACCEPT).cloned();
        let mut counters = None;
        let answered = self.route(client, request, begun, &mut counters).await;
        let mut response = answered.unwrap_or_else(|failure| {
            if failure == Failure::Internal {
                tracing::error!("a request failed inside the proxy");
            }
            reply::failed(failure, &self.node, accept.as_ref())
        });
        let status = response.status().as_u16();
        let counters: &RuleCounters = counters.as_deref().unwrap_or(&self.metrics.unrouted);
        counters.request(method.as_str(), status);
        if matches!(response.body(), ProxyBody::Full(_)) {
            self.metrics.duration.observe(begun.elapsed());
        }
        drop(counted);
        if self.draining.get() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn route(
        self: &Rc<Self>,
        client: IpAddr,
        request: Request<Incoming>,
        begun: Instant,
        counters: &mut Option<Arc<RuleCounters>>,
    ) -> Result<Response<ProxyBody>, Failure> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Failure::MethodRefused);
        }
        let bad = |why: authority::BadRequest| Failure::BadRequest(why.as_str());
        authority::transfer_coding(&parts.headers).map_err(bad)?;
        let authority =
            authority::authority(&parts.uri, &parts.headers, parts.version).map_err(bad)?;
        let path = authority::path(&parts.uri, &parts.method).map_err(bad)?;
        if headers::loops(&parts.headers, self.own.to_str().unwrap_or_default()) {
            return Err(Failure::Loop);
        }
        if parts.method == Method::OPTIONS && max_forwards(&parts.headers) == Some(0) {
            let mut response = Response::new(ProxyBody::empty());
            response.headers_mut().insert(ALLOW, reply::ALLOWED);
            return Ok(response);
        }
        let routes = self.routes.load_full();
        let asked = Asked {
            host: &authority.host,
            method: parts.method.as_str(),
            path,
            query: parts.uri.query(),
        };
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let matched = routes.find(&asked, &header).ok_or(Failure::NoRoute)?;
        let running = matched.route.payload.clone();
        *counters = Some(running.counters.clone());
        let filters = Filters::of(&matched.route.rule);
        match &matched.route.rule.action {
            Action::Redirect(redirect) => {
                let mut response = reply::redirected(redirect, &parts.uri, &authority);
                filters.respond(response.headers_mut());
                Ok(response)
            }
            Action::Respond(respond) => {
                let mut response = reply::responded(respond);
                filters.respond(response.headers_mut());
                Ok(response)
            }
            Action::Forward(_) => {
                let uri = target_uri(&filters, &matched, &parts.uri)?;
                let request_id = self.request_id(&parts);
                let asking = Asking { parts, authority, client, request_id, begun };
                self.forward(&asking, &matched.route.rule, &running, uri, body).await
            }
        }
    }

    fn request_id(&self, parts: &request::Parts) -> HeaderValue {
        if let Some(given) = parts.headers.get(REQUEST_ID) {
            return given.clone();
        }
        let id = format!("{:032x}", self.rng.borrow_mut().random::<u128>());
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
    }

    async fn forward(
        self: &Rc<Self>,
        asking: &Asking,
        rule: &Arc<Rule>,
        running: &Arc<Running>,
        uri: Uri,
        body: Incoming,
    ) -> Result<Response<ProxyBody>, Failure> {
        let progress = Progress::new(self.clock);
        let mut body = Some(RequestBody::new(body, rule.timeouts.idle, progress.clone()));
        let deadline = asking.begun + rule.timeouts.request;
        let attempts = if rule.retry.on.contains(&RetryOn::ConnectFailure) {
            rule.retry.attempts.max(1)
        } else {
            1
        };
        let mut tried = Vec::new();
        let mut last = Failure::NoTarget;
        for _ in 0..attempts {
            // Without time left the next target would only be blamed for the last one.
            if !tried.is_empty() && Instant::now() >= deadline {
                break;
            }
            let Some(sending) = body.take() else { break };
            let Some(index) = self.pick(rule, running, &tried) else { break };
            let upstream = &running.upstreams[index];
            let mut trying = Trying::begin(upstream, running, rule, self.clock);
            let attempt =
                self.attempt(asking, &mut trying, upstream, &uri, sending, &progress, deadline);
            match attempt.await {
                Ok(answered) => {
                    let overhead = asking.begun.elapsed().saturating_sub(answered.waited);
                    self.metrics.overhead.observe(overhead);
                    return self.answer(answered, trying, rule, upstream, asking.begun);
                }
                Err(missed) => {
                    last = missed.failure;
                    trying.fail(last, &self.rng);
                    body = missed.body;
                    tried.push(index);
                }
            }
        }
        Err(last)
    }

    fn pick(&self, rule: &Rule, running: &Running, tried: &[usize]) -> Option<usize> {
        let upstreams = &running.upstreams;
        let of = |at: usize| {
            let upstream = &upstreams[at];
            Candidate { cell: &upstream.cell, weight: upstream.weight }
        };
        let now = self.clock.now();
        let rng = &mut *self.rng.borrow_mut();
        let last = upstreams.len().checked_sub(1)?;
        let policy = (&rule.balance, &rule.health.outlier);
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

    /// One attempt at one target; a connection that turns out stale is replaced once.
    #[allow(clippy::too_many_arguments, reason = "one call, and each is needed")]
    async fn attempt(
        &self,
        asking: &Asking,
        trying: &mut Trying,
        upstream: &Upstream,
        uri: &Uri,
        mut body: RequestBody,
        progress: &Rc<Progress>,
        deadline: Instant,
    ) -> Result<Answered, Missed> {
        let idempotent = is_idempotent(&asking.parts.method) && body.is_end_stream();
        let rule = trying.rule.clone();
        let mut fresh = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let connect = rule.timeouts.connect.min(left);
            let leased = self.pool.lease(&upstream.address, connect, fresh).await;
            let (mut lease, opened) = match leased {
                Ok(leased) => leased,
                Err(failure) => return Err(Missed { failure, body: Some(body) }),
            };
            if let Some(rtt) = opened {
                upstream.cell.observe_connect(rtt, self.clock.now());
            }
            let request = self.request(asking, &rule, upstream, uri, body);
            trying.sending();
            let until = deadline.min(Instant::now() + rule.timeouts.per_try);
            let asked_at = Instant::now();
            let sending = lease.sender.try_send_request(request);
            let Ok(result) = tokio::time::timeout_at(until, sending).await else {
                let slow_client = progress.waits_for_client() && !progress.is_whole();
                let failure =
                    if slow_client { Failure::SlowRequest } else { Failure::ResponseTimeout };
                return Err(Missed { failure, body: None });
            };
            match result {
                Ok(response) => {
                    let waited = asked_at.elapsed();
                    let progress = progress.clone();
                    return Ok(Answered { response, lease, progress, waited });
                }
                Err(mut refused) => {
                    let back = refused.take_message().map(Request::into_body);
                    let unsent = back.is_some();
                    let again = lease.reused && (unsent || idempotent && !progress.has_begun());
                    let failure = match classify(refused.error()) {
                        Failure::BadRequest(_) if progress.is_idle() => Failure::SlowRequest,
                        failure => failure,
                    };
                    if !again {
                        return Err(Missed { failure, body: back });
                    }
                    fresh = true;
                    body = back.unwrap_or_else(|| RequestBody::empty(progress));
                }
            }
        }
    }

    fn request(
        &self,
        asking: &Asking,
        rule: &Rule,
        upstream: &Upstream,
        uri: &Uri,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let filters = Filters::of(rule);
        let received = &asking.authority.whole;
        let own = upstream.address.authority();
        let host = match filters.rewrite.and_then(|rewrite| rewrite.host.as_ref()) {
            Some(host) => host,
            None if received.is_empty() => &own,
            None => received,
        };
        let hop = Hop {
            client: asking.client,
            host,
            received_host: received,
            own: &self.own,
            via: &self.via[usize::from(asking.parts.version < Version::HTTP_11)],
            request_id: &asking.request_id,
        };
        let framing = framing(&body, &asking.parts.headers);
        let mut request = Request::new(body);
        *request.method_mut() = asking.parts.method.clone();
        *request.uri_mut() = uri.clone();
        let mut out = headers::for_target(&asking.parts.headers, &hop);
        if asking.parts.method == Method::OPTIONS
            && let Some(left) = max_forwards(&asking.parts.headers)
        {
            out.insert(http::header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
        }
        if let Some(edits) = filters.request {
            headers::edit(&mut out, edits);
        }
        if let Some((name, value)) = framing {
            out.insert(name, value);
        }
        *request.headers_mut() = out;
        request
    }

    fn answer(
        &self,
        answered: Answered,
        mut trying: Trying,
        rule: &Arc<Rule>,
        upstream: &Upstream,
        begun: Instant,
    ) -> Result<Response<ProxyBody>, Failure> {
        let Answered { response, lease, progress, .. } = answered;
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it (Upgrade is not passed on).
            trying.fail(Failure::BadResponse, &self.rng);
            return Err(Failure::BadResponse);
        }
        let outcome = if parts.status.is_server_error() {
            upstream.counters.attempt(AttemptEnd::Failure);
            Outcome::ServerFailure { retry_after: retry_after(&parts) }
        } else {
            upstream.counters.attempt(AttemptEnd::Success);
            Outcome::Success
        };
        if let Some(ended) = progress.ended() {
            trying.last_byte(ended);
        }
        trying.finish(outcome, &self.rng);
        // The hop to the client is this proxy's own (RFC 9112, section 2.3).
        parts.version = Version::HTTP_11;
        headers::for_client(&mut parts.headers);
        Filters::of(rule).respond(&mut parts.headers);
        let metrics = self.metrics.clone();
        let counted = InFlight::begin(&metrics);
        let done = Box::new(move || {
            metrics.duration.observe(begun.elapsed());
            drop(counted);
        });
        let idle = rule.timeouts.idle;
        let body = ResponseBody::new(body, idle, lease, progress, upstream.cell.clone(), done);
        Ok(Response::from_parts(parts, ProxyBody::Streamed(Box::new(body))))
    }
}

impl Trying {
    fn begin(upstream: &Upstream, running: &Running, rule: &Arc<Rule>, clock: Clock) -> Trying {
        Trying {
            cell: upstream.cell.clone(),
            selector: running.selector.clone(),
            rule: rule.clone(),
            clock,
            counters: upstream.counters.clone(),
            attempt: Some(upstream.cell.begin(clock.now())),
        }
    }

    fn sending(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.sent(self.clock.now());
        }
    }

    /// The request's body ended only then. An answer that is faster than the wire did not wait
    /// for the end: it counts as having taken the wire's time.
    fn last_byte(&mut self, ended: Moment) {
        if let Some(attempt) = &mut self.attempt {
            let now = self.clock.now();
            let wire = Duration::from_secs_f64(self.cell.snapshot(now).net.clamp(0.0, 6e4) / 1e3);
            let waited = now.since(ended).max(wire);
            attempt.sent(now - waited);
        }
    }

    fn finish(&mut self, outcome: Outcome, rng: &RefCell<SmallRng>) {
        if let Some(attempt) = self.attempt.take() {
            let unit = rng.borrow_mut().random_range(0.0..1.0);
            let now = self.clock.now();
            let outlier = &self.rule.health.outlier;
            self.cell.finish(attempt, now, outcome, &self.selector, outlier, unit);
        }
    }

    fn fail(&mut self, failure: Failure, rng: &RefCell<SmallRng>) {
        let (end, outcome) = match failure {
            Failure::ResponseTimeout => (AttemptEnd::Timeout, Outcome::TimedOut),
            Failure::BadRequest(_) | Failure::SlowRequest => {
                (AttemptEnd::Aborted, Outcome::Aborted)
            }
            Failure::ConnectionEnded | Failure::BadResponse => {
                (AttemptEnd::Failure, Outcome::ServerFailure { retry_after: None })
            }
            _ => (AttemptEnd::ConnectError, Outcome::ServerFailure { retry_after: None }),
        };
        self.counters.attempt(end);
        self.finish(outcome, rng);
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            let outlier = &self.rule.health.outlier;
            let now = self.clock.now();
            self.counters.attempt(AttemptEnd::Aborted);
            self.cell.finish(attempt, now, Outcome::Aborted, &self.selector, outlier, 0.5);
        }
    }
}

/// Counts a request for as long as it is being answered.
struct InFlight(Arc<RequestMetrics>);

impl InFlight {
    fn begin(metrics: &Arc<RequestMetrics>) -> InFlight {
        metrics.in_flight.fetch_add(1, Relaxed);
        InFlight(metrics.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// What must be said about a body because hyper leaves it out: that a GET has one of unknown
/// length, and that an announced body is empty. Everything else about framing is hyper's.
fn framing(
    body: &RequestBody,
    received: &http::HeaderMap,
) -> Option<(http::HeaderName, HeaderValue)> {
    if body.is_end_stream() {
        let announced = received.contains_key(CONTENT_LENGTH);
        announced.then_some((CONTENT_LENGTH, HeaderValue::from_static("0")))
    } else if body.size_hint().exact().is_none() {
        Some((TRANSFER_ENCODING, HeaderValue::from_static("chunked")))
    } else {
        None
    }
}

fn target_uri<T>(
    filters: &Filters<'_>,
    matched: &Matched<'_, T>,
    uri: &Uri,
) -> Result<Uri, Failure> {
    if filters.rewrite.is_none_or(|rewrite| rewrite.path.is_none()) {
        let same = uri.path_and_query().cloned();
        return Ok(same.unwrap_or(PathAndQuery::from_static("/")).into());
    }
    let text = filters.path(matched, uri.path(), uri.query());
    text.parse::<PathAndQuery>().map(Uri::from).map_err(|_| Failure::Internal)
}

/// What went wrong between this proxy and a target, or between the client and this proxy.
fn classify(error: &hyper::Error) -> Failure {
    if error.is_user() {
        Failure::BadRequest("the request body broke off")
    } else if error.is_parse() {
        Failure::BadResponse
    } else {
        Failure::ConnectionEnded
    }
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn max_forwards(headers: &http::HeaderMap) -> Option<u32> {
    headers.get(http::header::MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()
}

fn retry_after(parts: &http::response::Parts) -> Option<Duration> {
    if parts.status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let seconds = parts.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Candidates laid out on the stack.
const ON_STACK: usize = 32;
