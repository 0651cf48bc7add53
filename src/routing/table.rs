//! The route table: which rule takes a request, in one total order.
//!
//! Persistent maps all through: a copy is a pointer, and a change touches only the branches of
//! its hosts. Cost of a look-up: one map look-up per label of the host and segment of the path,
//! and less than ten cache lines that nobody else's requests touch.
//! Generic over what a rule needs at run time; knows nothing of targets.

mod branch;
mod bucket;
mod trie;

use std::sync::Arc;

use imbl::OrdMap;
use regex_automata::meta::Regex;

use self::branch::Branch;
use self::trie::{Seed, Trie};
use super::matcher::{self, Asked, RegexRefused};
use crate::model::ids::RuleId;
use crate::model::moment::WallTime;
use crate::model::rule::{HostPattern, PathMatch, Rule};

/// Rules by what they match.
#[derive(Debug)]
pub struct Table<T> {
    routes: OrdMap<RuleId, Arc<Route<T>>>,
    exact: Trie<Branch<T>>,
    suffix: Trie<Branch<T>>,
    any: Branch<T>,
    seed: Seed,
}

/// A rule, compiled. In this order, so that the payload begins in the cache line that whoever
/// holds a route has at hand.
#[derive(Debug)]
#[repr(C)]
pub struct Route<T> {
    /// What it needs at run time.
    pub payload: T,
    /// Which rule.
    pub id: RuleId,
    /// What it says.
    pub rule: Arc<Rule>,
    /// When it began to live; older rules win ties.
    pub created: WallTime,
    regexes: Option<Box<Regexes>>,
}

/// Of the alternatives whose path is an expression, in their order.
#[derive(Debug)]
struct Regexes(Vec<(usize, Regex)>);

/// A rule that takes a request.
#[derive(Debug)]
pub struct Matched<'t, T> {
    /// The rule.
    pub route: &'t Arc<Route<T>>,
    /// Which of its alternatives.
    pub alternative: usize,
    /// Bytes of the path that a prefix took.
    pub prefix: Option<usize>,
}

impl<T> Route<T> {
    /// Compiles a rule's expressions; the payload is made once that has come off.
    pub fn compile(
        id: RuleId,
        rule: Arc<Rule>,
        created: WallTime,
        payload: impl FnOnce(&Rule) -> T,
    ) -> Result<Route<T>, RegexRefused> {
        let alternatives = rule.alternatives.iter().enumerate();
        let regexes = alternatives
            .filter_map(|(index, alternative)| match &alternative.path {
                Some(PathMatch::Regex(pattern)) => {
                    Some(matcher::compile(pattern).map(|regex| (index, regex)))
                }
                _ => None,
            })
            .collect::<Result<Vec<_>, _>>()?;
        let regexes = (!regexes.is_empty()).then(|| Box::new(Regexes(regexes)));
        let payload = payload(&rule);
        Ok(Route { id, rule, created, payload, regexes })
    }

    /// Whether the expression of this alternative takes a path.
    fn matches(&self, alternative: usize, path: &str) -> bool {
        self.regexes.as_ref().is_some_and(|regexes| {
            let Regexes(all) = &**regexes;
            let at = all.binary_search_by_key(&alternative, |it| it.0);
            at.is_ok_and(|at| all[at].1.is_match(path))
        })
    }
}

impl<T> Table<T> {
    /// No rules. The seed changes nothing but where things stand in memory; nobody who chooses
    /// hosts and paths should know it.
    pub fn new(seed: u64) -> Table<T> {
        Table {
            routes: OrdMap::new(),
            exact: Trie::default(),
            suffix: Trie::default(),
            any: Branch::default(),
            seed: Seed::new(seed),
        }
    }

    /// Puts a rule in force, in place of the one with the same id; O(its own conditions).
    pub fn insert(&mut self, route: Arc<Route<T>>) {
        self.remove(&route.id);
        self.each_branch(&route, Branch::insert);
        self.routes.insert(route.id.clone(), route);
    }

    /// Takes a rule out of force.
    pub fn remove(&mut self, id: &RuleId) -> Option<Arc<Route<T>>> {
        let route = self.routes.remove(id)?;
        self.each_branch(&route, Branch::remove);
        Some(route)
    }

    /// The rule with this id.
    pub fn route(&self, id: &RuleId) -> Option<&Arc<Route<T>>> {
        self.routes.get(id)
    }

    /// All rules, by id.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route<T>>> {
        self.routes.values()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The rule that takes a request: the first in the order of host, path, method, headers,
    /// query, age and id (Gateway API, HTTPRoute precedence).
    pub fn find<'t, 'h>(
        &'t self,
        asked: &Asked<'_>,
        header: &impl Fn(&str) -> Option<&'h str>,
    ) -> Option<Matched<'t, T>> {
        let find = |branch: &'t Branch<T>| branch.find(self.seed, asked, header);
        if let Some(found) = self.exact.find(self.seed, asked.host).and_then(find) {
            return Some(found);
        }
        let mut rest = asked.host;
        while !self.suffix.is_empty()
            && let Some((_, suffix)) = rest.split_once('.')
        {
            rest = suffix;
            if let Some(found) = self.suffix.find(self.seed, suffix).and_then(find) {
                return Some(found);
            }
        }
        find(&self.any)
    }

    /// Pairs of rules that only age and id tell apart where both match.
    pub fn conflicts(&self) -> Vec<(RuleId, RuleId)> {
        let by_host = self.exact.values().into_iter().chain(self.suffix.values());
        let mut pairs: Vec<_> = by_host.chain([&self.any]).flat_map(Branch::ties).collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }

    fn each_branch(
        &mut self,
        route: &Arc<Route<T>>,
        change: impl Fn(&mut Branch<T>, Seed, &Arc<Route<T>>),
    ) {
        let seed = self.seed;
        if route.rule.hosts.is_empty() {
            change(&mut self.any, seed, route);
        }
        for host in &route.rule.hosts {
            let (map, key) = match host {
                HostPattern::Exact(name) => (&mut self.exact, name),
                HostPattern::Suffix(suffix) => (&mut self.suffix, suffix),
            };
            map.change(seed, key, |branch| change(branch, seed, route));
        }
    }
}

// A derived implementation would ask the same of `T`, which is never cloned.
impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table {
            routes: self.routes.clone(),
            exact: self.exact.clone(),
            suffix: self.suffix.clone(),
            any: self.any.clone(),
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests;
