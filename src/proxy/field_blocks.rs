//! What clients say in HTTP/2 and h2 does not refuse, although it is malformed (RFC 9113, sections
//! 8.1 and 8.3.1): a `:path` with a fragment, and pseudo-fields in trailers. h2 drops both.
//!
//! Looks at the bytes before h2 does, as far into frames and field blocks (RFC 7541) as it takes to
//! find the two. No field is decoded, nothing is kept of one but whether its name is special, and
//! what is wrong in any other way is left for h2 to find. So the two can disagree in one direction
//! only: h2 refuses more.

use std::io;

/// How far what a client sends has come.
#[derive(Debug)]
pub(super) struct FieldBlocks {
    /// The head of a frame, so far.
    head: [u8; HEAD],
    head_bytes: usize,
    /// Whether the length of the padding comes next.
    padded: bool,
    /// Bytes of a frame: those to pass over, those of a field block, and those behind it.
    front: u32,
    block: u32,
    back: u32,
    /// The newest stream that was begun.
    newest: u32,
    trailers: bool,
    reading: Reading,
    field: Field,
    table: Table,
}

/// What a field block goes on with.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// A field, or another size of the table.
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
    /// None: the text that is read is the name.
    name: Option<Name>,
    /// Whether the table takes it in.
    enters: bool,
    /// Whether the text is in the Huffman code.
    huffman: bool,
    /// Bytes of the text so far, and the first of them.
    bytes: usize,
    first: [u8; 5],
    /// Of a symbol of that code: the bits so far, and how many.
    code: u32,
    bits: usize,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Path,
    OtherPseudo,
    Usual,
}

/// The names of the connection's own table, a bit each, the newest lowest. Some have left it: who
/// asks for one of those is refused by h2.
#[derive(Debug, Default)]
struct Table {
    path: u128,
    other_pseudo: u128,
}

impl FieldBlocks {
    /// Of a connection from its first byte on.
    pub(super) fn new() -> FieldBlocks {
        FieldBlocks {
            head: [0; HEAD],
            head_bytes: 0,
            padded: false,
            front: PREFACE,
            block: 0,
            back: 0,
            newest: 0,
            trailers: false,
            reading: Reading::Start,
            field: Field::default(),
            table: Table::default(),
        }
    }

    /// Takes in what comes next. The `#` of a path becomes what h2 refuses the stream for; fails at
    /// a pseudo-field in trailers, which is the end of the connection (RFC 9113, section 5.4.1).
    pub(super) fn take_in(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while let Some(&next) = bytes.first() {
            let mut taken = 1;
            if self.padded {
                self.padded = false;
                self.back = u32::from(next).min(self.block);
                self.block -= self.back;
            } else if self.front > 0 {
                taken = pass_over(&mut self.front, bytes.len());
            } else if self.block > 0 {
                let there = bytes.len().min(self.block as usize);
                taken = self.read(&mut bytes[..there])?;
                self.block -= taken as u32;
            } else if self.back > 0 {
                taken = pass_over(&mut self.back, bytes.len());
            } else {
                self.head[self.head_bytes] = next;
                self.head_bytes = (self.head_bytes + 1) % HEAD;
                if self.head_bytes == 0 {
                    self.begin();
                }
            }
            bytes = &mut bytes[taken..];
        }
        Ok(())
    }

    /// A frame begins (RFC 9113, section 4.1).
    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        match kind {
            HEADERS => {
                self.padded = flags & PADDED != 0 && length > 0;
                let length = length - u32::from(self.padded);
                self.front = if flags & PRIORITY != 0 { length.min(5) } else { 0 };
                self.block = length - self.front;
                self.trailers = stream <= self.newest;
                self.newest = self.newest.max(stream);
                self.reading = Reading::Start;
            }
            CONTINUATION => self.block = length,
            _ => self.front = length,
        }
    }

    /// Reads on in a field block (RFC 7541, section 6); returns how many bytes that took.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let byte = bytes[0];
        match self.reading {
            Reading::Start => {
                let (of, bits, enters) = match byte {
                    0x80.. => (Of::Indexed, 7, false),
                    0x40.. => (Of::Named, 6, true),
                    0x20.. => (Of::Size, 5, false),
                    _ => (Of::Named, 4, false),
                };
                self.field = Field { enters, ..Field::default() };
                self.number(of, byte, bits)?;
            }
            Reading::Number { of, so_far, shift } => {
                // h2 takes none that is longer.
                let more = u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let so_far = so_far.saturating_add(more);
                if byte & 0x80 == 0 {
                    self.said(of, so_far)?;
                } else {
                    self.reading = Reading::Number { of, so_far, shift: shift.saturating_add(7) };
                }
            }
            Reading::Text => {
                self.field.huffman = byte & 0x80 != 0;
                self.number(Of::Length, byte, 7)?;
            }
            Reading::Bytes(left) => {
                let there = left.min(bytes.len() as u64);
                self.field.take_in(&mut bytes[..there as usize]);
                self.reading = Reading::Bytes(left - there);
                if left == there {
                    self.ended()?;
                }
                return Ok(there as usize);
            }
        }
        Ok(1)
    }

    /// A number begins in the last bits of a byte (RFC 7541, section 5.1).
    fn number(&mut self, of: Of, byte: u8, bits: u32) -> io::Result<()> {
        let most = (1 << bits) - 1;
        let number = u64::from(byte & most);
        if byte & most < most {
            return self.said(of, number);
        }
        self.reading = Reading::Number { of, so_far: number, shift: 0 };
        Ok(())
    }

    fn said(&mut self, of: Of, number: u64) -> io::Result<()> {
        match of {
            Of::Size => self.reading = Reading::Start,
            Of::Indexed => {
                self.reading = Reading::Start;
                return self.met(self.table.name(number));
            }
            Of::Named => {
                self.reading = Reading::Text;
                if number > 0 {
                    let name = self.table.name(number);
                    self.field.name = Some(name);
                    return self.met(name);
                }
            }
            Of::Length if number == 0 => return self.ended(),
            Of::Length => self.reading = Reading::Bytes(number),
        }
        Ok(())
    }

    /// A text is at its end: the name, or the value.
    fn ended(&mut self) -> io::Result<()> {
        if let Some(name) = self.field.name {
            if self.field.enters {
                self.table.enter(name);
            }
            self.reading = Reading::Start;
            return Ok(());
        }
        let name = self.field.said();
        self.field = Field { name: Some(name), enters: self.field.enters, ..Field::default() };
        self.reading = Reading::Text;
        self.met(name)
    }

    fn met(&self, name: Name) -> io::Result<()> {
        if self.trailers && name != Name::Usual {
            return Err(io::Error::other("a pseudo-field in trailers"));
        }
        Ok(())
    }
}

impl Field {
    /// Some of its name, or of its value.
    fn take_in(&mut self, text: &mut [u8]) {
        match self.name {
            None => {
                let room = self.first.iter_mut().skip(self.bytes);
                room.zip(&*text).for_each(|(place, byte)| *place = *byte);
                self.bytes += text.len();
            }
            Some(Name::Path) if self.huffman => text.iter_mut().for_each(|byte| self.decode(byte)),
            Some(Name::Path) => {
                text.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = b'>');
            }
            Some(Name::OtherPseudo | Name::Usual) => {}
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

    /// What its name is, once that is read.
    fn said(&self) -> Name {
        let text = &self.first[..self.bytes.min(self.first.len())];
        let (path, colon) = match self.huffman {
            true => (PATH_IN_HUFFMAN, text.first().is_some_and(|byte| byte >> 1 == 0b101_1100)),
            false => (b":path".as_slice(), text.first() == Some(&b':')),
        };
        match colon {
            true if self.bytes == path.len() && text == path => Name::Path,
            true => Name::OtherPseudo,
            false => Name::Usual,
        }
    }
}

impl Table {
    /// Of the field at a place, those that every connection knows first (RFC 7541, section 2.3.3).
    fn name(&self, place: u64) -> Name {
        let held =
            |names: u128| place >= OWN && (place - OWN) < 128 && names >> (place - OWN) & 1 == 1;
        match place {
            4 | 5 => Name::Path,
            1..=14 => Name::OtherPseudo,
            _ if held(self.path) => Name::Path,
            _ if held(self.other_pseudo) => Name::OtherPseudo,
            _ => Name::Usual,
        }
    }

    fn enter(&mut self, name: Name) {
        self.path = self.path << 1 | u128::from(name == Name::Path);
        self.other_pseudo = self.other_pseudo << 1 | u128::from(name == Name::OtherPseudo);
    }
}

/// Passes over as many bytes as there are, of so many; returns how many that were.
fn pass_over(left: &mut u32, there: usize) -> usize {
    let taken = (*left as usize).min(there);
    *left -= taken as u32;
    taken
}

/// Bytes of what a client's connection begins with (RFC 9113, section 3.4).
const PREFACE: u32 = 24;
/// Bytes before the payload of a frame.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The first place of the connection's own fields. There are 128 at the most, of 32 bytes each in
/// the 4,096 that h2 gives them.
const OWN: u64 = 62;
const PATH_IN_HUFFMAN: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];
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

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::telemetry::chance::seeded;

    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, block)
    }

    /// A field that enters the table, or not; its name a place in the table, or a text.
    fn field(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
        let name = if name.is_empty() { Vec::new() } else { text(name) };
        [&[first], &name[..], &text(value)].concat()
    }

    fn huffman(symbols: &[(u32, u32)]) -> Vec<u8> {
        let bits: String = symbols
            .iter()
            .map(|(code, bits)| format!("{code:0width$b}", width = *bits as usize))
            .collect();
        let padded = format!("{bits:1<width$}", width = bits.len().next_multiple_of(8));
        let byte = |at: usize| u8::from_str_radix(&padded[at..at + 8], 2).unwrap();
        (0..padded.len()).step_by(8).map(byte).collect()
    }

    /// What becomes of these frames, be they read at once or byte by byte.
    fn seen(frames: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
        let sent = [&[b'#'; PREFACE as usize], &frames.concat()[..]].concat();
        let (mut whole, mut pieces) = (sent.clone(), sent);
        let at_once = FieldBlocks::new().take_in(&mut whole).map_err(|error| error.to_string());
        let mut blocks = FieldBlocks::new();
        let bytewise: io::Result<()> =
            pieces.chunks_mut(1).try_for_each(|piece| blocks.take_in(piece));
        assert_eq!(at_once, bytewise.map_err(|error| error.to_string()));
        at_once?;
        assert_eq!(whole, pieces);
        assert_eq!(whole[..PREFACE as usize], [b'#'; PREFACE as usize]);
        let mut rest = &whole[PREFACE as usize..];
        let cut = |frame: &Vec<u8>| rest.split_off(..frame.len()).unwrap().to_vec();
        Ok(frames.iter().map(cut).collect())
    }

    #[test]
    fn a_fragment_becomes_what_no_path_may_hold_and_nothing_else_is_touched() {
        let get = [0x82, 0x86];
        let named = |first: u8, name: &[u8], value: &[u8]| {
            [&get[..], &field(first, name, value), &field(0, b"x-y", b"#:path")].concat()
        };
        let data = frame(0, END_STREAM, 1, b"#\x04\x02/#");
        for (first, name) in
            [(0x04, &b""[..]), (0x44, b""), (0x15, b""), (0, b":path"), (0x40, b":path")]
        {
            let asked = |path: &[u8]| headers(1, &named(first, name, path));
            let frames = [asked(b"/a?b#c#"), data.clone()];
            assert_eq!(seen(&frames).unwrap(), [asked(b"/a?b>c>"), data.clone()], "{first:#x}");
            let frames = [asked(b"/a?b"), data.clone()];
            assert_eq!(seen(&frames).unwrap(), frames);
        }
        let frames = [headers(
            1,
            &[&get[..], &field(0, b":pat", b"#"), &field(0, b":paths", b"#")].concat(),
        )];
        assert_eq!(seen(&frames).unwrap(), frames);
    }

    #[test]
    fn a_fragment_in_the_huffman_code_is_found() {
        // `/x`, a symbol of every length, then the one in question, twice.
        let lengths: [(u32, u32); 6] = [
            (0x3, 5),
            (0x7fa, 11),
            (0x7fff0, 19),
            (0xfffe6, 20),
            (0x3ff_ffe0, 26),
            (0xfff_fffe, 28),
        ];
        let path = |asked: (u32, u32)| {
            let text = huffman(
                &[&[(0x18, 6), (0x79, 7)], &lengths[..], &[asked, (0x7a, 7), asked]].concat(),
            );
            let length = 0x80 | u8::try_from(text.len()).unwrap();
            headers(1, &[&[0x82, 0x86, 0x44, length], &text[..]].concat())
        };
        assert_eq!(seen(&[path((0xffa, 12))]).unwrap(), [path((0xffb, 12))]);
        for other in [(0xffb, 12), (0x3f8, 10), (0x1ff8, 13), (0x7ffc, 15), (0x1f, 6)] {
            assert_eq!(seen(&[path(other)]).unwrap(), [path(other)]);
        }
        let name = [0x82, 0x86, 0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x02];
        let named = |path: &[u8]| headers(1, &[&name[..], path].concat());
        assert_eq!(seen(&[named(b"/#")]).unwrap(), [named(b"/>")]);
    }

    #[test]
    fn the_table_of_the_connection_is_followed() {
        // A field whose name stands at a place, in two bytes behind the four bits of the first.
        let at = |place: u8, value: &[u8]| {
            let (low, high) = ((place - 15) % 128, (place - 15) / 128);
            let text = field(0, b"", value);
            [&[0x0f, 0x80 | low, high], &text[1..]].concat()
        };
        let first =
            [field(0x40, b":path", b"/"), field(0x40, b"x", b"1"), vec![0xbf, 0xbe]].concat();
        let asked = |path: &[u8]| headers(3, &at(63, path));
        assert_eq!(seen(&[headers(1, &first), asked(b"/#")]).unwrap()[1], asked(b"/>"));
        // After as many as there may be it is found at the last place, and at no other.
        let more = headers(3, &field(0x40, b"y", b"2").repeat(126));
        for (place, read) in [(188, b"#"), (189, b">"), (190, b"#")] {
            let frames = [headers(1, &first), more.clone(), headers(5, &at(place, b"#"))];
            assert_eq!(seen(&frames).unwrap()[2], headers(5, &at(place, read)), "{place}");
        }
    }

    #[test]
    fn a_pseudo_field_in_trailers_is_refused_however_it_is_said() {
        let begun = headers(
            1,
            &[&[0x82, 0x86, 0x84][..], &field(0x40, b":own", b"1"), &field(0x40, b"x", b"1")]
                .concat(),
        );
        let ended = |block: &[u8]| {
            let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
            seen(&[begun.clone(), frame(0, 0, 1, b"body"), trailers]).map(|_| ())
        };
        let refused = Err("a pseudo-field in trailers".to_string());
        let after = |block: &[u8]| [&field(0, b"x-sum", b"1"), block].concat();
        for block in [
            &[0x84][..],
            &[0x8e],
            &[0xbf],
            &field(0x04, b"", b"/"),
            &field(0x41, b"", b"a"),
            &field(0x00, b":path", b"/"),
            &field(0x10, b":", b""),
            &field(0x40, b":odd", b"1"),
            &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x00],
            &[0x0f, 63 - 15, 0x00],
        ] {
            assert_eq!(ended(block), refused, "{block:x?}");
            assert_eq!(ended(&after(block)), refused, "{block:x?}");
        }
        for block in
            [&[][..], &[0xbe], &[0x8f], &field(0x40, b"x-path", b":path"), &[0x3f, 0x21, 0xbe]]
        {
            assert_eq!(ended(block), Ok(()), "{block:x?}");
            assert_eq!(ended(&after(block)), Ok(()), "{block:x?}");
        }
    }

    #[test]
    fn padding_priorities_and_blocks_in_many_frames_are_passed_over() {
        let block = |path: &[u8]| [&[0x82, 0x86][..], &field(0x04, b"", path)].concat();
        let frames = |path: &[u8]| {
            let whole = block(path);
            let padded = [&[3], &b"#####"[..], &whole[..2], b"###"].concat();
            let parts = whole[2..].chunks(1).map(|part| frame(CONTINUATION, 0, 1, part));
            let settings = frame(4, 0, 0, b"\0\x04#\x04\x02#");
            let again = headers(3, &whole);
            let first = frame(HEADERS, PADDED | PRIORITY, 1, &padded);
            [vec![settings, first], parts.collect(), vec![again]].concat()
        };
        assert_eq!(seen(&frames(b"/#a")).unwrap(), frames(b"/>a"));
    }

    #[test]
    fn what_makes_no_sense_is_passed_on_as_it_is() {
        let long = [
            0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            b'#',
        ];
        for frames in [
            vec![headers(1, &long), headers(3, &[0xff; 40])],
            vec![frame(HEADERS, PADDED, 1, &[200, 1]), frame(HEADERS, PADDED | PRIORITY, 3, &[])],
            vec![frame(CONTINUATION, 0, 9, b"#"), frame(0xff, 0xff, u32::MAX, b"#")],
        ] {
            assert_eq!(seen(&frames).unwrap(), frames);
        }
    }

    /// Again with one seed: `SEED=... cargo test whatever_comes`.
    #[test]
    fn whatever_comes_only_marks_of_fragments_change() {
        let mut rng = seeded();
        let likely = b"#/:\x82\x84\x44\x04\x40\x00\xff\x8f\x3f\x0f\x01\x85\xbe";
        let mut changed = 0;
        for _ in 0..5_000 {
            let mut sent = vec![0; PREFACE as usize];
            for _ in 0..rng.random_range(1..5) {
                let byte = |rng: &mut SmallRng| match rng.random() {
                    true => likely[rng.random_range(0..likely.len())],
                    false => rng.random(),
                };
                let payload: Vec<u8> =
                    (0..rng.random_range(0..60)).map(|_| byte(&mut rng)).collect();
                let kind = [HEADERS, HEADERS, CONTINUATION, 0][rng.random_range(0..4)];
                let stream = rng.random_range(1..4) * 2 + 1;
                sent.extend(frame(kind, rng.random(), stream, &payload));
            }
            let mut read = sent.clone();
            let mut blocks = FieldBlocks::new();
            let mut rest = &mut read[..];
            while !rest.is_empty() {
                let some = rng.random_range(1..=rest.len().min(40));
                let (piece, more) = rest.split_at_mut(some);
                if blocks.take_in(piece).is_err() {
                    break;
                }
                rest = more;
            }
            for (before, after) in sent.iter().zip(&read).filter(|(before, after)| before != after)
            {
                let bits = before ^ after;
                assert!((*before, *after) == (b'#', b'>') || bits & before == 0);
                changed += 1;
            }
        }
        assert!(changed > 0);
    }
}
