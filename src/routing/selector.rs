//! What one rule has learnt about its traffic as a whole; shared by the traffic threads.
//!
//! Counters are exact; the means may lose a sample when two threads write at once, which moves
//! them by less than one sample does. Per-target state is `cell`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use super::estimate::Typical;
use crate::model::moment::Moment;

/// What one rule has learnt about its traffic as a whole. What a rule with one target writes, too,
/// is first.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Selector {
    qbar: Float,
    svcbar: Float,
    cv2: Cv2,
    samples: AtomicU64,
    /// Exploration tokens in thousandths, less the one that a rule starts with.
    tokens: Tokens,
    turn: AtomicU32,
    short_list: ArcSwapOption<ShortList>,
}

/// The targets worth looking at in a long list, for a short while.
#[derive(Debug)]
pub(super) struct ShortList {
    pub(super) made: Moment,
    pub(super) of: usize,
    pub(super) indexes: Vec<usize>,
}

/// A float that threads share.
#[derive(Debug, Default)]
pub(super) struct Float(AtomicU64);

#[derive(Debug)]
struct Cv2(Float);

#[derive(Debug)]
struct Tokens(AtomicU32);

impl Float {
    pub(super) fn new(value: f64) -> Float {
        Float(AtomicU64::new(value.to_bits()))
    }

    pub(super) fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub(super) fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

impl Default for Cv2 {
    fn default() -> Self {
        Cv2(Float::new(0.5))
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Tokens(AtomicU32::new(1_000))
    }
}

impl Selector {
    /// The numbers now.
    pub fn typical(&self) -> Typical {
        Typical { qbar: self.qbar.load(), svcbar: self.svcbar.load(), cv2: self.cv2.0.load() }
    }

    /// A target was chosen with this queue.
    pub(super) fn chose(&self, q: f64) {
        let old = self.qbar.load();
        self.qbar.store(old + 0.02 * (q - old));
    }

    /// A request arrived: it earns a little of a token.
    pub(super) fn earn(&self) {
        let earned = self.tokens.0.fetch_add(EARNED, Relaxed) + EARNED;
        if earned > MOST_TOKENS {
            self.tokens.0.store(MOST_TOKENS, Relaxed);
        }
    }

    pub(super) fn has_token(&self) -> bool {
        self.tokens.0.load(Relaxed) >= 1_000
    }

    /// Pays for an exploration; false without a token.
    pub(super) fn spend(&self) -> bool {
        let take = |held: u32| held.checked_sub(1_000);
        self.tokens.0.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// The next turn of a round.
    pub(super) fn turn(&self) -> u64 {
        u64::from(self.turn.fetch_add(1, Relaxed))
    }

    /// A service time was measured; `mean` is that target's own long-term one before this sample.
    pub(super) fn sample(&self, svc: f64, mean: f64, of_target: u64) {
        let count = self.samples.fetch_add(1, Relaxed) + 1;
        if count == 1 {
            self.svcbar.store(svc.max(0.5));
        } else {
            let old = self.svcbar.load();
            let weight = (1.0 / exact(count)).max(0.01);
            self.svcbar.store(old + weight * (svc.min(3.0 * old) - old));
        }
        if of_target >= 8 {
            let deviation = (svc / mean.max(0.1) - 1.0).powi(2).min(400.0);
            let old = self.cv2.0.load();
            self.cv2.0.store(old + 0.005 * (deviation - old));
        }
    }

    /// Begins with what peers found typical, in ms: the mean over the rule's targets.
    pub fn import(&self, svc: f64) {
        let begun = self.samples.compare_exchange(0, IMPORTED_COUNT, Relaxed, Relaxed).is_ok();
        if begun {
            self.svcbar.store(svc.max(0.5));
        }
    }

    pub(super) fn short_list(&self, of: usize, now: Moment) -> Option<Arc<ShortList>> {
        let list = self.short_list.load_full()?;
        let fresh = list.of == of && now.since(list.made) < SHORT_LIST_AGE;
        fresh.then_some(list)
    }

    pub(super) fn set_short_list(&self, list: ShortList) -> Arc<ShortList> {
        let list = Arc::new(list);
        self.short_list.store(Some(list.clone()));
        list
    }
}

fn exact(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// Thousandths of a token earned by a request: exploration stays under 0.5 %.
const EARNED: u32 = 5;
/// Thousandths of a token that can be saved up.
const MOST_TOKENS: u32 = 3_000;
/// What the imported typical service time weighs, in samples.
const IMPORTED_COUNT: u64 = 50;
/// How long a short list is good for.
const SHORT_LIST_AGE: std::time::Duration = std::time::Duration::from_millis(50);
