//! The alternatives of rules with the same host and path condition, in order.
//!
//! Nearly always there is one, which then needs no memory of its own and no look at its rule where
//! the path alone decides.

use std::sync::Arc;

use imbl::OrdMap;

use super::trie::Vacant;
use super::{Matched, Route};
use crate::model::ids::RuleId;
use crate::routing::matcher::{self, Asked, Rank};

/// Alternatives with the same path condition, in order.
#[derive(Debug, Default)]
pub(super) enum Bucket<T> {
    #[default]
    None,
    One(Held<T>),
    /// Invariant: two at least.
    Many(Box<OrdMap<Rank, Held<T>>>),
}

/// One alternative of a rule.
#[derive(Debug)]
pub(super) struct Held<T> {
    route: Arc<Route<T>>,
    alternative: u32,
    /// It asks for nothing besides host and path.
    open: bool,
    /// Nothing else is held for its host: a look-up need not go on to read the rest of the branch.
    alone: bool,
}

impl<T> Held<T> {
    /// The alternative of this number.
    pub(super) fn new(route: &Arc<Route<T>>, alternative: usize) -> Held<T> {
        let conditions = &route.rule.alternatives[alternative];
        let open = conditions.methods.is_empty()
            && conditions.headers.is_empty()
            && conditions.query.is_empty();
        // A rule has far fewer (`limits::ALTERNATIVES_PER_RULE`).
        Held { route: route.clone(), alternative: alternative as u32, open, alone: false }
    }

    fn rank(&self) -> Rank {
        let index = self.alternative as usize;
        let conditions = &self.route.rule.alternatives[index];
        Rank::of(conditions, index, self.route.created, &self.route.id)
    }

    fn takes<'h>(&self, asked: &Asked<'_>, header: &impl Fn(&str) -> Option<&'h str>) -> bool {
        let conditions = || &self.route.rule.alternatives[self.alternative as usize];
        self.open || matcher::allows(conditions(), asked, header)
    }
}

impl<T> Bucket<T> {
    /// Takes one in; once more changes nothing.
    pub(super) fn insert(&mut self, held: Held<T>) {
        match self {
            Bucket::None => *self = Bucket::One(held),
            Bucket::One(other) => {
                let both = [(other.rank(), other.clone()), (held.rank(), held)];
                let both: OrdMap<_, _> = both.into_iter().collect();
                if both.len() > 1 {
                    *self = Bucket::Many(Box::new(both));
                }
            }
            Bucket::Many(many) => {
                many.insert(held.rank(), held);
            }
        }
    }

    /// Gives one away that was taken in.
    pub(super) fn remove(&mut self, held: &Held<T>) {
        match self {
            Bucket::None => {}
            Bucket::One(other) => {
                if other.rank() == held.rank() {
                    *self = Bucket::None;
                }
            }
            Bucket::Many(many) => {
                many.remove(&held.rank());
                if let (1, Some((_, only))) = (many.len(), many.get_min()) {
                    *self = Bucket::One(only.clone());
                }
            }
        }
    }

    /// Notes whether the branch holds nothing besides.
    pub(super) fn note_alone(&mut self, alone: bool) {
        if let Bucket::One(held) = self {
            held.alone = alone;
        }
    }

    /// Whether it is known at one look that the branch holds nothing besides.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Bucket::One(held) if held.alone)
    }

    /// The first alternative that allows the request, where `path` does too.
    pub(super) fn find<'t, 'h>(
        &'t self,
        asked: &Asked<'_>,
        header: &impl Fn(&str) -> Option<&'h str>,
        path: impl Fn(&Route<T>, usize) -> bool,
        prefix: Option<usize>,
    ) -> Option<Matched<'t, T>> {
        let takes = |held: &Held<T>| {
            held.takes(asked, header) && path(&held.route, held.alternative as usize)
        };
        let held = match self {
            Bucket::None => None,
            Bucket::One(held) => Some(held).filter(|held| takes(held)),
            Bucket::Many(many) => many.values().find(|held| takes(held)),
        }?;
        Some(Matched { route: &held.route, alternative: held.alternative as usize, prefix })
    }

    /// Pairs that only age and id tell apart, from different rules: what comes first in order with
    /// each that follows.
    pub(super) fn ties(&self) -> Vec<(RuleId, RuleId)> {
        let Bucket::Many(many) = self else { return Vec::new() };
        let entries: Vec<_> = many.iter().collect();
        let mut pairs = Vec::new();
        for (at, (a, one)) in entries.iter().enumerate() {
            for (b, other) in entries[at + 1..].iter().take_while(|(b, _)| a.ties_with(b)) {
                let same = one.route.rule.alternatives[a.alternative()]
                    == other.route.rule.alternatives[b.alternative()];
                if same && one.route.id != other.route.id {
                    pairs.push((one.route.id.clone(), other.route.id.clone()));
                }
            }
        }
        pairs
    }
}

impl<T> Vacant for Bucket<T> {
    fn is_vacant(&self) -> bool {
        matches!(self, Bucket::None)
    }
}

// Derived implementations would ask the same of `T`, which is never cloned.
impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        let Held { alternative, open, alone, .. } = *self;
        Held { route: self.route.clone(), alternative, open, alone }
    }
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        match self {
            Bucket::None => Bucket::None,
            Bucket::One(held) => Bucket::One(held.clone()),
            Bucket::Many(many) => Bucket::Many(many.clone()),
        }
    }
}

// With the text beside it, an entry is a cache line.
const _: () = assert!(size_of::<Bucket<u64>>() == 16);
