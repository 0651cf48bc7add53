//! A request under way, from its head to its last byte, wherever that is: in an answer, a body or
//! a tunnel. Holding it is being counted; dropping it is the end, however that comes about.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::access::Line;
use super::forward::{Client, Worker};
use super::reply::Failure;
use super::running::RunningRoute;
use crate::model::moment::Moment;

/// Counts a request until its last byte is gone, however that comes about.
pub(crate) struct Underway {
    worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) begun: Instant,
    /// The same as a moment.
    pub(super) at: Moment,
    /// What the access log shall say at the end; none before there is an answer, or without a log.
    pub(super) line: Option<Box<Line>>,
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
        Underway { worker, client, begun, at, line: None, limited: None }
    }

    /// Counts it among the rule's, too, where that has a limit.
    pub(super) fn enter(&mut self, route: &Arc<RunningRoute>) -> Result<(), Failure> {
        let Some(most) = route.payload.terms.limits.max_in_flight else { return Ok(()) };
        let before = route.payload.lasting.in_flight.fetch_add(1, Relaxed);
        self.limited = Some(route.clone());
        if before < most { Ok(()) } else { Err(Failure::RuleFull) }
    }

    /// Bytes of a body were passed on.
    pub(super) fn passed_on(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.bytes += bytes as u64;
        }
    }

    /// A body has begun, or come to its end.
    pub(super) fn complete(&mut self, complete: bool) {
        if let Some(line) = &mut self.line {
            line.complete = complete;
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
        if let Some(line) = &mut self.line {
            line.took = took;
        }
    }
}
