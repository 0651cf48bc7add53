//! When this node takes no more requests: too many under way, or too little memory left.
//!
//! Refusing costs little and says so (503, Retry-After, and the connection closes); running out of
//! memory costs every connection there is. Read on each request, written by whoever watches.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// What a node sheds load by; shared by its traffic threads.
#[derive(Debug)]
pub(crate) struct Shedding {
    most_requests: i64,
    memory_is_short: AtomicBool,
}

impl Shedding {
    /// With so many requests under way at once, at the whole node.
    pub(crate) fn beyond(requests: u32) -> Shedding {
        Shedding { most_requests: i64::from(requests), memory_is_short: AtomicBool::new(false) }
    }

    /// Says whether there is too little memory; returns whether that is news.
    pub(crate) fn memory_is_short(&self, short: bool) -> bool {
        self.memory_is_short.swap(short, Relaxed) != short
    }

    /// Whether one more is too many; `under_way` counts it already.
    pub(super) fn refuses(&self, under_way: &AtomicI64) -> bool {
        under_way.load(Relaxed) > self.most_requests || self.memory_is_short.load(Relaxed)
    }
}

impl Default for Shedding {
    fn default() -> Shedding {
        Shedding::beyond(REQUESTS)
    }
}

/// Requests under way at once, if nothing else is said: at some 10 KiB each, a gigabyte.
pub(crate) const REQUESTS: u32 = 100_000;
