//! JSON written by hand, for text that is made once a request: what stands inside quotes, and
//! numbers.
//!
//! Writes what serde_json writes, with fewer steps: most text has nothing to escape, and that is
//! seen eight bytes at a time.

use std::time::Duration;

/// A text, for between two quotes.
#[inline]
pub(crate) fn text(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        escape(text, out);
    }
}

/// The same for what may be anything; nothing where it is not visible ASCII.
#[inline]
pub(crate) fn visible(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else if bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        // One byte a character.
        escape(str::from_utf8(bytes).unwrap_or_default(), out);
    }
}

/// A whole number.
#[inline]
pub(crate) fn number(all: u64, out: &mut Vec<u8>) {
    match all {
        0..10 => out.push(digit(all)),
        10..100 => out.extend_from_slice(&[digit(all / 10), digit(all % 10)]),
        100..1_000 => out.extend_from_slice(&three_digits(all)),
        1_000..10_000 => {
            let [hundreds, tens, ones] = three_digits(all % 1_000);
            out.extend_from_slice(&[digit(all / 1_000), hundreds, tens, ones]);
        }
        _ => in_groups(all, out),
    }
}

fn in_groups(all: u64, out: &mut Vec<u8>) {
    number(all / 1_000, out);
    out.extend_from_slice(&three_digits(all % 1_000));
}

/// A time in milliseconds, to the nearest thousandth of one.
pub(crate) fn millis(time: Duration, out: &mut Vec<u8>) {
    let nearest = u64::from((time.subsec_nanos() + 500) / 1_000);
    let [hundreds, tens, ones] = three_digits(nearest % 1_000);
    if time.as_secs() == 0 && nearest < 10_000 {
        out.extend_from_slice(&[digit(nearest / 1_000), b'.', hundreds, tens, ones]);
    } else {
        number(time.as_secs().saturating_mul(1_000).saturating_add(nearest / 1_000), out);
        out.extend_from_slice(&[b'.', hundreds, tens, ones]);
    }
}

/// A number below a thousand, in three digits.
#[inline]
pub(crate) fn three_digits(number: u64) -> [u8; 3] {
    let rest = number % 100;
    [digit(number / 100), digit(rest / 10), digit(rest % 10)]
}

/// A number below ten.
#[inline]
pub(crate) fn digit(number: u64) -> u8 {
    b'0' + number as u8
}

/// Whether all of it is visible ASCII, or a space, and means itself between quotes.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    match bytes.last_chunk() {
        // The last eight, some of them for the second time, are less work than fewer one by one.
        Some(last) => is_plain_word(last) && bytes.as_chunks().0.iter().all(is_plain_word),
        None => {
            bytes.iter().all(|byte| (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\\'))
        }
    }
}

/// The same for eight bytes at once: the highest bit of a byte says that it is not plain. A carry
/// or a borrow only comes from a byte that says so already.
fn is_plain_word(word: &[u8; 8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let word = u64::from_le_bytes(*word);
    let each = |byte: u8| ONES * u64::from(byte);
    let quote = (word ^ each(b'"')).wrapping_sub(ONES);
    let backslash = (word ^ each(b'\\')).wrapping_sub(ONES);
    let above = word | word.wrapping_add(ONES);
    let below = word.wrapping_sub(each(b' '));
    (above | below | quote | backslash) & each(0x80) == 0
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => {
                let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]);
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
}
#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rand::RngExt;

    use super::*;
    use crate::telemetry::chance::seeded;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn quoted(part: &str) -> String {
        format!("\"{}\"", written(|out| text(part, out)))
    }

    #[test]
    fn every_character_is_written_as_serde_json_does_wherever_it_stands() {
        for code in (0..0x300).chain([0x2028, 0xfeff, 0xffff, 0x1f4a9]) {
            let Some(character) = char::from_u32(code) else { continue };
            for before in 0..17 {
                let text = format!("{}{character}/x", "a".repeat(before));
                assert_eq!(quoted(&text), serde_json::to_string(&text).unwrap(), "{code:#x}");
            }
        }
    }

    /// Again with one seed: `SEED=... cargo test texts_of_all_kinds`.
    #[test]
    fn texts_of_all_kinds_are_written_as_serde_json_does() {
        let mut rng = seeded();
        for _ in 0..20_000 {
            let most = if rng.random() { 0x100 } else { 0x80 };
            let length = rng.random_range(0..40);
            let text: String =
                (0..length).map(|_| char::from(rng.random_range(0..most) as u8)).collect();
            assert_eq!(quoted(&text), serde_json::to_string(&text).unwrap());
            let bytes: Vec<u8> = (0..length).map(|_| rng.random_range(0x20..most) as u8).collect();
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            let said = serde_json::to_string(value.to_str().unwrap_or_default()).unwrap();
            assert_eq!(format!("\"{}\"", written(|out| visible(&bytes, out))), said);
        }
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        for value in (0..20_000).chain([123_456, 7_000_008, u64::MAX]) {
            let shown = value.to_string();
            assert_eq!(written(|out| number(value, out)), shown);
        }
        for (nanos, shown) in [
            (0, "0.000"),
            (499, "0.000"),
            (500, "0.001"),
            (4_312_000, "4.312"),
            (9_999_500, "10.000"),
            (10_045_000, "10.045"),
            (999_999_499, "999.999"),
            (999_999_500, "1000.000"),
            (61_000_050_000, "61000.050"),
        ] {
            assert_eq!(written(|out| millis(Duration::from_nanos(nanos), out)), shown);
        }
        written(|out| millis(Duration::MAX, out)).parse::<f64>().unwrap();
    }
}
