//! Whether there is too little memory for more requests, by what was held so far.
//!
//! Reads and counts nothing itself. Refusing helps only as long as it frees something: a node that
//! rests above the line would otherwise refuse everything for ever, so refusing that brings nothing
//! down any more ends, and only growth beyond that begins it anew.

use std::time::Duration;

use crate::model::moment::Moment;

/// What follows from the looks so far.
#[derive(Debug)]
pub(super) enum Shortage {
    /// Requests are taken; since refusing ended, no less than `rest` was held.
    Taking { rest: u64 },
    /// They are refused, which has brought memory down to `low`, at `fell`.
    Refusing { low: u64, fell: Moment },
}

impl Default for Shortage {
    fn default() -> Shortage {
        Shortage::Taking { rest: 0 }
    }
}

impl Shortage {
    /// Whether requests are refused now that `held` bytes are held of `most`.
    pub(super) fn look(&mut self, held: u64, most: u64, now: Moment) -> bool {
        let share = |percent| most / 100 * percent;
        *self = match *self {
            Shortage::Taking { rest } => {
                let rest = rest.min(held);
                let line = (rest + share(MARGIN)).clamp(share(SHORT), share(HARD));
                if held > line {
                    Shortage::Refusing { low: held, fell: now }
                } else {
                    Shortage::Taking { rest }
                }
            }
            Shortage::Refusing { .. } if held <= share(ENOUGH) => Shortage::Taking { rest: held },
            Shortage::Refusing { low, .. } if held + share(STEP) <= low => {
                Shortage::Refusing { low: held, fell: now }
            }
            Shortage::Refusing { fell, .. }
                if held <= share(HARD) && now.since(fell) >= PATIENCE =>
            {
                Shortage::Taking { rest: held }
            }
            Shortage::Refusing { low, fell } => Shortage::Refusing { low, fell },
        };
        matches!(self, Shortage::Refusing { .. })
    }
}

/// Percent of the memory from which on requests are refused.
const SHORT: u64 = 90;
/// Percent down to which it must come for them to be taken again.
const ENOUGH: u64 = 85;
/// Percent from which on they are refused whether that helps or not: what is left is for those
/// under way, and for operators.
const HARD: u64 = 97;
/// Percent by which memory must grow beyond where refusing did not help for it to begin anew.
const MARGIN: u64 = 3;
/// Percent that count as a fall; less comes and goes by itself.
const STEP: u64 = 1;
/// How long memory may not fall before refusing ends. The allocator gives back what was freed
/// within ten seconds (`dirty_decay_ms` of jemalloc).
const PATIENCE: Duration = Duration::from_secs(12);

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second at these percentages of the memory; tells from which second on requests
    /// are refused, and from which on they are taken again, in turns.
    fn turns(course: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let (mut shortage, mut refused, mut turns) = (Shortage::default(), false, Vec::new());
        let mut now = Moment::START;
        for (second, percent) in course.into_iter().enumerate() {
            now = now + Duration::from_secs(1);
            if shortage.look(percent * 1_000, 100_000, now) != refused {
                refused = !refused;
                turns.push(second);
            }
        }
        turns
    }

    /// So many seconds of each percentage.
    fn steps(steps: &[(u64, usize)]) -> Vec<u64> {
        steps.iter().flat_map(|(percent, times)| std::iter::repeat_n(*percent, *times)).collect()
    }

    #[test]
    fn a_spike_is_refused_until_it_is_over_and_so_is_the_next() {
        assert!(turns(60..=90).is_empty());
        let spike = [(60, 5), (91, 2), (88, 2), (86, 1), (85, 5)];
        assert_eq!(turns(steps(&spike)), [5, 10]);
        assert_eq!(turns(steps(&[spike, spike].concat())), [5, 10, 20, 25]);
    }

    #[test]
    fn memory_that_still_falls_is_waited_for() {
        let course = [(96, 10), (95, 10), (93, 10), (91, 10), (88, 10), (85, 1)];
        assert_eq!(turns(steps(&course)), [0, 50]);
    }

    #[test]
    fn a_node_that_rests_above_the_line_takes_requests_again() {
        // Between the lines, where a spike has left it.
        assert_eq!(turns(steps(&[(80, 1), (92, 2), (87, 100)])), [1, 15]);
        // From there the line is where it always was.
        assert_eq!(turns(steps(&[(92, 2), (87, 20), (90, 9), (91, 1)])), [0, 14, 31]);
        // Above both.
        assert_eq!(turns(steps(&[(93, 100)])), [0, 12]);
        assert_eq!(turns(steps(&[(93, 20), (96, 20), (93, 20)])), [0, 12]);
    }

    #[test]
    fn growth_beyond_where_it_rests_is_refused() {
        assert_eq!(turns(steps(&[(93, 20), (97, 1), (93, 50)])), [0, 12, 20, 33]);
        // What it rests at is less by and by: so is what it may grow to.
        assert_eq!(turns(steps(&[(93, 20), (88, 1), (91, 1), (92, 1)])), [0, 12, 22]);
        assert_eq!(turns(steps(&[(93, 20), (70, 1), (90, 1), (91, 1)])), [0, 12, 22]);
    }

    #[test]
    fn beyond_the_hard_line_nothing_is_taken() {
        assert_eq!(turns(steps(&[(98, 1_000)])), [0]);
        // At it, a margin would lie beyond.
        assert_eq!(turns(steps(&[(96, 20), (97, 20), (98, 50), (97, 50)])), [0, 12, 40, 102]);
        assert_eq!(turns(steps(&[(98, 50), (80, 1)])), [0, 50]);
    }
}
