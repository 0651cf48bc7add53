//! What is in force for one host pattern, by path.

use std::sync::Arc;

use super::bucket::{Bucket, Held};
use super::trie::{Seed, Trie, Vacant};
use super::{Matched, Route};
use crate::model::ids::RuleId;
use crate::model::rule::PathMatch;
use crate::routing::matcher::Asked;

/// Everything for one host pattern. In this order, so that a host whose only rule asks for no path
/// is one cache line to read.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Branch<T> {
    any: Bucket<T>,
    exact: Trie<Bucket<T>>,
    prefix: Trie<Bucket<T>>,
    /// A bit for each length of a prefix; the highest stands for all from there on.
    lengths: u64,
    rest: Option<Arc<Rest<T>>>,
}

/// What is seldom looked at.
#[derive(Debug)]
struct Rest<T> {
    regex: Bucket<T>,
    /// Lengths of prefixes and how many have them, in order; at most as many as bytes in a prefix.
    lengths: Vec<(usize, usize)>,
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
                Some(PathMatch::Regex(_)) => {
                    self.change_rest(|rest| change(&mut rest.regex, held));
                }
                Some(PathMatch::Exact(path)) => {
                    self.exact.change(seed, path, |bucket| change(bucket, held));
                }
                Some(PathMatch::Prefix(path)) => {
                    let before = self.prefix.find(seed, path).is_some();
                    self.prefix.change(seed, path, |bucket| change(bucket, held));
                    let after = self.prefix.find(seed, path).is_some();
                    if before != after {
                        self.change_rest(|rest| rest.count(path.len(), after));
                    }
                }
            }
        }
        let alone = self.exact.is_empty() && self.prefix.is_empty() && self.rest.is_none();
        self.any.note_alone(alone);
    }

    fn change_rest(&mut self, change: impl FnOnce(&mut Rest<T>)) {
        let rest = Arc::make_mut(self.rest.get_or_insert_default());
        change(rest);
        self.lengths = rest.lengths.iter().fold(0, |all, (length, _)| all | bit(*length));
        if rest.lengths.is_empty() && rest.regex.is_vacant() {
            self.rest = None;
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
        if self.any.is_alone() {
            return self.any.find(asked, header, always, None);
        }
        let exact = self.exact.find(seed, asked.path);
        if let Some(found) = exact.and_then(|bucket| bucket.find(asked, header, always, None)) {
            return Some(found);
        }
        if let Some(longest) = self.longest() {
            for prefix in prefixes(asked.path, longest) {
                // What is not there need not be hashed: a path made of slashes is cut very often.
                if self.has(prefix.len())
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
        let regex = self.rest.as_ref().map(|rest| &rest.regex);
        let by_regex = regex.and_then(|bucket| bucket.find(asked, header, matches, None));
        by_regex.or_else(|| self.any.find(asked, header, always, None))
    }

    /// The length of the longest prefix.
    pub(super) fn longest(&self) -> Option<usize> {
        let highest = self.lengths.checked_ilog2()? as usize;
        let counted = || self.rest.as_ref()?.lengths.last().map(|(length, _)| *length);
        if highest < LAST { Some(highest) } else { counted() }
    }

    /// Whether there is a prefix of this length.
    fn has(&self, length: usize) -> bool {
        let counted = || self.rest.as_ref().is_some_and(|rest| rest.place(length).is_ok());
        self.lengths & bit(length) != 0 && (length < LAST || counted())
    }

    /// Pairs of rules that only age and id tell apart.
    pub(super) fn ties(&self) -> Vec<(RuleId, RuleId)> {
        let by_path = self.exact.values().into_iter().chain(self.prefix.values());
        let regex = self.rest.as_ref().map(|rest| &rest.regex);
        by_path.chain(regex).chain([&self.any]).flat_map(Bucket::ties).collect()
    }
}

impl<T> Vacant for Branch<T> {
    fn is_vacant(&self) -> bool {
        self.exact.is_empty()
            && self.prefix.is_empty()
            && self.any.is_vacant()
            && self.rest.is_none()
    }
}

impl<T> Rest<T> {
    fn place(&self, length: usize) -> Result<usize, usize> {
        self.lengths.binary_search_by_key(&length, |(length, _)| *length)
    }

    /// Counts a prefix of this length that has come, or one that has gone.
    fn count(&mut self, length: usize, comes: bool) {
        match (self.place(length), comes) {
            (Ok(at), true) => self.lengths[at].1 += 1,
            (Ok(at), false) if self.lengths[at].1 > 1 => self.lengths[at].1 -= 1,
            (Ok(at), false) => {
                self.lengths.remove(at);
            }
            (Err(at), true) => self.lengths.insert(at, (length, 1)),
            (Err(_), false) => {}
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
            any: self.any.clone(),
            exact: self.exact.clone(),
            prefix: self.prefix.clone(),
            lengths: self.lengths,
            rest: self.rest.clone(),
        }
    }
}

impl<T> Clone for Rest<T> {
    fn clone(&self) -> Self {
        Rest { regex: self.regex.clone(), lengths: self.lengths.clone() }
    }
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Branch {
            any: Bucket::None,
            exact: Trie::default(),
            prefix: Trie::default(),
            lengths: 0,
            rest: None,
        }
    }
}

impl<T> Default for Rest<T> {
    fn default() -> Self {
        Rest { regex: Bucket::None, lengths: Vec::new() }
    }
}

/// Lengths from here on share a bit.
const LAST: usize = 63;

// With the host's text beside it, an entry is two cache lines.
const _: () = assert!(size_of::<Branch<u64>>() == 80);
