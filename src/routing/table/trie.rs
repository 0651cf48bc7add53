//! A persistent map from texts: a copy is a pointer, a change copies the few forks on its way.
//!
//! A hash trie (Bagwell, Ideal Hash Trees, 2001) of sixteen-fold forks over small heaps, laid out
//! for maps that no cache holds: a look-up reads one slot of each fork, which is a cache line, and
//! then the right entry of a heap, which begins one, with its text beside its value. With 100,000
//! entries that is three forks, 0.3 MB in all, and one place more.
//! Order has no meaning here: it depends on the seed, which nobody outside knows.

use std::sync::Arc;

/// A persistent map from texts.
#[derive(Debug)]
pub(super) struct Trie<V> {
    root: Slot<V, FEW>,
}

/// What scatters texts; the same one for every use of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    start: u64,
    factor: u64,
}

/// A value that need not be kept when nothing is in it.
pub(super) trait Vacant {
    /// Whether nothing is in it.
    fn is_vacant(&self) -> bool;
}

/// `M` is the most entries of a heap. Most maps are small, and so is their root; the more a heap
/// below holds, the smaller are the forks that lead there.
#[derive(Debug, Default)]
enum Slot<V, const M: usize> {
    #[default]
    Empty,
    /// Each entry with a byte of its hash, so that strangers are not looked at.
    Heap([u8; M], Arc<[Entry<V>]>),
    /// Invariant: there are more entries below than a heap holds.
    Fork(Arc<Fork<V>>),
}

type Fork<V> = [Way<V>; WAYS];

/// A slot that is read for itself.
#[derive(Debug)]
#[repr(align(64))]
struct Way<V>(Slot<V, MANY>);

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Entry<V> {
    text: Text,
    value: V,
}

/// A text; a short one needs no memory of its own.
#[derive(Clone, Debug)]
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// A text and its place.
#[derive(Clone, Copy)]
struct Key<'k> {
    text: &'k [u8],
    hash: u64,
    seed: Seed,
}

impl Seed {
    /// Made from a number that nobody who chooses texts knows.
    pub(super) fn new(number: u64) -> Seed {
        Seed { start: number, factor: fold(number ^ PI, GOLDEN) | 1 }
    }

    /// Multiplies and folds, eight bytes at a time (as in wyhash). Whoever guesses what collides
    /// makes a look-up compare two texts, no more: forks part whatever differs.
    fn key(self, text: &[u8]) -> Key<'_> {
        let mut hash = self.start ^ text.len() as u64;
        let mut rest = text;
        while let Some((eight, more)) = rest.split_first_chunk() {
            hash = fold(hash ^ u64::from_le_bytes(*eight), self.factor);
            rest = more;
        }
        let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
        let hash = fold(fold(hash ^ last, self.factor) ^ self.start, self.factor);
        Key { text, hash, seed: self }
    }
}

impl Key<'_> {
    /// Which way of a fork: by hash, then by length, then by the text itself. Different texts
    /// differ somewhere, however unlucky the seed.
    fn way(&self, level: usize) -> usize {
        let nibble = |of: u64, at: usize| (of >> (4 * at)) as usize % WAYS;
        match level {
            0..16 => nibble(self.hash, level),
            16..32 => nibble(self.text.len() as u64, level - 16),
            _ => {
                let byte = self.text.get((level - 32) / 2).copied().unwrap_or_default();
                nibble(u64::from(byte), level % 2)
            }
        }
    }

    /// No part of any way that a look-up takes.
    fn mark(&self) -> u8 {
        (self.hash >> 56) as u8
    }
}

impl<V> Trie<V> {
    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.root, Slot::Empty)
    }

    /// What is held for a text.
    pub(super) fn find(&self, seed: Seed, text: &str) -> Option<&V> {
        if self.is_empty() {
            return None;
        }
        let key = seed.key(text.as_bytes());
        let mut fork = match &self.root {
            Slot::Fork(fork) => fork,
            other => return other.look(key),
        };
        let mut level = 0;
        loop {
            match &fork[key.way(level)].0 {
                Slot::Fork(next) => fork = next,
                other => return other.look(key),
            }
            level += 1;
        }
    }

    /// All values, in no order.
    pub(super) fn values(&self) -> Vec<&V> {
        let mut values = Vec::new();
        self.root.each(&mut |entry| values.push(&entry.value));
        values
    }
}

impl<V: Clone + Default + Vacant> Trie<V> {
    /// Changes what is held for a text, beginning with nothing in it; drops it when nothing is
    /// left. What other copies of the map hold stays as it is.
    pub(super) fn change(&mut self, seed: Seed, text: &str, change: impl FnOnce(&mut V)) {
        self.root.change(seed.key(text.as_bytes()), 0, change);
    }
}

impl<V: Clone + Default + Vacant, const M: usize> Slot<V, M> {
    fn change(&mut self, key: Key<'_>, level: usize, change: impl FnOnce(&mut V)) {
        if let Slot::Fork(fork) = self {
            let fork = Arc::make_mut(fork);
            fork[key.way(level)].0.change(key, level + 1, change);
            if let Some(entries) = few_left(fork, M) {
                *self = Slot::heap(key.seed, entries);
            }
            return;
        }
        let at = self.entries().iter().position(|entry| entry.text.is(key.text));
        if let (Some(at), Slot::Heap(_, entries)) = (at, &mut *self) {
            let value = &mut Arc::make_mut(entries)[at].value;
            change(value);
            if value.is_vacant() {
                let mut entries = entries.to_vec();
                entries.swap_remove(at);
                *self = Slot::heap(key.seed, entries);
            }
            return;
        }
        let mut value = V::default();
        change(&mut value);
        if !value.is_vacant() {
            let mut entries = self.entries().to_vec();
            entries.push(Entry { text: Text::new(key.text), value });
            *self = Slot::of(key.seed, level, entries);
        }
    }

    /// What holds these entries from this level on.
    fn of(seed: Seed, level: usize, entries: Vec<Entry<V>>) -> Slot<V, M> {
        if entries.len() <= M {
            return Slot::heap(seed, entries);
        }
        let mut ways: [Vec<Entry<V>>; WAYS] = Default::default();
        for entry in entries {
            ways[seed.key(entry.text.as_bytes()).way(level)].push(entry);
        }
        Slot::Fork(Arc::new(ways.map(|entries| Way(Slot::of(seed, level + 1, entries)))))
    }

    fn heap(seed: Seed, entries: Vec<Entry<V>>) -> Slot<V, M> {
        let mut marks = [0; M];
        for (mark, entry) in marks.iter_mut().zip(&entries) {
            *mark = seed.key(entry.text.as_bytes()).mark();
        }
        if entries.is_empty() { Slot::Empty } else { Slot::Heap(marks, entries.into()) }
    }
}

impl<V, const M: usize> Slot<V, M> {
    fn entries(&self) -> &[Entry<V>] {
        match self {
            Slot::Heap(_, entries) => entries,
            Slot::Empty | Slot::Fork(_) => &[],
        }
    }

    /// What a heap holds for a text.
    fn look(&self, key: Key<'_>) -> Option<&V> {
        let Slot::Heap(marks, entries) = self else { return None };
        let mut marked = entries.iter().zip(marks).filter(|(_, mark)| **mark == key.mark());
        marked.find(|(entry, _)| entry.text.is(key.text)).map(|(entry, _)| &entry.value)
    }

    fn each<'s>(&'s self, take: &mut impl FnMut(&'s Entry<V>)) {
        match self {
            Slot::Empty => {}
            Slot::Heap(_, entries) => entries.iter().for_each(take),
            Slot::Fork(fork) => fork.iter().for_each(|way| way.0.each(take)),
        }
    }
}

/// The entries below a fork, where a heap of so many holds them all.
fn few_left<V: Clone>(fork: &Fork<V>, most: usize) -> Option<Vec<Entry<V>>> {
    let slots = || fork.iter().map(|way| &way.0);
    let small = slots().all(|slot| !matches!(slot, Slot::Fork(_)));
    let few = small && slots().map(|slot| slot.entries().len()).sum::<usize>() <= most;
    few.then(|| slots().flat_map(Slot::entries).cloned().collect())
}

impl Text {
    fn new(text: &[u8]) -> Text {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text);
                Text::Short(length, bytes)
            }
            _ => Text::Long(text.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short(length, bytes) => &bytes[..usize::from(*length)],
            Text::Long(bytes) => bytes,
        }
    }

    fn is(&self, text: &[u8]) -> bool {
        self.as_bytes() == text
    }
}

/// Both halves of a product, over each other.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

// Derived implementations would ask the same of `V`.
impl<V> Clone for Trie<V> {
    fn clone(&self) -> Self {
        Trie { root: self.root.clone() }
    }
}

impl<V, const M: usize> Clone for Slot<V, M> {
    fn clone(&self) -> Self {
        match self {
            Slot::Empty => Slot::Empty,
            Slot::Heap(marks, entries) => Slot::Heap(*marks, entries.clone()),
            Slot::Fork(fork) => Slot::Fork(fork.clone()),
        }
    }
}

impl<V> Clone for Way<V> {
    fn clone(&self) -> Self {
        Way(self.0.clone())
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Trie { root: Slot::Empty }
    }
}

/// Ways of a fork: what four bits of a hash tell apart.
const WAYS: usize = 16;
/// The most entries of a root that is a heap: as many marks as fit beside what says which kind of
/// slot it is.
const FEW: usize = 7;
/// The most entries of a heap below a fork: as many marks as leave a slot one cache line. A change
/// copies them, at two cache lines each.
const MANY: usize = 47;
/// Bytes of a text that stands in its entry: most hosts, and most prefixes. What it leaves of a
/// cache line is what most look-ups want of the value.
const SHORT: usize = 46;
/// Digits of pi and of the golden ratio: bits without a pattern.
const PI: u64 = 0x243f_6a88_85a3_08d3;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const _: () = assert!(size_of::<Slot<u64, FEW>>() == 24 && size_of::<Text>() == 48);
const _: () = assert!(size_of::<Slot<u64, MANY>>() == 64);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Vacant for u32 {
        fn is_vacant(&self) -> bool {
            *self == 0
        }
    }

    /// How many forks and entries there are; checks the invariant.
    fn shape<const M: usize>(slot: &Slot<u32, M>) -> (usize, usize) {
        let Slot::Fork(fork) = slot else { return (0, slot.entries().len()) };
        let below =
            fork.iter().map(|way| shape(&way.0)).fold((1, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        assert!(below.1 > M, "a fork holds more than a heap");
        below
    }

    fn agrees(trie: &Trie<u32>, seed: Seed, map: &BTreeMap<String, u32>) {
        assert_eq!(shape(&trie.root).1, map.len());
        for (text, value) in map {
            assert_eq!(trie.find(seed, text), Some(value), "{text}");
        }
        let mut values: Vec<u32> = trie.values().into_iter().copied().collect();
        let mut expected: Vec<u32> = map.values().copied().collect();
        values.sort_unstable();
        expected.sort_unstable();
        assert_eq!(values, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn it_holds_what_a_sorted_map_holds_however_texts_collide(
            changes in prop::collection::vec(("[ab\0]{0,3}(x{40})?", 0u32..3), 0..120),
            seed in prop_oneof![
                any::<u64>().prop_map(Seed::new),
                // Nothing is scattered: length and text alone part them.
                Just(Seed { start: 0, factor: 0 }),
            ],
        ) {
            let (mut trie, mut map) = (Trie::default(), BTreeMap::new());
            let mut before = Vec::new();
            for (text, value) in changes {
                before.push((trie.clone(), map.clone()));
                trie.change(seed, &text, |held| *held = value);
                map.insert(text.clone(), value);
                map.retain(|_, value| *value != 0);
                prop_assert_eq!(trie.find(seed, &text), map.get(&text));
            }
            agrees(&trie, seed, &map);
            for (trie, map) in before {
                agrees(&trie, seed, &map);
            }
        }
    }

    #[test]
    fn texts_that_look_alike_are_scattered_evenly() {
        let seed = Seed::new(7);
        let mut trie = Trie::default();
        for number in 1..=100_000 {
            trie.change(seed, &format!("customer-{number}.example.com"), |held| *held = number);
        }
        let (forks, entries) = shape(&trie.root);
        assert_eq!(entries, 100_000);
        // Three full levels, and below them what chance puts beyond a heap.
        assert!((273..300).contains(&forks), "{forks}");
    }

    #[test]
    fn a_change_copies_the_forks_on_its_way_alone() {
        let seed = Seed::new(7);
        let mut trie = Trie::default();
        for number in 1..=10_000 {
            trie.change(seed, &format!("h{number}"), |held| *held = number);
        }
        let before = trie.clone();
        trie.change(seed, "h5000", |held| *held += 1);
        let held = |way: &Way<u32>| match &way.0 {
            Slot::Fork(fork) => Some(fork.clone()),
            _ => None,
        };
        let (Slot::Fork(one), Slot::Fork(other)) = (&before.root, &trie.root) else {
            panic!("so many need forks");
        };
        let (mut pairs, mut forks) = (vec![(one.clone(), other.clone())], 0);
        while let Some((one, other)) = pairs.pop() {
            if !Arc::ptr_eq(&one, &other) {
                forks += 1;
                let both = one.iter().zip(other.iter());
                pairs.extend(both.filter_map(|(one, other)| held(one).zip(held(other))));
            }
        }
        assert!((2..6).contains(&forks), "{forks}");
        assert_eq!(before.find(seed, "h5000"), Some(&5_000));
        assert_eq!(trie.find(seed, "h5000"), Some(&5_001));
    }
}
