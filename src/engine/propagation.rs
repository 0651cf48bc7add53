//! How far each of the last commits has come, on the orchestrator's clock.
//!
//! Reports cost O(1): a node's reports are kept as they came, and who reached which commit when
//! is worked out only when somebody asks. Invariants: both rings are bounded; a time that can no
//! longer be told is left out, never guessed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::follow::Path;
use crate::model::head::{Position, SignedHead};
use crate::model::ids::NodeId;
use crate::model::limits;
use crate::model::moment::Moment;

/// The last commits, and each node's way along them.
#[derive(Clone, Debug, Default)]
pub struct Propagation {
    // Invariant: positions rise, and so do moments; none where the head is from before the start.
    commits: VecDeque<(SignedHead, Option<Moment>)>,
    tracks: BTreeMap<NodeId, Track>,
}

/// Where a node came to when.
#[derive(Clone, Debug, Default)]
struct Track {
    // Invariant: positions strictly rise.
    steps: VecDeque<Step>,
    // Something stood before the first step that is kept.
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    active: Position,
    at: Moment,
    path: Path,
}

/// How far one commit has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Whether the commit is recent enough to know the times.
    pub timed: bool,
    /// Nodes where it, or something later, is in force.
    pub reached: Vec<NodeId>,
    /// The median time over the nodes reached.
    pub p50: Duration,
    /// The time within which 99 of 100 were reached.
    pub p99: Duration,
    /// The last one's time.
    pub last: Duration,
    /// Who was last.
    pub last_node: Option<NodeId>,
    /// Reached by the stream.
    pub by_stream: u32,
    /// Reached by a peer or from disk.
    pub by_peer: u32,
}

impl Propagation {
    /// A head was published; without a moment when that was before the start.
    pub fn committed(&mut self, head: SignedHead, at: Option<Moment>) {
        if self.commits.back().is_some_and(|(last, _)| last.position() >= head.position()) {
            return;
        }
        self.commits.push_back((head, at));
        if self.commits.len() > limits::TIMED_COMMITS {
            self.commits.pop_front();
        }
    }

    /// The head at a recent position.
    pub fn recent(&self, position: Position) -> Option<SignedHead> {
        let at = self.commits.binary_search_by_key(&position, |(head, _)| head.position()).ok()?;
        Some(self.commits[at].0)
    }

    /// A node said what is in force there. Gives the time since that head was published, once.
    pub fn reported(
        &mut self,
        node: &NodeId,
        active: Position,
        path: Path,
        now: Moment,
    ) -> Option<Duration> {
        let share = limits::TIMED_REPORTS / self.tracks.len().max(1);
        let most = share.clamp(64, limits::TIMED_COMMITS);
        if self.tracks.len() >= limits::FOLLOWERS && !self.tracks.contains_key(node) {
            return None;
        }
        let track = self.tracks.entry(node.clone()).or_default();
        if track.steps.back().is_some_and(|last| last.active >= active) {
            return None;
        }
        let first = track.steps.is_empty();
        track.steps.push_back(Step { active, at: now, path });
        while track.steps.len() > most {
            track.steps.pop_front();
            track.cut = true;
        }
        // What a node brings along when it first speaks tells nothing about the way there.
        let at = self.commits.binary_search_by_key(&active, |(head, _)| head.position()).ok()?;
        self.commits[at].1.filter(|_| !first).map(|published| now.since(published))
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: &NodeId) {
        self.tracks.remove(node);
    }

    /// Where a node is, as far as it said.
    pub fn active(&self, node: &NodeId) -> Option<Position> {
        self.tracks.get(node)?.steps.back().map(|step| step.active)
    }

    /// How far the commit at `position` has come among these nodes.
    pub fn spread<'a>(
        &self,
        position: Position,
        nodes: impl Iterator<Item = &'a NodeId>,
    ) -> Spread {
        // A group of commits is published as one: its time is that of the head it ended on.
        let at = self.commits.partition_point(|(head, _)| head.position() < position);
        let oldest = self.commits.front().is_some_and(|(head, _)| head.position() <= position);
        let published = self.commits.get(at).filter(|_| oldest).and_then(|(_, moment)| *moment);
        let mut spread = Spread { timed: published.is_some(), ..Spread::default() };
        let mut times: Vec<(Duration, &NodeId)> = Vec::new();
        for node in nodes {
            let Some((step, known)) = self.tracks.get(node).and_then(|t| t.first_at(position))
            else {
                continue;
            };
            spread.reached.push(node.clone());
            if step.path == Path::Stream {
                spread.by_stream += 1;
            } else {
                spread.by_peer += 1;
            }
            if let Some(published) = published.filter(|moment| known && *moment <= step.at) {
                times.push((step.at.since(published), node));
            }
        }
        times.sort_unstable();
        let rank = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).map_or(Duration::ZERO, |(time, _)| *time)
        };
        (spread.p50, spread.p99, spread.last) = (rank(50), rank(99), rank(100));
        spread.last_node = times.last().map(|(_, node)| (*node).clone());
        spread
    }
}

impl Track {
    /// The first step at or beyond a position, and whether nothing kept away came before it.
    fn first_at(&self, position: Position) -> Option<(Step, bool)> {
        let at = self.steps.partition_point(|step| step.active < position);
        self.steps.get(at).map(|step| (*step, at > 0 || !self.cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fingerprint::Fingerprint;
    use crate::model::head::Head;
    use crate::model::ids::{Epoch, Revision};
    use crate::model::key::PrivateKey;

    fn at(revision: u64) -> Position {
        Position { epoch: Epoch(1), revision: Revision(revision) }
    }

    fn head(revision: u64) -> SignedHead {
        let key = PrivateKey::from_seed([1; 32]);
        let cluster = key.public().cluster();
        let (revision, floor) = (Revision(revision), Revision(0));
        let fingerprint = Fingerprint([0; 32]);
        Head { cluster, epoch: Epoch(1), revision, floor, top: 0, fingerprint }.sign(&key)
    }

    fn node(number: usize) -> NodeId {
        NodeId::parse(&format!("n{number}")).unwrap()
    }

    fn ms(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    #[test]
    fn the_times_of_a_commit_are_exact() {
        let mut propagation = Propagation::default();
        let nodes: Vec<NodeId> = (0..100).map(node).collect();
        propagation.committed(head(1), Some(ms(1_000)));
        for (index, node) in nodes.iter().enumerate() {
            let path = if index < 90 { Path::Stream } else { Path::Peer };
            propagation.reported(node, at(1), path, ms(1_001 + index as u64));
        }
        let spread = propagation.spread(at(1), nodes.iter());
        assert_eq!(spread.reached.len(), 100);
        assert_eq!((spread.by_stream, spread.by_peer), (90, 10));
        assert_eq!(spread.p50, Duration::from_millis(50));
        assert_eq!(spread.p99, Duration::from_millis(99));
        assert_eq!(spread.last, Duration::from_millis(100));
        assert_eq!(spread.last_node, Some(node(99)));
    }

    #[test]
    fn a_report_that_skips_revisions_reaches_all_of_them() {
        let mut propagation = Propagation::default();
        for revision in 1..=3 {
            propagation.committed(head(revision), Some(ms(revision * 10)));
        }
        propagation.reported(&node(1), at(3), Path::Stream, ms(40));
        for (revision, time) in [(1, 30), (2, 20), (3, 10)] {
            let spread = propagation.spread(at(revision), [node(1)].iter());
            assert_eq!(spread.last, Duration::from_millis(time));
        }
        assert_eq!(propagation.spread(at(4), [node(1)].iter()).reached.len(), 0);
    }

    #[test]
    fn what_is_forgotten_is_not_guessed() {
        let mut propagation = Propagation::default();
        for revision in 1..=3_000 {
            propagation.committed(head(revision), Some(ms(revision)));
            propagation.reported(&node(1), at(revision), Path::Stream, ms(revision));
        }
        let old = propagation.spread(at(5), [node(1)].iter());
        assert!(!old.timed && old.reached.len() == 1 && old.last_node.is_none());
        assert!(propagation.spread(at(2_999), [node(1)].iter()).timed);
    }
}
