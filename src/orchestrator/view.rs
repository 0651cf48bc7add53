//! What every reader of the orchestrator sees: one immutable state, swapped as a whole.
//!
//! The ledger, the last frames as they go over streams, each encoded once for all followers, and
//! the newest beacon. There is no queue per follower: a cursor and this are all it takes.
//! Invariant: the frames follow each other and end at the ledger's position, or there are none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::Vector;
use tokio::sync::watch;

use crate::engine::fence::Fence;
use crate::model::delta::{Changes, Delta};
use crate::model::exchange::FromOrchestrator;
use crate::model::head::{Beacon, Position};
use crate::model::ledger::Ledger;
use crate::wire::follow_proto::{delta_frames, follow_frames};

/// One state of the orchestrator.
pub(super) struct View {
    pub(super) ledger: Ledger,
    pub(super) fence: Option<Fence>,
    pub(super) beacon: Option<Arc<BeaconFrame>>,
    /// Rises when followers are asked for their ledgers.
    pub(super) asked: u64,
    frames: Vector<Arc<Frame>>,
    frame_bytes: usize,
    // What was put together for followers further behind, for others at the same place.
    joined: Mutex<BTreeMap<Option<Position>, Arc<Frame>>>,
}

/// A delta as it goes over streams.
pub(super) struct Frame {
    pub(super) from: Option<Position>,
    pub(super) to: Position,
    pub(super) parts: Vec<Bytes>,
}

/// A beacon as it goes over streams.
pub(super) struct BeaconFrame {
    pub(super) tick: u64,
    pub(super) bytes: Bytes,
}

/// What a follower gets next.
pub(super) enum Next {
    /// It has everything.
    Current,
    /// These bytes.
    Frame(Arc<Frame>),
    /// So much that it is encoded piece by piece while it is sent.
    Large(Box<Delta>),
}

/// Where the newest view is, and who waits for it.
pub(super) struct Published {
    view: ArcSwap<View>,
    changed: watch::Sender<()>,
}

impl View {
    pub(super) fn new(ledger: Ledger, fence: Option<Fence>) -> View {
        View {
            ledger,
            fence,
            beacon: None,
            asked: 0,
            frames: Vector::new(),
            frame_bytes: 0,
            joined: Mutex::default(),
        }
    }

    /// The view after this one. Gives the bytes of the frame that leads there, if any.
    pub(super) fn advance(
        &self,
        ledger: Ledger,
        fence: Option<Fence>,
        beacon: Option<Beacon>,
        asked: u64,
    ) -> (View, usize) {
        let beacon = beacon.map(|beacon| Arc::new(BeaconFrame::new(beacon)));
        let mut next = View {
            ledger,
            fence,
            beacon: beacon.or_else(|| self.beacon.clone()),
            asked,
            frames: self.frames.clone(),
            frame_bytes: self.frame_bytes,
            joined: Mutex::default(),
        };
        let from = self.ledger.position();
        if next.ledger.position() == from {
            let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
            next.joined = Mutex::new(joined.clone());
            return (next, 0);
        }
        let bytes =
            if next.ledger.position().epoch == from.epoch { next.add_frame(from) } else { 0 };
        if bytes == 0 {
            next.frames = Vector::new();
            next.frame_bytes = 0;
        }
        (next, bytes)
    }

    /// Gives 0 where the change is too large to be kept.
    fn add_frame(&mut self, from: Position) -> usize {
        let Changes::Delta(delta) = self.ledger.changes_since(Some(from)) else { return 0 };
        if delta.size() > SHARED_BYTES {
            return 0;
        }
        let frame = Frame::new(Some(from), &delta);
        let bytes = frame.bytes();
        self.frame_bytes += bytes;
        self.frames.push_back(Arc::new(frame));
        while self.frames.len() > FRAMES || self.frame_bytes > FRAMES_BYTES {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.frame_bytes -= oldest.bytes();
        }
        bytes
    }

    /// What a follower at `cursor` gets next.
    pub(super) fn next(&self, cursor: Option<Position>) -> Next {
        let head = self.ledger.position();
        if cursor.is_some_and(|at| at >= head) {
            return Next::Current;
        }
        let at = self.frames.binary_search_by(|frame| frame.from.cmp(&cursor));
        if let Some(frame) = at.ok().and_then(|at| self.frames.get(at).map(|frame| (at, frame)))
            && self.frames.len() - frame.0 <= ONE_BY_ONE
        {
            return Next::Frame(frame.1.clone());
        }
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = joined.get(&cursor) {
            return Next::Frame(frame.clone());
        }
        let Changes::Delta(delta) = self.ledger.changes_since(cursor) else { return Next::Current };
        if delta.size() > SHARED_BYTES {
            return Next::Large(Box::new(delta));
        }
        let frame = Arc::new(Frame::new(cursor, &delta));
        if joined.len() < JOINED {
            joined.insert(cursor, frame.clone());
        }
        Next::Frame(frame)
    }
}

impl Frame {
    fn new(from: Option<Position>, delta: &Delta) -> Frame {
        Frame { from, to: delta.to.position(), parts: delta_frames(delta).collect() }
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

impl BeaconFrame {
    fn new(beacon: Beacon) -> BeaconFrame {
        let tick = beacon.tick;
        let bytes = follow_frames(&FromOrchestrator::Beacon(beacon)).swap_remove(0);
        BeaconFrame { tick, bytes }
    }
}

impl Published {
    pub(super) fn new(view: View) -> Published {
        Published { view: ArcSwap::from_pointee(view), changed: watch::Sender::new(()) }
    }

    /// The newest view.
    pub(super) fn load(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Wakes with every newer view.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Everybody sees this from now on.
    pub(super) fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        self.changed.send_replace(());
    }
}

/// Frames kept: a follower further behind gets the newest versions only.
const FRAMES: usize = 256;
/// Bytes of frames kept.
const FRAMES_BYTES: usize = 16 << 20;
/// Frames sent one by one before it is better to join them.
const ONE_BY_ONE: usize = 4;
/// Joined frames kept with one view.
const JOINED: usize = 64;
/// Larger deltas are encoded anew for each follower, so that they are never held as a whole.
const SHARED_BYTES: usize = 4 << 20;

#[cfg(test)]
#[path = "tests/view.rs"]
mod tests;
