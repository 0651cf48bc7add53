//! What is sent: which streams of a target begin and end with it, which tunnels of a client are
//! reset. Nothing else is looked at.

use std::cell::RefCell;
use std::rc::Rc;

use super::streams::Streams;
use super::tunnels::Tunnels;
use super::{DATA, END_STREAM, HEAD, HEADERS, PREFACE, RESET};

/// How far what is sent has come.
#[derive(Debug)]
pub(in crate::proxy) struct Going {
    receiver: Receiver,
    /// The head of a frame, so far.
    head: [u8; HEAD],
    head_bytes: usize,
    /// Bytes that belong to no head.
    rest: u32,
}

/// Who is sent to, and who is told of it.
#[derive(Debug)]
enum Receiver {
    Client(Rc<Tunnels>),
    Target(Rc<RefCell<Streams>>),
}

impl Going {
    /// Of a client's connection from its first byte on; what ends there is told to `tunnels`.
    pub(in crate::proxy) fn to_client(tunnels: Rc<Tunnels>) -> Going {
        Going::new(Receiver::Client(tunnels), 0)
    }

    /// Of a target's; what becomes of its streams is told to `streams`.
    pub(in crate::proxy) fn to_target(streams: Rc<RefCell<Streams>>) -> Going {
        Going::new(Receiver::Target(streams), PREFACE)
    }

    fn new(receiver: Receiver, rest: u32) -> Going {
        Going { receiver, head: [0; HEAD], head_bytes: 0, rest }
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
        let stream = u32::from_be_bytes(stream);
        match &self.receiver {
            Receiver::Client(tunnels) if kind == RESET => tunnels.ends(stream),
            Receiver::Client(_) => {}
            Receiver::Target(streams) => {
                let mut streams = streams.borrow_mut();
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
    }
}
