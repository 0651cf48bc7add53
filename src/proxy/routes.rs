//! What requests are served by: an immutable snapshot for the traffic threads, and the state that
//! the control side makes the next one from.
//!
//! A change costs O(changed rules). Target state is kept by target identity: it outlives rule
//! changes and goes with the last rule that names it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::checks::{Check, Checks, Unseen};
use super::pool::Endpoint;
use super::running::{Known, Lasting, Routes, Running, RunningRoute, Upstream};
use super::terms::RecentTerms;
use crate::model::ids::{RuleId, Version};
use crate::model::latency::LatencyInfoRow;
use crate::model::moment::{Moment, WallTime};
use crate::model::rule::{Rule, Target, TargetAddress};
use crate::routing::cell::TargetCell;
use crate::routing::hash;
use crate::routing::matcher::Asked;
use crate::routing::pick::{self, Candidate, CostBreakdown};
use crate::routing::prior::Prior;
use crate::routing::table::{Route, Table};
use crate::telemetry::request_metrics::RequestMetrics;

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
    targets: BTreeMap<Arc<TargetAddress>, Weak<Known>>,
    terms: RecentTerms,
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

impl RoutesState {
    pub(crate) fn new(metrics: Arc<RequestMetrics>) -> RoutesState {
        let table = Table::new(rand::random());
        RoutesState {
            targets: BTreeMap::new(),
            terms: RecentTerms::default(),
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
                    let run = |rule: &Rule| self.run(&change.id, change.version, rule);
                    match Route::compile(change.id.clone(), rule, change.created, run) {
                        Ok(route) => self.table.insert(Arc::new(route)),
                        Err(refused) => rejected.push((change.id, refused.reason)),
                    }
                }
            }
        }
        if self.targets.len() >= self.sweep_at {
            self.targets.retain(|_, known| known.strong_count() > 0);
            self.sweep_at = TARGETS_UNSWEPT.max(self.targets.len() * 2);
        }
        rejected
    }

    /// Hands the snapshot to the traffic threads: one swap.
    pub(crate) fn publish(&self) {
        self.published.store(Arc::new(self.table.clone()));
    }

    fn run(&mut self, id: &RuleId, version: Option<Version>, rule: &Rule) -> Running {
        let held = self.table.route(id).map(|route| route.payload.lasting.clone());
        let lasting = held.unwrap_or_else(|| {
            let lasting: Arc<Lasting> = Arc::default();
            self.metrics.count(id.clone(), lasting.clone());
            lasting
        });
        let known: Vec<Arc<Known>> = rule.targets().iter().map(|it| self.known(it)).collect();
        let addresses = known.iter().map(|known| known.endpoint.address.clone());
        let counted_at = lasting.counters.targets(addresses.collect());
        let upstream = |((target, known), counted_at): ((&Target, Arc<Known>), _)| {
            let health = rule.health.active.as_ref();
            let check = health.map(|health| self.checks.of(&known.endpoint, health));
            Upstream { known, counted_at, check, weight: target.weight }
        };
        let upstreams = rule.targets().iter().zip(known).zip(counted_at).map(upstream).collect();
        let terms = self.terms.of(rule);
        Running { upstreams, lasting, terms, version }
    }

    fn known(&mut self, target: &Target) -> Arc<Known> {
        if let Some(known) = self.targets.get(&target.address).and_then(Weak::upgrade) {
            if let Some(hint) = target.latency_hint {
                known.cell.hint(hint);
            }
            return known;
        }
        let address = Arc::new(target.address.clone());
        let text = address.to_string();
        let known = Arc::new(Known {
            endpoint: Endpoint::new(address.clone(), None),
            identity: hash::identity(text.as_bytes()),
            quoted: format!("\"{text}\"").into_boxed_str(),
            cell: TargetCell::new(target.latency_hint),
        });
        self.targets.insert(address, Arc::downgrade(&known));
        known
    }

    /// What this node knows about its targets, for peers and people.
    pub(crate) fn latency_rows(&self, now: Moment) -> Vec<LatencyInfoRow> {
        self.targets
            .iter()
            .filter_map(|(address, known)| Some((address, known.upgrade()?)))
            .filter_map(|(address, known)| Some((address, known.cell.readings(now)?)))
            .map(|(address, readings)| readings.row(address.to_string()))
            .collect()
    }

    /// Wakes whoever waits for more checks.
    pub(super) fn checks_added(&self) -> Arc<Notify> {
        self.checks.added()
    }

    /// Checks that nobody probes yet, from now on the caller's business.
    pub(super) fn fresh_checks(&mut self) -> Vec<Weak<Check>> {
        self.checks.take_fresh()
    }

    /// Checks of the rules in force that nobody has a result of yet.
    pub(crate) fn unseen_checks(&self) -> Unseen {
        self.checks.unseen()
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

    /// Targets of which nothing was measured here, or too long ago; in order.
    pub(crate) fn unknown_targets(&self, now: Moment) -> Vec<Arc<TargetAddress>> {
        let unknown = |known: Arc<Known>| !known.cell.is_sampled(now);
        self.targets
            .iter()
            .filter(|(_, known)| known.upgrade().is_some_and(unknown))
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// Targets that nobody has gone to for long; at most so many.
    pub(super) fn unvisited(&self, most: usize, now: Moment) -> Vec<Arc<Known>> {
        let known = self.targets.values().filter_map(Weak::upgrade);
        known.filter(|known| known.cell.is_unvisited(now)).take(most).collect()
    }

    /// Begins with what peers say about targets that are unknown here; returns how many.
    pub(crate) fn import(
        &self,
        priors: &BTreeMap<Arc<TargetAddress>, Prior>,
        now: Moment,
    ) -> usize {
        let mut taken = 0;
        if priors.is_empty() {
            // Mostly; and rules may be very many.
            return taken;
        }
        for route in self.table.routes() {
            let Running { upstreams, lasting, .. } = &route.payload;
            let (mut told, mut sum) = (0u32, 0.0);
            for Upstream { known, .. } in upstreams.iter() {
                if let Some(prior) = priors.get(&known.endpoint.address) {
                    taken += usize::from(known.cell.import(prior, now));
                    (told, sum) = (told + 1, sum + prior.svc_ms);
                }
            }
            if told > 0 {
                lasting.selector.import(sum / f64::from(told));
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
    let candidates: Vec<Candidate<'_>> =
        running.upstreams.iter().map(Upstream::candidate).collect();
    let costs = pick::explain(&candidates, &running.lasting.selector, now);
    let targets = running
        .upstreams
        .iter()
        .zip(matched.route.rule.targets())
        .zip(costs)
        .map(|((upstream, target), cost)| ExplainedTarget {
            address: upstream.known.endpoint.address.clone(),
            weight: upstream.weight,
            region: target.region.clone(),
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

/// Fewer remembered targets are never looked through.
const TARGETS_UNSWEPT: usize = 64;
