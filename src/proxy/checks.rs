//! What active health checks say of targets; the probes themselves are `prober`'s.
//!
//! Rules that check a target in the same way share one check. It lives as long as a rule in force
//! has it: the registry and the prober hold it weakly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::pool::Endpoint;
use crate::model::rule::{ActiveHealth, TargetAddress};

/// One way of checking one target, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Check {
    pub(super) endpoint: Endpoint,
    pub(super) health: ActiveHealth,
    down: AtomicBool,
    /// Results in a row: above zero good ones, below zero bad ones.
    in_a_row: AtomicI32,
}

/// All checks of the rules in force.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    known: BTreeMap<Way, Weak<Check>>,
    /// Nobody probes these yet.
    fresh: Vec<Weak<Check>>,
    /// Told of each.
    added: Arc<Notify>,
    sweep_at: usize,
}

/// What makes two checks the same.
type Way = (Arc<TargetAddress>, ActiveHealth);

impl Check {
    /// Whether the target is not to be sent to.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Takes in a probe's result; returns whether the verdict changed. The first one decides at
    /// once, later ones when there are `IN_A_ROW` of a kind.
    pub(super) fn tell(&self, good: bool) -> bool {
        let before = self.in_a_row.load(Relaxed);
        let now = match (good, before) {
            (true, 1..) => before.saturating_add(1),
            (false, ..=-1) => before.saturating_sub(1),
            (true, _) => 1,
            (false, _) => -1,
        };
        self.in_a_row.store(now, Relaxed);
        let decided = before == 0 || now.abs() >= IN_A_ROW;
        decided && self.down.swap(!good, Relaxed) == good
    }
}

impl Checks {
    /// The check of this target in this way: the one there is, or a new one.
    pub(super) fn of(&mut self, endpoint: &Endpoint, health: &ActiveHealth) -> Arc<Check> {
        let way = (endpoint.address.clone(), health.clone());
        if let Some(check) = self.known.get(&way).and_then(Weak::upgrade) {
            return check;
        }
        let check = Arc::new(Check {
            endpoint: endpoint.clone(),
            health: health.clone(),
            down: AtomicBool::new(false),
            in_a_row: AtomicI32::new(0),
        });
        self.known.insert(way, Arc::downgrade(&check));
        self.fresh.push(Arc::downgrade(&check));
        self.added.notify_one();
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, check| check.strong_count() > 0);
            self.fresh.retain(|check| check.strong_count() > 0);
            self.sweep_at = UNSWEPT.max(self.known.len() * 2);
        }
        check
    }

    /// Wakes whoever waits for more to probe.
    pub(super) fn added(&self) -> Arc<Notify> {
        self.added.clone()
    }

    /// Those that nobody probes yet, from now on the caller's business.
    pub(super) fn take_fresh(&mut self) -> Vec<Weak<Check>> {
        std::mem::take(&mut self.fresh)
    }

    /// Each with its target, how that is asked, and whether it is well.
    pub(super) fn verdicts(&self) -> Vec<(String, String, bool)> {
        let alive = self.known.values().filter_map(Weak::upgrade);
        alive
            .map(|check| {
                let target = check.endpoint.address.to_string();
                (target, check.health.probe.to_string(), !check.is_down())
            })
            .collect()
    }
}

/// Results of a kind that change a verdict: one may be chance.
const IN_A_ROW: i32 = 2;
/// Fewer known checks are never looked through.
const UNSWEPT: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::rule::{Probe, Scheme};

    fn endpoint(port: u16) -> Endpoint {
        let host = "10.0.0.1".to_string();
        Endpoint::new(Arc::new(TargetAddress { scheme: Scheme::Http, host, port }), None)
    }

    fn health(path: &str) -> ActiveHealth {
        let (interval, timeout) = (Duration::from_secs(10), Duration::from_secs(2));
        ActiveHealth { probe: Probe::Http(path.to_string()), interval, timeout }
    }

    #[test]
    fn the_first_result_decides_and_later_ones_when_there_are_two() {
        let mut checks = Checks::default();
        let check = checks.of(&endpoint(1), &health("/"));
        assert!(!check.is_down(), "up until somebody has looked");
        assert!(check.tell(false) && check.is_down());
        assert!(!check.tell(true) && check.is_down(), "one may be chance");
        assert!(check.tell(true) && !check.is_down());
        assert!(!check.tell(false) && !check.is_down());
        assert!(!check.tell(true) && !check.tell(false) && !check.is_down());
        assert!(check.tell(false) && check.is_down());
        assert!(!check.tell(false) && check.is_down(), "no news");
        let other = checks.of(&endpoint(2), &health("/"));
        assert!(!other.tell(true) && !other.is_down(), "well, as was thought");
    }

    #[test]
    fn rules_that_check_in_the_same_way_share_a_check_and_it_goes_with_them() {
        let mut checks = Checks::default();
        let one = checks.of(&endpoint(1), &health("/a"));
        assert!(Arc::ptr_eq(&one, &checks.of(&endpoint(1), &health("/a"))));
        let _other = checks.of(&endpoint(1), &health("/b"));
        assert_eq!(checks.take_fresh().len(), 2);
        assert!(checks.take_fresh().is_empty());
        assert_eq!(checks.verdicts().len(), 2);
        drop(one);
        assert_eq!(checks.verdicts().len(), 1);
        for port in 0..1_000 {
            drop(checks.of(&endpoint(port), &health("/a")));
        }
        assert!(checks.known.len() <= 2 * UNSWEPT && checks.fresh.len() <= 2 * UNSWEPT);
    }
}
