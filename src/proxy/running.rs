//! A rule in force, as its requests read it.
//!
//! With very many rules nothing of any one is in a cache, so a request reads few places: its route
//! with what is here, one cache line or two; what it counts and learns (`Lasting`), two; what
//! rules have in common, once for all of them (`Terms`, `Known`). It looks at the rule itself only
//! for what most rules do not say.

use std::mem::offset_of;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::checks::Check;
use super::headers;
use super::pool::Endpoint;
use super::terms::Terms;
use crate::model::ids::Version;
use crate::model::rule::{Filter, HeaderEdits, PathRewrite, Rewrite};
use crate::routing::budget::Budget;
use crate::routing::cell::TargetCell;
use crate::routing::pick::Candidate;
use crate::routing::selector::Selector;
use crate::routing::table::{Matched, Route, Table};
use crate::telemetry::prefetch::prefetch;
use crate::telemetry::request_metrics::{Counted, CountedAt, RuleCounters};

/// What requests are served by at one moment.
pub(crate) type Routes = Table<Running>;

/// A rule in force.
pub(crate) type RunningRoute = Route<Running>;

/// What a rule needs at run time. In this order, so that all but the last shares a cache line.
#[repr(C)]
pub(crate) struct Running {
    /// None where the rule answers by itself.
    pub(crate) upstreams: Upstreams,
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) terms: Arc<Terms>,
    /// The version in force; none for an overlay that stands alone.
    pub(crate) version: Option<Version>,
}

/// The targets of a rule, in its order.
pub(crate) enum Upstreams {
    /// Nearly always.
    One(Upstream),
    Many(Box<[Upstream]>),
}

/// One target of one rule.
pub(crate) struct Upstream {
    pub(crate) known: Arc<Known>,
    pub(crate) counted_at: CountedAt,
    /// Of the rule's own, where it checks its targets.
    pub(super) check: Option<Arc<Check>>,
    pub(crate) weight: u32,
}

/// A target that rules name: what is the same for all of them.
#[derive(Debug)]
pub(crate) struct Known {
    /// The address with what else a connection to it depends on.
    pub(crate) endpoint: Endpoint,
    /// The address as the access log shows it, quotes included.
    pub(super) quoted: Box<str>,
    pub(super) identity: u64,
    pub(crate) cell: TargetCell,
}

/// What a rule's traffic has taught, used and counted; it outlives the rule's versions. In this
/// order, so that what a request writes of the first three is in two cache lines, side by side.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Lasting {
    pub(crate) counters: RuleCounters,
    pub(crate) selector: Selector,
    pub(crate) budget: Budget,
    /// Requests under way, while the rule limits them.
    pub(crate) in_flight: AtomicU32,
}

impl Counted for Lasting {
    fn counters(&self) -> &RuleCounters {
        &self.counters
    }
}

impl Deref for Upstreams {
    type Target = [Upstream];

    fn deref(&self) -> &[Upstream] {
        match self {
            Upstreams::One(upstream) => std::slice::from_ref(upstream),
            Upstreams::Many(upstreams) => upstreams,
        }
    }
}

impl FromIterator<Upstream> for Upstreams {
    fn from_iter<I: IntoIterator<Item = Upstream>>(upstreams: I) -> Upstreams {
        let upstreams: Vec<Upstream> = upstreams.into_iter().collect();
        match <[Upstream; 1]>::try_from(upstreams) {
            Ok([only]) => Upstreams::One(only),
            Err(upstreams) => Upstreams::Many(upstreams.into()),
        }
    }
}

impl Running {
    /// Asks for what a request is about to write. Where rules are many no cache holds it.
    pub(super) fn prefetch(&self) {
        let Lasting { counters, budget, .. } = &*self.lasting;
        prefetch(counters.usually_written());
        prefetch(budget);
    }
}

impl Upstream {
    /// As one to choose from.
    pub(crate) fn candidate(&self) -> Candidate<'_> {
        let down = self.check.as_ref().is_some_and(|check| check.is_down());
        let Known { cell, identity, .. } = &*self.known;
        Candidate { cell, weight: self.weight, identity: *identity, down }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({:?}, {} targets)", self.version, self.upstreams.len())
    }
}

/// The rule's filters, sorted by whom they concern.
#[derive(Default)]
pub(crate) struct Filters<'r> {
    pub(crate) request: Option<&'r HeaderEdits>,
    pub(crate) response: Option<&'r HeaderEdits>,
    pub(crate) rewrite: Option<&'r Rewrite>,
}

impl<'r> Filters<'r> {
    /// Of a rule.
    pub(crate) fn of(route: &'r RunningRoute) -> Filters<'r> {
        let mut filters = Filters::default();
        for filter in &route.payload.terms.filters {
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

const ARC_COUNTS: usize = 2 * size_of::<usize>();
const CACHE_LINE: usize = 64;

// With the counts of an `Arc`, a route fills two cache lines.
const _: () = assert!(ARC_COUNTS + size_of::<RunningRoute>() <= 2 * CACHE_LINE);
// Of what lasts, the counters end and the selector begins in one cache line, the budget begins in
// the next one.
const _: () = assert!((ARC_COUNTS + offset_of!(Lasting, selector)) % CACHE_LINE == 32);
const _: () = assert!((ARC_COUNTS + offset_of!(Lasting, budget)) % CACHE_LINE == 16);
