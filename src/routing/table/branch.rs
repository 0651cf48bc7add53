//! What is in force for one host pattern, by path.

use std::sync::Arc;

use super::bucket::{Bucket, Held};
use super::trie::{Seed, Trie, Vacant};
use super::{Matched, Route};
use crate::model::ids::RuleId;
use crate::model::rule::PathMatch;
use crate::routing::matcher::Asked;

/// Everything for one host pattern.
#[derive(Debug)]
pub(super) struct Branch<T> {
    exact: Trie<Bucket<T>>,
    prefix: Trie<Bucket<T>>,
    pub(super) lengths: Lengths,
    regex: Bucket<T>,
    any: Bucket<T>,
}

/// How many prefixes of each length there are: a path is not cut where none can stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths {
    /// A bit for each length that there is; the highest stands for all from there on.
    present: u64,
    /// Length and number, in order of length. At most one for each byte that a prefix may have.
    counts: Option<Arc<Vec<(usize, usize)>>>,
}

impl<T> Branch<T> {
    /// Takes in every alternative of a rule.
    pub(super) fn insert(&mut self, seed: Seed, route: &Arc<Route<T>>) {
        self.each_bucket(seed, route, |bucket, held| bucket.insert(held));
    }

    /// Gives every alternative of a rule away.
    pub(super) fn remove(&mut self, seed: Seed, route: &Arc<Route<T>>) {
        self.each_bucket(seed, route, |bucket, held| bucket.remove(&held));
    }

    fn each_bucket(
        &mut self,
        seed: Seed,
        route: &Arc<Route<T>>,
        change: impl Fn(&mut Bucket<T>, Held<T>),
    ) {
        for (index, alternative) in route.rule.alternatives.iter().enumerate() {
            let held = Held::new(route, index);
            match &alternative.path {
                None => change(&mut self.any, held),
                Some(PathMatch::Regex(_)) => change(&mut self.regex, held),
                Some(PathMatch::Exact(path)) => {
                    self.exact.change(seed, path, |bucket| change(bucket, held));
                }
                Some(PathMatch::Prefix(path)) => {
                    let before = self.prefix.find(seed, path).is_some();
                    self.prefix.change(seed, path, |bucket| change(bucket, held));
                    let after = self.prefix.find(seed, path).is_some();
                    self.lengths.note(path.len(), before, after);
                }
            }
        }
    }

    /// The first rule by path that takes the request.
    pub(super) fn find<'t, 'h>(
        &'t self,
        seed: Seed,
        asked: &Asked<'_>,
        header: &impl Fn(&str) -> Option<&'h str>,
    ) -> Option<Matched<'t, T>> {
        let always = |_: &Route<T>, _: usize| true;
        let exact = self.exact.find(seed, asked.path);
        if let Some(found) = exact.and_then(|bucket| bucket.find(asked, header, always, None)) {
            return Some(found);
        }
        if let Some(longest) = self.lengths.longest() {
            for prefix in prefixes(asked.path, longest) {
                // What is not there need not be hashed: a path made of slashes is cut very often.
                if self.lengths.has(prefix.len())
                    && let Some(bucket) = self.prefix.find(seed, prefix)
                {
                    let taken = if prefix == "/" { 0 } else { prefix.len() };
                    let found = bucket.find(asked, header, always, Some(taken));
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        let matches = |route: &Route<T>, alternative: usize| route.matches(alternative, asked.path);
        let by_regex = self.regex.find(asked, header, matches, None);
        by_regex.or_else(|| self.any.find(asked, header, always, None))
    }

    /// Pairs of rules that only age and id tell apart.
    pub(super) fn ties(&self) -> Vec<(RuleId, RuleId)> {
        let by_path = self.exact.values().into_iter().chain(self.prefix.values());
        by_path.chain([&self.any]).flat_map(Bucket::ties).collect()
    }
}

impl<T> Vacant for Branch<T> {
    fn is_vacant(&self) -> bool {
        self.exact.is_empty()
            && self.prefix.is_empty()
            && self.regex.is_vacant()
            && self.any.is_vacant()
    }
}

impl Lengths {
    /// The length of the longest.
    pub(super) fn longest(&self) -> Option<usize> {
        let highest = self.present.checked_ilog2()? as usize;
        let counted = || self.counts.as_ref()?.last().map(|(length, _)| *length);
        if highest < LAST { Some(highest) } else { counted() }
    }

    /// Whether there is one of this length.
    fn has(&self, length: usize) -> bool {
        let counted = || {
            let counts = self.counts.as_ref();
            counts.is_some_and(|counts| counts.binary_search_by_key(&length, |it| it.0).is_ok())
        };
        self.present & bit(length) != 0 && (length < LAST || counted())
    }

    /// Notes that one of this length is there now, or is not any more.
    fn note(&mut self, length: usize, before: bool, after: bool) {
        if before == after {
            return;
        }
        let counts = Arc::make_mut(self.counts.get_or_insert_default());
        match (counts.binary_search_by_key(&length, |it| it.0), after) {
            (Ok(at), true) => counts[at].1 += 1,
            (Ok(at), false) if counts[at].1 > 1 => counts[at].1 -= 1,
            (Ok(at), false) => {
                counts.remove(at);
            }
            (Err(at), true) => counts.insert(at, (length, 1)),
            (Err(_), false) => {}
        }
        self.present = counts.iter().fold(0, |present, (length, _)| present | bit(*length));
        if counts.is_empty() {
            self.counts = None;
        }
    }
}

fn bit(length: usize) -> u64 {
    1 << length.min(LAST)
}

/// The path and what is left of it as segments are cut off, longest first, down to `/`; nothing
/// over `longest` bytes, so that a path made of slashes costs no more than an honest one.
pub(super) fn prefixes(path: &str, longest: usize) -> impl Iterator<Item = &str> {
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

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Branch {
            exact: Trie::default(),
            prefix: Trie::default(),
            lengths: Lengths::default(),
            regex: Bucket::None,
            any: Bucket::None,
        }
    }
}

/// Lengths from here on share a bit.
const LAST: usize = 63;

// With the host's text beside it, and the counts of an `Arc`, an entry fills two cache lines.
const _: () = assert!(size_of::<Branch<u64>>() == 80);
