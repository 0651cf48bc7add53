//! One attempt at one target: a connection, the request over it, the wait for a response head.
//!
//! Every attempt ends exactly once, as an outcome of its target and in the counters; one that is
//! dropped was aborted by the client. What comes after the head is `body`'s, what comes after a
//! failure `forward`'s.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, MAX_FORWARDS, TRAILER};
use http::{Method, Request, Response};
use http_body::Body;
use rand::RngExt;
use tokio::time::{Instant, timeout_at};

use super::alarm::Alarm;
use super::body::{Progress, RequestBody};
use super::broken::Broken;
use super::forward::{Asking, Worker, max_forwards};
use super::headers::{self, Fields, Hop};
use super::http1_target::request::{self, Announced};
use super::http2_target;
use super::noted::Noted;
use super::pool::Lease;
use super::repeats;
use super::reply::Failure;
use super::running::{Filters, Known, Lasting, RunningRoute, Upstream};
use super::tunnel;
use crate::model::moment::Moment;
use crate::model::rule::{Scheme, Timeouts};
use crate::routing::cell::{Attempt, Outcome};
use crate::telemetry::request_metrics::AttemptEnd;

/// An attempt that counts as aborted unless it is finished.
pub(super) struct Trying {
    worker: Rc<Worker>,
    route: Arc<RunningRoute>,
    index: usize,
    attempt: Option<Attempt>,
    /// It ended before the target had as long as the rule gives it: the client, or the whole
    /// exchange, had no more time.
    cut_short: bool,
}

/// An attempt without a response head.
pub(super) struct Missed {
    pub(super) failure: Failure,
    /// The body, when nothing of the request was sent.
    pub(super) body: Option<RequestBody>,
    /// The target says that it has not looked at it.
    pub(super) unseen: bool,
}

/// An attempt with one.
pub(super) struct Answered {
    pub(super) response: Response<Noted>,
    /// Where its body comes from.
    pub(super) lease: Lease,
    /// When its head was there.
    pub(super) at: Moment,
}

impl Trying {
    pub(super) fn begin(
        worker: Rc<Worker>,
        route: Arc<RunningRoute>,
        index: usize,
        now: Moment,
    ) -> Trying {
        let attempt = route.payload.upstreams[index].known.cell.begin(now);
        Trying { worker, route, index, attempt: Some(attempt), cut_short: false }
    }

    /// Sends the request; a kept connection that turns out stale is replaced once.
    pub(super) async fn send(
        &mut self,
        asking: &Asking,
        mut body: RequestBody,
        progress: &Rc<Progress>,
        waited: &mut Duration,
    ) -> Result<Answered, Missed> {
        let bodiless = body.is_end_stream();
        let repeatable = bodiless && repeats::is_idempotent(&asking.parts.method);
        let Timeouts { connect, per_try, request, .. } = self.route.payload.terms.timeouts;
        // The first attempt has all the time that there is.
        let since = if waited.is_zero() { asking.begun } else { Instant::now() };
        let mut fresh = false;
        loop {
            let (mut lease, begun) = match self.connect(asking, fresh, waited).await {
                Ok(connected) => connected,
                Err(failure) => {
                    self.cut_short = since.elapsed() < connect.min(request);
                    return Err(Missed { failure, body: Some(body), unseen: false });
                }
            };
            self.ask(&mut lease, asking, body);
            self.sent(self.worker.clock.at(begun.into_std()));
            let deadlines = Deadlines { per_try, asking, begun };
            let result = {
                let answering = pin!(poll_fn(|cx| lease.poll_head(cx)));
                deadlines.hold(answering, progress, asking.client.alarm.take()).await
            };
            let ended = Instant::now();
            *waited += ended - begun;
            let at = self.worker.clock.at(ended.into_std());
            // The latency counts from the last byte, where the target waited for it.
            if let Some(last) = progress.ended() {
                self.last_byte(last, at);
            }
            match result {
                Some(Ok(response)) => {
                    return Ok(Answered { response, lease, at });
                }
                Some(Err(broken)) => {
                    let failure = classify(&broken, progress);
                    let back = lease.take_unsent();
                    let unseen = broken.is_unseen();
                    if broken.ends_connection() {
                        lease.spoil();
                    }
                    let unharmed = back.is_some() || repeatable || (unseen && bodiless);
                    // An answer that came says nothing against the connection.
                    let stale = lease.reused && !matches!(broken, Broken::Message);
                    let again = stale && !fresh && unharmed;
                    if !again {
                        return Err(Missed { failure, body: back, unseen });
                    }
                    fresh = true;
                    body = back.unwrap_or_else(|| RequestBody::empty(progress));
                }
                None => {
                    // Only the end of the whole exchange comes while the client still sends.
                    let clients = progress.waits_for_client() && !progress.is_whole();
                    let failure =
                        if clients { Failure::SlowRequest } else { Failure::ResponseTimeout };
                    let had = ended.saturating_duration_since(since.max(progress.moved()));
                    self.cut_short = had < per_try.min(request);
                    if !self.cut_short {
                        lease.gives_up();
                    }
                    return Err(Missed { failure, body: None, unseen: false });
                }
            }
        }
    }

    /// A connection to the target, and when it was there.
    async fn connect(
        &self,
        asking: &Asking,
        fresh: bool,
        waited: &mut Duration,
    ) -> Result<(Lease, Instant), Failure> {
        let upstream = self.upstream();
        let pool = &self.worker.pool;
        let (to, tunnel) = (&upstream.known.endpoint, self.carries_tunnel(asking));
        let begun = Instant::now();
        if !fresh && let Some(lease) = pool.kept(to, tunnel, begun.into_std()) {
            return Ok((lease, begun));
        }
        let connect = self.route.payload.terms.timeouts.connect;
        let until = (begun + connect).min(asking.begun + asking.patience);
        let until = asking.until.map_or(until, |end| end.min(until));
        // Apart: most requests find a connection, and what they are made of is moved about.
        let opened = timeout_at(until, Box::pin(pool.open(to, tunnel))).await;
        let ended = Instant::now();
        *waited += ended - begun;
        let (lease, rtt) = opened.map_err(|_| Failure::ConnectTimeout)??;
        if let Some(rtt) = rtt {
            upstream.known.cell.observe_connect(rtt, self.worker.clock.at(ended.into_std()));
        }
        Ok((lease, ended))
    }

    /// Whether the connection shall become a tunnel: over HTTP/2 there is no such thing as Upgrade.
    fn carries_tunnel(&self, asking: &Asking) -> bool {
        asking.tunnel.is_tunnel() && self.target().endpoint.address.scheme != Scheme::H2c
    }

    /// Asks the target over this connection.
    pub(super) fn ask(&self, lease: &mut Lease, asking: &Asking, body: RequestBody) {
        if lease.is_http2() {
            lease.begin_http2(self.http2_request(asking, body));
        } else {
            let announced = Announced::of(&body, &asking.parts.headers, asking.noted);
            let to_head = asking.parts.method == Method::HEAD;
            lease.begin_http1(|out| self.write_head(asking, out), to_head, announced, body);
        }
    }

    /// The head that the target shall see in HTTP/1.1, but for how its body is framed.
    pub(super) fn write_head(&self, asking: &Asking, out: &mut Vec<u8>) {
        let parts = &asking.parts;
        request::line(&parts.method, &asking.onward.uri, out);
        let edited = Filters::of(&self.route).request.is_some() || parts.method == Method::OPTIONS;
        if edited {
            request::fields(&self.fields(asking), out);
        } else {
            // Mostly nothing has to be looked up again.
            self.for_target(asking, out);
        }
        if self.carries_tunnel(asking) {
            tunnel::announce(|name, value| out.add(&name, &value));
        }
    }

    fn for_target(&self, asking: &Asking, out: &mut impl Fields) {
        let own = if asking.onward.host.is_none() {
            HeaderValue::try_from(self.target().endpoint.address.authority()).ok()
        } else {
            None
        };
        let hop = Hop {
            client: asking.client.text(),
            scheme: asking.client.scheme(),
            host: asking.onward.host.as_ref().or(own.as_ref()),
            received_host: asking.onward.received_host.as_ref(),
            own: &self.worker.own,
            via: self.worker.via(asking.parts.version),
            request_id: asking.request_id.as_ref(),
        };
        headers::for_target(&asking.parts.headers, asking.noted, &hop, out);
    }

    /// All fields that the target shall see, but for how the body is framed.
    pub(super) fn fields(&self, asking: &Asking) -> HeaderMap {
        let mut out = HeaderMap::with_capacity(asking.parts.headers.len() + 8);
        self.for_target(asking, &mut out);
        if asking.parts.method == Method::OPTIONS
            && let Some(left) = max_forwards(&asking.parts.headers)
        {
            out.insert(MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
        }
        if let Some(edits) = Filters::of(&self.route).request {
            headers::edit(&mut out, edits);
        }
        out
    }

    /// The request as the target shall see it in HTTP/2.
    pub(super) fn http2_request(&self, asking: &Asking, body: RequestBody) -> Request<RequestBody> {
        let received = &asking.parts.headers;
        let mut out = self.fields(asking);
        match Announced::of(&body, received, asking.noted) {
            Announced::Length(0) if body.is_end_stream() => {
                out.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Announced::Chunks(trailers) => {
                if let Some(trailers) = headers::announcement(&trailers) {
                    out.insert(TRAILER, trailers);
                }
            }
            // hyper says it.
            Announced::Length(_) | Announced::Nothing => {}
        }
        let mut request = Request::new(body);
        *request.method_mut() = asking.parts.method.clone();
        *request.uri_mut() = asking.onward.uri.clone();
        *request.headers_mut() = out;
        http2_target::rewrite(&mut request, received, self.target().endpoint.address.scheme);
        request
    }

    /// The latency counts from there.
    fn sent(&mut self, at: Moment) {
        if let Some(attempt) = &mut self.attempt {
            attempt.sent(at);
        }
    }

    /// The request's body ended only then. An answer that is faster than the wire did not wait
    /// for the end: it counts as having taken the wire's time.
    fn last_byte(&mut self, ended: Moment, now: Moment) {
        let wire =
            Duration::from_secs_f64(self.target().cell.snapshot(now).net.clamp(0.0, 6e4) / 1e3);
        self.sent(now - now.since(ended).max(wire));
    }

    /// The attempt ended without an answer.
    pub(super) fn fail(&mut self, failure: Failure) {
        let failed = Outcome::ServerFailure { retry_after: None };
        let (end, outcome) = match failure {
            Failure::ResponseTimeout | Failure::ConnectTimeout if self.cut_short => {
                (AttemptEnd::Timeout, Outcome::CutShort)
            }
            Failure::ResponseTimeout => (AttemptEnd::Timeout, Outcome::TimedOut),
            Failure::BadRequest(_) | Failure::SlowRequest | Failure::TooLarge => {
                (AttemptEnd::Aborted, Outcome::Aborted)
            }
            Failure::ConnectionEnded | Failure::BadResponse => (AttemptEnd::Failure, failed),
            Failure::Overloaded => (AttemptEnd::ConnectError, Outcome::Aborted),
            _ => (AttemptEnd::ConnectError, failed),
        };
        self.end(end, outcome, self.worker.clock.now());
    }

    /// The attempt ended with an answer, whose head was there then.
    pub(super) fn finish(&mut self, outcome: Outcome, at: Moment) {
        let end = match outcome {
            Outcome::Success => AttemptEnd::Success,
            Outcome::ServerFailure { .. } => AttemptEnd::Failure,
            Outcome::TimedOut | Outcome::CutShort => AttemptEnd::Timeout,
            Outcome::Aborted => AttemptEnd::Aborted,
        };
        self.end(end, outcome, at);
    }

    fn end(&mut self, end: AttemptEnd, outcome: Outcome, now: Moment) {
        let Some(attempt) = self.attempt.take() else { return };
        let upstream = self.upstream();
        let unit = self.worker.rng.borrow_mut().random_range(0.0..1.0);
        let outlier = &self.route.payload.terms.outlier;
        let Lasting { counters, selector, .. } = &*self.route.payload.lasting;
        counters.attempt(&upstream.counted_at, end);
        upstream.known.cell.finish(attempt, now, outcome, selector, outlier, unit);
    }

    fn upstream(&self) -> &Upstream {
        &self.route.payload.upstreams[self.index]
    }

    /// How long a client may take in nothing.
    pub(super) fn stalled(&self) -> Duration {
        self.worker.bounds.stalled
    }

    pub(super) fn target(&self) -> &Arc<Known> {
        &self.upstream().known
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        if self.attempt.is_some() {
            let now = self.worker.clock.now();
            self.end(AttemptEnd::Aborted, Outcome::Aborted, now);
        }
    }
}

/// How long a response head is waited for.
///
/// The clocks of one try and of the whole request stand still while the client is still sending:
/// a long upload is not a slow answer. A target that stops reading gets the time of one try.
struct Deadlines<'a> {
    per_try: Duration,
    asking: &'a Asking,
    begun: Instant,
}

impl Deadlines<'_> {
    /// What comes, unless it comes too late.
    async fn hold<F: Future>(
        &self,
        mut coming: Pin<&mut F>,
        progress: &Progress,
        mut alarm: Alarm<'_>,
    ) -> Option<F::Output> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = coming.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            loop {
                let end = self.next(progress);
                let look = self.look(progress, end);
                ready!(alarm.poll(look, cx));
                if look == end {
                    return Poll::Ready(None);
                }
            }
        })
        .await
    }

    /// When to look again: the last byte of a request, which wakes nobody here, may bring the end
    /// nearer.
    fn look(&self, progress: &Progress, end: Instant) -> Instant {
        if progress.is_whole() {
            return end;
        }
        let (asking, now) = (self.asking, Instant::now());
        let nearest = asking.begun.max(progress.moved()) + asking.patience;
        let again = if nearest > now { nearest } else { now + asking.patience.max(LOOK) };
        again.min(end)
    }

    fn next(&self, progress: &Progress) -> Instant {
        let Deadlines { per_try, asking, begun } = *self;
        let moved = begun.max(progress.moved());
        let next = if progress.is_whole() {
            (moved + per_try).min(asking.begun.max(progress.moved()) + asking.patience)
        } else if progress.waits_for_client() {
            // The body has a deadline of its own for a client that stops.
            Instant::now() + per_try
        } else {
            moved + per_try
        };
        asking.until.map_or(next, |until| until.min(next))
    }
}

/// How often, at most, an attempt looks whether its request is whole by now.
const LOOK: Duration = Duration::from_millis(100);

/// What went wrong between this proxy and a target, or between the client and this proxy.
fn classify(broken: &Broken, progress: &Progress) -> Failure {
    if progress.is_idle() {
        Failure::SlowRequest
    } else if progress.is_too_large() {
        Failure::TooLarge
    } else if broken.is_requests() || progress.is_broken() {
        Failure::BadRequest("the request body broke off")
    } else if broken.is_malformed() {
        Failure::BadResponse
    } else {
        Failure::ConnectionEnded
    }
}
