//! What requests are served by: an immutable snapshot for the traffic threads, and the state that
//! the control side makes the next one from.
//!
//! A change costs O(changed rules). Target state is kept by target identity: it outlives rule
//! changes and goes with the last rule that names it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::checks::{Check, Checks};
use super::headers;
use super::pool::Endpoint;
use crate::model::ids::{RuleId, Version};
use crate::model::latency::LatencyInfoRow;
use crate::model::moment::{Moment, WallTime};
use crate::model::rule::{Filter, HeaderEdits, Rewrite, Rule, Target, TargetAddress};
use crate::routing::budget::Budget;
use crate::routing::cell::TargetCell;
use crate::routing::hash;
use crate::routing::matcher::Asked;
use crate::routing::pick::{self, Candidate, CostBreakdown};
use crate::routing::prior::Prior;
use crate::routing::selector::Selector;
use crate::routing::table::{Matched, Route, Table};
use crate::telemetry::request_metrics::{RequestMetrics, RuleCounters, TargetCounters};

/// What requests are served by at one moment.
pub(crate) type Routes = Table<Arc<Running>>;

/// A rule in force.
pub(crate) type RunningRoute = Route<Arc<Running>>;

/// What a rule needs at run time.
pub(crate) struct Running {
    /// The version in force; none for an overlay that stands alone.
    pub(crate) version: Option<Version>,
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) counters: Arc<RuleCounters>,
}

/// What a rule's traffic has taught and used; it outlives the rule's versions.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    pub(crate) selector: Selector,
    pub(crate) budget: Budget,
    /// Requests under way, while the rule limits them.
    pub(crate) in_flight: AtomicU32,
}

/// One target of one rule.
pub(crate) struct Upstream {
    pub(crate) address: Arc<TargetAddress>,
    /// The same with what else a connection to it depends on.
    pub(crate) endpoint: Endpoint,
    pub(crate) weight: u32,
    identity: u64,
    /// Of the rule's own, where it checks its targets.
    check: Option<Arc<Check>>,
    pub(crate) region: String,
    pub(crate) cell: Arc<TargetCell>,
    pub(crate) counters: Arc<TargetCounters>,
}

/// A rule to be put in force, or out of it.
pub(crate) struct RouteChange {
    pub(crate) id: RuleId,
    pub(crate) version: Option<Version>,
    /// None takes the rule out.
    pub(crate) rule: Option<Arc<Rule>>,
    pub(crate) created: WallTime,
}

/// The control side's hold on the routes.
pub(crate) struct RoutesState {
    table: Routes,
    targets: BTreeMap<Arc<TargetAddress>, Weak<TargetCell>>,
    checks: Checks,
    /// Looked through when it has grown to this many: O(1) per change on the long run.
    sweep_at: usize,
    published: Arc<ArcSwap<Routes>>,
    metrics: Arc<RequestMetrics>,
}

/// Why a request goes where it goes.
pub(crate) struct Explanation {
    pub(crate) rule: RuleId,
    pub(crate) version: Option<Version>,
    pub(crate) alternative: usize,
    pub(crate) targets: Vec<ExplainedTarget>,
}

/// One target in an explanation.
pub(crate) struct ExplainedTarget {
    pub(crate) address: Arc<TargetAddress>,
    pub(crate) weight: u32,
    pub(crate) region: String,
    pub(crate) cost: CostBreakdown,
}

impl Upstream {
    /// As one to choose from.
    pub(crate) fn candidate(&self) -> Candidate<'_> {
        let down = self.check.as_ref().is_some_and(|check| check.is_down());
        Candidate { cell: &self.cell, weight: self.weight, identity: self.identity, down }
    }
}

impl Running {
    fn candidates(&self) -> Vec<Candidate<'_>> {
        self.upstreams.iter().map(|up| up.candidate()).collect()
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({:?}, {} targets)", self.version, self.upstreams.len())
    }
}

impl RoutesState {
    pub(crate) fn new(metrics: Arc<RequestMetrics>) -> RoutesState {
        let table = Table::new(rand::random());
        RoutesState {
            targets: BTreeMap::new(),
            checks: Checks::default(),
            sweep_at: TARGETS_UNSWEPT,
            published: Arc::new(ArcSwap::from_pointee(table.clone())),
            table,
            metrics,
        }
    }

    /// Where the traffic threads read from.
    pub(crate) fn published(&self) -> Arc<ArcSwap<Routes>> {
        self.published.clone()
    }

    /// Changes the next snapshot; returns which rules could not be put in force, and why. Their
    /// last version stays.
    pub(crate) fn apply(&mut self, changes: Vec<RouteChange>) -> Vec<(RuleId, String)> {
        let mut rejected = Vec::new();
        for change in changes {
            match change.rule {
                None => {
                    if self.table.remove(&change.id).is_some() {
                        self.metrics.forget(&change.id);
                    }
                }
                Some(rule) => {
                    let running = Arc::new(self.run(&change.id, change.version, &rule));
                    let names = rule.targets().iter().map(|target| target.address.to_string());
                    let names: Vec<String> = names.collect();
                    let counters = running.counters.clone();
                    match Route::compile(change.id.clone(), rule, change.created, running) {
                        Ok(route) => {
                            self.table.insert(Arc::new(route));
                            counters.keep_targets(&names);
                        }
                        Err(refused) => {
                            self.forget(&change.id);
                            rejected.push((change.id, refused.reason));
                        }
                    }
                }
            }
        }
        if self.targets.len() >= self.sweep_at {
            self.targets.retain(|_, cell| cell.strong_count() > 0);
            self.sweep_at = TARGETS_UNSWEPT.max(self.targets.len() * 2);
        }
        rejected
    }

    /// Hands the snapshot to the traffic threads: one swap.
    pub(crate) fn publish(&self) {
        self.published.store(Arc::new(self.table.clone()));
    }

    /// Takes back what `run` began to count for a body that was rejected.
    fn forget(&mut self, id: &RuleId) {
        match self.table.route(id) {
            None => self.metrics.forget(id),
            Some(kept) => {
                let names = kept.rule.targets().iter().map(|target| target.address.to_string());
                kept.payload.counters.keep_targets(&names.collect::<Vec<_>>());
            }
        }
    }

    fn run(&mut self, id: &RuleId, version: Option<Version>, rule: &Rule) -> Running {
        let counters = self.metrics.rule(id);
        let upstreams = rule
            .targets()
            .iter()
            .map(|target| {
                let counters = counters.target(&target.address.to_string());
                let mut upstream = self.upstream(target, counters);
                let health = rule.health.active.as_ref();
                upstream.check = health.map(|health| self.checks.of(&upstream.endpoint, health));
                upstream
            })
            .collect();
        let lasting =
            self.table.route(id).map_or_else(Arc::default, |route| route.payload.lasting.clone());
        Running { version, lasting, upstreams, counters }
    }

    fn upstream(&mut self, target: &Target, counters: Arc<TargetCounters>) -> Upstream {
        let known = self.targets.get_key_value(&target.address);
        let held = known.and_then(|(address, cell)| Some((address.clone(), cell.upgrade()?)));
        let (address, cell) = held.unwrap_or_else(|| {
            let address = Arc::new(target.address.clone());
            let cell = Arc::new(TargetCell::new(target.latency_hint));
            self.targets.insert(address.clone(), Arc::downgrade(&cell));
            (address, cell)
        });
        let region = target.region.clone();
        let endpoint = Endpoint::new(address.clone(), None);
        let identity = hash::identity(address.to_string().as_bytes());
        let weight = target.weight;
        Upstream { address, endpoint, weight, identity, check: None, region, cell, counters }
    }

    /// What this node knows about its targets, for peers and people.
    pub(crate) fn latency_rows(&self, now: Moment) -> Vec<LatencyInfoRow> {
        self.targets
            .iter()
            .filter_map(|(address, cell)| Some((address, cell.upgrade()?)))
            .filter_map(|(address, cell)| Some((address, cell.readings(now)?)))
            .map(|(address, readings)| readings.row(address.to_string()))
            .collect()
    }

    /// Checks that nobody probes yet, from now on the caller's business.
    pub(super) fn fresh_checks(&mut self) -> Vec<Weak<Check>> {
        self.checks.take_fresh()
    }

    /// What active checks say: the target, the path asked for, and whether it is well.
    pub(crate) fn verdicts(&self) -> Vec<(String, String, bool)> {
        self.checks.verdicts()
    }

    /// How much of its retry budget each rule has left that has used some of it lately; the first
    /// so many of them.
    pub(crate) fn retry_budgets(&self, most: usize, now: Moment) -> Vec<(RuleId, f64)> {
        let left = |route: &Arc<RunningRoute>| {
            let terms = &route.rule.retry.budget;
            Some((route.id.clone(), route.payload.lasting.budget.remaining(terms, now)?))
        };
        self.table.routes().filter_map(left).take(most).collect()
    }

    /// How many targets are remembered, those that no rule names any more included.
    #[cfg(test)]
    pub(super) fn known_targets(&self) -> usize {
        self.targets.len()
    }

    /// Targets of which nothing is known here, by the name that peers use.
    pub(crate) fn unknown_targets(&self, now: Moment) -> Vec<String> {
        self.targets
            .iter()
            .filter_map(|(address, cell)| Some((address, cell.upgrade()?)))
            .filter(|(_, cell)| cell.readings(now).is_none())
            .map(|(address, _)| address.to_string())
            .collect()
    }

    /// Begins with what peers say about targets that are unknown here; returns how many.
    pub(crate) fn import(&self, priors: &BTreeMap<String, Prior>, now: Moment) -> usize {
        let mut taken = 0;
        for route in self.table.routes() {
            for upstream in &route.payload.upstreams {
                if let Some(prior) = priors.get(&upstream.address.to_string()) {
                    let selector = &route.payload.lasting.selector;
                    taken += usize::from(upstream.cell.import(prior, selector, now));
                }
            }
        }
        taken
    }
}

/// Which rule takes a request, and what each of its targets would cost.
pub(crate) fn explain<'h>(
    routes: &Routes,
    asked: &Asked<'_>,
    header: &impl Fn(&str) -> Option<&'h str>,
    now: Moment,
) -> Option<Explanation> {
    let matched = routes.find(asked, header)?;
    let running = &matched.route.payload;
    let costs = pick::explain(&running.candidates(), &running.lasting.selector, now);
    let targets = running
        .upstreams
        .iter()
        .zip(costs)
        .map(|(upstream, cost)| ExplainedTarget {
            address: upstream.address.clone(),
            weight: upstream.weight,
            region: upstream.region.clone(),
            cost,
        })
        .collect();
    Some(Explanation {
        rule: matched.route.id.clone(),
        version: running.version,
        alternative: matched.alternative,
        targets,
    })
}

/// The rule's filters, sorted by whom they concern.
pub(crate) struct Filters<'r> {
    pub(crate) request: Option<&'r HeaderEdits>,
    pub(crate) response: Option<&'r HeaderEdits>,
    pub(crate) rewrite: Option<&'r Rewrite>,
}

impl<'r> Filters<'r> {
    /// Of a rule; no kind stands twice.
    pub(crate) fn of(rule: &'r Rule) -> Filters<'r> {
        let mut filters = Filters { request: None, response: None, rewrite: None };
        for filter in &rule.filters {
            match filter {
                Filter::RequestHeaders(edits) => filters.request = Some(edits),
                Filter::ResponseHeaders(edits) => filters.response = Some(edits),
                Filter::Rewrite(rewrite) => filters.rewrite = Some(rewrite),
            }
        }
        filters
    }

    /// Edits what goes back to the client.
    pub(crate) fn respond(&self, headers: &mut http::HeaderMap) {
        if let Some(edits) = self.response {
            headers::edit(headers, edits);
        }
    }

    /// The path and query that the target sees.
    pub(crate) fn path<T>(
        &self,
        matched: &Matched<'_, T>,
        path: &str,
        query: Option<&str>,
    ) -> String {
        use crate::model::rule::PathRewrite;
        let rewritten = match self.rewrite.and_then(|rewrite| rewrite.path.as_ref()) {
            None => path.to_string(),
            Some(PathRewrite::Whole(whole)) => whole.clone(),
            Some(PathRewrite::Prefix(prefix)) => {
                let rest = &path[matched.prefix.unwrap_or(0).min(path.len())..];
                let joined =
                    format!("{}/{}", prefix.trim_end_matches('/'), rest.trim_start_matches('/'));
                if rest.is_empty() && !prefix.is_empty() { prefix.clone() } else { joined }
            }
        };
        match query {
            Some(query) => format!("{rewritten}?{query}"),
            None => rewritten,
        }
    }
}

/// Fewer remembered targets are never looked through.
const TARGETS_UNSWEPT: usize = 64;
