//! A request that goes on being sent while nobody takes in the answer: a client may do so only
//! once all it has to say is gone.
//!
//! The answer's reader and this task share the connection, each with its own direction. Dropping
//! the reader's side before the answer is whole ends both.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use tokio::task::{AbortHandle, spawn_local};

use super::connection::Connection;

/// A connection that a task sends over.
pub(in crate::proxy) struct Upload {
    connection: Rc<RefCell<Box<Connection>>>,
    sending: Sending,
}

/// The task, which ends with this.
struct Sending(Option<AbortHandle>);

impl Upload {
    /// Lets the rest of the request go by itself.
    pub(in crate::proxy) fn begin(connection: Box<Connection>) -> Upload {
        let connection = Rc::new(RefCell::new(connection));
        let shared = connection.clone();
        let sending = spawn_local(async move {
            poll_fn(|cx| shared.borrow_mut().poll_send(cx)).await;
        });
        Upload { connection, sending: Sending(Some(sending.abort_handle())) }
    }

    /// Does something with the answer.
    pub(in crate::proxy) fn with<R>(&self, something: impl FnOnce(&mut Connection) -> R) -> R {
        something(&mut self.connection.borrow_mut())
    }

    /// The answer is whole: the connection, if all of the request is gone; if not, the rest of it
    /// goes on alone.
    pub(in crate::proxy) fn into_connection(mut self) -> Option<Box<Connection>> {
        self.sending.0 = None;
        Rc::try_unwrap(self.connection).ok().map(RefCell::into_inner)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(sending) = self.0.take() {
            sending.abort();
        }
    }
}
