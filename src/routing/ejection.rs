//! Which of the ejected targets are kept out: a rule bounds how many.
//!
//! Not who is ejected, that is the cell's. Costs nothing while the bound holds; beyond it a
//! bisection over the ends of the ejections, some forty looks at each target, nothing allocated.

use super::pick::Candidate;
use crate::model::moment::Moment;

/// The last one that is kept out: those ejected for longer are too, and of those ejected for as
/// long the ones before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastOut {
    until: u64,
    index: usize,
}

/// How many of so many targets may be kept out: one at least, unless a rule wants none.
pub(super) fn most_out(max_ejected: f64, targets: usize) -> usize {
    if max_ejected <= 0.0 {
        return 0;
    }
    // Shares are hundredths of a percent: a product just below a whole number is meant as one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, above 0")]
    let share = (max_ejected * targets as f64 + 1e-6) as usize;
    share.max(1)
}

impl LastOut {
    /// Of more candidates that are ejected than `most`, the last one that is kept out.
    pub(super) fn of(candidates: &[Candidate<'_>], now: Moment, most: usize) -> LastOut {
        let ends = || candidates.iter().enumerate().filter_map(end);
        let from = |at: u64| ends().filter(|(until, _)| *until >= at).count();
        // Invariant: at least `most` ejections end at `least` or later, fewer after `highest`.
        let mut least = now.as_nanos().saturating_add(1);
        let mut highest = ends().map(|(until, _)| until).max().unwrap_or(least).max(least);
        while least < highest {
            let middle = highest - (highest - least) / 2;
            if from(middle) >= most {
                least = middle;
            } else {
                highest = middle - 1;
            }
        }
        let longer = from(least.saturating_add(1));
        let equals = ends().filter(|(until, _)| *until == least);
        let last = equals.take(most.saturating_sub(longer)).last();
        LastOut { until: least, index: last.map_or(0, |(_, index)| index) }
    }

    /// Whether this one, which is ejected, is kept out.
    pub(super) fn keeps_out(self, index: usize, candidate: &Candidate<'_>) -> bool {
        let until = candidate.cell.ejected_until().as_nanos();
        until > self.until || until == self.until && index <= self.index
    }
}

/// When the ejection of a candidate that counts ends, or has ended.
fn end((index, candidate): (usize, &Candidate<'_>)) -> Option<(u64, usize)> {
    let counts = candidate.weight > 0 && !candidate.down;
    counts.then(|| (candidate.cell.ejected_until().as_nanos(), index))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use crate::model::moment::Moment;
    use crate::model::rule::{Balance, Outlier};
    use crate::routing::cell::{Outcome, TargetCell};
    use crate::routing::pick::{Candidate, How, Picked, pick};
    use crate::routing::selector::Selector;

    const NOW: Moment = Moment::START;

    /// A target; ejected for so many seconds where there is a number.
    fn target(seconds: Option<u64>) -> TargetCell {
        let (cell, selector) = (TargetCell::new(None), Selector::default());
        let tell = |outcome| {
            let attempt = cell.begin(NOW);
            cell.finish(attempt, NOW, outcome, &selector, &Outlier::default(), 0.5);
        };
        tell(Outcome::Success);
        if let Some(seconds) = seconds {
            let retry_after = Some(Duration::from_secs(seconds));
            tell(Outcome::ServerFailure { retry_after });
        }
        cell
    }

    /// Which get traffic, where the last `down` fail their check.
    fn served(max_ejected: f64, ejected: &[Option<u64>], down: usize) -> Vec<usize> {
        let cells: Vec<TargetCell> = ejected.iter().map(|seconds| target(*seconds)).collect();
        let candidate = |(index, cell)| Candidate {
            cell,
            weight: 1,
            identity: 0,
            down: index >= ejected.len() - down,
        };
        let candidates: Vec<Candidate<'_>> = cells.iter().enumerate().map(candidate).collect();
        let (selector, mut rng) = (Selector::default(), ChaCha8Rng::seed_from_u64(1));
        let outlier = Outlier { max_ejected, ..Outlier::default() };
        let how = How { balance: &Balance::RoundRobin, outlier: &outlier, key: None };
        let chosen =
            (0..100).filter_map(|_| match pick(how, &candidates, &selector, NOW, &mut rng, &[]) {
                Picked::Target(index) => Some(index),
                Picked::NoneReady(_) => None,
            });
        chosen.collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// Ten targets, the first of them ejected for so long.
    fn of_ten(max_ejected: f64, ejected: &[u64], down: usize) -> Vec<usize> {
        let mut all = [None; 10];
        for (one, seconds) in all.iter_mut().zip(ejected) {
            *one = Some(*seconds);
        }
        served(max_ejected, &all, down)
    }

    #[test]
    fn beyond_the_bound_those_ejected_longest_stay_out() {
        assert_eq!(of_ten(0.3, &[9, 9, 9], 0), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(of_ten(0.3, &[9, 5, 8, 7], 0), [1, 4, 5, 6, 7, 8, 9]);
        assert_eq!(of_ten(0.3, &[5, 9, 5, 9, 5], 0), [2, 4, 5, 6, 7, 8, 9], "the first of equals");
        assert_eq!(of_ten(0.35, &[6, 7, 8, 9], 0), [0, 4, 5, 6, 7, 8, 9], "rounded down");
        assert_eq!(of_ten(0.3, &[5, 6, 7], 1), [3, 4, 5, 6, 7, 8], "a check is no ejection");
    }

    #[test]
    fn one_may_always_be_kept_out_but_where_none_shall_be() {
        assert_eq!(served(0.3, &[Some(9), None, None], 0), [1, 2]);
        assert_eq!(of_ten(0.01, &[9], 0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(of_ten(0.0, &[9], 0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn above_half_or_the_bound_if_that_is_higher_ejection_is_ignored() {
        assert_eq!(of_ten(0.5, &[9; 5], 0), [5, 6, 7, 8, 9]);
        assert_eq!(of_ten(0.5, &[9; 6], 0).len(), 10);
        assert_eq!(of_ten(0.5, &[9; 3], 3).len(), 7);
        assert_eq!(of_ten(0.3, &[9; 6], 0).len(), 10);
        assert_eq!(of_ten(0.7, &[9; 7], 0), [7, 8, 9]);
        assert_eq!(of_ten(0.7, &[9; 8], 0).len(), 10);
        assert_eq!(of_ten(1.0, &[9; 9], 0), [9]);
        assert_eq!(of_ten(1.0, &[9; 4], 5), [4]);
        assert_eq!(of_ten(1.0, &[9; 10], 0).len(), 10, "better than nobody");
    }
}
