//! The one place where monotonic time is read.
//!
//! Everything below the shells takes `Moment` as an argument; shells take it from here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::moment::{Moment, WallTime};

/// A monotonic clock of this process, and the wall clock beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now, a second after `Moment::START`: zero can mean "never".
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The moment that it is.
    pub(crate) fn now(&self) -> Moment {
        Moment::START + FIRST + self.start.elapsed()
    }

    /// The moment of an instant that was read elsewhere.
    pub(crate) fn at(&self, instant: Instant) -> Moment {
        Moment::START + FIRST + instant.saturating_duration_since(self.start)
    }

    /// The instant of a moment, for timers.
    pub(crate) fn instant(&self, at: Moment) -> Instant {
        self.start + at.since(Moment::START + FIRST)
    }

    /// The wall time of a moment that was just now.
    pub(crate) fn wall_at(&self, at: Moment) -> WallTime {
        let ago = u64::try_from(self.now().since(at).as_millis()).unwrap_or(u64::MAX);
        WallTime(self.wall().0.saturating_sub(ago))
    }

    /// The wall clock, for people.
    pub(crate) fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The first moment that is ever read.
const FIRST: Duration = Duration::from_secs(1);
