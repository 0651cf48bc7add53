//! A request that goes on being sent while nobody takes in the answer: a client may do so only
//! once all it has to say is gone.
//!
//! The answer's reader and this task share the connection, each with its own direction. Dropping
//! the reader's side before the answer is whole ends both. What is left behind a whole answer goes
//! on alone for as long as it moves; only then has it a deadline of its own.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep_until};

use super::super::body::Patience;
use super::connection::Connection;

/// A connection that a task sends over.
pub(in crate::proxy) struct Upload {
    connection: Rc<RefCell<Box<Connection>>>,
    sending: Sending,
}

/// The task, which ends with this.
struct Sending(AbortHandle);

impl Upload {
    /// Lets the rest of the request go by itself.
    pub(in crate::proxy) fn begin(connection: Box<Connection>) -> Upload {
        let connection = Rc::new(RefCell::new(connection));
        let shared = connection.clone();
        let sending = spawn_local(async move {
            poll_fn(|cx| shared.borrow_mut().poll_send(cx)).await;
        });
        Upload { connection, sending: Sending(sending.abort_handle()) }
    }

    /// Does something with the answer.
    pub(in crate::proxy) fn with<R>(&self, something: impl FnOnce(&mut Connection) -> R) -> R {
        something(&mut self.connection.borrow_mut())
    }

    /// The connection, if all of the request is gone.
    pub(in crate::proxy) fn into_connection(self) -> Result<Box<Connection>, Upload> {
        let Upload { connection, sending } = self;
        let connection = Rc::try_unwrap(connection).map(RefCell::into_inner);
        connection.map_err(|connection| Upload { connection, sending })
    }

    /// The answer is whole: the rest of the request goes on alone, and `counted` ends with it. It
    /// is given up, and the connection with it, once it moves too slowly.
    pub(in crate::proxy) fn go_on(self, patience: Patience, counted: impl Sized + 'static) {
        let Upload { connection, sending } = self;
        // Another task sends from here on.
        drop(sending);
        spawn_local(async move {
            let mut moves = connection.borrow().moves();
            let mut timer = pin!(sleep_until(patience.deadline(Instant::now())));
            poll_fn(|cx| {
                let mut connection = connection.borrow_mut();
                if connection.poll_send(cx).is_ready() {
                    return Poll::Ready(());
                }
                if moves != connection.moves() {
                    moves = connection.moves();
                    timer.as_mut().reset(patience.deadline(Instant::now()));
                }
                timer.as_mut().poll(cx)
            })
            .await;
            drop((connection, counted));
        });
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}
