//! How far the first line of a request has come.
//!
//! The parser gives up on a head that is too long without saying which part of it is. A request
//! target that never ends has an answer of its own (RFC 9112, section 3), so the bytes of heads are
//! searched for the end of their first line, and nothing else.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

/// The first line of the request that is read.
#[derive(Debug, Default)]
pub(super) struct FirstLine {
    /// Of which request.
    of: u64,
    /// Bytes so far.
    bytes: usize,
    ended: bool,
}

/// It is longer than the largest head.
#[derive(Debug)]
struct TooLong;

impl FirstLine {
    /// Takes in what was read while this request was waited for; fails where its first line is
    /// longer than `most`. What comes together with the end of the request before it is not
    /// counted.
    pub(super) fn take_in(&mut self, of: u64, read: &[u8], most: usize) -> io::Result<()> {
        if self.of != of {
            *self = FirstLine { of, ..FirstLine::default() };
        }
        if self.ended {
            return Ok(());
        }
        // Empty lines may come first (RFC 9112, section 2.2).
        let empty = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let skipped = match self.bytes {
            0 => read.iter().position(|byte| !empty(byte)).unwrap_or(read.len()),
            _ => 0,
        };
        let line = &read[skipped..];
        let end = line.iter().position(|byte| *byte == b'\n');
        self.ended = end.is_some();
        self.bytes += end.unwrap_or(line.len());
        if self.bytes > most { Err(io::Error::other(TooLong)) } else { Ok(()) }
    }
}

/// Whether a connection ended because a first line was too long.
pub(super) fn is_too_long(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<TooLong>())
}

impl Display for TooLong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the first line of a request does not end")
    }
}

impl Error for TooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_too_long_once_it_is_however_it_comes() {
        for step in [1, 7, 64, 100] {
            let mut line = FirstLine::default();
            let fits = [b"\r\n".as_slice(), &[b'a'; 64], b"\nX: yyyyyyyyyyyyyyyyyyyy"].concat();
            assert!(fits.chunks(step).all(|some| line.take_in(1, some, 64).is_ok()), "{step}");
            assert!(line.take_in(1, &[b'a'; 100], 64).is_ok(), "those are its fields");
            let endless = [b'a'; 200];
            let taken = endless.chunks(step).take_while(|some| line.take_in(2, some, 64).is_ok());
            assert_eq!(taken.count(), 64 / step, "{step}");
            let late = [[b'a'; 65].as_slice(), b"\n"].concat();
            assert!(late.chunks(step).any(|some| line.take_in(3, some, 64).is_err()), "{step}");
        }
    }
}
