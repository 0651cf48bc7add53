//! Durations, sizes and percentages as people write them, and back.
//!
//! Not units of the engine: past `wire` these are `Duration`, bytes and ratios. Invariant: what
//! `show_*` prints, the matching `parse_*` reads back to the same value, and equal values print
//! equally (that makes canonical rule bytes possible).

use std::time::Duration;

use crate::wire::rule_problems::{Flaw, quoted};

/// Reads a GEP-2257 duration: one to four numbers of at most five digits, each with its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Flaw> {
    let wrong = || {
        Flaw::new(format!("{} is not a duration", quoted(text)))
            .hint("write it such as 250ms, 5s or 1m30s")
    };
    let mut rest = text;
    let mut millis = 0u64;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: u64 = match digits {
            1..=5 => rest[..digits].parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        rest = &rest[digits..];
        let (unit, factor) = DURATION_UNITS
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
        millis += amount * factor;
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
    Err(wrong())
}

/// Prints a duration in the largest units first: `1m30s`, `250ms`, `0s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= factor {
            shown.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    if shown.is_empty() { String::from("0s") } else { shown }
}

/// Reads a size in bytes: `64KiB`, `1GiB`, `512B`.
pub(crate) fn parse_size(text: &str) -> Result<u64, Flaw> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let shift = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, shift)| shift);
    match (amount.parse::<u64>(), shift) {
        (Ok(amount), Some(shift)) => amount
            .checked_mul(1 << shift)
            .ok_or_else(|| Flaw::new(format!("{} is more than a size can be", quoted(text)))),
        _ => {
            Err(Flaw::new(format!("{} is not a size", quoted(text))).hint(size_hint(amount, unit)))
        }
    }
}

/// Prints a size in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let fits = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    let (unit, shift) = SIZE_UNITS.into_iter().find(|(_, shift)| fits(*shift)).unwrap_or(("B", 0));
    format!("{}{unit}", bytes >> shift)
}

/// A share between nothing and all, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(u32);

impl Percent {
    /// Reads `20%` or `12.5%`, at most two decimals.
    pub(crate) fn parse(text: &str) -> Result<Percent, Flaw> {
        let wrong = || {
            Flaw::new(format!("{} is not a percentage from 0% to 100%", quoted(text)))
                .hint("write it such as 20%")
        };
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let plain = |digits: &str, most: usize| {
            (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        };
        if !plain(whole, 3) || !plain(part, 2) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let scale = if part.len() == 1 { 10 } else { 1 };
        let part: u32 = part.parse().map_err(|_| wrong())?;
        let hundredths = whole * 100 + part * scale;
        if hundredths > 10_000 { Err(wrong()) } else { Ok(Percent(hundredths)) }
    }

    /// From 0.0 to 1.0.
    pub(crate) fn ratio(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Prints it without needless decimals.
    pub(crate) fn show(self) -> String {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match (part, part % 10) {
            (0, _) => format!("{whole}%"),
            (_, 0) => format!("{whole}.{}%", part / 10),
            _ => format!("{whole}.{part:02}%"),
        }
    }
}

fn size_hint(amount: &str, unit: &str) -> String {
    let wanted = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => Some("KiB"),
        "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        "t" | "tb" | "ti" | "tib" => Some("TiB"),
        "" | "b" => Some("B"),
        _ => None,
    };
    match wanted {
        Some(unit) if !amount.is_empty() => format!("did you mean \"{amount}{unit}\"?"),
        _ => String::from("write it such as 64KiB or 1GiB"),
    }
}

// "ms" stands before "m", which it begins with.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
const SIZE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        for (text, millis, shown) in [
            ("5m", 300_000, "5m"),
            ("1m30s", 90_000, "1m30s"),
            ("250ms", 250, "250ms"),
            ("90s", 90_000, "1m30s"),
            ("0s", 0, "0s"),
            ("1h0m5s7ms", 3_605_007, "1h5s7ms"),
            ("30s1h", 3_630_000, "1h30s"),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(show_duration(read), shown);
        }
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "1d", "100000s", "1s1s1s1s1s", "5S", "5us"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes, shown) in
            [("64KiB", 65_536, "64KiB"), ("1024MiB", 1 << 30, "1GiB"), ("1000B", 1000, "1000B")]
        {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
            assert_eq!(show_size(bytes), shown);
        }
        assert_eq!(show_size(0), "0B");
        for bad in ["", "64", "KiB", "1.5GiB", "-1B", "99999999TiB", "64 KiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("64k").unwrap_err().hint.unwrap(), "did you mean \"64KiB\"?");
    }

    #[test]
    fn percentages_stay_within_the_whole() {
        for (text, ratio, shown) in [
            ("20%", 0.2, "20%"),
            ("0%", 0.0, "0%"),
            ("100%", 1.0, "100%"),
            ("12.5%", 0.125, "12.5%"),
            ("020.50%", 0.205, "20.5%"),
            ("0.05%", 0.0005, "0.05%"),
        ] {
            let read = Percent::parse(text).unwrap();
            assert!((read.ratio() - ratio).abs() < 1e-9, "{text}");
            assert_eq!(read.show(), shown);
        }
        for bad in ["", "20", "%", "101%", "100.01%", "-1%", "1.234%", "1.%", ".5%", "1e1%"] {
            assert!(Percent::parse(bad).is_err(), "{bad}");
        }
    }
}
