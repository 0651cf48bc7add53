//! How a node sees its stream from the orchestrator: live, lagging or lost; and when to try again.
//!
//! Decides only; opening and closing is the mind's and the shell's business. Invariant: at most
//! one stream is open or being opened.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::model::follow::FeedState;
use crate::model::moment::Moment;

use super::port::Ticket;

/// The stream and what is thought of it.
pub(super) struct Feed {
    pub(super) state: FeedState,
    stream: Option<Stream>,
    orchestrators: usize,
    next: usize,
    reopen_at: Moment,
    wait: Duration,
    pace: (Duration, Duration),
    /// Lag must have been over for this long before the stream counts as live again.
    calm_since: Option<Moment>,
}

struct Stream {
    ticket: Ticket,
    asked: Moment,
    open: bool,
    last_beacon: Moment,
    interval: Duration,
}

impl Feed {
    pub(super) fn new(orchestrators: usize, pace: (Duration, Duration), now: Moment) -> Feed {
        Feed {
            state: FeedState::Lost,
            stream: None,
            orchestrators,
            next: 0,
            reopen_at: now,
            wait: pace.0,
            pace,
            calm_since: None,
        }
    }

    /// Which orchestrator to open a stream to now, if it is time.
    pub(super) fn wants_stream(&self, now: Moment) -> Option<usize> {
        let due = self.stream.is_none() && self.orchestrators > 0 && now >= self.reopen_at;
        due.then(|| self.next % self.orchestrators)
    }

    pub(super) fn opening(&mut self, ticket: Ticket, now: Moment) {
        self.next = self.next.wrapping_add(1);
        let interval = BEACON;
        self.stream = Some(Stream { ticket, asked: now, open: false, last_beacon: now, interval });
    }

    pub(super) fn opened(&mut self, ticket: Ticket, interval: Duration, now: Moment) -> bool {
        match &mut self.stream {
            Some(stream) if stream.ticket == ticket => {
                stream.open = true;
                stream.last_beacon = now;
                stream.interval = interval.clamp(SHORTEST_BEACON, LONGEST_BEACON);
                // Stay with the orchestrator that answered.
                self.next = self.next.wrapping_sub(1);
                true
            }
            _ => false,
        }
    }

    /// The stream is gone; decorrelated jitter decides when to try again.
    pub(super) fn closed(&mut self, ticket: Ticket, now: Moment, rng: &mut ChaCha8Rng) -> bool {
        if !self.is_stream(ticket) {
            return false;
        }
        let was_open = self.stream.take().is_some_and(|stream| stream.open);
        if was_open {
            self.next = self.next.wrapping_add(1);
            self.wait = self.pace.0;
        }
        let (least, most) = self.pace;
        let upto = (self.wait * 3).min(most).max(least);
        self.wait = least + (upto - least).mul_f64(rng.random_range(0.0..1.0));
        self.reopen_at = now + self.wait;
        true
    }

    pub(super) fn is_stream(&self, ticket: Ticket) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ticket == ticket)
    }

    /// The stream that is open, or being opened.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.stream.as_ref().map(|stream| stream.ticket)
    }

    pub(super) fn open_ticket(&self) -> Option<Ticket> {
        self.stream.as_ref().filter(|stream| stream.open).map(|stream| stream.ticket)
    }

    pub(super) fn beacon(&mut self, now: Moment) {
        if let Some(stream) = &mut self.stream {
            stream.last_beacon = now;
            self.wait = self.pace.0;
        }
    }

    /// The stream that has been silent, or unanswered, for so long that a new one is due.
    pub(super) fn given_up(&self, now: Moment) -> Option<Ticket> {
        let stream = self.stream.as_ref()?;
        let limit = if stream.open { stream.interval * 6 } else { OPEN_DEADLINE };
        let since = if stream.open { stream.last_beacon } else { stream.asked };
        (now.since(since) >= limit).then_some(stream.ticket)
    }

    /// Judges anew; returns the state when it changed.
    pub(super) fn judge(
        &mut self,
        now: Moment,
        behind_since: Option<Moment>,
        allowance: Duration,
    ) -> Option<FeedState> {
        let silent = match &self.stream {
            Some(stream) if stream.open => now.since(stream.last_beacon) >= stream.interval * 3,
            _ => true,
        };
        let lagging = behind_since.is_some_and(|since| now.since(since) >= allowance);
        let calm = !silent && !lagging && behind_since.is_none();
        self.calm_since = if calm { self.calm_since.or(Some(now)) } else { None };
        let state = if silent {
            FeedState::Lost
        } else if lagging {
            FeedState::Lagging
        } else if self.state == FeedState::Live || self.settled(now) {
            FeedState::Live
        } else {
            self.state
        };
        let changed = state != self.state;
        self.state = state;
        changed.then_some(state)
    }

    fn settled(&self, now: Moment) -> bool {
        let patience = if self.state == FeedState::Lagging { HYSTERESIS } else { Duration::ZERO };
        self.calm_since.is_some_and(|since| now.since(since) >= patience)
    }

    /// When `judge`, `given_up` or `wants_stream` may next say something new.
    pub(super) fn deadline(
        &self,
        behind_since: Option<Moment>,
        allowance: Duration,
    ) -> Option<Moment> {
        let mut next = match &self.stream {
            None if self.orchestrators > 0 => Some(self.reopen_at),
            None => None,
            Some(stream) if !stream.open => Some(stream.asked + OPEN_DEADLINE),
            Some(stream) if self.state == FeedState::Lost => {
                Some(stream.last_beacon + stream.interval * 6)
            }
            Some(stream) => Some(stream.last_beacon + stream.interval * 3),
        };
        let mut sooner = |at: Moment| next = Some(next.map_or(at, |held| held.min(at)));
        if let (Some(since), FeedState::Live) = (behind_since, self.state) {
            sooner(since + allowance);
        }
        if let (Some(since), FeedState::Lagging) = (self.calm_since, self.state) {
            sooner(since + HYSTERESIS);
        }
        next
    }
}

/// The usual time between beacons, until the orchestrator says otherwise.
const BEACON: Duration = Duration::from_secs(1);
/// An orchestrator cannot make a node judge faster than this.
const SHORTEST_BEACON: Duration = Duration::from_millis(50);
/// Nor make it wait longer than this.
const LONGEST_BEACON: Duration = Duration::from_secs(10);
/// A stream that is not open after this long is given up.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// A stream that lagged must keep up for this long to count as live.
const HYSTERESIS: Duration = Duration::from_millis(200);
