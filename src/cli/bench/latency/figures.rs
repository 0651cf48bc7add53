//! What is made of what was seen: means, quantiles, ranges of runs, shares of the traffic.
//!
//! Pure. Times of requests in milliseconds, moments in seconds from the beginning of a run.

use crate::cli::bench::{median, quantile};

/// The times of good answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) mean: f64,
    pub(super) p99: f64,
}

impl Times {
    pub(super) fn of(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        Times { mean: mean(&times), p99: quantile(&times, 0.99) }
    }
}

/// Their mean; 0 where there are none.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean of a figure over runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mean {
    pub(super) value: f64,
    /// Its standard error: how far off the scatter of the runs alone may bring it.
    pub(super) error: f64,
}

impl Mean {
    /// None of fewer than two runs, whose scatter nobody knows.
    pub(super) fn of(values: &[f64]) -> Option<Mean> {
        let count = values.len() as f64;
        let value = mean(values);
        let squares: f64 = values.iter().map(|one| (one - value).powi(2)).sum();
        (values.len() > 1).then(|| Mean { value, error: (squares / (count - 1.0) / count).sqrt() })
    }
}

/// A figure over several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
}

impl Range {
    /// None without any run.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Range> {
        let mut values: Vec<f64> = values.into_iter().collect();
        let middle = median(&mut values);
        Some(Range { low: *values.first()?, middle, high: *values.last()? })
    }

    /// How its runs lie beside another's.
    pub(super) fn beside(&self, other: &Range) -> Beside {
        if self.high < other.low {
            Beside::Below
        } else if self.low > other.high {
            Beside::Above
        } else {
            Beside::Overlapping
        }
    }
}

/// How the runs of one lie beside those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Each of its runs is below each of the other's.
    Below,
    /// Chance may have made the difference.
    Overlapping,
    /// Each is above.
    Above,
}

/// When requests came to which target.
#[derive(Debug)]
pub(super) struct Shares {
    /// In order of time.
    came: Vec<(f64, usize)>,
}

impl Shares {
    pub(super) fn new(mut came: Vec<(f64, usize)>) -> Shares {
        came.sort_by(|a, b| a.0.total_cmp(&b.0));
        Shares { came }
    }

    /// A target's share of what came from then on and before then; none when nothing came.
    pub(super) fn of(&self, target: usize, from: f64, to: f64) -> Option<f64> {
        let first = self.came.partition_point(|(at, _)| *at < from);
        let end = self.came.partition_point(|(at, _)| *at < to);
        let among = self.came.get(first..end)?;
        let own = among.iter().filter(|(_, one)| *one == target).count();
        (!among.is_empty()).then(|| own as f64 / among.len() as f64)
    }

    /// Seconds from `from` on until a target has less than a share of a second's traffic; none if
    /// that does not happen before `to`.
    pub(super) fn until_below(
        &self,
        target: usize,
        share: f64,
        (from, to): (f64, f64),
    ) -> Option<f64> {
        self.until((from, to), |at| self.of(target, at, at + 1.0).is_some_and(|own| own < share))
    }

    /// The same until it has at least that share.
    pub(super) fn until_above(
        &self,
        target: usize,
        share: f64,
        (from, to): (f64, f64),
    ) -> Option<f64> {
        self.until((from, to), |at| self.of(target, at, at + 1.0).is_some_and(|own| own >= share))
    }

    fn until(&self, (from, to): (f64, f64), holds: impl Fn(f64) -> bool) -> Option<f64> {
        let steps = ((to - from - 1.0) / STEP).max(0.0) as usize;
        let found = (0..=steps).find(|step| holds(from + *step as f64 * STEP))?;
        Some(found as f64 * STEP)
    }
}

/// How finely the moment is looked for, in seconds.
const STEP: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_below_others_only_when_each_of_them_is() {
        let range = |low, middle, high| Range { low, middle, high };
        let ours = Range::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(ours, range(1.0, 2.0, 3.0));
        assert_eq!(ours.beside(&range(3.1, 4.0, 5.0)), Beside::Below);
        assert_eq!(ours.beside(&range(3.0, 4.0, 5.0)), Beside::Overlapping);
        assert_eq!(range(3.1, 4.0, 5.0).beside(&ours), Beside::Above);
        assert_eq!(Range::of([]), None);
    }

    #[test]
    fn times_have_a_mean_and_a_99th_percentile() {
        let times = Times::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(times, Times { mean: 100.5, p99: 198.0 });
    }

    #[test]
    fn a_mean_has_the_error_that_the_scatter_makes() {
        assert_eq!(Mean::of(&[3.0, 3.0, 3.0]), Some(Mean { value: 3.0, error: 0.0 }));
        // A variance of 4/3 over four values.
        let mean = Mean::of(&[1.0, 3.0, 1.0, 3.0]).unwrap();
        assert_eq!(mean.value, 2.0);
        assert!((mean.error - (1.0_f64 / 3.0).sqrt()).abs() < 1e-12, "{mean:?}");
        assert_eq!(Mean::of(&[1.0]), None);
    }

    #[test]
    fn the_moments_of_leaving_and_of_coming_back_are_found() {
        // A hundred a second, every other one to target 0, but for the seconds 10 to 17.
        let came = (0..3_000).map(|number| {
            let at = f64::from(number) / 100.0;
            (at, usize::from(number % 2 == 1 || (10.0..17.0).contains(&at)))
        });
        let shares = Shares::new(came.collect());
        assert_eq!(shares.of(0, 0.0, 10.0), Some(0.5));
        assert_eq!(shares.of(0, 40.0, 50.0), None);
        let left = shares.until_below(0, 0.05, (8.0, 20.0)).unwrap();
        // A window that begins a tenth of a second earlier still has five of a hundred.
        assert!((left - 2.0).abs() < 0.11, "{left}");
        let back = shares.until_above(0, 0.25, (15.0, 30.0)).unwrap();
        assert!((back - 1.5).abs() < 0.11, "{back}");
        assert_eq!(shares.until_below(0, 0.05, (18.0, 30.0)), None);
        assert_eq!(shares.until_above(0, 0.25, (10.0, 16.0)), None);
    }
}
