//! What the load of a soak came to, by kind.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::cli::output::say;

/// What is done to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests over kept connections, half of them over TLS.
    Kept,
    /// A connection for each request, every other one over TLS.
    Fresh,
    /// Clients that leave before or within their answer.
    LeavesAnswer,
    /// Clients that leave within their upload.
    LeavesUpload,
    /// Clients that read slowly.
    Slow,
    /// WebSockets that come, talk and go, politely or not.
    WebSocket,
    /// Rules that change, and rules that come and go.
    Change,
    /// Requests to two targets, of which one is ended and comes back.
    Restarting,
}

/// Counts of each kind, and what went wrong first.
#[derive(Default)]
pub(super) struct Tally {
    counts: [Count; Kind::ALL.len()],
    wrong: Mutex<Vec<String>>,
    /// How often the target was ended that comes and goes.
    pub(super) endings: AtomicUsize,
}

#[derive(Default)]
struct Count {
    done: AtomicUsize,
    failed: AtomicUsize,
    interrupted: AtomicUsize,
}

/// How something ended.
pub(super) enum End {
    Done,
    /// Within what may be lost when a target is ended; that is not the node's doing.
    Interrupted,
    Failed(String),
}

impl Kind {
    /// The host of the rule that all but a few kinds ask under.
    pub(super) const HOST: &'static str = "soak.example";
    /// The host of the rule whose target comes and goes.
    pub(super) const RESTARTING: &'static str = "restarting.example";

    const ALL: [(Kind, &'static str); 8] = [
        (Kind::Kept, "over kept connections"),
        (Kind::Fresh, "a connection each"),
        (Kind::LeavesAnswer, "left within the answer"),
        (Kind::LeavesUpload, "left within the upload"),
        (Kind::Slow, "slow readers"),
        (Kind::WebSocket, "WebSockets"),
        (Kind::Change, "rule changes"),
        (Kind::Restarting, "to a target that restarts"),
    ];
}

impl Tally {
    pub(super) fn count(&self, kind: Kind, end: End) {
        let count = &self.counts[kind as usize];
        match end {
            End::Done => count.done.fetch_add(1, Relaxed),
            End::Interrupted => count.interrupted.fetch_add(1, Relaxed),
            End::Failed(why) => {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                if wrong.len() < SHOWN {
                    wrong.push(format!("{kind:?}: {why}"));
                }
                count.failed.fetch_add(1, Relaxed)
            }
        };
    }

    pub(super) fn done(&self) -> usize {
        self.counts.iter().map(|count| count.done.load(Relaxed)).sum()
    }

    pub(super) fn failed(&self) -> usize {
        self.counts.iter().map(|count| count.failed.load(Relaxed)).sum()
    }

    pub(super) fn interrupted(&self) -> usize {
        self.counts.iter().map(|count| count.interrupted.load(Relaxed)).sum()
    }

    pub(super) fn print(&self) {
        say!("\n{:26} {:>9} {:>8} {:>12}", "", "done", "failed", "interrupted");
        for ((_, name), count) in Kind::ALL.iter().zip(&self.counts) {
            say!(
                "{name:26} {:9} {:8} {:12}",
                count.done.load(Relaxed),
                count.failed.load(Relaxed),
                count.interrupted.load(Relaxed)
            );
        }
        say!("the target was ended {} times", self.endings.load(Relaxed));
        for wrong in self.wrong.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            say!("failed     {wrong}");
        }
    }
}

/// How many failures are shown.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_in_its_place() {
        let tally = Tally::default();
        for (place, (kind, _)) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            tally.count(*kind, End::Done);
        }
        tally.count(Kind::Slow, End::Failed("broke off".to_string()));
        tally.count(Kind::Restarting, End::Interrupted);
        assert_eq!((tally.done(), tally.failed(), tally.interrupted()), (8, 1, 1));
    }
}
