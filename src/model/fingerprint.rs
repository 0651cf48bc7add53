//! A hash of a set that can be kept up to date one element at a time.
//!
//! LtHash (Bellare and Micciancio 1997, instantiated as in Lewi et al., "Securing Update
//! Propagation with Homomorphic Hashing", 2019): each element is stretched to 1,024 lanes of 16
//! bits, and a set is the lane-wise sum of its elements. Adding or removing one costs the same
//! whatever the size of the set. Not a list hash: order and repetition are the caller's business.

use std::fmt;

/// The sum of a set's elements: 2 KiB, kept locally, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Lattice(Box<[u16; LANES]>);

/// BLAKE3 of a lattice: names the content of a ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Lattice {
    /// The sum of no elements.
    pub fn empty() -> Lattice {
        Lattice(Box::new([0; LANES]))
    }

    /// Takes an element in. The caller keeps the set a set.
    pub fn add(&mut self, element: &blake3::Hasher) {
        self.mix(element, u16::wrapping_add);
    }

    /// Takes an element out that is in.
    pub fn remove(&mut self, element: &blake3::Hasher) {
        self.mix(element, u16::wrapping_sub);
    }

    /// The name of this sum.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        let mut chunk = [0u8; 256];
        for lanes in self.0.chunks(chunk.len() / 2) {
            for (lane, bytes) in lanes.iter().zip(chunk.chunks_exact_mut(2)) {
                bytes.copy_from_slice(&lane.to_le_bytes());
            }
            hasher.update(&chunk);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }

    fn mix(&mut self, element: &blake3::Hasher, join: fn(u16, u16) -> u16) {
        #[cfg(test)]
        mixed::count();
        let mut stretched = [0u8; LANES * 2];
        element.finalize_xof().fill(&mut stretched);
        for (lane, bytes) in self.0.iter_mut().zip(stretched.chunks_exact(2)) {
            *lane = join(*lane, u16::from_le_bytes([bytes[0], bytes[1]]));
        }
    }
}

impl fmt::Debug for Lattice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lattice({:?})", self.fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// 1,024 lanes of 16 bits give at least 128 bits of security (Lewi et al., section 4).
const LANES: usize = 1024;

/// Counts the elements that went in or out on this thread, for claims about cost.
#[cfg(test)]
pub(super) mod mixed {
    use std::cell::Cell;

    std::thread_local! {
        static MIXED: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        MIXED.with(|mixed| mixed.set(mixed.get() + 1));
    }

    /// How many so far.
    pub(in crate::model) fn so_far() -> usize {
        MIXED.with(Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(name: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        hasher
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut one = Lattice::empty();
        let mut other = Lattice::empty();
        for name in ["a", "b", "c"] {
            one.add(&element(name));
        }
        for name in ["c", "x", "a", "b"] {
            other.add(&element(name));
        }
        assert_ne!(one.fingerprint(), other.fingerprint());
        other.remove(&element("x"));
        assert_eq!(one, other);
        assert_eq!(one.fingerprint(), other.fingerprint());
    }
}
