//! What active health checks say of targets; the probes themselves are `prober`'s.
//!
//! Rules that check a target in the same way share one check. It lives as long as a rule in force
//! has it: the registry and the prober hold it weakly. One that begins beside another of the same
//! target and probe, as after an edit, begins with what that one found.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Arc, Weak};
use std::time::Duration;

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
    /// Told of the first result.
    first: Notify,
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

/// Checks without a result yet.
pub(crate) struct Unseen(Vec<Arc<Check>>);

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
        let decided = before == 0 || now.abs() >= IN_A_ROW;
        let changed = decided && self.down.swap(!good, Relaxed) == good;
        // After the verdict: whoever waits for the first result goes by it.
        self.in_a_row.store(now, Release);
        if before == 0 {
            self.first.notify_waiters();
        }
        changed
    }

    /// Waits until somebody has looked, and the verdict says so.
    async fn looked_at(&self) {
        let mut told = pin!(self.first.notified());
        // Before the look: a result in between is heard of.
        told.as_mut().enable();
        if self.in_a_row.load(Acquire) == 0 {
            told.await;
        }
    }
}

impl Checks {
    /// The check of this target in this way: the one there is, or a new one.
    pub(super) fn of(&mut self, endpoint: &Endpoint, health: &ActiveHealth) -> Arc<Check> {
        let way = (endpoint.address.clone(), health.clone());
        if let Some(check) = self.known.get(&way).and_then(Weak::upgrade) {
            return check;
        }
        let (down, in_a_row) = self.alike(&way);
        let check = Arc::new(Check {
            endpoint: endpoint.clone(),
            health: health.clone(),
            down: AtomicBool::new(down),
            in_a_row: AtomicI32::new(in_a_row),
            first: Notify::new(),
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

    /// What a new check begins with: the verdict of the check that asks the same target the same,
    /// the most alike where there are several. Another time-out may find something else: then the
    /// first result decides, as it does where nobody has looked.
    fn alike(&self, (address, health): &Way) -> (bool, i32) {
        let least = ActiveHealth {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            probe: health.probe.clone(),
        };
        let others = self
            .known
            .range((address.clone(), least)..)
            .take_while(|((of, other), _)| of == address && other.probe == health.probe)
            .filter_map(|(_, check)| check.upgrade());
        let unlike = |check: &Arc<Check>| {
            let other = &check.health;
            (other.timeout != health.timeout, other.interval != health.interval)
        };
        others.min_by_key(unlike).map_or((false, 0), |check| {
            let same = check.health.timeout == health.timeout;
            (check.is_down(), if same { check.in_a_row.load(Relaxed) } else { 0 })
        })
    }

    /// Those that nobody has a result of yet.
    pub(super) fn unseen(&self) -> Unseen {
        let alive = self.known.values().filter_map(Weak::upgrade);
        Unseen(alive.filter(|check| check.in_a_row.load(Acquire) == 0).collect())
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

impl Unseen {
    /// Waits for the first result of each, or for as long as a probe may take; at most `most`.
    pub(crate) async fn looked_at(self, most: Duration) {
        let Some(longest) = self.0.iter().map(|check| check.health.timeout).max() else { return };
        let all = async {
            for check in &self.0 {
                check.looked_at().await;
            }
        };
        // What takes longer is found out while there is traffic.
        let _ = tokio::time::timeout((longest + SLACK).min(most), all).await;
    }
}

/// Results of a kind that change a verdict: one may be chance.
const IN_A_ROW: i32 = 2;
/// For a probe to begin, and its result to be told, on a busy machine.
const SLACK: Duration = Duration::from_secs(1);
/// Fewer known checks are never looked through.
const UNSWEPT: usize = 64;

#[cfg(test)]
mod tests {
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
    fn an_edited_check_goes_on_from_what_is_known() {
        let mut checks = Checks::default();
        let before = checks.of(&endpoint(1), &health("/"));
        before.tell(false);
        let often = ActiveHealth { interval: Duration::from_secs(5), ..health("/") };
        let edited = checks.of(&endpoint(1), &often);
        assert!(edited.is_down(), "nothing is sent there while nobody has looked anew");
        assert!(!edited.tell(true) && edited.is_down(), "one may still be chance");
        assert!(edited.tell(true) && !edited.is_down());
        let patient = ActiveHealth { timeout: Duration::from_secs(9), ..health("/") };
        let patient = checks.of(&endpoint(1), &patient);
        assert!(patient.is_down(), "of the one that has the same interval");
        assert!(patient.tell(true) && !patient.is_down(), "who waits longer asks something else");
        assert!(!checks.of(&endpoint(1), &health("/other")).is_down());
        assert!(!checks.of(&endpoint(2), &often).is_down());
        drop((before, edited, patient));
        assert!(!checks.of(&endpoint(1), &often).is_down(), "nobody knows any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_results_are_waited_for_and_nothing_else() {
        let mut checks = Checks::default();
        let waited = async |checks: &Checks, most| {
            let begun = tokio::time::Instant::now();
            checks.unseen().looked_at(Duration::from_secs(most)).await;
            begun.elapsed().as_millis()
        };
        assert_eq!(waited(&checks, 60).await, 0, "there are none");
        let one = checks.of(&endpoint(1), &health("/"));
        assert_eq!(waited(&checks, 60).await, 3_000, "a probe may take two seconds");
        assert_eq!(waited(&checks, 1).await, 1_000);
        let (told, _) = tokio::join!(waited(&checks, 60), async { one.tell(false) });
        assert_eq!(told, 0);
        assert_eq!(waited(&checks, 60).await, 0, "it is known already");
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
