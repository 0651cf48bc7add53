//! Wall time as text, RFC 3339 in UTC to the millisecond: what stands before the milliseconds is
//! made once a second, and the wall clock is asked as seldom.

use std::time::Duration;

use super::json_text::{digit, three_digits};
use crate::model::moment::{Moment, WallTime};

/// A time.
pub(crate) type Text = [u8; SECOND + 4];

/// The times of one thread.
pub(crate) struct Timestamps {
    /// When the second began that is written out.
    began: Moment,
    /// The time that was asked for last.
    text: Text,
}

impl Timestamps {
    /// With a second that no moment of a process lies in.
    pub(crate) fn new() -> Timestamps {
        Timestamps { began: Moment::from_nanos(u64::MAX), text: *b"2000-01-01T00:00:00.000Z" }
    }

    /// The time of a moment, which `wall` says of it. A wall clock that is set is followed with the
    /// next second.
    pub(crate) fn text(&mut self, at: Moment, wall: impl FnOnce() -> WallTime) -> Text {
        let mut nanos = at.as_nanos().wrapping_sub(self.began.as_nanos());
        if at < self.began || nanos >= 1_000_000_000 {
            let wall = wall();
            nanos = wall.0 % 1_000 * 1_000_000;
            self.began = at - Duration::from_nanos(nanos);
            self.text[..SECOND].copy_from_slice(&second(wall));
        }
        self.text[SECOND..SECOND + 3].copy_from_slice(&three_digits(nanos / 1_000_000));
        self.text
    }
}

/// The second of a wall time, up to the point behind it.
fn second(at: WallTime) -> [u8; SECOND] {
    let seconds = at.0 / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day ends its year (Howard Hinnant's civil_from_days).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let mut text = *b"0000-00-00T00:00:00.";
    for (number, last, digits) in [
        (era * 400 + year + next, 3, 4),
        (month, 6, 2),
        (date, 9, 2),
        (second / 3_600, 12, 2),
        (second / 60 % 60, 15, 2),
        (second % 60, 18, 2),
    ] {
        (0..digits).fold(number, |number, at| {
            text[last - at] = digit(number % 10);
            number / 10
        });
    }
    text
}

/// Bytes up to the milliseconds.
const SECOND: usize = "2000-01-01T00:00:00.".len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00."),
            (951_782_399_999, "2000-02-28T23:59:59."),
            (951_782_400_000, "2000-02-29T00:00:00."),
            (1_709_164_800_000, "2024-02-29T00:00:00."),
            (1_735_689_599_001, "2024-12-31T23:59:59."),
            (4_107_542_400_000, "2100-03-01T00:00:00."),
        ] {
            assert_eq!(second(WallTime(millis)), *text.as_bytes());
        }
    }

    fn text(times: &mut Timestamps, at: Moment, wall: u64) -> (String, bool) {
        let mut asked = false;
        let wall = || {
            asked = true;
            WallTime(wall)
        };
        let text = times.text(at, wall);
        (str::from_utf8(&text).unwrap().to_string(), asked)
    }

    fn expected(wall: u64) -> String {
        let second = second(WallTime(wall));
        format!("{}{:03}Z", str::from_utf8(&second).unwrap(), wall % 1_000)
    }

    #[test]
    fn the_clock_is_asked_once_a_second_and_every_time_is_right() {
        let mut times = Timestamps::new();
        let (start, mut asked) = (Moment::from_nanos(1_000_000_123), 0);
        for passed in (0..10_000).step_by(7) {
            let (wall, at) = (1_735_689_595_432 + passed, start + Duration::from_millis(passed));
            let (text, looked) = text(&mut times, at, wall);
            assert_eq!(text, expected(wall));
            asked += u32::from(looked);
        }
        assert_eq!(asked, 11);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_within_a_second() {
        let mut times = Timestamps::new();
        let start = Moment::from_nanos(5_000_000_000);
        assert_eq!(text(&mut times, start, 7_000_900), (expected(7_000_900), true));
        let later = start + Duration::from_millis(99);
        assert_eq!(text(&mut times, later, 3_000_999), (expected(7_000_999), false));
        let later = start + Duration::from_millis(100);
        assert_eq!(text(&mut times, later, 3_001_000), (expected(3_001_000), true));
        let before = later - Duration::from_millis(1);
        assert_eq!(text(&mut times, before, 3_000_999), (expected(3_000_999), true));
    }
}
