//! What happened to requests, counted with plain atomics on the traffic threads.
//!
//! Cost: a handful of relaxed additions a request. Per-rule series are cut to the busiest ones
//! when they are read, not when they are counted. Hosts are never a label.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::model::ids::RuleId;
use crate::model::rule::TargetAddress;

/// Everything counted at one node.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics {
    pub(crate) in_flight: AtomicI64,
    /// Requests of all kinds since the start.
    pub(crate) answered: AtomicU64,
    pub(crate) connections: AtomicI64,
    /// Those of them that hold no buffer, because nothing goes on.
    pub(crate) resting: AtomicI64,
    /// Requests refused for want of room at this node.
    pub(crate) shed: AtomicU64,
    /// Connections closed for want of room.
    pub(crate) turned_away: AtomicU64,
    pub(crate) duration: Histogram<16>,
    pub(crate) overhead: Histogram<12>,
    /// Requests that no rule took, and those refused before.
    pub(crate) unrouted: RuleCounters,
    rules: Mutex<BTreeMap<RuleId, Arc<dyn Counted>>>,
}

/// What holds the counters of a rule, beside what else it is.
pub(crate) trait Counted: Debug + Send + Sync {
    /// The counters.
    fn counters(&self) -> &RuleCounters;
}

/// The counters of one rule; they outlive its versions. What nearly all requests write is last, and
/// together: the successes of the first target, and what was answered.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct RuleCounters {
    targets: Mutex<Targets>,
    others: OnceLock<Box<[[Classes; METHODS.len()]; PROTOCOLS.len()]>>,
    /// GET in HTTP/1.1: all that most rules ever see. Its class 2 is `served`.
    usual: Classes,
    first: TargetCounters,
    served: AtomicU64,
}

/// Requests by the first digit of their status.
type Classes = [AtomicU64; 6];

/// The targets of a rule, in the order of their addresses.
#[derive(Debug, Default)]
struct Targets {
    list: Box<[(Arc<TargetAddress>, CountedAt)]>,
    /// The first target that the rule ever had has the place beside the rule's own counters; nobody
    /// else has it when that one is gone, for something may still be on its way there.
    first_taken: bool,
}

/// Where the attempts at a target of a rule are counted: with the rule, or apart.
#[derive(Clone, Debug)]
pub(crate) enum CountedAt {
    Rule,
    Own(Arc<TargetCounters>),
}

/// The counters of one rule's target.
#[derive(Debug, Default)]
pub(crate) struct TargetCounters {
    outcomes: [AtomicU64; OUTCOMES.len()],
}

/// How an attempt ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// A 5xx or a broken connection.
    Failure,
    /// No connection.
    ConnectError,
    /// No response head in time.
    Timeout,
    /// The client went away.
    Aborted,
    /// A response head below 500.
    Success,
}

/// A fixed-bucket histogram in seconds.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [f64],
    buckets: [AtomicU64; N],
    sum_micros: AtomicU64,
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];
/// What clients speak; HTTP/1.0 counts with its successor.
const PROTOCOLS: [&str; 2] = ["http/1.1", "http/2"];
const OUTCOMES: [&str; 5] = ["failure", "connect_error", "timeout", "aborted", "success"];
/// The OpenTelemetry boundaries for HTTP durations, in seconds.
const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// 50 us to 100 ms.
const OVERHEAD_BOUNDS: [f64; 11] =
    [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1];
/// Rules with series of their own.
const BUSIEST: usize = 100;

impl Default for Histogram<16> {
    fn default() -> Self {
        Histogram::new(&DURATION_BOUNDS)
    }
}

impl Default for Histogram<12> {
    fn default() -> Self {
        Histogram::new(&OVERHEAD_BOUNDS)
    }
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Histogram { bounds, buckets, sum_micros: AtomicU64::new(0) }
    }

    /// Counts one.
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let index = self.bounds.iter().position(|bound| seconds <= *bound);
        self.buckets[index.unwrap_or(self.bounds.len()).min(N - 1)].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    fn write(&self, name: &str, help: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (index, bound) in self.bounds.iter().enumerate() {
            total += self.buckets[index].load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        total += self.buckets[self.bounds.len().min(N - 1)].load(Relaxed);
        let sum = Duration::from_micros(self.sum_micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}");
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {total}");
    }
}

impl RuleCounters {
    /// Counts a finished request.
    pub(crate) fn request(&self, http2: bool, method: &str, status: u16) {
        let row = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status / 100).min(5);
        let count = match (http2, row, class) {
            (false, 0, 2) => &self.served,
            (false, 0, _) => &self.usual[class],
            _ => &self.others.get_or_init(Box::default)[usize::from(http2)][row][class],
        };
        count.fetch_add(1, Relaxed);
    }

    /// Counts an attempt at a target.
    pub(crate) fn attempt(&self, at: &CountedAt, end: AttemptEnd) {
        let target = match at {
            CountedAt::Rule => &self.first,
            CountedAt::Own(own) => own,
        };
        target.outcomes[end as usize].fetch_add(1, Relaxed);
    }

    /// What most requests write.
    pub(crate) fn usually_written(&self) -> &AtomicU64 {
        &self.served
    }

    /// All requests so far.
    fn total(&self) -> u64 {
        let others = self.others.get().into_iter().flat_map(|others| others.iter().flatten());
        let rest = others.chain([&self.usual]).flatten().chain([&self.served]);
        rest.map(|count| count.load(Relaxed)).sum()
    }

    /// The counters of the rule's targets, which are these now; others are forgotten.
    pub(crate) fn targets(&self, now: Vec<Arc<TargetAddress>>) -> Vec<CountedAt> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let Targets { list, first_taken } = &mut *targets;
        let counters = |address: &Arc<TargetAddress>| match list
            .binary_search_by(|held| held.0.cmp(address))
        {
            Ok(at) => list[at].1.clone(),
            Err(_) if !std::mem::replace(first_taken, true) => CountedAt::Rule,
            Err(_) => CountedAt::Own(Arc::default()),
        };
        let found: Vec<CountedAt> = now.iter().map(counters).collect();
        let mut held: Vec<_> = now.into_iter().zip(found.iter().cloned()).collect();
        held.sort_by(|one, other| one.0.cmp(&other.0));
        *list = held.into();
        found
    }

    /// Each target with how its attempts ended.
    fn attempts(&self) -> Vec<(Arc<TargetAddress>, [u64; OUTCOMES.len()])> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |at: &CountedAt| match at {
            CountedAt::Rule => self.first.counts(),
            CountedAt::Own(own) => own.counts(),
        };
        targets.list.iter().map(|(address, at)| (address.clone(), counts(at))).collect()
    }

    /// Requests of this kind, with a status that begins so.
    fn count(&self, spoken: usize, row: usize, class: usize) -> u64 {
        let count = match (spoken, row, class) {
            (0, 0, 2) => Some(&self.served),
            (0, 0, _) => Some(&self.usual[class]),
            _ => self.others.get().map(|others| &others[spoken][row][class]),
        };
        count.map_or(0, |count| count.load(Relaxed))
    }
}

impl TargetCounters {
    fn counts(&self) -> [u64; OUTCOMES.len()] {
        std::array::from_fn(|outcome| self.outcomes[outcome].load(Relaxed))
    }
}

impl RequestMetrics {
    /// From now on these are the counters of a rule.
    pub(crate) fn count(&self, id: RuleId, counted: Arc<dyn Counted>) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).insert(id, counted);
    }

    /// Forgets a rule that is gone.
    pub(crate) fn forget(&self, id: &RuleId) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The Prometheus text of everything here.
    pub(crate) fn write(&self, out: &mut String) {
        let held: Vec<(RuleId, Arc<dyn Counted>)> = {
            let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            rules.iter().map(|(id, rule)| (id.clone(), rule.clone())).collect()
        };
        let rules: Vec<(&RuleId, &RuleCounters)> =
            held.iter().map(|(id, rule)| (id, rule.counters())).collect();
        let mut busiest: Vec<(u64, usize)> =
            rules.iter().enumerate().map(|(i, (_, counters))| (counters.total(), i)).collect();
        busiest.sort_unstable_by(|a, b| b.cmp(a));
        self.write_requests(&rules, &busiest, out);
        write_attempts(&rules, &busiest, out);
        self.duration.write(
            "tradewind_request_duration_seconds",
            "From the request's head to the response's last byte.",
            out,
        );
        self.overhead.write(
            "tradewind_proxy_overhead_seconds",
            "To the response head, without the time spent waiting for the target.",
            out,
        );
        let gauges = [
            ("tradewind_requests_in_flight", &self.in_flight),
            ("tradewind_connections", &self.connections),
            ("tradewind_connections_resting", &self.resting),
        ];
        for (name, gauge) in gauges {
            let _ = writeln!(out, "# TYPE {name} gauge\n{name} {}", gauge.load(Relaxed));
        }
        let counters = [
            ("tradewind_requests_shed_total", &self.shed),
            ("tradewind_connections_refused_total", &self.turned_away),
        ];
        for (name, counter) in counters {
            let _ = writeln!(out, "# TYPE {name} counter\n{name} {}", counter.load(Relaxed));
        }
    }

    fn write_requests(
        &self,
        rules: &[(&RuleId, &RuleCounters)],
        busiest: &[(u64, usize)],
        out: &mut String,
    ) {
        let name = "tradewind_requests_total";
        let _ = writeln!(out, "# HELP {name} Requests answered.\n# TYPE {name} counter");
        for (_, index) in busiest.iter().take(BUSIEST) {
            let (id, counters) = rules[*index];
            write_rule(name, id.as_str(), &[counters], out);
        }
        let rest: Vec<&RuleCounters> =
            busiest.iter().skip(BUSIEST).map(|(_, index)| rules[*index].1).collect();
        if !rest.is_empty() {
            write_rule(name, "_other", &rest, out);
        }
        write_rule(name, "_none", &[&self.unrouted], out);
    }
}

fn write_rule(name: &str, rule: &str, counters: &[&RuleCounters], out: &mut String) {
    for (spoken, protocol) in PROTOCOLS.iter().enumerate() {
        for (row, method) in METHODS.iter().enumerate() {
            for class in 1..6 {
                let counts = counters.iter().map(|counters| counters.count(spoken, row, class));
                let count: u64 = counts.sum();
                if count > 0 {
                    let of =
                        format!("rule=\"{rule}\",method=\"{method}\",code_class=\"{class}xx\"");
                    let _ = writeln!(out, "{name}{{{of},protocol=\"{protocol}\"}} {count}");
                }
            }
        }
    }
}

fn write_attempts(rules: &[(&RuleId, &RuleCounters)], busiest: &[(u64, usize)], out: &mut String) {
    let name = "tradewind_upstream_attempts_total";
    let _ = writeln!(out, "# HELP {name} Attempts at targets.\n# TYPE {name} counter");
    for (_, index) in busiest.iter().take(BUSIEST) {
        let (id, counters) = rules[*index];
        for (address, counts) in counters.attempts() {
            write_outcomes(name, id.as_str(), &address.to_string(), counts, out);
        }
    }
    let mut rest = [0; OUTCOMES.len()];
    for (_, index) in busiest.iter().skip(BUSIEST) {
        for (_, counts) in rules[*index].1.attempts() {
            rest.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    write_outcomes(name, "_other", "_other", rest, out);
}

fn write_outcomes(
    name: &str,
    rule: &str,
    target: &str,
    counts: [u64; OUTCOMES.len()],
    out: &mut String,
) {
    for (outcome, count) in OUTCOMES.iter().zip(counts).filter(|(_, count)| *count > 0) {
        let labels = format!("rule=\"{rule}\",target=\"{target}\",outcome=\"{outcome}\"");
        let _ = writeln!(out, "{name}{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::Scheme;

    impl Counted for RuleCounters {
        fn counters(&self) -> &RuleCounters {
            self
        }
    }

    #[test]
    fn rules_beyond_the_busiest_are_counted_together() {
        let metrics = RequestMetrics::default();
        for number in 0..BUSIEST + 20 {
            let rule: Arc<RuleCounters> = Arc::default();
            metrics.count(RuleId::parse(&format!("r{number}")).unwrap(), rule.clone());
            let target =
                Arc::new(TargetAddress { scheme: Scheme::Http, host: "a".into(), port: 1 });
            for _ in 0..=usize::from(number < BUSIEST) {
                rule.request(false, "GET", 200);
                let counted_at = rule.targets(vec![target.clone()]);
                rule.attempt(&counted_at[0], AttemptEnd::Success);
            }
        }
        let mut shown = String::new();
        metrics.write(&mut shown);
        let lines = |start: &str| shown.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("tradewind_requests_total{"), BUSIEST + 1);
        assert_eq!(lines("tradewind_upstream_attempts_total{"), BUSIEST + 1);
        let other = "tradewind_requests_total{rule=\"_other\",method=\"GET\",code_class=\"2xx\",\
                     protocol=\"http/1.1\"} 20";
        assert!(shown.contains(other), "{shown}");
        let other = "{rule=\"_other\",target=\"_other\",outcome=\"success\"} 20";
        assert!(shown.contains(other), "{shown}");
    }

    #[test]
    fn a_target_never_gets_what_was_on_its_way_to_another() {
        let rule = RuleCounters::default();
        let target =
            |port| Arc::new(TargetAddress { scheme: Scheme::Http, host: "a".into(), port });
        let first = rule.targets(vec![target(1)]).remove(0);
        let both = rule.targets(vec![target(2), target(1)]);
        rule.attempt(&first, AttemptEnd::Success);
        rule.attempt(&both[1], AttemptEnd::Timeout);
        rule.attempt(&both[0], AttemptEnd::Success);
        assert_eq!(rule.attempts(), [(target(1), [0, 0, 1, 0, 1]), (target(2), [0, 0, 0, 0, 1])]);
        rule.targets(vec![target(3)]);
        rule.attempt(&first, AttemptEnd::Success);
        rule.attempt(&both[0], AttemptEnd::Success);
        assert_eq!(rule.attempts(), [(target(3), [0; OUTCOMES.len()])]);
    }
}
