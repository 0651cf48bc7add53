//! As much of HTTP/2 as a hostile client needs: frames, and heads as literals (RFC 9113, RFC 7541).
//!
//! No state is kept: the dynamic table is set to nothing, so that every head stands for itself.

/// What a client says first, without a dynamic table.
pub fn preface() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    bytes
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A head block of literals that are never indexed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer of seven bits and more (RFC 7541, section 5.1).
fn length(mut value: usize, block: &mut Vec<u8>) {
    if value < 0x7f {
        return block.push(value as u8);
    }
    block.push(0x7f);
    value -= 0x7f;
    while value >= 0x80 {
        block.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

/// One frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'b [u8],
}

/// All whole frames.
pub fn read(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        if bytes.len() < 9 + length {
            break;
        }
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let payload = &bytes[9..9 + length];
        frames.push(Frame { kind: bytes[3], flags: bytes[4], stream, payload });
        bytes = &bytes[9 + length..];
    }
    frames
}

impl Frame<'_> {
    pub fn ends_stream(&self) -> bool {
        self.kind == RESET || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }

    /// The error of a frame that ends a stream or the connection.
    pub fn error(&self) -> Option<u32> {
        let at = match self.kind {
            RESET => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The status at the start of an answer's head.
    pub fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        let mut block = self.payload;
        // The size of the dynamic table may be said first.
        while block.first()? & 0xe0 == 0x20 {
            block = &block[1..];
        }
        let known = [200, 204, 206, 304, 400, 404, 500];
        match block.first()? {
            indexed @ 0x88..=0x8e => Some(known[usize::from(indexed - 0x88)]),
            0x08 | 0x18 | 0x48 => digits(&block[1..]),
            _ => None,
        }
    }
}

/// A short text of digits, plain or in Huffman's code (RFC 7541, appendix B).
fn digits(text: &[u8]) -> Option<u16> {
    let length = usize::from(text.first()? & 0x7f);
    let bytes = text.get(1..=length)?;
    if text[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let bits: Vec<u16> =
        bytes.iter().flat_map(|b| (0..8).rev().map(move |at| u16::from(b >> at & 1))).collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |sum, bit| sum * 2 + bit);
    let (mut at, mut value) = (0, 0);
    while bits.len() - at >= 5 {
        let short = number(&bits[at..at + 5]);
        let digit = if short <= 2 {
            at += 5;
            short
        } else if let Some(six) = bits.get(at..at + 6) {
            at += 6;
            number(six).checked_sub(0b01_1001)? + 3
        } else {
            break;
        };
        if digit > 9 {
            break;
        }
        value = value * 10 + digit;
    }
    Some(value)
}

/// How many streams have ended; a connection that ends ends them all.
pub fn ended(bytes: &[u8]) -> usize {
    let frames = read(bytes);
    if frames.iter().any(|frame| frame.kind == GOAWAY && frame.error() != Some(0)) {
        return usize::MAX;
    }
    frames.iter().filter(|frame| frame.ends_stream()).count()
}

/// See RFC 9113, section 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_heads_are_read_back() {
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &[0x20, 0x88]),
            frame(DATA, END_STREAM, 1, b"ok"),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0x48, 0x82, 0x6c, 0x02]),
            frame(HEADERS, END_HEADERS | END_STREAM, 5, b"\x08\x03421"),
        ]
        .concat();
        let frames = read(&bytes);
        let statuses: Vec<_> = frames.iter().map(Frame::status).collect();
        assert_eq!(statuses, [Some(200), None, Some(502), Some(421)]);
        assert_eq!(ended(&bytes), 3);
        assert_eq!(read(&bytes[..10]).len(), 0);
        let mut long = Vec::new();
        length(300, &mut long);
        assert_eq!(long, [0x7f, 0xad, 0x01]);
    }
}
