//! How many repeats a rule may still make: a share of its recent requests, and a few always.
//!
//! A sliding window in ten slots, shared by the traffic threads without a lock. Two threads that
//! meet at the turn of a slot may lose a count or two; the bound on repeats holds within as many.
//! The idea is Finagle's: a share of the load cannot turn an overload into a storm of repeats, a
//! number per request can.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::model::moment::Moment;
use crate::model::rule::RetryBudget;

/// What one rule's traffic has earned and spent lately. What requests write that are not repeated
/// is first, and together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Budget {
    /// Which tenth of a window since the start it is; 0 was never. Twice that number, and one more
    /// while there may be repeats in the window.
    number: AtomicU64,
    /// Of the last ten tenths, each in the place of its number.
    requests: [AtomicU32; SLOTS],
    repeats: [AtomicU32; SLOTS],
}

/// What the window holds.
struct Sums {
    requests: u32,
    repeats: u32,
}

impl Budget {
    /// A request has come: it earns its share.
    pub fn earn(&self, terms: &RetryBudget, now: Moment) {
        self.requests[self.place(terms, now)].fetch_add(1, Relaxed);
    }

    /// Whether one more repeat may be made; it is counted when it may.
    pub fn spend(&self, terms: &RetryBudget, now: Moment) -> bool {
        let place = self.place(terms, now);
        let sums = self.sums();
        let allowed = f64::from(sums.repeats) + 1.0 <= allowance(terms, sums.requests);
        if allowed {
            self.repeats[place].fetch_add(1, Relaxed);
            // Only now: who turns the slot in between leaves the repeat to the next turn.
            self.number.fetch_or(REPEATED, Relaxed);
        }
        allowed
    }

    /// How much of the allowance is left, 0.0 to 1.0; none where nothing was spent lately.
    pub fn remaining(&self, terms: &RetryBudget, now: Moment) -> Option<f64> {
        if self.sums().repeats == 0 {
            return None;
        }
        self.place(terms, now);
        let sums = self.sums();
        let allowance = allowance(terms, sums.requests);
        (sums.repeats > 0).then(|| (1.0 - f64::from(sums.repeats) / allowance).max(0.0))
    }

    /// Where this moment is counted, once what has left the window is forgotten.
    fn place(&self, terms: &RetryBudget, now: Moment) -> usize {
        let number = number(terms, now);
        let found = self.number.load(Relaxed);
        let (before, repeated) = (found >> 1, found & REPEATED);
        // A thread may be a little behind another one. Far behind: the window has another length.
        if number > before || number + (SLOTS as u64) < before {
            let gone = number.checked_sub(before).unwrap_or(u64::MAX).min(SLOTS as u64);
            let kept = if gone < SLOTS as u64 { repeated } else { 0 };
            let next = number << 1 | kept;
            if self.number.compare_exchange(found, next, Relaxed, Relaxed).is_ok() {
                for left in (number + 1 - gone..=number).map(slot) {
                    self.requests[left].store(0, Relaxed);
                    // Mostly there were none, and with very many rules no cache holds them.
                    if repeated != 0 {
                        self.repeats[left].store(0, Relaxed);
                    }
                }
            }
        }
        slot(number)
    }

    fn sums(&self) -> Sums {
        let sum = |slots: &[AtomicU32; SLOTS]| {
            slots.iter().fold(0u32, |sum, slot| sum.saturating_add(slot.load(Relaxed)))
        };
        Sums { requests: sum(&self.requests), repeats: sum(&self.repeats) }
    }
}

fn slot(number: u64) -> usize {
    (number % SLOTS as u64) as usize
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
/// In a budget's number: there may be repeats in the window.
const REPEATED: u64 = 1;

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
    fn what_was_spent_is_forgotten_tenth_by_tenth_and_at_once() {
        let budget = Budget::default();
        assert!(budget.spend(&TERMS, at(500)));
        assert!(budget.spend(&TERMS, at(9_500)));
        assert!(budget.spend(&TERMS, at(9_600)));
        assert_eq!(budget.remaining(&TERMS, at(10_400)), Some(0.8), "the first one has left");
        assert_eq!(budget.remaining(&TERMS, at(18_999)), Some(0.8));
        assert_eq!(budget.remaining(&TERMS, at(19_000)), None, "so have the others");
        assert!(budget.spend(&TERMS, at(19_500)));
        assert_eq!(budget.remaining(&TERMS, at(90_000)), None, "a pause is longer than a window");
        assert_eq!(spend_all(&budget, &TERMS, at(90_001)), 10);
    }

    #[test]
    fn a_thread_that_is_behind_and_a_window_of_another_length_forget_what_they_should() {
        let budget = Budget::default();
        budget.earn(&TERMS, at(9_999));
        budget.earn(&TERMS, at(10_001));
        budget.earn(&TERMS, at(9_999));
        assert_eq!(budget.sums().requests, 3, "being behind forgets nothing");
        let longer = RetryBudget { window: Duration::from_secs(10_000), ..TERMS };
        budget.earn(&longer, at(10_002));
        assert_eq!(budget.sums().requests, 4, "nor does a window that begins nearby");
        budget.earn(&TERMS, at(600_000));
        assert_eq!(budget.sums().requests, 1);
        budget.earn(&longer, at(600_001));
        assert_eq!(budget.sums().requests, 1, "of another window nothing is kept");
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
