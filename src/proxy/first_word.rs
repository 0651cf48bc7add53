//! Notices that the other side of a connection has said something, and how often.
//!
//! Over HTTP/2 its first word is what it allows (RFC 9113, section 3.4), and hyper has no other way
//! to tell a limit that was said from the one assumed before. Understands nothing of what is said.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

/// Whether there was a word, and how many pieces were heard.
#[derive(Default)]
pub(super) struct FirstWord {
    heard: Cell<u64>,
    over: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl FirstWord {
    /// The connection, listened to for as long as it is read.
    pub(super) fn listen<T: AsyncRead>(
        self: Rc<Self>,
        to: T,
    ) -> InspectReader<T, impl FnMut(&[u8])> {
        InspectReader::new(to, move |read: &[u8]| {
            if !read.is_empty() {
                self.say();
            }
        })
    }

    /// Ready once something was said, or nothing will be.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.heard.get() > 0 || self.over.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|it| it.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nothing more is said.
    pub(super) fn ends(&self) {
        self.over.set(true);
        self.wake();
    }

    /// How many pieces were read so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.get()
    }

    fn say(&self) {
        let before = self.heard.get();
        self.heard.set(before.wrapping_add(1));
        if before == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_word_hears_of_the_first_and_an_end_is_none() {
        let (near, mut far) = tokio::io::duplex(64);
        let word = Rc::<FirstWord>::default();
        let mut near = word.clone().listen(near);
        near.write_all(b"hello").await.unwrap();
        let silent = poll_fn(|cx| Poll::Ready(word.poll(cx).is_pending())).await;
        assert!(silent, "what is said here does not count");
        far.write_all(b"hi").await.unwrap();
        // Polled in turns on one thread: the wait is there before the word is read.
        let heard = poll_fn(|cx| word.poll(cx));
        let (_, read) = tokio::join!(heard, near.read_u8());
        assert_eq!(read.unwrap(), b'h');

        let (near, far) = tokio::io::duplex(64);
        let word = Rc::<FirstWord>::default();
        let mut near = word.clone().listen(near);
        drop(far);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert!(poll_fn(|cx| Poll::Ready(word.poll(cx).is_pending())).await);
    }
}
