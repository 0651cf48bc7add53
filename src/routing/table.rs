//! The route table: which rule takes a request, in one total order.
//!
//! Persistent maps all through: a copy is a pointer, and a change touches only the branches of
//! its hosts. Cost of a look-up: one map look-up per label of the host and segment of the path.
//! Generic over what a rule needs at run time; knows nothing of targets.

use std::sync::Arc;

use imbl::OrdMap;
use regex_automata::meta::Regex;

use super::matcher::{self, Asked, Rank, RegexRefused};
use crate::model::ids::RuleId;
use crate::model::moment::WallTime;
use crate::model::rule::{HostPattern, PathMatch, Rule};

/// Rules by what they match.
#[derive(Debug)]
pub struct Table<T> {
    routes: OrdMap<RuleId, Arc<Route<T>>>,
    exact: OrdMap<Arc<str>, Branch<T>>,
    suffix: OrdMap<Arc<str>, Branch<T>>,
    any: Branch<T>,
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Route<T> {
    /// Which rule.
    pub id: RuleId,
    /// What it says.
    pub rule: Arc<Rule>,
    /// When it began to live; older rules win ties.
    pub created: WallTime,
    /// What it needs at run time.
    pub payload: T,
    /// One per alternative, where its path is an expression.
    regexes: Vec<Option<Regex>>,
}

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

/// Everything for one host pattern.
#[derive(Debug)]
struct Branch<T> {
    exact: OrdMap<Arc<str>, Bucket<T>>,
    prefix: OrdMap<Arc<str>, Bucket<T>>,
    /// How many prefixes of each length there are: a path is not cut where none can stand.
    lengths: OrdMap<usize, usize>,
    regex: Bucket<T>,
    any: Bucket<T>,
}

/// Alternatives with the same path condition, in order.
type Bucket<T> = OrdMap<Rank, Arc<Route<T>>>;

impl<T> Route<T> {
    /// Compiles a rule's expressions.
    pub fn compile(
        id: RuleId,
        rule: Arc<Rule>,
        created: WallTime,
        payload: T,
    ) -> Result<Route<T>, RegexRefused> {
        let regexes = rule
            .alternatives
            .iter()
            .map(|alternative| match &alternative.path {
                Some(PathMatch::Regex(pattern)) => matcher::compile(pattern).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_, _>>()?;
        Ok(Route { id, rule, created, payload, regexes })
    }
}

impl<T> Table<T> {
    /// No rules.
    pub fn new() -> Table<T> {
        Table {
            routes: OrdMap::new(),
            exact: OrdMap::new(),
            suffix: OrdMap::new(),
            any: Branch::new(),
        }
    }

    /// Puts a rule in force, in place of the one with the same id; O(its own conditions).
    pub fn insert(&mut self, route: Arc<Route<T>>) {
        self.remove(&route.id);
        self.each_branch(&route, |branch, route| branch.insert(route));
        self.routes.insert(route.id.clone(), route);
    }

    /// Takes a rule out of force.
    pub fn remove(&mut self, id: &RuleId) -> Option<Arc<Route<T>>> {
        let route = self.routes.remove(id)?;
        self.each_branch(&route, |branch, route| branch.remove(route));
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
        if let Some(found) =
            self.exact.get(asked.host).and_then(|branch| branch.find(asked, header))
        {
            return Some(found);
        }
        let mut rest = asked.host;
        while let Some((_, suffix)) = rest.split_once('.') {
            rest = suffix;
            if let Some(found) =
                self.suffix.get(suffix).and_then(|branch| branch.find(asked, header))
            {
                return Some(found);
            }
        }
        self.any.find(asked, header)
    }

    /// Pairs of rules that only age and id tell apart where both match.
    pub fn conflicts(&self) -> Vec<(RuleId, RuleId)> {
        let branches = self.exact.values().chain(self.suffix.values()).chain([&self.any]);
        let mut pairs: Vec<(RuleId, RuleId)> = branches
            .flat_map(|branch| {
                let regex = [&branch.any];
                branch.exact.values().chain(branch.prefix.values()).chain(regex)
            })
            .flat_map(|bucket| {
                let next = bucket.iter().skip(1);
                bucket.iter().zip(next).filter_map(|((a, one), (b, other))| {
                    let tie = a.ties_with(b) && one.id != other.id;
                    let same = one.rule.alternatives[a.alternative()]
                        == other.rule.alternatives[b.alternative()];
                    (tie && same).then(|| (one.id.clone(), other.id.clone()))
                })
            })
            .collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }

    fn each_branch(
        &mut self,
        route: &Arc<Route<T>>,
        change: impl Fn(&mut Branch<T>, &Arc<Route<T>>),
    ) {
        if route.rule.hosts.is_empty() {
            change(&mut self.any, route);
        }
        for host in &route.rule.hosts {
            let (map, key) = match host {
                HostPattern::Exact(name) => (&mut self.exact, name),
                HostPattern::Suffix(suffix) => (&mut self.suffix, suffix),
            };
            let mut branch = map.get(key.as_str()).cloned().unwrap_or_default();
            change(&mut branch, route);
            if branch.is_empty() {
                map.remove(key.as_str());
            } else {
                map.insert(Arc::from(key.as_str()), branch);
            }
        }
    }
}

impl<T> Branch<T> {
    fn new() -> Branch<T> {
        Branch {
            exact: OrdMap::new(),
            prefix: OrdMap::new(),
            lengths: OrdMap::new(),
            regex: OrdMap::new(),
            any: OrdMap::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefix.is_empty()
            && self.regex.is_empty()
            && self.any.is_empty()
    }

    fn insert(&mut self, route: &Arc<Route<T>>) {
        self.each_bucket(route, |bucket, rank| {
            bucket.insert(rank, route.clone());
        });
    }

    fn remove(&mut self, route: &Arc<Route<T>>) {
        self.each_bucket(route, |bucket, rank| {
            bucket.remove(&rank);
        });
    }

    fn each_bucket(&mut self, route: &Arc<Route<T>>, change: impl Fn(&mut Bucket<T>, Rank)) {
        for (index, alternative) in route.rule.alternatives.iter().enumerate() {
            let rank = Rank::of(alternative, index, route.created, &route.id);
            let (map, path) = match &alternative.path {
                None => {
                    change(&mut self.any, rank);
                    continue;
                }
                Some(PathMatch::Regex(_)) => {
                    change(&mut self.regex, rank);
                    continue;
                }
                Some(PathMatch::Exact(path)) => (&mut self.exact, path),
                Some(PathMatch::Prefix(path)) => (&mut self.prefix, path),
            };
            let mut bucket = map.get(path.as_str()).cloned().unwrap_or_default();
            change(&mut bucket, rank);
            let before = map.len();
            if bucket.is_empty() {
                map.remove(path.as_str());
            } else {
                map.insert(Arc::from(path.as_str()), bucket);
            }
            let after = map.len();
            if let Some(PathMatch::Prefix(prefix)) = &alternative.path {
                self.count_length(prefix.len(), before, after);
            }
        }
    }

    /// Notes that the prefixes, `before` in number, are now `after`, one of this length.
    fn count_length(&mut self, length: usize, before: usize, after: usize) {
        let count = self.lengths.get(&length).copied().unwrap_or(0) + after - before;
        if count == 0 {
            self.lengths.remove(&length);
        } else {
            self.lengths.insert(length, count);
        }
    }

    fn find<'t, 'h>(
        &'t self,
        asked: &Asked<'_>,
        header: &impl Fn(&str) -> Option<&'h str>,
    ) -> Option<Matched<'t, T>> {
        if let Some(bucket) = self.exact.get(asked.path)
            && let Some(found) = first(bucket, asked, header, |_, _| true)
        {
            return Some(found);
        }
        if let Some((longest, _)) = self.lengths.get_max() {
            for prefix in prefixes(asked.path, *longest) {
                if let Some(bucket) = self.prefix.get(prefix)
                    && let Some(found) = first(bucket, asked, header, |_, _| true)
                {
                    return Some(found);
                }
            }
        }
        let by_regex = first(&self.regex, asked, header, |route, alternative| {
            route.regexes[alternative].as_ref().is_some_and(|regex| regex.is_match(asked.path))
        });
        by_regex.or_else(|| first(&self.any, asked, header, |_, _| true))
    }
}

/// The first alternative of a bucket that allows the request.
fn first<'t, 'h, T>(
    bucket: &'t Bucket<T>,
    asked: &Asked<'_>,
    header: &impl Fn(&str) -> Option<&'h str>,
    path: impl Fn(&Route<T>, usize) -> bool,
) -> Option<Matched<'t, T>> {
    bucket.iter().find_map(|(rank, route)| {
        let index = rank.alternative();
        let alternative = &route.rule.alternatives[index];
        let takes = matcher::allows(alternative, asked, header) && path(route, index);
        let prefix = matcher::prefix_length(alternative);
        takes.then_some(Matched { route, alternative: index, prefix })
    })
}

/// The path and what is left of it as segments are cut off, longest first, down to `/`; nothing
/// over `longest` bytes, so that a path made of slashes costs no more than an honest one.
fn prefixes(path: &str, longest: usize) -> impl Iterator<Item = &str> {
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let rooted = trimmed.starts_with('/');
    let first = if trimmed.len() <= longest {
        Some(trimmed)
    } else {
        // A cut at `longest` or before it; the slash after the last segment may stand right there.
        let end = trimmed.as_bytes()[..=longest].iter().rposition(|byte| *byte == b'/');
        end.filter(|at| *at > 0).map(|at| &trimmed[..at])
    };
    let mut next = first.filter(|first| rooted && *first != "/");
    let cuts = std::iter::from_fn(move || {
        let now = next?;
        next = now.rfind('/').filter(|at| *at > 0).map(|at| &now[..at]);
        Some(now)
    });
    cuts.chain(rooted.then_some("/"))
}

// Derived implementations would ask the same of `T`, which is never cloned.
impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Table {
            routes: self.routes.clone(),
            exact: self.exact.clone(),
            suffix: self.suffix.clone(),
            any: self.any.clone(),
        }
    }
}

impl<T> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Branch {
            exact: self.exact.clone(),
            prefix: self.prefix.clone(),
            lengths: self.lengths.clone(),
            regex: self.regex.clone(),
            any: self.any.clone(),
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Branch::new()
    }
}

#[cfg(test)]
mod tests;
