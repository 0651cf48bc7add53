//! Bodies on their way through: streamed frame by frame, with an idle deadline, never gathered.
//!
//! Backpressure is hyper's: a frame is asked for only when the other side can take it.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::alarm;
use super::broken::Broken;
use super::headers;
use super::pool::Lease;
use super::reply::Failure;
use super::running::Known;
use super::terms::Terms;
use super::underway::Underway;
use crate::model::moment::Moment;
use crate::telemetry::clock::Clock;

/// A response body as the client sees it.
pub(crate) enum ProxyBody {
    /// Said by the proxy itself.
    Full(Option<Bytes>),
    /// Streamed from a target.
    Streamed(Box<ResponseBody>),
}

/// A response body from a target.
pub(crate) struct ResponseBody {
    watch: Watch,
    /// What ends it early, once what came before is on its way.
    broken: Option<BodyError>,
    /// Where it comes from; given back to its pool when it has ended.
    lease: Lease,
    /// None where what is left of the request has it.
    counted: Option<(OpenBody, Underway)>,
}

/// A request body on its way to a target.
pub(crate) struct RequestBody {
    source: Source,
    /// Bytes that may still come.
    room: u64,
    progress: Rc<Progress>,
}

/// Where a request body comes from.
enum Source {
    /// It is known to be empty.
    Nowhere,
    /// Apart, so that requests without a body are small.
    Client(Box<Received>),
    /// Said by the proxy itself.
    Own(Option<Bytes>),
}

/// A request body on its way from a client.
struct Received {
    incoming: Incoming,
    /// Whether it comes over HTTP/2.
    http2: bool,
    watch: Watch,
}

/// How far a request body has come; read by whoever waits for the response.
pub(crate) struct Progress {
    clock: Clock,
    moved: Cell<Instant>,
    whole: Cell<bool>,
    ended: Cell<Option<Moment>>,
    waiting: Cell<bool>,
    idle: Cell<bool>,
    broken: Cell<bool>,
    too_large: Cell<bool>,
}

/// Counts a body, or a tunnel, at its target for as long as it lives.
pub(crate) struct OpenBody(Arc<Known>);

/// How long a body or a tunnel may take.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// From one move to the next.
    pub(crate) idle: Duration,
    /// To its very end.
    pub(crate) until: Option<Instant>,
}

/// Sees to it that a body moves, and ends, in time, and that nothing is behind it that must not.
struct Watch {
    patience: Patience,
    /// Trailers that go no further.
    named: Vec<HeaderName>,
    /// Since when the next frame is waited for; none while nobody waits.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What ends a body early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The other side broke off.
    Broken(Broken),
    /// Nothing moved for too long.
    Idle,
    /// The whole exchange took too long.
    Late,
    /// There is more of it than allowed.
    TooLarge,
}

impl Patience {
    /// When it ends for what moved last then.
    pub(crate) fn deadline(&self, moved: Instant) -> Instant {
        let idle = moved + self.idle;
        self.until.map_or(idle, |until| until.min(idle))
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}

impl ProxyBody {
    /// No body.
    pub(crate) fn empty() -> ProxyBody {
        ProxyBody::Full(None)
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> ProxyBody {
        ProxyBody::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// When all of it has to be over.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            ProxyBody::Full(_) => None,
            ProxyBody::Streamed(body) => body.watch.patience.until,
        }
    }
}

impl ResponseBody {
    /// A body that comes from a target over `lease`'s connection; trailers of these names stay.
    pub(super) fn new(
        patience: Patience,
        named: Vec<HeaderName>,
        mut lease: Lease,
        open: OpenBody,
        mut underway: Underway,
    ) -> ResponseBody {
        // A client may take in nothing of the answer before all that it sends is gone.
        lease.let_go();
        let (watch, broken) = (Watch::new(patience, named), None);
        underway.client.activity.ends_by(watch.patience.until);
        underway.complete(false);
        let mut whole = ResponseBody { watch, broken, lease, counted: Some((open, underway)) };
        if whole.lease.is_end_stream() {
            whole.ended();
        }
        whole
    }

    /// An error comes one poll late: hyper, told of it, drops what it has not yet written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = self.lease.poll_frame(cx);
        match ready!(self.watch.over(polled, cx)) {
            Some(Err(error)) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn passed_on(&mut self, bytes: usize) {
        if let Some((_, underway)) = &mut self.counted {
            underway.passed_on(bytes);
        }
    }

    /// The answer is whole. What is left of the request still counts, and has to move.
    fn ended(&mut self) {
        if let Some((_, underway)) = &mut self.counted {
            underway.complete(true);
        }
        if let Some(rest) = self.lease.give_back() {
            rest.go_on(self.watch.patience, self.counted.take());
        }
    }
}

impl OpenBody {
    /// One more at this target.
    pub(crate) fn begin(target: &Arc<Known>) -> OpenBody {
        target.cell.body_begin();
        OpenBody(target.clone())
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.cell.body_done();
    }
}

impl Progress {
    /// Nothing has been sent.
    pub(crate) fn new(clock: Clock, begun: Instant) -> Rc<Progress> {
        Rc::new(Progress {
            clock,
            moved: Cell::new(begun),
            whole: Cell::new(false),
            ended: Cell::new(None),
            waiting: Cell::new(false),
            idle: Cell::new(false),
            broken: Cell::new(false),
            too_large: Cell::new(false),
        })
    }

    /// When anything was handed to a connection last.
    pub(crate) fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// Whether everything was.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.get()
    }

    /// All of it was read, by somebody else.
    pub(crate) fn is_taken(&self) {
        self.whole.set(true);
    }

    /// When the last byte was; none for a request without a body.
    pub(crate) fn ended(&self) -> Option<Moment> {
        self.ended.get()
    }

    /// Whether it is the client that keeps everybody waiting.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waiting.get()
    }

    /// Whether the client kept everybody waiting for too long.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// Whether there was more of it than allowed.
    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// Whether the body ended before it was whole.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }
}

impl RequestBody {
    /// A body to be sent on, as the rule's terms allow, received in this version of HTTP; trailers
    /// of these names stay, and `until` is when all has to be over. Fails at once where the client
    /// says that it will be too large.
    pub(crate) fn new(
        (body, version, named): (Incoming, Version, Vec<HeaderName>),
        terms: &Terms,
        until: Option<Instant>,
        progress: Rc<Progress>,
    ) -> Result<RequestBody, Failure> {
        let room = terms.limits.max_request_body.unwrap_or(u64::MAX);
        if body.size_hint().lower() > room {
            return Err(Failure::TooLarge);
        }
        let empty = body.is_end_stream();
        progress.whole.set(empty);
        let patience = Patience { idle: terms.timeouts.idle, until };
        let source = if empty {
            Source::Nowhere
        } else {
            let (http2, watch) = (version == Version::HTTP_2, Watch::new(patience, named));
            Source::Client(Box::new(Received { incoming: body, http2, watch }))
        };
        Ok(RequestBody { source, room, progress })
    }

    /// No body, for a repeat of a request that had none.
    pub(crate) fn empty(progress: &Rc<Progress>) -> RequestBody {
        progress.whole.set(true);
        RequestBody { source: Source::Nowhere, room: 0, progress: progress.clone() }
    }

    /// These bytes, for a request of the proxy's own.
    pub(crate) fn own(bytes: Bytes, progress: &Rc<Progress>) -> RequestBody {
        RequestBody { source: Source::Own(Some(bytes)), room: 0, progress: progress.clone() }
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }
}

impl Watch {
    fn new(patience: Patience, named: Vec<HeaderName>) -> Watch {
        Watch { patience, named, since: None, timer: None }
    }

    /// What comes of a body that was polled.
    fn over(
        &mut self,
        polled: Poll<Option<Result<Frame<Bytes>, Broken>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match polled {
            Poll::Ready(frame) => {
                if self.patience.is_over() && !matches!(frame, None | Some(Err(_))) {
                    return Poll::Ready(Some(Err(BodyError::Late)));
                }
                self.since = None;
                let passable = |frame| passable(frame, &self.named);
                Poll::Ready(frame.map(|frame| frame.map(passable).map_err(BodyError::Broken)))
            }
            Poll::Pending => {
                let since = *self.since.get_or_insert_with(Instant::now);
                let deadline = self.patience.deadline(since);
                let timer =
                    self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                loop {
                    ready!(alarm::rings(timer.as_mut(), cx));
                    if Instant::now() >= deadline {
                        let late = self.patience.is_over();
                        let error = if late { BodyError::Late } else { BodyError::Idle };
                        return Poll::Ready(Some(Err(error)));
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }
}

/// A frame as it may go on: trailers without what only a head may say.
fn passable(mut frame: Frame<Bytes>, named: &[HeaderName]) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::for_trailers(trailers, named);
    }
    frame
}

/// Whether nothing follows. After trailers nobody asks: hyper's HTTP/1.1 sends them and is done.
fn ends<E>(frame: &Option<Result<Frame<Bytes>, E>>) -> bool {
    frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
}

/// The next frame of a body that comes over HTTP/2. To hyper a stream that is reset without an
/// error has ended; whether all of the body was there only END_STREAM says (RFC 9113, section 8.1).
/// Nor does it mind blanks in trailers.
pub(super) fn poll_stream(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    match ready!(Pin::new(&mut *body).poll_frame(cx)) {
        None if !body.is_end_stream() => Poll::Ready(Some(Err(Broken::Reset))),
        Some(Ok(frame)) if frame.trailers_ref().is_some_and(headers::have_blanks_around) => {
            Poll::Ready(Some(Err(Broken::Message)))
        }
        frame => Poll::Ready(frame.map(|frame| frame.map_err(Broken::Hyper))),
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ProxyBody::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            ProxyBody::Streamed(body) => {
                let frame = ready!(body.poll(cx));
                if let Some(Ok(data)) =
                    frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref))
                {
                    body.passed_on(data.map_or(0, Bytes::len));
                }
                if !matches!(frame, Some(Err(_))) && (ends(&frame) || body.lease.is_end_stream()) {
                    body.ended();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Full(bytes) => bytes.is_none(),
            ProxyBody::Streamed(body) => body.broken.is_none() && body.lease.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ProxyBody::Streamed(body) => body.lease.size_hint(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let Received { incoming, http2, watch } = match &mut body.source {
            Source::Nowhere => return Poll::Ready(None),
            Source::Own(bytes) => {
                body.progress.whole.set(true);
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Client(client) => &mut **client,
        };
        let progress = &body.progress;
        let polled = if *http2 {
            poll_stream(incoming, cx)
        } else {
            Pin::new(&mut *incoming).poll_frame(cx).map_err(Broken::Hyper)
        };
        let polled = watch.over(polled, cx);
        progress.waiting.set(polled.is_pending());
        let mut frame = ready!(polled);
        let length = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        match body.room.checked_sub(length.map_or(0, |data| data.len() as u64)) {
            Some(room) => body.room = room,
            None => {
                progress.too_large.set(true);
                frame = Some(Err(BodyError::TooLarge));
            }
        }
        progress.moved.set(Instant::now());
        if let Some(Err(error)) = &frame {
            progress.idle.set(matches!(error, BodyError::Idle | BodyError::Late));
            progress.broken.set(true);
        }
        let broken = matches!(frame, Some(Err(_)));
        if !broken && (ends(&frame) || incoming.is_end_stream()) && !progress.is_whole() {
            progress.whole.set(true);
            progress.ended.set(Some(progress.clock.now()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nowhere => true,
            Source::Client(client) => client.incoming.is_end_stream(),
            Source::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nowhere => SizeHint::with_exact(0),
            Source::Client(client) => client.incoming.size_hint(),
            Source::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyError::Broken(error) => write!(f, "the body broke off: {error}"),
            BodyError::Late => f.write_str("the whole exchange took too long"),
            BodyError::TooLarge => f.write_str("there is more of the body than allowed"),
            BodyError::Idle => f.write_str("nothing of the body moved for too long"),
        }
    }
}

impl std::error::Error for BodyError {}
