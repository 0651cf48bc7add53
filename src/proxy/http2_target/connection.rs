//! A connection to a target that carries many exchanges at once, and an exchange over it.
//!
//! Frames and streams are hyper's and h2's. What is here is what they leave open: how many streams
//! are right before the target has said how many it allows, and the end of a request that it does
//! not take in, whose body hyper would keep for as long as the connection lives.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, TE};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::sleep_until;

use super::super::body::{self, BodyError, Patience, Progress, RequestBody};
use super::super::broken::Broken;
use super::super::first_word::FirstWord;
use super::super::headers;
use super::super::http1_target::connection::{HEAD_BYTES, Stream};
use super::super::http2_frames::checked::Checked;
use super::super::http2_frames::streams::Streams;
use super::super::noted::Noted;
use super::super::reply::Failure;

/// A connection for many exchanges.
pub(in crate::proxy) struct Multiplexed {
    sender: http2::SendRequest<Outgoing>,
    tasks: Tasks,
    word: Rc<FirstWord>,
    streams: Rc<RefCell<Streams>>,
    exchanges: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
    opened: Instant,
    since: Cell<Instant>,
    spoilt: Cell<bool>,
}

/// One exchange among others. What is left of its request ends with it.
pub(in crate::proxy) struct Exchange {
    connection: Rc<Multiplexed>,
    answer: Option<Pin<Box<Answer>>>,
    /// The head of the answer, while its end is waited for.
    head: Option<Response<Noted>>,
    /// The request's body, where nothing of it was sent.
    unsent: Option<RequestBody>,
    body: Option<Incoming>,
    /// What comes last of the answer's bytes, and behind them.
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// None where the request has no body.
    upload: Option<Rc<Upload>>,
    /// What had been heard over the connection before.
    heard: u64,
}

/// What comes of a request.
type Answer = dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>;

/// A request's body on its way. Its last piece, once h2 has it, is the connection's, which carries
/// nothing new where it cannot get rid of it.
struct Upload {
    progress: Rc<Progress>,
    /// What sends it; none where hyper did so at once, or has not come to it.
    task: RefCell<Option<JoinHandle<()>>>,
    /// Nobody waits for its exchange any more.
    given_up: Cell<bool>,
}

/// A request's body as hyper sends it.
struct Outgoing {
    inner: RequestBody,
    /// None where it is empty.
    starting: Option<Starting>,
}

/// Tells hyper's executor whose body the next task sends.
struct Starting {
    upload: Rc<Upload>,
    tasks: Tasks,
    told: Cell<bool>,
}

/// Starts hyper's tasks on this thread. The first is the connection's own. The body whose task
/// comes next is known: hyper asks whether it has ended, sends what there is of it, and starts the
/// task before it turns to anything else.
#[derive(Clone, Default)]
struct Tasks(Rc<Started>);

#[derive(Default)]
struct Started {
    connection: OnceCell<AbortHandle>,
    next: RefCell<Option<Rc<Upload>>>,
}

impl Multiplexed {
    /// Comes to terms with a target that is known to speak HTTP/2.
    pub(in crate::proxy) async fn open(stream: Box<dyn Stream>) -> Result<Multiplexed, Failure> {
        let (word, tasks) = (Rc::<FirstWord>::default(), Tasks::default());
        let streams = Rc::<RefCell<Streams>>::default();
        let stream = Checked::of_target(word.clone().listen(stream), streams.clone());
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_max_send_streams(UNTOLD)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::ConnectRefused)?;
        let (exchanges, most) = (Rc::<Cell<usize>>::default(), Rc::new(Cell::new(UNTOLD)));
        let driven = drive(connection, word.clone(), most.clone());
        let (task, under_way) = (tasks.0.connection.get().cloned(), exchanges.clone());
        spawn_local(async move {
            driven.await;
            if let Some(task) = task {
                take_leave(task, &under_way).await;
            }
        });
        let opened = Instant::now();
        let (since, spoilt) = (Cell::new(opened), Cell::new(false));
        Ok(Multiplexed { sender, tasks, word, streams, exchanges, most, opened, since, spoilt })
    }

    /// Whether it may carry another exchange one day.
    pub(in crate::proxy) fn is_good(&self) -> bool {
        let owed = self.streams.borrow().owed_since();
        owed.is_none_or(|since| since.elapsed() < OWED)
            && !self.spoilt.get()
            && self.sender.is_ready()
    }

    /// Whether it may carry another exchange now.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.is_good() && self.exchanges.get() < self.most.get()
    }

    /// How many the target allows; none before it has said.
    pub(in crate::proxy) fn most(&self) -> Option<usize> {
        (self.word.heard() > 0).then(|| self.most.get())
    }

    /// Returns once it has said so, or never will.
    pub(in crate::proxy) async fn told(&self) {
        poll_fn(|cx| self.word.poll(cx)).await;
    }

    /// For how long it has been there.
    pub(in crate::proxy) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// For how long it has carried none.
    pub(in crate::proxy) fn idle(&self) -> Duration {
        if self.exchanges.get() > 0 { Duration::ZERO } else { self.since.get().elapsed() }
    }
}

impl Exchange {
    /// One more over this connection.
    pub(in crate::proxy) fn begin(connection: Rc<Multiplexed>) -> Exchange {
        connection.exchanges.set(connection.exchanges.get() + 1);
        let heard = connection.word.heard();
        Exchange {
            connection,
            answer: None,
            head: None,
            unsent: None,
            body: None,
            last: None,
            trailers: None,
            upload: None,
            heard,
        }
    }

    /// Asks the target.
    pub(in crate::proxy) fn ask(&mut self, request: Request<RequestBody>) {
        if !request.body().is_end_stream() {
            self.upload = Some(Rc::new(Upload::of(request.body().progress())));
        }
        let starting = self.upload.clone().map(|upload| {
            let tasks = self.connection.tasks.clone();
            Starting { upload, tasks, told: Cell::new(false) }
        });
        let request = request.map(|inner| Outgoing { inner, starting });
        let mut sender = self.connection.sender.clone();
        self.answer = Some(Box::pin(sender.try_send_request(request)));
    }

    /// Waits for the head of the answer.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Noted>, Broken>> {
        if let Some(answer) = &mut self.answer {
            let answered = ready!(answer.as_mut().poll(cx));
            self.answer = None;
            let response = match answered {
                Ok(response) => response,
                Err(mut refused) => {
                    self.unsent = refused.take_message().map(|request| request.into_body().inner);
                    return Poll::Ready(Err(Broken::Hyper(refused.into_error())));
                }
            };
            let (parts, body) = response.into_parts();
            // TE is for requests (RFC 9113, section 8.2.2).
            if headers::have_blanks_around(&parts.headers) || parts.headers.contains_key(TE) {
                return Poll::Ready(Err(Broken::Message));
            }
            self.body = Some(body);
            let noted = Noted::of(&parts.headers);
            let head = Response::from_parts(parts, noted);
            if !self.lacks_its_end() {
                return Poll::Ready(Ok(head));
            }
            self.head = Some(head);
        }
        ready!(self.poll_end(cx))?;
        Poll::Ready(self.head.take().ok_or(Broken::Ended))
    }

    /// The body of a request of which nothing was sent.
    pub(in crate::proxy) fn take_unsent(&mut self) -> Option<RequestBody> {
        self.unsent.take()
    }

    /// The next frame of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.last.is_none() {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let frame = match ready!(body::poll_stream(body, cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => self.last = Some(data),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        if let Err(broken) = ready!(self.poll_end(cx)) {
            return Poll::Ready(Some(Err(broken)));
        }
        Poll::Ready(self.last.take().map(|data| Ok(Frame::data(data))))
    }

    /// Whether all bytes of the answer are there, as many as were announced, and its end is not.
    fn lacks_its_end(&self) -> bool {
        let lacks = |body: &Incoming| body.size_hint().exact() == Some(0) && !body.is_end_stream();
        self.body.as_ref().is_some_and(lacks)
    }

    /// Waits for such an end: what comes in its place may make the answer malformed, and then it
    /// must not have gone on (RFC 9113, section 8.1.1).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.lacks_its_end()
            && let Some(body) = &mut self.body
        {
            match ready!(body::poll_stream(body, cx)) {
                Some(Err(broken)) if broken.is_malformed() || broken.is_reset() => {
                    return Poll::Ready(Err(broken));
                }
                // All of it was there before the connection ended; h2 has forgotten that it was.
                Some(Err(_)) => self.body = None,
                Some(Ok(frame)) => self.trailers = frame.into_trailers().ok(),
                None => self.body = None,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How much of the answer's body is still to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::default(), Body::size_hint)
    }

    /// Whether nothing of the answer's body is still to come.
    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        let nothing_waits = self.last.is_none() && self.trailers.is_none();
        nothing_waits && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Whether all of the request was handed to the connection.
    pub(in crate::proxy) fn is_sent(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| !upload.is_under_way())
    }

    /// Whether nothing at all came over the connection since this exchange began.
    pub(in crate::proxy) fn is_silent(&self) -> bool {
        self.connection.word.heard() == self.heard
    }

    /// No other exchange shall begin over the connection.
    pub(in crate::proxy) fn spoil(&self) {
        self.connection.spoilt.set(true);
        // Nobody shall wait for it.
        self.connection.word.ends();
    }

    /// The answer is whole: the rest of the request goes on alone, and `counted` ends with it. It
    /// is given up, and no other exchange with it, once it moves too slowly.
    pub(in crate::proxy) fn go_on(self, patience: Patience, counted: impl Sized + 'static) {
        spawn_local(async move {
            if let Some(upload) = &self.upload {
                upload.ended(patience).await;
            }
            drop((self, counted));
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.give_up();
        }
        self.connection.exchanges.set(self.connection.exchanges.get() - 1);
        self.connection.since.set(Instant::now());
    }
}

impl Upload {
    fn of(progress: &Rc<Progress>) -> Upload {
        Upload { progress: progress.clone(), task: RefCell::default(), given_up: Cell::new(false) }
    }

    fn is_under_way(&self) -> bool {
        self.task.borrow().as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Returns when all was sent, or it has not moved for too long.
    async fn ended(&self, patience: Patience) {
        let since = tokio::time::Instant::now();
        let deadline = || patience.deadline(since.max(self.progress.moved()));
        let mut timer = pin!(sleep_until(deadline()));
        poll_fn(|cx| {
            let mut task = self.task.borrow_mut();
            if task.as_mut().is_none_or(|task| Pin::new(task).poll(cx).is_ready()) {
                *task = None;
                return Poll::Ready(());
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                let deadline = deadline();
                if deadline <= tokio::time::Instant::now() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await;
    }

    /// Without its task, and without the answer, hyper resets the stream.
    fn give_up(&self) {
        self.given_up.set(true);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.inner.is_end_stream();
        if let Some(starting) = self.starting.as_ref().filter(|_| !ended) {
            starting.tell();
        }
        ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Starting {
    /// Once: hyper asks again after each piece.
    fn tell(&self) {
        if !self.told.replace(true) {
            self.tasks.0.next.replace(Some(self.upload.clone()));
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // Sent already, or never: no task comes.
        let mut next = self.tasks.0.next.borrow_mut();
        if next.as_ref().is_some_and(|upload| Rc::ptr_eq(upload, &self.upload)) {
            *next = None;
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let task = spawn_local(task);
        if let Some(upload) = self.0.next.take() {
            upload.task.replace(Some(task));
            if upload.given_up.get() {
                upload.give_up();
            }
        } else {
            self.0.connection.get_or_init(|| task.abort_handle());
        }
    }
}

/// Drives a connection, and keeps in mind how many streams the target allows.
async fn drive<T>(
    connection: http2::Connection<T, Outgoing, Tasks>,
    word: Rc<FirstWord>,
    most: Rc<Cell<usize>>,
) where
    T: Read + Write + Unpin + 'static,
{
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        // Until then it is `UNTOLD`, which a target may say as well.
        if word.poll(cx).is_ready() {
            most.set(connection.current_max_send_streams().min(STREAMS as usize));
        }
        polled
    });
    // How it ended is told to whoever used it.
    let _ = ended.await;
    word.ends();
}

/// Sees to it that a connection ends which nobody uses any more: a target that takes nothing in
/// could keep it for ever. `exchanges` counts who still does.
async fn take_leave(task: AbortHandle, exchanges: &Cell<usize>) {
    let mut empty = false;
    while !task.is_finished() {
        tokio::time::sleep(LEAVE).await;
        if empty && exchanges.get() == 0 {
            task.abort();
        }
        empty = exchanges.get() == 0;
    }
}

/// Requests at once over one connection, where the target allows as many.
const STREAMS: u32 = 100;
/// Requests at once before the target has said how many it allows. What h2 holds beyond a limit it
/// would send even if the target says meanwhile that it leaves (RFC 9113, section 6.8).
const UNTOLD: usize = 1;
/// What a target may send ahead of a client, per request; for all together it is the sum, so that
/// clients that take nothing in do not hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
/// What of a request's body may wait in memory.
const SEND_BUFFER: usize = 64 << 10;
/// How often a silent target is asked whether it is there, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long the end of a request may be missing whose answer is whole before the connection carries
/// nothing new: h2 may hold it back, where nobody can get at it.
const OWED: Duration = Duration::from_secs(20);
/// How long, at least, what is left to say may take when nothing more is asked.
const LEAVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
