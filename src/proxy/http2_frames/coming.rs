//! What is said in HTTP/2 and h2 does not refuse, although it is malformed or breaks the protocol
//! (RFC 9113): a connection that does not begin with its settings (section 3.4), a target that
//! allows itself to push (6.5.2), pseudo-fields where none belong (8.1, 8.3), and a `:path` with a
//! fragment (8.3.1). h2 passes over all of these. So does hyper over trailers in a tunnel, and it
//! takes a client's reset of one for its end (8.5).
//!
//! Looks at the bytes before h2 does, as far into frames and field blocks as it takes to find them.
//! What is wrong in any other way is left for h2 to find, but for the two things after which h2 may
//! go on without having read a block, and know another table than this: a stream that depends on
//! itself, and promises. So the two can disagree in one direction only: h2 refuses more.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use super::fields::{Fields, Kind};
use super::streams::Streams;
use super::tunnels::Tunnels;
use super::{CONTINUATION, DATA, END_STREAM, HEAD, HEADERS, PREFACE, RESET, SETTINGS};

/// How far what the other side sends has come.
#[derive(Debug)]
pub(in crate::proxy) struct Coming {
    sender: Sender,
    begun: bool,
    /// The head of a frame, so far.
    head: [u8; HEAD],
    head_bytes: usize,
    /// Whether the length of the padding comes next.
    padded: bool,
    /// Bytes of a frame: those to pass over, those of settings, those of a reset, those of a
    /// priority, those of a field block, and those behind it.
    front: u32,
    settings: u32,
    reset: u32,
    priority: u32,
    block: u32,
    back: u32,
    /// The last bytes of what is read as numbers.
    last: u64,
    /// Of the field block: its stream, whether it is trailers, ends the stream and comes in pieces,
    /// and a bit for each kind that was met.
    stream: u32,
    trailers: bool,
    last_block: bool,
    in_pieces: bool,
    met: u16,
    fields: Fields,
}

/// Who sends.
#[derive(Debug)]
enum Sender {
    /// The newest stream that it began, and those that are tunnels.
    Client { newest: u32, tunnels: Rc<Tunnels> },
    /// What is known of the streams.
    Target(Rc<RefCell<Streams>>),
}

impl Coming {
    /// Of a client's connection, from its first byte on; `tunnels` are told of.
    pub(in crate::proxy) fn of_client(tunnels: Rc<Tunnels>) -> Coming {
        Coming::new(Sender::Client { newest: 0, tunnels }, PREFACE)
    }

    /// Of a target's; how far it has come with its answers is told to `streams`.
    pub(in crate::proxy) fn of_target(streams: Rc<RefCell<Streams>>) -> Coming {
        Coming::new(Sender::Target(streams), 0)
    }

    fn new(sender: Sender, front: u32) -> Coming {
        Coming {
            sender,
            begun: false,
            head: [0; HEAD],
            head_bytes: 0,
            padded: false,
            front,
            settings: 0,
            reset: 0,
            priority: 0,
            block: 0,
            back: 0,
            last: 0,
            stream: 0,
            trailers: false,
            last_block: false,
            in_pieces: false,
            met: 0,
            fields: Fields::default(),
        }
    }

    /// Takes in what comes next. The `#` of a path becomes what h2 refuses the stream for, a reset
    /// what hyper takes for one; all else fails, which is the end of the connection (RFC 9113,
    /// section 5.4.1).
    pub(in crate::proxy) fn take_in(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while let [next, ..] = bytes {
            let mut taken = 1;
            if self.padded {
                self.padded = false;
                self.back = u32::from(*next).min(self.block);
                self.block -= self.back;
            } else if self.front > 0 {
                taken = pass_over(&mut self.front, bytes.len());
            } else if self.settings > 0 {
                self.set(*next)?;
            } else if self.reset > 0 {
                self.reset -= 1;
                if self.reset == 0 && QUIET.contains(next) {
                    *next = LOUD;
                }
            } else if self.priority > 0 {
                self.depend(*next)?;
            } else if self.block > 0 {
                let there = bytes.len().min(self.block as usize);
                let met;
                (taken, met) = self.fields.read(&mut bytes[..there]);
                self.block -= taken as u32;
                self.meet(met)?;
            } else if self.back > 0 {
                taken = pass_over(&mut self.back, bytes.len());
            } else {
                self.head[self.head_bytes] = *next;
                self.head_bytes = (self.head_bytes + 1) % HEAD;
                if self.head_bytes == 0 {
                    self.begin()?;
                }
            }
            bytes = &mut bytes[taken..];
        }
        Ok(())
    }

    /// A frame begins (RFC 9113, section 4.1).
    fn begin(&mut self) -> io::Result<()> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        if !self.begun && (kind != SETTINGS || flags & ACKNOWLEDGED != 0) {
            return Err(malformed("no settings at the beginning"));
        }
        self.begun = true;
        match kind {
            HEADERS => {
                self.padded = flags & PADDED != 0 && length > 0;
                let length = length - u32::from(self.padded);
                self.priority = if flags & PRIORITY != 0 { length.min(5) } else { 0 };
                self.block = length - self.priority;
                self.stream = stream;
                self.trailers = self.sender.is_behind(stream)?;
                (self.in_pieces, self.met) = (flags & END_HEADERS == 0, 0);
                self.last_block = flags & END_STREAM != 0;
                self.fields.begin();
            }
            // Of another length it is refused by h2.
            PRIORITIES if length == 5 => (self.stream, self.priority) = (stream, length),
            CONTINUATION => self.block = length,
            PROMISE => return Err(malformed("a promise")),
            SETTINGS if matches!(self.sender, Sender::Target(_)) => self.settings = length,
            // Of another length it is refused by h2.
            RESET if matches!(self.sender, Sender::Client { .. }) && length == 4 => {
                self.reset = length;
            }
            _ => self.front = length,
        }
        if kind == RESET || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.sender.ends(stream, kind == RESET);
        }
        Ok(())
    }

    /// A byte of a setting.
    fn set(&mut self, byte: u8) -> io::Result<()> {
        self.last = self.last << 8 | u64::from(byte);
        self.settings -= 1;
        let whole = self.settings.is_multiple_of(SETTING);
        match whole && self.last & ((1 << (8 * SETTING)) - 1) == PUSHES {
            true => Err(malformed("a target that pushes")),
            false => Ok(()),
        }
    }

    /// A byte of a priority: the other stream, which h2 minds, and a weight.
    fn depend(&mut self, byte: u8) -> io::Result<()> {
        self.last = self.last << 8 | u64::from(byte);
        self.priority -= 1;
        match self.priority == 0 && (self.last >> 8) as u32 & !(1 << 31) == self.stream {
            true => Err(malformed("a stream that depends on itself")),
            false => Ok(()),
        }
    }

    /// A field is whole.
    fn meet(&mut self, field: Option<Kind>) -> io::Result<()> {
        let Some(kind) = field else { return Ok(()) };
        if kind == Kind::Odd {
            return Err(malformed("a field without a name, or a scheme without one"));
        }
        if self.in_pieces {
            self.meet_in_pieces(kind)?;
        }
        if !kind.is_pseudo() {
            return Ok(());
        }
        if self.trailers {
            return Err(malformed("a pseudo-field in trailers"));
        }
        match (&mut self.sender, kind) {
            (Sender::Client { tunnels, .. }, Kind::Protocol) if !self.last_block => {
                if !tunnels.begins(self.stream) {
                    return Err(malformed("more tunnels than there can be"));
                }
            }
            (Sender::Target(streams), Kind::Status) => streams.borrow_mut().answered(self.stream),
            (Sender::Target(_), Kind::Interim) | (Sender::Client { .. }, _) => {}
            (Sender::Target(_), _) => return Err(malformed("a pseudo-field of requests")),
        }
        Ok(())
    }

    /// What makes a block malformed h2 forgets where one of its frames ends within a field.
    fn meet_in_pieces(&mut self, kind: Kind) -> io::Result<()> {
        if matches!(kind, Kind::HopByHop | Kind::OddTe) {
            return Err(malformed("a field of one hop"));
        }
        let usual = 1 << Kind::Usual as u16;
        let this = if kind.is_pseudo() { 1 << kind.by_name() as u16 } else { usual };
        let (late, twice) = (self.met & usual != 0, self.met & this != 0);
        self.met |= this;
        match kind.is_pseudo() && (late || twice) {
            true => Err(malformed("a pseudo-field behind others, or twice")),
            false => Ok(()),
        }
    }
}

impl Sender {
    /// Whether a field block on a stream is behind its head: trailers. Fails where there can be no
    /// block at all.
    fn is_behind(&mut self, stream: u32) -> io::Result<bool> {
        match self {
            Sender::Client { .. } if stream.is_multiple_of(2) => {
                Err(malformed("a stream that no client begins"))
            }
            Sender::Client { tunnels, .. } if tunnels.has(stream) => {
                Err(malformed("trailers in a tunnel"))
            }
            Sender::Client { newest, .. } => {
                let old = stream <= *newest;
                *newest = stream.max(*newest);
                Ok(old)
            }
            Sender::Target(streams) if !streams.borrow().has_asked(stream) => {
                Err(malformed("a stream on which nothing was asked"))
            }
            Sender::Target(streams) => Ok(streams.borrow().has_answer(stream)),
        }
    }

    fn ends(&mut self, stream: u32, reset: bool) {
        match self {
            Sender::Client { tunnels, .. } => tunnels.ends(stream),
            Sender::Target(streams) if reset => streams.borrow_mut().reset(stream),
            Sender::Target(streams) => streams.borrow_mut().ended(stream),
        }
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Passes over as many bytes as there are, of so many; returns how many that were.
fn pass_over(left: &mut u32, there: usize) -> usize {
    let taken = (*left as usize).min(there);
    *left -= taken as u32;
    taken
}

/// Bytes of a setting (RFC 9113, section 6.5.1).
const SETTING: u32 = 6;
/// SETTINGS_ENABLE_PUSH, with 1.
pub(super) const PUSHES: u64 = 0x0002_0000_0001;
/// PUSH_PROMISE, which nobody may send here (RFC 9113, sections 6.6 and 8.4).
pub(super) const PROMISE: u8 = 5;
pub(super) const ACKNOWLEDGED: u8 = 0x1;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;
pub(super) const END_HEADERS: u8 = 0x4;
/// The last bytes of the reasons with which hyper takes a reset for an end: NO_ERROR and CANCEL.
const QUIET: [u8; 2] = [0, 8];
/// The last byte of one that it does not: CONNECT_ERROR.
pub(super) const LOUD: u8 = 10;
/// A frame that tells a priority and nothing else.
const PRIORITIES: u8 = 2;
