//! Whether a failed attempt is made again: the rule's wish, the request's leave, the budget's word.
//!
//! A request may be repeated when nothing of it was sent, when an HTTP/2 target says that it has
//! not looked at it, or when it has no body and its method is idempotent (RFC 9110, section 9.2.2).
//! Bodies are never gathered, so what was sent of one is gone. Another target is tried at once, the
//! same one only where there is no other, and after a pause.

use std::future::poll_fn;
use std::time::Duration;

use http::{Method, StatusCode};
use rand::{Rng, RngExt};

use super::attempt::{Answered, Missed};
use super::running::{Running, RunningRoute};
use crate::model::moment::Moment;
use crate::model::rule::RetryOn;

/// What is left of a request's repeats.
pub(super) struct Repeats<'r> {
    pub(super) route: &'r RunningRoute,
    /// Attempts still to be made.
    left: u32,
    /// Where it was sent already, each target once.
    tried: Vec<usize>,
    bodiless: bool,
    /// Sending it twice asks for the same as sending it once.
    idempotent: bool,
}

impl<'r> Repeats<'r> {
    /// The first attempt is about to be made.
    pub(super) fn begin(
        route: &'r RunningRoute,
        method: &Method,
        bodiless: bool,
        now: Moment,
    ) -> Repeats<'r> {
        let Running { terms, lasting, .. } = &route.payload;
        let left = terms.retry.attempts.saturating_sub(1);
        if left > 0 {
            lasting.budget.earn(&terms.retry.budget, now);
        }
        let idempotent = is_idempotent(method);
        Repeats { route, left, tried: Vec::new(), bodiless, idempotent }
    }

    /// Whether an answer with this status is one to be asked for again.
    pub(super) fn want_better(&self, status: StatusCode) -> bool {
        self.left > 0 && self.bodiless && self.idempotent && self.names(status)
    }

    /// Whether this failure is one to be answered by another attempt. A status that the rule names
    /// stands for the failures, too, that this proxy would answer with it.
    pub(super) fn want_another(&self, missed: &Missed) -> bool {
        let on = &self.route.payload.terms.retry.on;
        let status = missed.failure.status();
        let unsent = missed.body.is_some() && on.contains(&RetryOn::ConnectFailure);
        let unseen = missed.unseen && self.bodiless && on.contains(&RetryOn::RefusedStream);
        let again = self.bodiless && self.idempotent && status.is_server_error();
        self.left > 0 && (unsent || unseen || (again && self.names(status)))
    }

    /// Takes one repeat, if the rule's other requests left any.
    pub(super) fn spend(&mut self, now: Moment) -> bool {
        let terms = &self.route.payload.terms.retry.budget;
        let granted = self.left > 0 && self.route.payload.lasting.budget.spend(terms, now);
        self.left = if granted { self.left - 1 } else { 0 };
        granted
    }

    /// It is sent there now.
    pub(super) fn tries(&mut self, target: usize) {
        if !self.tried.contains(&target) {
            self.tried.push(target);
        }
    }

    /// Where it was sent already.
    pub(super) fn tried(&self) -> &[usize] {
        &self.tried
    }

    /// How long to wait before it is sent there. One that has just failed is left alone up to twice
    /// as long each time, and by chance, so that those who failed together do not come back
    /// together; another one can have it at once.
    pub(super) fn pause(&self, target: usize, rng: &mut impl Rng) -> Duration {
        if !self.tried.contains(&target) {
            return Duration::ZERO;
        }
        let doublings = self.route.payload.terms.retry.attempts.saturating_sub(self.left + 1);
        let longest = FIRST_PAUSE.saturating_mul(1 << doublings.min(8)).min(LONGEST_PAUSE);
        longest.mul_f64(rng.random_range(0.0..1.0))
    }

    fn names(&self, status: StatusCode) -> bool {
        self.route.payload.terms.retry.on.contains(&RetryOn::Status(status.as_u16()))
    }
}

/// Takes in an answer that nobody wants, if it is short, so that its connection can be used again.
pub(super) fn discard(answered: Answered) {
    let mut lease = answered.lease;
    tokio::task::spawn_local(async move {
        let mut room = DISCARDED;
        let end = async {
            while let Some(frame) = poll_fn(|cx| lease.poll_frame(cx)).await {
                let length = frame.ok()?.data_ref().map_or(0, bytes::Bytes::len);
                room = room.checked_sub(length)?;
            }
            Some(())
        };
        if let Ok(Some(())) = tokio::time::timeout(DISCARDING, end).await {
            lease.give_back();
        }
    });
}

/// RFC 9110, section 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// The most of the first pause, as in other proxies: a crashed target is not back sooner.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The most of any pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of an unwanted answer; more cost less as a new connection.
const DISCARDED: usize = 64 << 10;
/// How long they may take.
const DISCARDING: Duration = Duration::from_secs(1);
