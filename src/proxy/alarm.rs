//! A timer that one request after the other of a connection waits with.
//!
//! To set a timer and to take it back costs more than all else about a deadline that is seldom
//! reached. So it is left as it is where it rings early enough: whoever it wakes too early sets it
//! anew. At worst an idle connection is woken once for nothing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Where a connection keeps it.
#[derive(Default)]
pub(super) struct Drawer(RefCell<Option<Pin<Box<Sleep>>>>);

/// The timer while somebody waits with it.
pub(super) struct Alarm<'d> {
    drawer: &'d Drawer,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drawer {
    /// The timer; a new one where somebody else has it.
    pub(super) fn take(&self) -> Alarm<'_> {
        Alarm { drawer: self, timer: self.0.take() }
    }

    /// Throws it away.
    pub(super) fn clear(&self) {
        self.0.take();
    }
}

impl Alarm<'_> {
    /// Ready once it is so late.
    pub(super) fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(rings(timer.as_mut(), cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// Polls a timer, also where its task has done enough for now: one that is kept busy would never
/// come to its deadlines.
pub(super) fn rings(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(timer)).poll(cx)
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.drawer.0.replace(Some(timer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept_by_a_task_that_is_kept_busy() {
        let drawer = Drawer::default();
        let mut alarm = drawer.take();
        let until = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        poll_fn(|cx| {
            let mut busy = 0;
            while pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {
                busy += 1;
            }
            assert!(busy > 0);
            assert!(alarm.poll(until, cx).is_ready());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept_whatever_the_timer_was_set_to_before() {
        let (drawer, begun) = (Drawer::default(), Instant::now());
        let after = |millis| begun + Duration::from_millis(millis);
        let mut first = drawer.take();
        assert!(poll_fn(|cx| Poll::Ready(first.poll(after(50), cx))).await.is_pending());
        drop(first);
        for (until, took) in [(30, 30), (80, 80), (60, 80), (100, 100), (200, 200)] {
            let (mut alarm, mut other) = (drawer.take(), drawer.take());
            poll_fn(|cx| alarm.poll(after(until), cx)).await;
            assert_eq!(begun.elapsed().as_millis(), took, "{until}");
            poll_fn(|cx| other.poll(after(until), cx)).await;
            drop(alarm);
        }
    }
}
