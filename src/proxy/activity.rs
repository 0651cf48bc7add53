//! What goes on at one client's connection, so that it can rest when nothing does.
//!
//! A connection may rest while no request is under way, nothing waits to be taken in by the client,
//! and the last request had no body: then all that was read of it was understood, and whatever
//! comes next is the beginning of a request.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use tokio::time::Instant;

use super::body::Progress;

/// What sends over the stream that is a tunnel.
pub(super) type Sending = Pin<Box<dyn Future<Output = ()>>>;

/// What goes on at one client's connection.
pub(super) struct Activity {
    /// Requests so far.
    begun: Cell<u64>,
    under_way: Cell<u32>,
    /// The client takes nothing in at the moment.
    held_up: Cell<bool>,
    /// Nothing but heads was ever to be read, as far as the last request goes.
    bodiless: Cell<bool>,
    since: Cell<Instant>,
    /// When the answer under way has to be over, in HTTP/1.1.
    until: Cell<Option<Instant>>,
    /// The client was told, without having asked for it, that its connection closes.
    hangs_up: Cell<bool>,
    /// How far the last request's body was read; none where it had none.
    reading: RefCell<Option<Rc<Progress>>>,
    tunnel: RefCell<Option<Rc<Cell<Option<Sending>>>>>,
    lost: Cell<bool>,
}

impl Activity {
    pub(super) fn new() -> Activity {
        Activity {
            begun: Cell::new(0),
            under_way: Cell::new(0),
            held_up: Cell::new(false),
            bodiless: Cell::new(true),
            since: Cell::new(Instant::now()),
            until: Cell::new(None),
            hangs_up: Cell::new(false),
            reading: RefCell::default(),
            tunnel: RefCell::default(),
            lost: Cell::new(false),
        }
    }

    /// A request's head is there.
    pub(super) fn begins(&self, bodiless: bool) {
        self.begun.set(self.begun.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        self.bodiless.set(bodiless);
        if bodiless {
            self.reading.take();
        }
        // What is left of the last request, behind its answer, has a deadline of its own.
        self.until.set(None);
    }

    /// It is over, one way or the other.
    pub(super) fn ends(&self, now: Instant) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        self.since.set(now);
        if self.under_way.get() == 0 {
            self.until.set(None);
        }
    }

    /// An answer is under way that has to be over by then.
    pub(super) fn ends_by(&self, until: Option<Instant>) {
        self.until.set(until);
    }

    /// Whether it should have been over by now. Who asks for the answer's body learns of it, too,
    /// but nobody asks while the client takes little in.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until.get().is_some_and(|until| until <= now)
    }

    /// Whether bytes wait for the client to take them in.
    pub(super) fn is_held_up(&self, held_up: bool) {
        if self.held_up.replace(held_up) && !held_up {
            self.since.set(Instant::now());
        }
    }

    /// Since when nothing goes on: from the beginning, or the last byte of an answer.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.under_way.get() == 0 && !self.held_up.get();
        idle.then(|| self.since.get())
    }

    /// The number of the request whose head is to be read next; none while what is read may be
    /// something else.
    pub(super) fn expects(&self) -> Option<u64> {
        (self.under_way.get() == 0 && self.bodiless.get()).then(|| self.begun.get() + 1)
    }

    /// The connection ends with this answer, which is not the client's wish.
    pub(super) fn hangs_up(&self) {
        self.hangs_up.set(true);
    }

    /// Whether a connection of HTTP/2 ends by the proxy's wish, for which this answer is the moment
    /// if nothing else is under way there.
    pub(super) fn takes_leave(&self) -> bool {
        self.hangs_up.replace(false) && self.under_way.get() <= 1
    }

    /// This is how far the body of the request is read.
    pub(super) fn reads(&self, progress: Rc<Progress>) {
        self.reading.replace(Some(progress));
    }

    /// A stream is about to become a tunnel: where it will find what sends over it.
    pub(super) fn becomes_tunnel(&self) -> Rc<Cell<Option<Sending>>> {
        let sending = Rc::<Cell<Option<Sending>>>::default();
        self.tunnel.replace(Some(sending.clone()));
        sending
    }

    /// Where the tunnel that a stream has just become looks for what sends over it.
    pub(super) fn take_tunnel(&self) -> Option<Rc<Cell<Option<Sending>>>> {
        self.tunnel.take()
    }

    /// A connection that speaks HTTP/2 is not there any more.
    pub(super) fn is_lost(&self) {
        self.lost.set(true);
    }

    /// Whether it is not, so that what hyper calls the end of a stream is none.
    pub(super) fn was_lost(&self) -> bool {
        self.lost.get()
    }

    /// Whether the client may be sending when its last answer is gone: the rest of a body, or
    /// another request.
    pub(super) fn may_send_on(&self) -> bool {
        self.hangs_up.get() || self.is_unread()
    }

    /// Whether something is left of the last request's body, in HTTP/1.1.
    pub(super) fn is_unread(&self) -> bool {
        let reading = self.reading.borrow();
        reading.as_ref().is_some_and(|progress| !progress.is_whole())
    }

    /// Whether everything so far is over and done with.
    pub(super) fn may_rest(&self) -> bool {
        self.idle_since().is_some() && self.bodiless.get()
    }
}
