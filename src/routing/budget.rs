//! How many repeats a rule may still make: a share of its recent requests, and a few always.
//!
//! A sliding window in ten slots, shared by the traffic threads without a lock. Two threads that
//! meet at the turn of a slot may lose a count or two; the bound on repeats holds within as many.
//! The idea is Finagle's: a share of the load cannot turn an overload into a storm of repeats, a
//! number per request can.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::model::moment::Moment;
use crate::model::rule::RetryBudget;

/// What one rule's traffic has earned and spent lately.
#[derive(Debug, Default)]
pub struct Budget {
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    /// Which tenth of a window since the start this is, plus one; 0 was never used.
    number: AtomicU64,
    requests: AtomicU32,
    repeats: AtomicU32,
}

/// What the window holds.
struct Sums {
    requests: u32,
    repeats: u32,
}

impl Budget {
    /// A request has come: it earns its share.
    pub fn earn(&self, terms: &RetryBudget, now: Moment) {
        self.slot(terms, now).requests.fetch_add(1, Relaxed);
    }

    /// Whether one more repeat may be made; it is counted when it may.
    pub fn spend(&self, terms: &RetryBudget, now: Moment) -> bool {
        let sums = self.sums(terms, now);
        let allowed = f64::from(sums.repeats) + 1.0 <= allowance(terms, sums.requests);
        if allowed {
            self.slot(terms, now).repeats.fetch_add(1, Relaxed);
        }
        allowed
    }

    /// How much of the allowance is left, 0.0 to 1.0; none where nothing was spent lately.
    pub fn remaining(&self, terms: &RetryBudget, now: Moment) -> Option<f64> {
        let sums = self.sums(terms, now);
        let allowance = allowance(terms, sums.requests);
        (sums.repeats > 0).then(|| (1.0 - f64::from(sums.repeats) / allowance).max(0.0))
    }

    fn slot(&self, terms: &RetryBudget, now: Moment) -> &Slot {
        let number = number(terms, now);
        let slot = &self.slots[(number % SLOTS as u64) as usize];
        let found = slot.number.load(Relaxed);
        let turned = found != number
            && slot.number.compare_exchange(found, number, Relaxed, Relaxed).is_ok();
        if turned {
            slot.requests.store(0, Relaxed);
            slot.repeats.store(0, Relaxed);
        }
        slot
    }

    fn sums(&self, terms: &RetryBudget, now: Moment) -> Sums {
        let number = number(terms, now);
        let recent = |slot: &&Slot| {
            let of = slot.number.load(Relaxed);
            of <= number && of + SLOTS as u64 > number
        };
        let mut sums = Sums { requests: 0, repeats: 0 };
        for slot in self.slots.iter().filter(recent) {
            sums.requests = sums.requests.saturating_add(slot.requests.load(Relaxed));
            sums.repeats = sums.repeats.saturating_add(slot.repeats.load(Relaxed));
        }
        sums
    }
}

/// Repeats that the window may hold after so many requests.
fn allowance(terms: &RetryBudget, requests: u32) -> f64 {
    f64::from(requests) * terms.ratio + f64::from(terms.min_per_second) * terms.window.as_secs_f64()
}

fn number(terms: &RetryBudget, now: Moment) -> u64 {
    let length = u64::try_from(terms.window.as_nanos()).unwrap_or(u64::MAX) / SLOTS as u64;
    now.as_nanos() / length.max(1) + SLOTS as u64
}

/// Parts of a window: what leaves it leaves in tenths.
const SLOTS: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: RetryBudget =
        RetryBudget { ratio: 0.2, min_per_second: 1, window: Duration::from_secs(10) };

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn spend_all(budget: &Budget, terms: &RetryBudget, now: Moment) -> usize {
        (0..10_000).take_while(|_| budget.spend(terms, now)).count()
    }

    #[test]
    fn a_rule_without_traffic_has_its_minimum() {
        let budget = Budget::default();
        assert_eq!(budget.remaining(&TERMS, at(5)), None);
        assert_eq!(spend_all(&budget, &TERMS, at(5)), 10, "one a second for ten seconds");
        assert_eq!(budget.remaining(&TERMS, at(5)), Some(0.0));
    }

    #[test]
    fn requests_earn_their_share_and_take_it_with_them() {
        let budget = Budget::default();
        for millis in 0..1_000 {
            budget.earn(&TERMS, at(millis * 10));
        }
        assert_eq!(spend_all(&budget, &TERMS, at(9_999)), 210);
        assert_eq!(spend_all(&budget, &TERMS, at(14_000)), 0, "half a window later");
        assert_eq!(spend_all(&budget, &TERMS, at(30_000)), 10, "all of it is forgotten");
    }

    #[test]
    fn without_a_share_and_a_minimum_nothing_is_repeated() {
        let budget = Budget::default();
        let terms = RetryBudget { ratio: 0.0, min_per_second: 0, ..TERMS };
        budget.earn(&terms, at(0));
        assert!(!budget.spend(&terms, at(0)));
        assert_eq!(budget.remaining(&terms, at(0)), None);
    }
}
