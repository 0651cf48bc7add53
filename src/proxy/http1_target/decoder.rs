//! Where a response's body ends (RFC 9112, sections 6.3 and 7.1), understood as its bytes come.
//!
//! Does no IO and keeps no data: what it is shown it either takes or leaves. Strict: a line ends
//! with CR LF, a size is hexadecimal digits, and what stands behind a body is nobody's.

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::response;

/// How much of a body is still to come.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Whatever comes until the target closes.
    UntilClose,
}

/// What became of bytes that were shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A part of the body.
    Data(Bytes),
    /// What stands behind the chunks.
    Trailers(HeaderMap),
    /// Nothing follows.
    End,
    /// All bytes are taken, and more must come.
    More,
}

/// What is no body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where in the chunks.
#[derive(Debug)]
pub(super) struct Chunked {
    at: Place,
    /// Of the size being read, and then bytes of the chunk still to come.
    left: u64,
    /// Bytes of all extensions.
    extensions: usize,
    /// The trailers so far.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first digit of a size.
    Size,
    /// Behind so many digits of a size.
    Digits(usize),
    /// Behind so many blanks behind the size.
    Blanks(usize),
    /// Behind a semicolon.
    Extension,
    /// At the LF of a size's line.
    SizeEnd,
    Data,
    /// At the CR, and at the LF, behind a chunk.
    DataCr,
    DataLf,
    Trailers,
    Over,
}

impl Decoder {
    /// No body.
    pub(super) const NOTHING: Decoder = Decoder::Length(0);

    /// Chunks, from their beginning.
    pub(super) fn chunked() -> Decoder {
        let trailers = Vec::new();
        Decoder::Chunked(Chunked { at: Place::Size, left: 0, extensions: 0, trailers })
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Decoder::Length(left) => *left == 0,
            Decoder::Chunked(chunked) => chunked.at == Place::Over,
            Decoder::UntilClose => false,
        }
    }

    /// Bytes still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Decoder::Length(left) => Some(*left),
            _ if self.is_over() => Some(0),
            _ => None,
        }
    }

    /// The target has closed: whether the body is whole.
    pub(super) fn close(&mut self) -> bool {
        if matches!(self, Decoder::UntilClose) {
            *self = Decoder::NOTHING;
        }
        self.is_over()
    }

    /// Takes of these bytes what is one step.
    pub(super) fn step(&mut self, bytes: &mut Bytes) -> Result<Step, Malformed> {
        match self {
            Decoder::Length(0) => Ok(Step::End),
            _ if bytes.is_empty() && !self.is_over() => Ok(Step::More),
            Decoder::Length(left) => Ok(Step::Data(take(bytes, left))),
            Decoder::UntilClose => Ok(Step::Data(std::mem::take(bytes))),
            Decoder::Chunked(chunked) => chunked.step(bytes),
        }
    }
}

impl Chunked {
    fn step(&mut self, bytes: &mut Bytes) -> Result<Step, Malformed> {
        loop {
            match self.at {
                Place::Over => return Ok(Step::End),
                Place::Data if !bytes.is_empty() => {
                    let data = take(bytes, &mut self.left);
                    if self.left == 0 {
                        self.at = Place::DataCr;
                    }
                    return Ok(Step::Data(data));
                }
                Place::Trailers if !bytes.is_empty() => {
                    if let Some(trailers) = self.trailers(bytes)? {
                        self.at = Place::Over;
                        let none = trailers.is_empty();
                        return Ok(if none { Step::End } else { Step::Trailers(trailers) });
                    }
                }
                _ => {}
            }
            if !bytes.has_remaining() {
                return Ok(Step::More);
            }
            self.at = self.line(bytes.get_u8())?;
        }
    }

    /// One byte of what stands between the chunks.
    fn line(&mut self, byte: u8) -> Result<Place, Malformed> {
        match (self.at, byte) {
            (Place::Size | Place::Digits(_), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let before = if let Place::Digits(before) = self.at { before } else { 0 };
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let left = self.left.checked_mul(16).ok_or(Malformed)?;
                self.left = left | digit;
                if before < DIGITS { Ok(Place::Digits(before + 1)) } else { Err(Malformed) }
            }
            (Place::Digits(_) | Place::Blanks(_) | Place::Extension, b'\r') => Ok(Place::SizeEnd),
            (Place::Digits(_) | Place::Blanks(_), b';') => Ok(Place::Extension),
            (Place::Digits(_), b' ' | b'\t') => Ok(Place::Blanks(1)),
            (Place::Blanks(so_far), b' ' | b'\t') if so_far < BLANKS => {
                Ok(Place::Blanks(so_far + 1))
            }
            (Place::Extension, byte) if byte != b'\n' && self.extensions < EXTENSION_BYTES => {
                self.extensions += 1;
                Ok(Place::Extension)
            }
            (Place::SizeEnd, b'\n') if self.left == 0 => Ok(Place::Trailers),
            (Place::SizeEnd, b'\n') => Ok(Place::Data),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::Size),
            _ => Err(Malformed),
        }
    }

    /// The trailers, once they are whole; up to the empty line behind them.
    fn trailers(&mut self, bytes: &mut Bytes) -> Result<Option<HeaderMap>, Malformed> {
        while bytes.has_remaining() {
            if self.trailers.len() == TRAILER_BYTES {
                return Err(Malformed);
            }
            self.trailers.push(bytes.get_u8());
            if self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n") {
                let whole = Bytes::from(std::mem::take(&mut self.trailers));
                return response::fields(&whole).map(Some).ok_or(Malformed);
            }
        }
        Ok(None)
    }
}

fn take(bytes: &mut Bytes, left: &mut u64) -> Bytes {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= most as u64;
    if most == bytes.len() { std::mem::take(bytes) } else { bytes.split_to(most) }
}

/// Bytes of all extensions of a body: nobody reads them.
const EXTENSION_BYTES: usize = 16 << 10;
/// Blanks behind a size: some servers pad sizes to one width.
const BLANKS: usize = 32;
/// Digits of a size, with the zeros that say nothing.
const DIGITS: usize = 32;
/// Bytes of the trailers of a body.
const TRAILER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The whole body and its trailers, when the bytes come in pieces of these sizes.
    fn read(
        decoder: &mut Decoder,
        whole: &[u8],
        mut piece: impl FnMut() -> usize,
    ) -> Result<(Vec<u8>, HeaderMap, usize), Malformed> {
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        let (mut unread, mut rest) = (Bytes::new(), whole);
        loop {
            match decoder.step(&mut unread)? {
                Step::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Step::Trailers(found) => trailers = found,
                Step::End => return Ok((body, trailers, unread.len() + rest.len())),
                Step::More => {
                    assert!(unread.is_empty(), "all is taken before more is wanted");
                    if rest.is_empty() {
                        let whole = decoder.close();
                        return whole.then_some((body, trailers, 0)).ok_or(Malformed);
                    }
                    let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
                    unread = Bytes::copy_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    #[test]
    fn chunks_are_the_same_however_they_are_cut() {
        let whole = b"5;a=\"b\"\r\nhello\r\n1 \r\n \r\n00a\r\nhow do\r\nyo\r\n0\r\n\
                      x-sum: 7\r\nx-too: 8\r\n\r\nHTTP/1.1";
        let seed = rand::random::<u64>();
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        for most in (1..=whole.len()).chain(std::iter::repeat_n(7, 200)) {
            let piece = || rng.random_range(1..=most);
            let (body, trailers, behind) = read(&mut Decoder::chunked(), whole, piece).unwrap();
            assert_eq!(body, b"hello how do\r\nyo");
            assert_eq!(
                (trailers["x-sum"].as_bytes(), trailers["x-too"].as_bytes()),
                (&b"7"[..], &b"8"[..])
            );
            assert_eq!(behind, b"HTTP/1.1".len());
        }
    }

    #[test]
    fn what_is_not_chunked_well_is_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1;\n\r\na\r\n0\r\n\r\n",
            "1 2\r\na\r\n0\r\n\r\n",
            "1\t \t2;x\r\na\r\n0\r\n\r\n",
            "1 \na\r\n0\r\n\r\n",
            "1 a=b\r\na\r\n0\r\n\r\n",
            "10000000000000000\r\na",
            "0\r\nx y: z\r\n\r\n",
            "3\r\nab",
            "0\r\n",
        ] {
            let outcome = read(&mut Decoder::chunked(), bad.as_bytes(), || 64);
            assert!(outcome.is_err(), "{bad:?}: {outcome:?}");
        }
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(EXTENSION_BYTES + 1));
        assert!(read(&mut Decoder::chunked(), long.as_bytes(), || 999).is_err());
        let long = format!("1{}\r\na\r\n0\r\n\r\n", " ".repeat(BLANKS + 1));
        assert!(read(&mut Decoder::chunked(), long.as_bytes(), || 999).is_err());
        let long = format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(DIGITS));
        assert!(read(&mut Decoder::chunked(), long.as_bytes(), || 999).is_err());
        assert!(read(&mut Decoder::chunked(), &long.as_bytes()[1..], || 999).is_ok());
        let long = format!("0\r\nx: {}\r\n\r\n", "x".repeat(TRAILER_BYTES));
        assert!(read(&mut Decoder::chunked(), long.as_bytes(), || 999).is_err());
    }

    #[test]
    fn trailers_that_end_early_for_others_are_refused() {
        for bad in [
            "0\r\nx: y\n\n\r\n\r\n",
            "0\r\nx: y\n\r\n\r\n",
            "0\r\nx: y\n\nHTTP/1.1 200 OK\r\n\r\n",
            "0\r\n\n\r\n\r\n",
        ] {
            let outcome = read(&mut Decoder::chunked(), bad.as_bytes(), || 64);
            assert!(outcome.is_err(), "{bad:?}: {outcome:?}");
        }
    }

    #[test]
    fn sizes_may_be_padded_however_many_there_are() {
        let padded = format!("1{}\r\na\r\n1 \t ;x\r\nb\r\n", " ".repeat(BLANKS));
        let whole = padded.repeat(EXTENSION_BYTES / 2) + "0  \r\n\r\n";
        let (body, _, _) = read(&mut Decoder::chunked(), whole.as_bytes(), || 9_999).unwrap();
        assert_eq!(body, b"ab".repeat(EXTENSION_BYTES / 2));
    }

    #[test]
    fn a_length_is_kept_to_and_the_end_of_the_connection_ends_only_what_has_none() {
        let (body, _, behind) = read(&mut Decoder::Length(3), b"abcd", || 2).unwrap();
        assert_eq!((&body[..], behind), (&b"abc"[..], 1));
        assert!(read(&mut Decoder::Length(5), b"abcd", || 4).is_err(), "it broke off");
        let (body, _, _) = read(&mut Decoder::UntilClose, b"abcd", || 3).unwrap();
        assert_eq!(body, b"abcd");
    }
}
