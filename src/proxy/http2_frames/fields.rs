//! The fields of a connection's blocks (RFC 7541), as far as it takes to tell special ones.
//!
//! No field is decoded, and nothing is kept of one but its kind.

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Usual = 0,
    Path = 1,
    /// A status that is final, where it is known.
    Status = 2,
    Interim = 3,
    OtherPseudo = 4,
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
    first: [u8; 7],
    /// Of a symbol of that code: the bits so far, and how many.
    code: u32,
    bits: usize,
}

/// The kinds of the connection's own fields, a bit of each in each number, the newest lowest. Some
/// have left the table: who asks for one of those is refused by h2.
#[derive(Debug, Default)]
struct Table([u128; 3]);

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
                let named = (number > 0).then(|| self.table.kind(number));
                // What its value is comes next.
                let anew = |kind| if kind == Kind::Interim { Kind::Status } else { kind };
                self.field.kind = named.map(anew);
            }
            Of::Length if number == 0 => return self.ended(),
            Of::Length => self.reading = Reading::Bytes(number),
        }
        None
    }

    /// A text is at its end: the name, or the value, and with it the field.
    fn ended(&mut self) -> Option<Kind> {
        let Some(mut kind) = self.field.kind else {
            let (kind, enters) = (Some(self.field.by_name()), self.field.enters);
            self.field = Field { kind, enters, ..Field::default() };
            self.reading = Reading::Text;
            return None;
        };
        if kind == Kind::Status && self.field.begins_with_one() {
            kind = Kind::Interim;
        }
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
            None | Some(Kind::Status) => {
                let room = self.first.iter_mut().skip(self.bytes);
                room.zip(&*text).for_each(|(place, byte)| *place = *byte);
                self.bytes += text.len();
            }
            Some(Kind::Path) if self.huffman => text.iter_mut().for_each(|byte| self.decode(byte)),
            Some(Kind::Path) => {
                text.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = b'>');
            }
            Some(Kind::Interim | Kind::OtherPseudo | Kind::Usual) => {}
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
        let text = self.first.get(..self.bytes).unwrap_or_default();
        let [first, ..] = self.first;
        let (path, status, colon) = match self.huffman {
            true => (PATH_IN_HUFFMAN, STATUS_IN_HUFFMAN, first >> 1 == 0b101_1100),
            false => (b":path".as_slice(), b":status".as_slice(), first == b':'),
        };
        match text {
            text if text == path => Kind::Path,
            text if text == status => Kind::Status,
            _ if colon => Kind::OtherPseudo,
            _ => Kind::Usual,
        }
    }

    /// Whether its value does: that of an interim status.
    fn begins_with_one(&self) -> bool {
        let [first, ..] = self.first;
        if self.huffman { first >> 3 == 0b0_0001 } else { first == b'1' }
    }
}

impl Table {
    /// Of the field at a place, those that every connection knows first (RFC 7541, section 2.3.3).
    fn kind(&self, place: u64) -> Kind {
        match place {
            4 | 5 => return Kind::Path,
            8..=14 => return Kind::Status,
            1..=7 => return Kind::OtherPseudo,
            OWN..LAST => {}
            _ => return Kind::Usual,
        }
        let bit = |plane: usize| (self.0[plane] >> (place - OWN) & 1) << plane;
        match bit(0) | bit(1) | bit(2) {
            1 => Kind::Path,
            2 => Kind::Status,
            3 => Kind::Interim,
            4 => Kind::OtherPseudo,
            _ => Kind::Usual,
        }
    }

    fn enter(&mut self, kind: Kind) {
        for (plane, kinds) in self.0.iter_mut().enumerate() {
            *kinds = *kinds << 1 | kind as u128 >> plane & 1;
        }
    }
}

/// The first place of the connection's own fields, and the one behind them. There are 128 at the
/// most, of 32 bytes each in the 4,096 that h2 gives them.
const OWN: u64 = 62;
const LAST: u64 = OWN + 128;
const PATH_IN_HUFFMAN: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
const STATUS_IN_HUFFMAN: &[u8] = &[0xb8, 0x84, 0x8d, 0x36, 0xa3];
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
