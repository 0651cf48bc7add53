//! When a listener stops taking connections: a short while after it was told to leave.
//!
//! Who stands at the door already would be turned away by closing it at once. Takes no connections
//! itself.

use std::future::Future;
use std::pin::pin;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::listener::{LAST_CALL, Phase};

/// The end of a listener, as far as it has come.
pub(super) struct LastCall<F> {
    phase: watch::Receiver<Phase>,
    until: Option<Instant>,
    begun: F,
}

impl<F: Fn()> LastCall<F> {
    /// `begun` hears, once, that the last call has begun.
    pub(super) fn new(phase: watch::Receiver<Phase>, begun: F) -> LastCall<F> {
        LastCall { phase, until: None, begun }
    }

    /// Who comes next; none where nobody is taken any more, however many still come.
    pub(super) async fn next<T>(&mut self, coming: impl Future<Output = T>) -> Option<T> {
        let mut coming = pin!(coming);
        // Looked at each time: where clients never stop coming, the news are never waited for.
        while !self.is_over() {
            tokio::select! {
                biased;
                came = &mut coming => return Some(came),
                () = self.news() => {}
            }
        }
        None
    }

    /// One look: a lock that hardly anybody else takes or, while leaving, the time.
    fn is_over(&mut self) -> bool {
        if let Some(until) = self.until {
            return Instant::now() >= until;
        }
        // Nobody being there to say so any more is a reason, too.
        let leaving = *self.phase.borrow() != Phase::Serving || self.phase.has_changed().is_err();
        if leaving {
            (self.begun)();
            self.until = Some(Instant::now() + LAST_CALL);
        }
        false
    }

    /// Waits until another look may tell something else.
    async fn news(&mut self) {
        match self.until {
            // That nobody is there any more is news, too.
            None => drop(self.phase.changed().await),
            Some(until) => sleep_until(until).await,
        }
    }
}
