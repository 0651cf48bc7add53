//! What the driver, the services and the streams of one orchestrator share.
//!
//! No decisions. Locks are held for a few map operations, never across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::driver::{Command, DriverError};
use super::metrics::Metrics;
use super::store::Store;
use super::view::Published;
use crate::engine::followers::Followers;
use crate::model::head::Position;
use crate::model::ids::ClusterId;
use crate::model::key::PrivateKey;
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::moment::{Moment, WallTime};
use crate::model::trust::Trust;

/// One orchestrator's shared state.
pub(super) struct Shared {
    pub(super) published: Published,
    pub(super) followers: Mutex<Followers>,
    pub(super) offers: Offers,
    pub(super) metrics: Metrics,
    pub(super) store: Arc<Store>,
    pub(super) key: PrivateKey,
    pub(super) cluster: ClusterId,
    pub(super) trust: Trust,
    pub(super) name: String,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) clock: Clock,
    pub(super) beacon_interval: Duration,
    /// Bounds the streams of changes for people and programs.
    pub(super) watchers: Arc<Semaphore>,
    pub(super) stopping: CancellationToken,
}

/// Time for the mind.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

/// Ledgers that followers offer during a recovery.
#[derive(Default)]
pub(super) struct Offers {
    state: Mutex<OfferState>,
    pub(super) arrived: Notify,
}

#[derive(Default)]
struct OfferState {
    open: bool,
    asked: usize,
    answered: usize,
    ledgers: Vec<Ledger>,
    // The most advanced position that a follower proved.
    known: Option<Position>,
}

impl Shared {
    pub(super) fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the driver, and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DriverError::Stopped)?;
        answer.await.map_err(|_| DriverError::Stopped)
    }
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::START + self.start.elapsed()
    }

    pub(super) fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(0))
    }
}

impl Offers {
    fn state(&self) -> MutexGuard<'_, OfferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A recovery begins; `false` when one is under way.
    pub(super) fn open(&self) -> bool {
        let mut state = self.state();
        if state.open {
            return false;
        }
        let known = state.known;
        *state = OfferState { open: true, known, ..OfferState::default() };
        true
    }

    /// The recovery ends, with what was offered.
    pub(super) fn close(&self) -> Vec<Ledger> {
        let mut state = self.state();
        state.open = false;
        std::mem::take(&mut state.ledgers)
    }

    /// Whether a follower at this position is to be asked; then it is counted. One that holds
    /// another history is worth asking wherever it stands.
    pub(super) fn claim(&self, position: Option<Position>, forked: bool) -> bool {
        let mut state = self.state();
        let advanced = forked || (position.is_some() && position >= state.known);
        let wanted = state.open && advanced && state.asked < limits::OFFERED_LEDGERS;
        state.asked += usize::from(wanted);
        wanted
    }

    /// A follower that was asked has answered, or is gone.
    pub(super) fn settle(&self, ledger: Option<Ledger>) {
        let mut state = self.state();
        state.answered += 1;
        if state.open && state.ledgers.len() < limits::OFFERED_LEDGERS {
            state.ledgers.extend(ledger);
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Something arrived, and nothing more is to be expected.
    pub(super) fn is_complete(&self) -> bool {
        let state = self.state();
        let best = state.ledgers.iter().map(Ledger::position).max();
        best.is_some() && best >= state.known && state.answered >= state.asked
    }

    /// A follower proved to hold this.
    pub(super) fn saw(&self, position: Position) {
        let mut state = self.state();
        state.known = state.known.max(Some(position));
    }

    /// The most advanced position that a follower proved to hold.
    pub(super) fn known(&self) -> Option<Position> {
        self.state().known
    }
}
