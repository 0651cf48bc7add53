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
use http::header::{ACCEPT, ALLOW, HeaderMap, HeaderValue, MAX_FORWARDS};
use http::{Method, Request, Response, StatusCode, Uri, Version, request, uri};
use hyper::body::{Body, Incoming};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::{Exchange, Line};
use super::activity::Activity;
use super::alarm::Drawer;
use super::attempt::{Answered, Trying};
use super::authority;
use super::body::{OpenBody, Patience, Progress, ProxyBody, RequestBody, ResponseBody};
use super::certificates::Identity;
use super::closing;
use super::grpc;
use super::headers;
use super::listener::Bounds;
use super::noted::Noted;
use super::onward::Onward;
use super::pool::Pool;
use super::repeats::{self, Repeats};
use super::reply::{self, Failure};
use super::running::{Filters, Routes, RunningRoute};
use super::shedding::Shedding;
use super::tunnel::{self, Tunnel, Wanted};
use super::underway::Underway;
use crate::model::moment::Moment;
use crate::model::network::{self, Network};
use crate::model::rule::{Action, Balance, HashKey, Timeouts};
use crate::routing::cell::Outcome;
use crate::routing::hash;
use crate::routing::matcher::Asked;
use crate::routing::pick::{self, Candidate, How, Picked};
use crate::telemetry::access_log::Pen;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;

/// What one traffic thread works with.
pub(crate) struct Worker {
    pub(crate) node: String,
    /// `tradewind-NODE`: this node in CDN-Loop and Via.
    pub(crate) own: HeaderValue,
    /// What Via says of a request that came in HTTP/1.1, in HTTP/1.0, and in HTTP/2.
    pub(crate) via: [HeaderValue; 3],
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<RequestMetrics>,
    pub(crate) access_log: Option<Rc<Pen>>,
    pub(crate) bounds: Bounds,
    pub(crate) shedding: Arc<Shedding>,
    /// Places for clients' connections at this thread.
    pub(crate) connections: Arc<Semaphore>,
    /// Who must begin each connection with a PROXY header.
    pub(crate) announcers: Vec<Network>,
    /// Connections close after the response under way.
    pub(crate) draining: Cell<bool>,
}

/// The other end of a connection, written out once for all its requests.
pub(crate) struct Client {
    text: HeaderValue,
    /// What it was shown of us; none in clear text.
    identity: Option<Identity>,
    /// Whether it may be a gateway that has taken TLS off: a balancer that says who it stands for,
    /// or whoever has no address on the Internet.
    gateway: bool,
    pub(super) asked: Cell<bool>,
    pub(super) activity: Rc<Activity>,
    /// Waits for one answer after the other.
    pub(super) alarm: Drawer,
    /// What the connection turns into once the answer that says so is written.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
}

/// A request's head, and what the rule made of it.
pub(super) struct Asking {
    pub(super) parts: request::Parts,
    pub(super) noted: Noted,
    pub(super) onward: Onward,
    pub(super) client: Rc<Client>,
    /// Made here when the client sent none.
    pub(super) request_id: Option<HeaderValue>,
    pub(super) begun: Instant,
    /// How long a response head is waited for: the rule's time, or the caller's where it has less.
    pub(super) patience: Duration,
    /// When the whole exchange has to be over.
    pub(super) until: Option<Instant>,
    pub(super) tunnel: Wanted,
    /// What the hash policy goes by.
    pub(super) key: Option<u64>,
}

/// What becomes of a request, decided before anything is awaited.
pub(super) enum Decided {
    Answered(Option<Arc<RunningRoute>>, Response<ProxyBody>),
    Onward(Arc<RunningRoute>, Onward),
}

impl Client {
    pub(crate) fn new(address: IpAddr, identity: Option<Identity>, announced: bool) -> Client {
        let text = HeaderValue::try_from(address.to_canonical().to_string());
        // An address is always visible ASCII.
        let text = text.unwrap_or(HeaderValue::from_static("unknown"));
        let activity = Rc::new(Activity::new());
        Client {
            text,
            identity,
            gateway: announced || network::is_private(address),
            asked: Cell::new(false),
            activity,
            alarm: Drawer::default(),
            tunnel: RefCell::default(),
        }
    }

    /// Whether the connection is one of TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.identity.is_some()
    }

    /// The scheme of what it asks for.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_secured() { "https" } else { "http" }
    }

    /// Whether its requests for this host belong on this connection.
    fn may_ask(&self, host: &str) -> bool {
        self.identity.as_ref().is_none_or(|identity| host.is_empty() || identity.serves(host))
    }

    /// Whether its requests by this scheme do: what is secured is not asked for in clear text, but
    /// by a gateway (RFC 9110, section 7.4).
    pub(super) fn may_ask_by(&self, uri: &Uri) -> bool {
        self.is_secured() || self.gateway || uri.scheme() != Some(&uri::Scheme::HTTPS)
    }

    /// Whether there was a request already.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked.get()
    }

    /// Whether the connection stops being HTTP, and what it is then.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.borrow_mut().take()
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
        let (mut parts, body) = request.into_parts();
        let bodiless = body.is_end_stream();
        let mut underway = Underway::begin(self.clone(), client.clone(), bodiless);
        let (begun, activity) = (underway.begun, client.activity.clone());
        let (method, version) = (parts.method.clone(), parts.version);
        let noted = Noted::of_request(&mut parts);
        let accept = if noted.accept { parts.headers.get(ACCEPT).cloned() } else { None };
        let tunnel = Wanted::by(&mut parts, noted, &body);
        // A refusal in gRPC's way would be the success that opens a tunnel.
        let grpc = grpc::is_spoken(&parts) && !tunnel.is_stream();
        let decided = self.decide(&client, &parts, noted);
        let log = self.access_log.as_ref();
        // A body that nobody wants.
        let mut left = None;
        let (route, failure, mut response) = match decided {
            Ok(Decided::Onward(route, onward)) => {
                let callers = if grpc { grpc::patience(&parts.headers) } else { None };
                let (patience, until) = ends(&route.payload.terms.timeouts, begun, callers);
                let key = hash_key(&route.payload.terms.balance, &parts.headers, &client);
                let (request_id, at) = (self.request_id(noted), underway.at);
                let asking = Asking {
                    parts,
                    noted,
                    onward,
                    client,
                    request_id,
                    begun,
                    patience,
                    until,
                    tunnel,
                    key,
                };
                let exchange = Exchange::begin(log, at, &method, &asking, &route);
                let answered = self.forward(&route, &exchange, body, underway).await;
                let (failure, response) = self.outcome(&method, answered, accept.as_ref());
                if failure.is_some() {
                    exchange.failed(&response);
                }
                drop(exchange);
                (Some(route), failure, response)
            }
            decided => {
                let (route, answered) = alone(decided, &tunnel);
                let (failure, response) = self.outcome(&method, answered, accept.as_ref());
                let rule = route.as_deref();
                let line = |pen| Line::of_own(pen, &underway, &method, &parts, rule, &response);
                underway.line = log.map(line).map(Box::new);
                left = (!bodiless).then(|| (body, std::mem::take(&mut parts.headers)));
                (route, failure, response)
            }
        };
        self.count(route.as_deref(), version, &method, response.status());
        let own = failure.is_some() || left.is_some();
        if let Some(left) = left.filter(|_| version < Version::HTTP_2) {
            // Apart: most requests have no body, or a target.
            Box::pin(self.take_in(&activity, failure, left)).await;
        }
        self.close(&activity, version, &mut response, failure, own);
        if let Some(failure) = failure.filter(|_| grpc) {
            grpc::say(&mut response, failure);
        }
        response
    }

    /// What the client gets, and why where that is of our own making.
    fn outcome(
        &self,
        method: &Method,
        answered: Result<Response<ProxyBody>, Failure>,
        accept: Option<&HeaderValue>,
    ) -> (Option<Failure>, Response<ProxyBody>) {
        let (failure, mut response) = match answered {
            Ok(response) => (None, response),
            Err(failure) => {
                if failure == Failure::Internal {
                    tracing::error!("a request failed inside the proxy");
                }
                (Some(failure), reply::failed(failure, &self.node, accept))
            }
        };
        if *method == Method::HEAD {
            reply::without_content(&mut response);
        }
        (failure, response)
    }

    fn count(
        &self,
        route: Option<&RunningRoute>,
        version: Version,
        method: &Method,
        status: StatusCode,
    ) {
        let rule = route.map(|route| &route.payload);
        let counters = rule.map_or(&self.metrics.unrouted, |running| &running.lasting.counters);
        counters.request(version == Version::HTTP_2, method.as_str(), status.as_u16());
        self.metrics.answered.fetch_add(1, Relaxed);
        tracing::debug!(
            rule = route.map(|route| route.id.as_str()),
            version = rule.and_then(|running| running.version).map(|version| version.get()),
            method = method.as_str(),
            status = status.as_u16(),
            "answered"
        );
    }

    pub(super) fn decide(
        &self,
        client: &Client,
        parts: &request::Parts,
        noted: Noted,
    ) -> Result<Decided, Failure> {
        if self.shedding.refuses(&self.metrics.in_flight) {
            self.metrics.shed.fetch_add(1, Relaxed);
            return Err(Failure::Overloaded);
        }
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Failure::MethodRefused);
        }
        let bad = |why: authority::BadRequest| Failure::BadRequest(why.as_str());
        if parts.version == Version::HTTP_2 {
            authority::http2(parts, noted).map_err(bad)?;
        }
        if noted.transfer_encoding {
            authority::transfer_coding(&parts.headers).map_err(bad)?;
        }
        let authority =
            authority::authority(&parts.uri, &parts.headers, parts.version).map_err(bad)?;
        if !client.may_ask(&authority.host) || !client.may_ask_by(&parts.uri) {
            return Err(Failure::Misdirected);
        }
        let path = authority::path(&parts.uri, &parts.method).map_err(bad)?;
        let been_passed_on = noted.via || noted.cdn_loop;
        if been_passed_on && headers::loops(&parts.headers, self.own.as_bytes()) {
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
        matched.route.payload.prefetch();
        let filters = Filters::of(matched.route);
        if !matched.route.payload.upstreams.is_empty() {
            let onward = Onward::of(&filters, &matched, parts, &authority)?;
            return Ok(Decided::Onward(matched.route.clone(), onward));
        }
        let mut response = match &matched.route.rule.action {
            Action::Redirect(redirect) => {
                reply::redirected(redirect, client.scheme(), &parts.uri, &authority)
            }
            Action::Respond(respond) => reply::responded(respond),
            // Without targets; `wire` lets no such rule pass.
            Action::Forward(_) => return Err(Failure::NoTarget),
        };
        filters.respond(response.headers_mut());
        Ok(Decided::Answered(Some(matched.route.clone()), response))
    }

    /// RFC 9110, section 7.6.3.
    pub(super) fn via(&self, received: Version) -> &HeaderValue {
        &self.via[match received {
            Version::HTTP_11 => 0,
            Version::HTTP_2 => 2,
            _ => 1,
        }]
    }

    pub(super) fn request_id(&self, received: Noted) -> Option<HeaderValue> {
        if received.request_id {
            return None;
        }
        let id: u128 = self.rng.borrow_mut().random();
        let digit = |at: u32| b"0123456789abcdef"[(id >> (4 * at) & 0xf) as usize];
        let digits: [u8; 32] = std::array::from_fn(|at| digit(31 - at as u32));
        HeaderValue::from_bytes(&digits).ok()
    }

    async fn forward(
        self: &Rc<Self>,
        route: &Arc<RunningRoute>,
        exchange: &Exchange<'_>,
        body: Incoming,
        mut underway: Underway,
    ) -> Result<Response<ProxyBody>, Failure> {
        let asking = exchange.asking;
        let progress = Progress::new(self.clock, asking.begun);
        let bodiless = body.is_end_stream();
        if !bodiless {
            asking.client.activity.reads(progress.clone());
        }
        let named = headers::named_by_connection(&asking.parts.headers, asking.noted);
        let body = (body, asking.parts.version, named);
        let body = RequestBody::new(body, &route.payload.terms, asking.until, progress.clone())?;
        if let Err(full) = underway.enter(route) {
            return Err(self.spared(body, asking, full).await);
        }
        let mut now = underway.at;
        let mut repeats = Repeats::begin(route, &asking.parts.method, bodiless, now);
        let mut body = Some(body);
        let mut waited = Duration::ZERO;
        let mut last = Failure::NoTarget;
        let mut next = self.pick(route, asking.key, &[], now);
        while let Some(index) = next
            && let Some(sending) = body.take()
        {
            exchange.tries(index);
            let mut trying = Trying::begin(self.clone(), route.clone(), index, now);
            repeats.tries(index);
            match trying.send(asking, sending, &progress, &mut waited).await {
                Ok(answered) => {
                    exchange.prefetch();
                    next = None;
                    if repeats.want_better(answered.response.status()) {
                        let response = &answered.response;
                        let outcome = outcome(asking, response.status(), response.headers());
                        trying.finish(outcome, self.clock.now());
                        next = self.another(asking, &mut repeats, &mut waited).await;
                    }
                    if next.is_none() {
                        let overhead = asking.begun.elapsed().saturating_sub(waited);
                        self.metrics.overhead.observe(overhead);
                        exchange.overhead.set(Some(overhead));
                        return answer(answered, trying, exchange, underway);
                    }
                    repeats::discard(answered);
                    body = Some(RequestBody::empty(&progress));
                }
                Err(missed) => {
                    last = missed.failure;
                    trying.fail(last);
                    next = None;
                    if repeats.want_another(&missed) {
                        next = self.another(asking, &mut repeats, &mut waited).await;
                    }
                    body = missed.body.or_else(|| bodiless.then(|| RequestBody::empty(&progress)));
                }
            }
            now = self.clock.now();
        }
        match body {
            Some(body) => Err(self.spared(body, asking, last).await),
            None => Err(last),
        }
    }

    /// Takes in a body that no target has seen, so that the client's connection may be kept.
    async fn spared(&self, mut body: RequestBody, asking: &Asking, failure: Failure) -> Failure {
        if asking.parts.version < Version::HTTP_2 && !body.is_end_stream() {
            Box::pin(closing::take_in(&mut body, &asking.parts.headers)).await;
        }
        failure
    }

    /// Where to send a request again, after the pause that this asks for; none where there is no
    /// time, no budget or no target left.
    async fn another(
        &self,
        asking: &Asking,
        repeats: &mut Repeats<'_>,
        waited: &mut Duration,
    ) -> Option<usize> {
        let route = repeats.route;
        let target = self.pick(route, asking.key, repeats.tried(), self.clock.now())?;
        let pause = repeats.pause(target, &mut *self.rng.borrow_mut());
        // Without time left the next target would only be blamed for the last one.
        let latest = asking.begun + asking.patience;
        let latest = asking.until.map_or(latest, |until| until.min(latest));
        if Instant::now() + pause >= latest || !repeats.spend(self.clock.now()) {
            return None;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            *waited += pause;
        }
        Some(target)
    }

    fn pick(
        &self,
        route: &RunningRoute,
        key: Option<u64>,
        tried: &[usize],
        now: Moment,
    ) -> Option<usize> {
        let running = &route.payload;
        let upstreams = &running.upstreams;
        let of = |at: usize| upstreams[at].candidate();
        let rng = &mut *self.rng.borrow_mut();
        let last = upstreams.len().checked_sub(1)?;
        let how = How { balance: &running.terms.balance, outlier: &running.terms.outlier, key };
        let picked = if last == 0 {
            pick::pick(how, &[of(0)], &running.lasting.selector, now, rng, tried)
        } else if upstreams.len() <= ON_STACK {
            let few: [Candidate<'_>; ON_STACK] = std::array::from_fn(|at| of(at.min(last)));
            let few = &few[..=last];
            pick::pick(how, few, &running.lasting.selector, now, rng, tried)
        } else {
            let many: Vec<Candidate<'_>> = (0..=last).map(of).collect();
            pick::pick(how, &many, &running.lasting.selector, now, rng, tried)
        };
        match picked {
            Picked::Target(index) => Some(index),
            Picked::NoneReady(_) => None,
        }
    }
}

/// What is answered without a target, and by which rule.
fn alone(
    decided: Result<Decided, Failure>,
    tunnel: &Wanted,
) -> (Option<Arc<RunningRoute>>, Result<Response<ProxyBody>, Failure>) {
    match decided {
        // To a client that wants a tunnel each success is one (RFC 8441, section 5).
        Ok(Decided::Answered(route, response))
            if tunnel.is_stream() && response.status().is_success() =>
        {
            (route, Err(Failure::MethodRefused))
        }
        Ok(Decided::Answered(route, response)) => (route, Ok(response)),
        // `serve` sends those onward itself.
        Ok(Decided::Onward(route, _)) => (Some(route), Err(Failure::Internal)),
        Err(failure) => (None, Err(failure)),
    }
}

/// The target's answer as the client sees it, its body still on the way.
fn answer(
    answered: Answered,
    mut trying: Trying,
    exchange: &Exchange<'_>,
    mut underway: Underway,
) -> Result<Response<ProxyBody>, Failure> {
    let Exchange { asking, route, .. } = *exchange;
    let Answered { response, lease, at } = answered;
    let (mut parts, noted) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel::switch((parts, noted), lease, trying, at, exchange, underway);
    }
    let framing = headers::framing(parts.status, &parts.headers, noted);
    // A success would open the stream to a client that asked for a tunnel over it.
    let opens = asking.tunnel.is_stream() && parts.status.is_success();
    let Some(framing) = framing else {
        trying.fail(Failure::BadResponse);
        return Err(Failure::BadResponse);
    };
    trying.finish(outcome(asking, parts.status, &parts.headers), at);
    if opens {
        // The target need not speak WebSocket (RFC 9110, section 7.8): nothing is wrong with it.
        return Err(Failure::BadResponse);
    }
    // The hop to the client is this proxy's own (RFC 9112, section 2.3).
    parts.version = Version::HTTP_11;
    let named = headers::named_by_connection(&parts.headers, noted);
    headers::for_client(&mut parts.headers, noted, framing);
    Filters::of(route).respond(&mut parts.headers);
    let open = OpenBody::begin(trying.target());
    let patience = Patience { idle: route.payload.terms.timeouts.idle, until: asking.until };
    exchange.answered(parts.status, &mut underway);
    let body = ResponseBody::new(patience, named, lease, open, underway);
    Ok(Response::from_parts(parts, ProxyBody::Streamed(Box::new(body))))
}

fn outcome(asking: &Asking, status: StatusCode, headers: &HeaderMap) -> Outcome {
    let call_failed = || grpc::is_spoken(&asking.parts) && grpc::is_failure(headers);
    if status.is_server_error() || call_failed() {
        Outcome::ServerFailure { retry_after: headers::retry_after(status, headers) }
    } else {
        Outcome::Success
    }
}

/// How long the head of an answer is waited for, where the caller says so no longer than it does,
/// and when the whole exchange has to be over.
fn ends(
    timeouts: &Timeouts,
    begun: Instant,
    callers: Option<Duration>,
) -> (Duration, Option<Instant>) {
    let patience = callers.map_or(timeouts.request, |own| own.min(timeouts.request));
    (patience, timeouts.total.map(|total| begun + total))
}

/// What the rule wants the same target for; none where the request does not say.
fn hash_key(balance: &Balance, headers: &HeaderMap, client: &Client) -> Option<u64> {
    let Balance::Hash(of) = balance else { return None };
    match of {
        HashKey::ClientIp => Some(hash::identity(client.text.as_bytes())),
        HashKey::Cookie(name) => headers::cookie(headers, name).map(hash::identity),
        HashKey::Header(name) => {
            let values: Vec<&[u8]> =
                headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            (!values.is_empty()).then(|| hash::identity(&values.join(&b", "[..])))
        }
    }
}

/// How many more proxies may pass on a request, or the most that is told apart (RFC 9110, section
/// 7.6.2).
pub(super) fn max_forwards(headers: &HeaderMap) -> Option<u32> {
    let said = headers.get(MAX_FORWARDS)?.as_bytes().trim_ascii();
    let is_number = !said.is_empty() && said.iter().all(u8::is_ascii_digit);
    let more =
        |number: u32, digit: &u8| number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    is_number.then(|| said.iter().fold(0, more))
}

/// Candidates laid out on the stack.
const ON_STACK: usize = 32;
