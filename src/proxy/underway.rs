//! A request under way, from its head to its last byte, wherever that is: in an answer, a body or
//! a tunnel. Holding it is being counted; dropping it is the end, however that comes about.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::access::Entry;
use super::forward::{Client, Worker};
use super::reply::Failure;
use super::running::{Known, RunningRoute};
use crate::model::moment::Moment;

/// Counts a request until its last byte is gone, however that comes about.
pub(crate) struct Underway {
    worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) begun: Instant,
    /// The same as a moment.
    pub(super) at: Moment,
    /// What the access log shall say; none without one.
    pub(super) entry: Option<Rc<Entry>>,
    /// The rule that limits how many of these there may be.
    limited: Option<Arc<RunningRoute>>,
}

impl Underway {
    pub(super) fn begin(worker: Rc<Worker>, client: Rc<Client>, bodiless: bool) -> Underway {
        worker.metrics.in_flight.fetch_add(1, Relaxed);
        client.asked.set(true);
        client.activity.begins(bodiless);
        let begun = Instant::now();
        let at = worker.clock.at(begun.into_std());
        Underway { worker, client, begun, at, entry: None, limited: None }
    }

    /// Counts it among the rule's, too, where that has a limit.
    pub(super) fn enter(&mut self, route: &Arc<RunningRoute>) -> Result<(), Failure> {
        let Some(most) = route.payload.terms.limits.max_in_flight else { return Ok(()) };
        let before = route.payload.lasting.in_flight.fetch_add(1, Relaxed);
        self.limited = Some(route.clone());
        if before < most { Ok(()) } else { Err(Failure::RuleFull) }
    }

    /// A target is tried, the first or the next.
    pub(super) fn tries(&self, target: &Known) {
        if let Some(entry) = &self.entry {
            entry.tries(&target.shown);
        }
    }

    /// The answer's head is there after this time that no target is to blame for.
    pub(super) fn took(&self, overhead: Duration) {
        if let Some(entry) = &self.entry {
            entry.overhead.set(Some(overhead));
        }
    }

    /// Bytes of a body were passed on.
    pub(super) fn passed_on(&self, bytes: usize) {
        if let Some(entry) = &self.entry {
            entry.bytes.set(entry.bytes.get() + bytes as u64);
        }
    }

    /// A body has begun, or come to its end.
    pub(super) fn complete(&self, complete: bool) {
        if let Some(entry) = &self.entry {
            entry.complete.set(complete);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.worker.metrics.in_flight.fetch_sub(1, Relaxed);
        if let Some(route) = &self.limited {
            route.payload.lasting.in_flight.fetch_sub(1, Relaxed);
        }
        let now = Instant::now();
        self.client.activity.ends(now);
        let took = now - self.begun;
        self.worker.metrics.duration.observe(took);
        if let Some(entry) = &self.entry {
            entry.took.set(took);
        }
    }
}
