//! Which processors a measurement runs on: one for the proxy, another one for everybody else, so
//! that none of its time is spent waiting for the other.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two processors.
#[derive(Clone)]
pub(super) struct Processors {
    proxy: CpuSet,
    others: CpuSet,
}

impl Processors {
    /// The first and the last that this process may use; none where there is one only.
    pub(super) fn two() -> Option<Processors> {
        let all = sched_getaffinity(None).ok()?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
        let (first, last) = (usable.next()?, usable.next_back()?);
        let one = |number| {
            let mut one = CpuSet::new();
            one.set(number);
            one
        };
        Some(Processors { proxy: one(first), others: one(last) })
    }

    /// Processes that this starts run on the proxy's alone.
    pub(super) fn on_proxys<R: Send>(&self, start: impl FnOnce() -> R + Send) -> R {
        let starting = || {
            // What cannot be set is shared; the figures are the worse for it, for everybody.
            let _ = sched_setaffinity(None, &self.proxy);
            start()
        };
        std::thread::scope(|scope| match scope.spawn(starting).join() {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// This thread runs on the others' from now on.
    pub(super) fn stay_on_others(&self) {
        let _ = sched_setaffinity(None, &self.others);
    }
}
