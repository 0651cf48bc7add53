//! The fields of a connection's blocks (RFC 7541), as far as it takes to tell special ones.
//!
//! No field is decoded, and nothing is kept of one but its kind.

use std::collections::VecDeque;

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Usual,
    Path,
    /// A status that is final, where it is known.
    Status,
    Interim,
    Method,
    Scheme,
    Authority,
    Protocol,
    OtherPseudo,
    /// Of one hop in HTTP/1.1.
    HopByHop,
    /// TE with `trailers`, where that is known.
    Te,
    OddTe,
    /// Without a name, or a scheme that is empty.
    Odd,
}

impl Kind {
    pub(super) fn is_pseudo(self) -> bool {
        (Kind::Path as u8..=Kind::OtherPseudo as u8).contains(&(self as u8))
    }

    /// What its name alone makes it.
    pub(super) fn by_name(self) -> Kind {
        match self {
            Kind::Interim => Kind::Status,
            Kind::OddTe => Kind::Te,
            other => other,
        }
    }
}

/// How far the blocks of a connection were read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    reading: Reading,
    field: Field,
    table: Table,
}

/// What a block goes on with.
#[derive(Clone, Copy, Debug, Default)]
enum Reading {
    /// A field, or another size of the table.
    #[default]
    Start,
    /// The rest of a number.
    Number { of: Of, so_far: u64, shift: u32 },
    /// How a text is coded, and how long it is.
    Text,
    /// So many bytes of a text.
    Bytes(u64),
}

/// What a number is.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The place of a field in the table.
    Indexed,
    /// The place of a name; 0: the name comes as a text.
    Named,
    Length,
    Size,
}

/// What has to be known of the field that is read.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    /// By its name. None: the text that is read is the name.
    kind: Option<Kind>,
    /// Whether the table takes it in.
    enters: bool,
    /// Whether the text is in the Huffman code.
    huffman: bool,
    /// Bytes of the text so far, and the first of them.
    bytes: usize,
    first: [u8; 17],
    /// Of a symbol of that code: the bits so far, and how many.
    code: u32,
    bits: usize,
}

/// The kinds of the connection's own fields, the newest first. Some have left the table: who asks
/// for one of those is refused by h2.
#[derive(Debug, Default)]
struct Table(VecDeque<Kind>);

impl Fields {
    /// Another block.
    pub(super) fn begin(&mut self) {
        self.reading = Reading::Start;
    }

    /// Reads on (RFC 7541, section 6); returns how many bytes that took, and what field is whole
    /// with them. The `#` of a path becomes a `>`.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> (usize, Option<Kind>) {
        let byte = bytes[0];
        let met = match self.reading {
            Reading::Start => {
                let (of, bits, enters) = match byte {
                    0x80.. => (Of::Indexed, 7, false),
                    0x40.. => (Of::Named, 6, true),
                    0x20.. => (Of::Size, 5, false),
                    _ => (Of::Named, 4, false),
                };
                self.field = Field { enters, ..Field::default() };
                self.number(of, byte, bits)
            }
            Reading::Number { of, so_far, shift } => {
                // h2 takes none that is longer.
                let more = u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let so_far = so_far.saturating_add(more);
                if byte & 0x80 == 0 {
                    self.said(of, so_far)
                } else {
                    self.reading = Reading::Number { of, so_far, shift: shift.saturating_add(7) };
                    None
                }
            }
            Reading::Text => {
                self.field.huffman = byte & 0x80 != 0;
                self.number(Of::Length, byte, 7)
            }
            Reading::Bytes(left) => {
                let there = left.min(bytes.len() as u64);
                self.field.take_in(&mut bytes[..there as usize]);
                self.reading = Reading::Bytes(left - there);
                let met = if left == there { self.ended() } else { None };
                return (there as usize, met);
            }
        };
        (1, met)
    }

    /// A number begins in the last bits of a byte (RFC 7541, section 5.1).
    fn number(&mut self, of: Of, byte: u8, bits: u32) -> Option<Kind> {
        let most = (1 << bits) - 1;
        let number = u64::from(byte & most);
        if byte & most < most {
            return self.said(of, number);
        }
        self.reading = Reading::Number { of, so_far: number, shift: 0 };
        None
    }

    fn said(&mut self, of: Of, number: u64) -> Option<Kind> {
        match of {
            Of::Size => self.reading = Reading::Start,
            Of::Indexed => {
                self.reading = Reading::Start;
                return Some(self.table.kind(number));
            }
            Of::Named => {
                self.reading = Reading::Text;
                self.field.kind = (number > 0).then(|| self.table.kind(number).by_name());
            }
            Of::Length if number == 0 => return self.ended(),
            Of::Length => self.reading = Reading::Bytes(number),
        }
        None
    }

    /// A text is at its end: the name, or the value, and with it the field.
    fn ended(&mut self) -> Option<Kind> {
        let Some(kind) = self.field.kind else {
            let (kind, enters) = (Some(self.field.by_name()), self.field.enters);
            self.field = Field { kind, enters, ..Field::default() };
            self.reading = Reading::Text;
            return None;
        };
        let kind = self.field.with_value(kind);
        if self.field.enters {
            self.table.enter(kind);
        }
        self.reading = Reading::Start;
        Some(kind)
    }
}

impl Field {
    /// Some of its name, or of its value.
    fn take_in(&mut self, text: &mut [u8]) {
        match self.kind {
            None | Some(Kind::Status | Kind::Te | Kind::Scheme) => {
                let room = self.first.iter_mut().skip(self.bytes);
                room.zip(&*text).for_each(|(place, byte)| *place = *byte);
                self.bytes += text.len();
            }
            Some(Kind::Path) if self.huffman => text.iter_mut().for_each(|byte| self.decode(byte)),
            Some(Kind::Path) => {
                text.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = b'>');
            }
            Some(_) => {}
        }
    }

    fn decode(&mut self, byte: &mut u8) {
        for bit in (0..8).rev() {
            self.code = self.code << 1 | u32::from(*byte >> bit & 1);
            self.bits += 1;
            if (self.bits, self.code) == HASH {
                // `>` differs from it in the last bit.
                *byte |= 1 << bit;
            }
            if END.get(self.bits).is_none_or(|end| self.code < *end) {
                (self.code, self.bits) = (0, 0);
            }
        }
    }

    /// What its name makes it, once that is read.
    fn by_name(&self) -> Kind {
        if self.bytes == 0 {
            return Kind::Odd;
        }
        let coded = |(_, plain, huffman): &&Named| if self.huffman { *huffman } else { *plain };
        if let Some((kind, ..)) = NAMES.iter().find(|named| self.says(coded(named))) {
            return *kind;
        }
        let [first, ..] = self.first;
        let colon = if self.huffman { first >> 1 == 0b101_1100 } else { first == b':' };
        if colon { Kind::OtherPseudo } else { Kind::Usual }
    }

    /// What its value makes it.
    fn with_value(&self, kind: Kind) -> Kind {
        let [first, ..] = self.first;
        let is_one = if self.huffman { first >> 3 == 0b0_0001 } else { first == b'1' };
        let trailers = if self.huffman { TRAILERS.1 } else { TRAILERS.0 };
        match kind {
            Kind::Status if is_one => Kind::Interim,
            Kind::Te if !self.says(trailers) => Kind::OddTe,
            Kind::Scheme if self.bytes == 0 => Kind::Odd,
            kind => kind,
        }
    }

    /// Whether the text is this.
    fn says(&self, text: &[u8]) -> bool {
        self.first.get(..self.bytes) == Some(text)
    }
}

impl Table {
    /// Of the field at a place, those that every connection knows first (RFC 7541, section 2.3.3).
    fn kind(&self, place: u64) -> Kind {
        match place {
            1 => Kind::Authority,
            2 | 3 => Kind::Method,
            4 | 5 => Kind::Path,
            6 | 7 => Kind::Scheme,
            8..=14 => Kind::Status,
            57 => Kind::HopByHop,
            OWN.. => self.0.get((place - OWN) as usize).copied().unwrap_or(Kind::Usual),
            _ => Kind::Usual,
        }
    }

    fn enter(&mut self, kind: Kind) {
        self.0.truncate(MOST - 1);
        self.0.push_front(kind);
    }
}

/// The first place of the connection's own fields.
const OWN: u64 = 62;
/// So many there are at the most, of 32 bytes each in the 4,096 that h2 gives them.
const MOST: usize = 128;
/// A name as it is, and in the Huffman code.
type Named = (Kind, &'static [u8], &'static [u8]);
const NAMES: [Named; 12] = [
    (Kind::Path, b":path", b"\xb9\x58\xd3\x3f"),
    (Kind::Status, b":status", b"\xb8\x84\x8d\x36\xa3"),
    (Kind::Method, b":method", b"\xb9\x49\x53\x39\xe4"),
    (Kind::Scheme, b":scheme", b"\xb8\x82\x4e\x5a\x4b"),
    (Kind::Authority, b":authority", b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f"),
    (Kind::Protocol, b":protocol", b"\xb9\x5d\x87\x49\xc8\x7a\x3f"),
    (Kind::Te, b"te", b"\x49\x7f"),
    (Kind::HopByHop, b"upgrade", b"\xb6\xb9\xac\x1c\x85"),
    (Kind::HopByHop, b"connection", b"\x21\xea\xa8\xa4\x49\x8f\x57"),
    (Kind::HopByHop, b"keep-alive", b"\xea\x52\xd6\xb0\xe8\x37\x72\xff"),
    (Kind::HopByHop, b"proxy-connection", b"\xae\xc3\xf9\xf4\xb1\x0f\x55\x45\x22\x4c\x7a\xbf"),
    (Kind::HopByHop, b"transfer-encoding", b"\x4d\x83\xa9\x12\x96\xc5\x8b\x51\x0f\x21\xaa\x9b"),
];
/// What TE may say, in the same way.
const TRAILERS: (&[u8], &[u8]) = (b"trailers", b"\x4d\x83\x35\x05\xb1\x1f");
/// `#` in the Huffman code (RFC 7541, appendix B).
const HASH: (usize, u32) = (12, 0xffa);
/// By the number of bits: what is below is a symbol, what is not has more bits. So it is in a code
/// whose symbols are in the order of their lengths.
const END: [u32; 30] = {
    // How many symbols have so many bits.
    const SYMBOLS: [u32; 30] = [
        0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15,
        19, 29, 0,
    ];
    let (mut end, mut bits) = ([0; 30], 1);
    while bits < 30 {
        end[bits] = end[bits - 1] * 2 + SYMBOLS[bits];
        bits += 1;
    }
    end
};
