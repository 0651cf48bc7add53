//! The streams of a client's connection that are tunnels, or ask to become one (RFC 8441), until
//! either side has reset them or the client has sent their end.

use std::cell::RefCell;

/// What the frames of both sides tell of tunnels.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tunnels(RefCell<Vec<u32>>);

impl Tunnels {
    /// The head of a request for one came; false where there are too many.
    pub(super) fn begins(&self, stream: u32) -> bool {
        let mut tunnels = self.0.borrow_mut();
        if !tunnels.contains(&stream) {
            tunnels.push(stream);
        }
        tunnels.len() <= MOST
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

/// More than h2 lets streams be open. It resets those beyond, but not where it has said that the
/// connection ends.
const MOST: usize = 256;
