//! The streams of a client's connection that are tunnels, or ask to become one (RFC 8441), until
//! either side has reset them or the client has sent their end.

use std::cell::RefCell;

/// What the frames of both sides tell of tunnels. There are no more than h2 lets streams be open.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tunnels(RefCell<Vec<u32>>);

impl Tunnels {
    /// The head of a request for one came.
    pub(super) fn begins(&self, stream: u32) {
        let mut tunnels = self.0.borrow_mut();
        if !tunnels.contains(&stream) {
            tunnels.push(stream);
        }
    }

    /// It is over, or the client sends nothing more, if it was one.
    pub(super) fn ends(&self, stream: u32) {
        self.0.borrow_mut().retain(|it| *it != stream);
    }

    /// Whether it is one.
    pub(super) fn has(&self, stream: u32) -> bool {
        self.0.borrow().contains(&stream)
    }
}
