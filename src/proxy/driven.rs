//! A connection of HTTP/1.1 to a target, driven by whoever uses it.
//!
//! hyper wants its connections polled. A task for each would be woken, queued and polled at every
//! step of every exchange; here the request's own task does it, and a byte that comes from the
//! target wakes nobody else. A connection that nobody uses is polled by nobody: what happened to it
//! meanwhile is found when it is looked at. Not for HTTP/2, whose connections carry many exchanges.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use http::{Request, Response};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::{TrySendError, http1};

use super::body::RequestBody;

/// A connection, and what drives it.
pub(super) struct Driven {
    sender: http1::SendRequest<RequestBody>,
    /// None once a task of its own drives it.
    motor: Option<Motor>,
}

struct Motor {
    /// Ends with the connection.
    connection: Pin<Box<dyn Future<Output = ()>>>,
    over: bool,
    relay: Arc<Relay>,
    /// The relay as hyper and the socket know it, whoever drives.
    waker: Waker,
}

/// Wakes the driver, unless that is at it: to be woken would make it run once more for nothing.
#[derive(Default)]
struct Relay {
    driver: Mutex<Option<Waker>>,
    state: AtomicU8,
}

/// Nobody is at it, and nothing has happened.
const OUTSIDE: u8 = 0;
/// The driver is at it.
const INSIDE: u8 = 1;
/// Something has happened: the driver was woken, or would have been.
const AGAIN: u8 = 2;

impl Driven {
    /// A connection that hyper speaks over, and what has to be polled for it.
    pub(super) fn new(
        sender: http1::SendRequest<RequestBody>,
        connection: impl Future<Output = ()> + 'static,
    ) -> Driven {
        let relay = Arc::new(Relay::default());
        let (waker, connection) = (Waker::from(relay.clone()), Box::pin(connection));
        Driven { sender, motor: Some(Motor { connection, over: false, relay, waker }) }
    }

    /// Whether another exchange may begin, as far as is known by now.
    pub(super) fn is_ready(&mut self) -> bool {
        let Some(motor) = &mut self.motor else { return false };
        motor.relay.tell(None);
        if motor.relay.state.load(Ordering::Acquire) != OUTSIDE || !self.sender.is_ready() {
            motor.relay.state.store(OUTSIDE, Ordering::Release);
            motor.advance();
        }
        !motor.over && self.sender.is_ready()
    }

    /// Waits until another exchange may begin; false when none may any more.
    pub(super) async fn settles(&mut self) -> bool {
        let (sender, Some(motor)) = (&self.sender, &mut self.motor) else { return false };
        let settled = |over| match over || sender.is_ready() {
            true => Poll::Ready(!over),
            false => Poll::Pending,
        };
        poll_fn(|cx| motor.drive(cx, |over, _| settled(over))).await
    }

    /// The answer's head, or the request where nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let motor = &mut self.motor;
        poll_fn(|cx| match motor {
            Some(motor) => motor.drive(cx, |_, cx| answer.as_mut().poll(cx)),
            None => answer.as_mut().poll(cx),
        })
        .await
    }

    /// The next frame of an answer that came over it.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.motor {
            Some(motor) => {
                let mut next = |_, cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
                // Says that a frame is wanted, before the connection is asked for one.
                let polled = motor.inside(|motor| next(motor.over, &mut motor.context())).0;
                if polled.is_ready() { polled } else { motor.drive(cx, next) }
            }
            None => Pin::new(body).poll_frame(cx),
        }
    }

    /// Gives the connection a task of its own, which drives it to its end: it goes on also while
    /// nobody waits for what comes of it. It carries no other exchange.
    pub(super) fn let_go(&mut self) {
        if let Some(motor) = self.motor.take().filter(|motor| !motor.over) {
            tokio::task::spawn_local(motor.connection);
        }
    }
}

impl Motor {
    /// Polls the connection and what comes of it until neither goes on.
    fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut step: impl FnMut(bool, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.relay.tell(Some(cx.waker()));
        for _ in 0..ROUNDS {
            let (stepped, again) = self.inside(|motor| {
                motor.advance();
                step(motor.over, &mut motor.context())
            });
            if stepped.is_ready() || !again {
                return stepped;
            }
        }
        // Others have waited long enough.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does something without being woken, and says whether it would have been.
    fn inside<T>(&mut self, something: impl FnOnce(&mut Motor) -> T) -> (T, bool) {
        self.relay.state.store(INSIDE, Ordering::Release);
        let done = something(self);
        (done, self.relay.state.swap(OUTSIDE, Ordering::AcqRel) == AGAIN)
    }

    fn advance(&mut self) {
        if !self.over {
            let mut cx = Context::from_waker(&self.waker);
            self.over = self.connection.as_mut().poll(&mut cx).is_ready();
        }
    }

    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

impl Relay {
    fn tell(&self, driver: Option<&Waker>) {
        let mut told = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        match (told.as_mut(), driver) {
            // Mostly it is the same.
            (Some(told), Some(driver)) => told.clone_from(driver),
            _ => *told = driver.cloned(),
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Relay>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Relay>) {
        if self.state.swap(AGAIN, Ordering::AcqRel) == OUTSIDE {
            let told = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(driver) = told.as_ref() {
                driver.wake_by_ref();
            }
        }
    }
}

/// How often an exchange goes on before others have their turn.
const ROUNDS: usize = 4;
