//! The streams of a connection to a target, as the frames of both sides tell of them.
//!
//! Two things are known nowhere else: which of a target's field blocks are trailers, and that the
//! end of a request whose answer is whole has not gone out, be it that h2 holds it or that the
//! client has not sent it.

use tokio::time::Instant;

/// The streams that have begun and not ended on both sides.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Streams {
    open: Vec<Open>,
    newest: u32,
    /// How many of them wait for nothing but the end of the request.
    owed: usize,
}

#[derive(Debug)]
struct Open {
    stream: u32,
    /// Whether the last frame of the request goes out.
    sent: bool,
    /// Whether the final head of the answer was there.
    answered: bool,
    /// When the last frame of the answer came.
    ended: Option<Instant>,
}

impl Streams {
    /// The head of a request, or its trailers, went out.
    pub(in crate::proxy) fn asked(&mut self, stream: u32) {
        // Trailers, it may be of a request that was given up, begin none.
        if stream > self.newest {
            self.newest = stream;
            self.open.push(Open { stream, sent: false, answered: false, ended: None });
        }
    }

    /// The end of a request went out.
    pub(in crate::proxy) fn sent(&mut self, stream: u32) {
        self.turn(stream, |open| open.sent = true);
    }

    /// A final head came.
    pub(in crate::proxy) fn answered(&mut self, stream: u32) {
        self.turn(stream, |open| open.answered = true);
    }

    /// The end of an answer came.
    pub(in crate::proxy) fn ended(&mut self, stream: u32) {
        self.turn(stream, |open| open.ended = Some(Instant::now()));
    }

    /// Either side has given up.
    pub(in crate::proxy) fn reset(&mut self, stream: u32) {
        self.turn(stream, |open| (open.sent, open.ended) = (true, Some(Instant::now())));
    }

    /// Whether a request went out there.
    pub(in crate::proxy) fn has_asked(&self, stream: u32) -> bool {
        stream <= self.newest && !stream.is_multiple_of(2)
    }

    /// Whether a final head came before.
    pub(in crate::proxy) fn has_answer(&self, stream: u32) -> bool {
        self.at(stream).is_some_and(|at| self.open[at].answered)
    }

    /// Since when the end of a request is held up whose answer is whole.
    pub(in crate::proxy) fn owed_since(&self) -> Option<Instant> {
        if self.owed == 0 {
            return None;
        }
        self.open.iter().filter(|open| open.is_owed()).filter_map(|open| open.ended).min()
    }

    /// Whether there is none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn turn(&mut self, stream: u32, turn: impl FnOnce(&mut Open)) {
        let Some(at) = self.at(stream) else { return };
        let open = &mut self.open[at];
        self.owed -= usize::from(open.is_owed());
        turn(open);
        self.owed += usize::from(open.is_owed());
        if open.sent && open.ended.is_some() {
            self.open.swap_remove(at);
        }
    }

    fn at(&self, stream: u32) -> Option<usize> {
        self.open.iter().position(|open| open.stream == stream)
    }
}

impl Open {
    fn is_owed(&self) -> bool {
        !self.sent && self.ended.is_some()
    }
}
