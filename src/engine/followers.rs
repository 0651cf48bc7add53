//! What an orchestrator knows about its nodes, and when it may take writes after a start.
//!
//! Not their streams and not the ledger. Invariants: at most `limits::FOLLOWERS` are remembered,
//! those gone longest forgotten first; a stream that was replaced cannot speak for its node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::propagation::Propagation;
use crate::model::follow::{Hello, RejectedRule, Report};
use crate::model::head::Position;
use crate::model::ids::{NodeId, Revision};
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::moment::Moment;

/// All nodes that ever said hello and were not forgotten.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    known: BTreeMap<NodeId, Follower>,
    streams: u64,
    /// How far each commit has come.
    pub propagation: Propagation,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Follower {
    /// What it said first on its last stream.
    pub hello: Hello,
    /// Its open stream.
    pub stream: Option<StreamId>,
    /// Its last report.
    pub report: Option<Report>,
    /// Its last word; none since the start.
    pub last_seen: Option<Moment>,
    /// Since when it is behind the head.
    pub behind_since: Option<Moment>,
    /// When a stream with another key last took this name over from an open one.
    pub contested: Option<Moment>,
}

/// One stream in the life of an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

/// Holds writes back after a start, until the fleet had a chance to say that it knows more.
#[derive(Clone, Debug)]
pub struct Gate {
    awaited: usize,
    // Those from before the start that have not said hello yet.
    silent: BTreeSet<NodeId>,
    until: Moment,
}

impl Gate {
    /// A gate that waits for known followers; one without history is open at once.
    pub fn after_start(revision: u64, followers: &Followers, now: Moment) -> Gate {
        let silent: BTreeSet<NodeId> = followers.known.keys().cloned().collect();
        let awaited = if revision == 0 { 0 } else { silent.len().min(AWAITED) };
        Gate { awaited, silent, until: now + PATIENCE }
    }

    /// A node said hello, and what its head says was heard before.
    pub fn greeted(&mut self, node: &NodeId) {
        if self.silent.remove(node) {
            self.awaited = self.awaited.saturating_sub(1);
        }
    }

    /// Whether writes may pass.
    pub fn is_open(&self, now: Moment) -> bool {
        now >= self.until || self.awaited == 0
    }
}

impl Followers {
    /// A node from before the start.
    pub fn remember(&mut self, hello: Hello) {
        if self.known.len() < limits::FOLLOWERS {
            let node = hello.node.clone();
            self.known.entry(node).or_insert_with(|| Follower::new(hello));
        }
    }

    /// A node said hello. Gives the stream's id, and whether what it said of itself is new;
    /// `None` when so many nodes are connected that none can be forgotten for it.
    pub fn hello(&mut self, hello: Hello, now: Moment) -> Option<(StreamId, bool)> {
        if !self.known.contains_key(&hello.node) && self.known.len() >= limits::FOLLOWERS {
            let idle = self.known.values().filter(|follower| follower.stream.is_none());
            let oldest = idle.min_by_key(|follower| follower.last_seen)?.hello.node.clone();
            self.known.remove(&oldest);
            self.propagation.forget(&oldest);
        }
        self.streams += 1;
        let stream = StreamId(self.streams);
        let held = self.known.get(&hello.node);
        let is_new = held.is_none_or(|held| !held.hello.same_node_as(&hello));
        let report = held.and_then(|held| held.report.clone());
        let behind_since = held.and_then(|held| held.behind_since);
        let twin = held.is_some_and(|held| held.stream.is_some() && held.hello.key != hello.key);
        let contested = if twin { Some(now) } else { held.and_then(|held| held.contested) };
        let follower = Follower {
            report,
            stream: Some(stream),
            last_seen: Some(now),
            behind_since,
            contested,
            ..Follower::new(hello)
        };
        self.known.insert(follower.hello.node.clone(), follower);
        Some((stream, is_new))
    }

    /// A node reported. Gives the time since its position was published, if it is news.
    pub fn report(
        &mut self,
        node: &NodeId,
        stream: StreamId,
        report: Report,
        head: Position,
        now: Moment,
    ) -> Option<Duration> {
        let follower = self.known.get_mut(node).filter(|held| held.stream == Some(stream))?;
        follower.last_seen = Some(now);
        let current = report.active.is_some_and(|active| active >= head);
        follower.behind_since = if current { None } else { follower.behind_since.or(Some(now)) };
        let (active, path) = (report.active, report.path);
        follower.report = Some(report);
        // Nothing beyond the head is believed without a signature.
        let active = active.filter(|active| *active <= head)?;
        self.propagation.reported(node, active, path, now)
    }

    /// A stream ended; without effect when the node has opened another one since.
    pub fn gone(&mut self, node: &NodeId, stream: StreamId, now: Moment) {
        if let Some(follower) = self.known.get_mut(node).filter(|f| f.stream == Some(stream)) {
            follower.stream = None;
            follower.last_seen = Some(now);
        }
    }

    /// Whether this stream is the node's newest one.
    pub fn is_current(&self, node: &NodeId, stream: StreamId) -> bool {
        self.known.get(node).is_some_and(|follower| follower.stream == Some(stream))
    }

    /// Whether two nodes seem to go by this name.
    pub fn is_contested(&self, node: &NodeId, now: Moment) -> bool {
        self.known.get(node).is_some_and(|follower| follower.is_contested(now))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Follower> {
        self.known.values()
    }

    /// How many have an open stream.
    pub fn connected(&self) -> usize {
        self.known.values().filter(|follower| follower.stream.is_some()).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Follower {
    fn new(hello: Hello) -> Follower {
        Follower {
            hello,
            stream: None,
            report: None,
            last_seen: None,
            behind_since: None,
            contested: None,
        }
    }

    /// Whether two nodes seem to go by this name: their streams replace each other.
    pub fn is_contested(&self, now: Moment) -> bool {
        self.contested.is_some_and(|at| now.since(at) < CONTESTED)
    }

    /// Rules of the commit at this revision that are not in force there: it has the commit, and
    /// rejected the version that the commit made. One that was overtaken since is not counted.
    pub fn rejects<'a>(
        &'a self,
        ledger: &'a Ledger,
        revision: Revision,
    ) -> impl Iterator<Item = &'a RejectedRule> {
        let rejected = self.report.iter().flat_map(|report| &report.rejected);
        rejected.filter(move |rejected| {
            ledger.record(&rejected.id).is_some_and(|record| {
                record.revision == revision && record.version == rejected.version
            })
        })
    }

    /// How long it has been behind `head`.
    pub fn behind(&self, head: Position, now: Moment) -> Duration {
        let active = self.report.as_ref().and_then(|report| report.active);
        match self.behind_since {
            _ if active.is_some_and(|active| active >= head) => Duration::ZERO,
            Some(since) => now.since(since),
            // It was current when it last spoke, and the head has moved since.
            None => self.last_seen.map_or(Duration::ZERO, |seen| now.since(seen)),
        }
    }
}

impl Hello {
    /// Whether it says the same about the node, whatever the node holds by now.
    fn same_node_as(&self, other: &Hello) -> bool {
        let stripped = |hello: &Hello| Hello { head: None, link_serial: 0, ..hello.clone() };
        stripped(self) == stripped(other)
    }
}

/// Followers that are awaited after a start.
const AWAITED: usize = 3;
/// For how long a name counts as contested after a stream with another key took it.
const CONTESTED: Duration = Duration::from_secs(60);
/// How long they are awaited.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "tests/followers.rs"]
mod tests;
