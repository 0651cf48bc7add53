//! A client's connection that speaks HTTP/2: many requests at once, each a task of its own.
//!
//! Frames and their limits are hyper's and h2's. What is here is what they leave open: a connection
//! without streams ends, a stream whose client takes nothing in is reset without harm to its
//! neighbours, and a client that mostly resets is shown the door (CVE-2023-44487).

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::Activity;
use super::body::{BodyError, ProxyBody};
use super::connection::{Asks, REQUEST_HEAD_BYTES};
use super::http2_frames::checked::Checked;
use super::rewound::Rewound;

/// Serves streams until `leaving` says so and they have ended; it says false to end at once.
pub(super) async fn serve<T>(
    mut stream: Rewound<T>,
    asking: Asks,
    mut leaving: Pin<&mut impl Future<Output = bool>>,
) where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    stream.looks_for_lines(false);
    let _lost = Lost(asking.client.activity.clone());
    let bounds = asking.worker.bounds;
    let streams = Rc::new(Streams::new(bounds.stalled, asking.client.activity.clone()));
    let requests = service_fn(|request| streams.open(asking.answer(request)));
    let stream = TokioIo::new(Checked::of_client(stream));
    let connection = builder(&streams, bounds.asked).serve_connection(stream, requests);
    let mut serving = pin!(connection);
    let mut emptied = pin!(streams.emptied(bounds.head));
    let mut left = false;
    loop {
        tokio::select! {
            // How a client's connection ends is the client's business.
            _ = serving.as_mut() => return,
            () = streams.flooded.notified() => return,
            stay = leaving.as_mut(), if !left => {
                if !stay {
                    return;
                }
                left = true;
                serving.as_mut().graceful_shutdown();
            }
            () = streams.full.notified(), if !left => {
                left = true;
                serving.as_mut().graceful_shutdown();
            }
            () = emptied.as_mut() => break,
        }
    }
    serving.as_mut().graceful_shutdown();
    let left_alone = async {
        let patience = LEAVE.min(bounds.head);
        tokio::time::sleep(patience).await;
        streams.emptied(patience).await;
    };
    tokio::select! {
        _ = serving => {}
        () = streams.flooded.notified() => {}
        // Whoever does not take leave in time has nothing under way.
        () = left_alone => {}
    }
}

fn builder(streams: &Rc<Streams>, asked: (Duration, Duration)) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(streams.clone()));
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(REQUEST_HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(asked.0)
        .keep_alive_timeout(asked.1);
    builder
}

/// The streams of one connection.
struct Streams {
    /// Knows of tunnels, which outlive the answers that open them.
    activity: Rc<Activity>,
    stalled: Duration,
    active: Cell<usize>,
    /// Since when there is none.
    empty: Cell<Instant>,
    answered: Cell<u32>,
    /// Given up by the client before there was an answer.
    given_up: Cell<u32>,
    flooded: Notify,
    /// There is no room for more here.
    full: Notify,
    /// The stream whose task hyper is about to start.
    opened: RefCell<Option<Rc<Flow>>>,
}

/// One stream, from its request to its last byte.
struct Flow {
    streams: Rc<Streams>,
    answered: Cell<bool>,
    /// Whether a part of the answer waits for the client to take it in.
    held: Cell<bool>,
    parts: Cell<u64>,
    /// When the answer has to be over.
    until: Cell<Option<Instant>>,
}

/// An answer's body that tells its stream how it comes along.
struct FlowBody {
    inner: ProxyBody,
    flow: Rc<Flow>,
}

/// Starts hyper's tasks on this thread.
#[derive(Clone)]
struct Tasks(Rc<Streams>);

/// Tells tunnels, when dropped, that their connection is not there any more.
struct Lost(Rc<Activity>);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.is_lost();
    }
}

impl Streams {
    fn new(stalled: Duration, activity: Rc<Activity>) -> Streams {
        Streams {
            activity,
            stalled,
            active: Cell::new(0),
            empty: Cell::new(Instant::now()),
            answered: Cell::new(0),
            given_up: Cell::new(0),
            flooded: Notify::new(),
            full: Notify::new(),
            opened: RefCell::default(),
        }
    }

    /// One more stream: `answer` is what its client waits for.
    fn open<F>(
        self: &Rc<Self>,
        answer: F,
    ) -> impl Future<Output = Result<Response<FlowBody>, Infallible>> + use<F>
    where
        F: Future<Output = Result<Response<ProxyBody>, Infallible>>,
    {
        self.active.set(self.active.get() + 1);
        let flow = Rc::new(Flow {
            streams: self.clone(),
            answered: Cell::new(false),
            held: Cell::new(false),
            parts: Cell::new(0),
            until: Cell::new(None),
        });
        self.opened.replace(Some(flow.clone()));
        async move {
            let response = answer.await?;
            if flow.streams.activity.takes_leave() && flow.streams.active.get() == 1 {
                flow.streams.full.notify_one();
            }
            flow.answered.set(true);
            flow.held.set(true);
            flow.until.set(response.body().until());
            Ok(response.map(|inner| FlowBody { inner, flow }))
        }
    }

    /// Returns when there was no stream for long enough.
    async fn emptied(&self, patience: Duration) {
        loop {
            let since = self.activity.idle_since();
            let until = since.map_or(Instant::now(), |it| it.max(self.empty.get())) + patience;
            if self.active.get() == 0 && until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.max(Instant::now() + patience / 4)).await;
        }
    }

    fn is_flooded(&self) -> bool {
        let given_up = self.given_up.get();
        given_up > GIVEN_UP && given_up > self.answered.get()
    }
}

impl Flow {
    /// Returns when the client has taken in nothing for too long, or the answer is late.
    async fn stalled(&self) {
        let mut waiting = None;
        poll_fn(|cx| {
            if !self.held.get() {
                waiting = None;
                return Poll::Pending;
            }
            let parts = self.parts.get();
            let (seen, timer) = waiting.get_or_insert_with(|| {
                (parts, Box::pin(tokio::time::sleep_until(self.patience())))
            });
            if *seen != parts {
                *seen = parts;
                timer.as_mut().reset(self.patience());
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }

    /// Until when the client may take in nothing from now on.
    fn patience(&self) -> Instant {
        let stalled = Instant::now() + self.streams.stalled;
        self.until.get().map_or(stalled, |until| until.min(stalled))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let streams = &self.streams;
        streams.active.set(streams.active.get() - 1);
        streams.empty.set(Instant::now());
        let counter = if self.answered.get() { &streams.answered } else { &streams.given_up };
        counter.set(counter.get().saturating_add(1));
        if streams.is_flooded() {
            streams.flooded.notify_one();
        }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        let Some(flow) = self.0.opened.take() else {
            // A tunnel drives what sends to its client, and breaks it off with itself.
            if let Some(sending) = self.0.activity.take_tunnel() {
                sending.set(Some(Box::pin(task)));
            }
            return;
        };
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                () = task => {}
                // Dropping the task resets its stream.
                () = flow.stalled() => {}
            }
        });
    }
}

impl Body for FlowBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.flow.held.set(polled.is_ready());
        self.flow.parts.set(self.flow.parts.get() + 1);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Requests at once on one connection.
const STREAMS: u32 = 128;
/// What a client may send ahead of us, on one stream and on all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What of an answer may wait in memory, per stream.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client may give up before it matters whether they are more than it lets finish.
const GIVEN_UP: u32 = 200;
/// How long a client without streams may take to close a connection that ends.
const LEAVE: Duration = Duration::from_secs(5);
