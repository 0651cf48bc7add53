//! What is sent to a target: which streams begin and end with it. Nothing else is looked at.

use std::cell::RefCell;
use std::rc::Rc;

use super::streams::Streams;
use super::{DATA, END_STREAM, HEAD, HEADERS, PREFACE, RESET};

/// How far what is sent has come.
#[derive(Debug)]
pub(in crate::proxy) struct Going {
    streams: Rc<RefCell<Streams>>,
    /// The head of a frame, so far.
    head: [u8; HEAD],
    head_bytes: usize,
    /// Bytes that belong to no head.
    rest: u32,
}

impl Going {
    /// Of a connection from its first byte on; what becomes of its streams is told to `streams`.
    pub(in crate::proxy) fn new(streams: Rc<RefCell<Streams>>) -> Going {
        Going { streams, head: [0; HEAD], head_bytes: 0, rest: PREFACE }
    }

    /// Takes in what went out next.
    pub(in crate::proxy) fn take_in(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken;
            if self.rest > 0 {
                taken = bytes.len().min(self.rest as usize);
                self.rest -= taken as u32;
            } else {
                taken = bytes.len().min(HEAD - self.head_bytes);
                self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.head_bytes = (self.head_bytes + taken) % HEAD;
                if self.head_bytes == 0 {
                    self.begin();
                }
            }
            bytes = &bytes[taken..];
        }
    }

    /// A frame begins (RFC 9113, section 4.1).
    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.rest = u32::from_be_bytes([0, a, b, c]);
        let (stream, mut streams) = (u32::from_be_bytes(stream), self.streams.borrow_mut());
        if kind == HEADERS {
            streams.asked(stream);
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            streams.sent(stream);
        }
        if kind == RESET {
            streams.reset(stream);
        }
    }
}
