//! The same target for the same key, at every node, as long as it can take it.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by Schindelhauer and Schomaker
//! 2005): every target has a score for a key, the highest has it. A target that joins or leaves
//! moves only the keys that it gets or had. Loads are bounded (Mirrokni, Thorup and Zadimoghaddam
//! 2016): a target with more than its share under way is passed over for the next by score, so that
//! one hot key cannot drown it. Scores depend on addresses and keys alone, so nodes agree without
//! talking.

use super::pick::Candidate;

/// A number for bytes that stand for a client, or for a target.
pub fn identity(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let first: [u8; 8] = std::array::from_fn(|at| hash.as_bytes()[at]);
    u64::from_le_bytes(first)
}

/// Which of these a key belongs to; none where there is none.
pub(super) fn choose(
    candidates: &[Candidate<'_>],
    usable: impl Iterator<Item = usize> + Clone,
    key: u64,
) -> Option<usize> {
    let open = |index: usize| f64::from(candidates[index].cell.open());
    let weight = |index: usize| f64::from(candidates[index].weight);
    let (all_open, all_weight) = usable
        .clone()
        .fold((1.0, 0.0), |sums, index| (sums.0 + open(index), sums.1 + weight(index)));
    let share = |index: usize| (SLACK * all_open * weight(index) / all_weight).max(FLOOR);
    let best = |among: &mut dyn Iterator<Item = usize>| {
        among
            .map(|index| (score(key, candidates[index].identity, weight(index)), index))
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, index)| index)
    };
    let room = best(&mut usable.clone().filter(|index| open(*index) < share(*index)));
    room.or_else(|| best(&mut usable.clone()))
}

/// How strongly a target claims a key: of two with weights 1 and 2 the second has two of three.
fn score(key: u64, identity: u64, weight: f64) -> f64 {
    // In (0, 1): 53 bits, and half a step away from both ends.
    let unit = ((mix(key ^ mix(identity)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / unit.ln()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How far above its share of what is under way a target may be.
const SLACK: f64 = 1.25;
/// Requests under way that are never too many: shares of little are noise.
const FLOOR: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::moment::Moment;
    use crate::routing::cell::TargetCell;

    const KEYS: u64 = 20_000;

    fn cells(count: usize) -> Vec<TargetCell> {
        (0..count).map(|_| TargetCell::new(None)).collect()
    }

    fn candidates<'a>(cells: &'a [TargetCell], weights: &[u32]) -> Vec<Candidate<'a>> {
        let of = |(at, (cell, weight)): (usize, (&'a TargetCell, &u32))| Candidate {
            cell,
            weight: *weight,
            identity: identity(format!("http://target-{at}:80").as_bytes()),
            down: false,
        };
        cells.iter().zip(weights).enumerate().map(of).collect()
    }

    fn owner(all: &[Candidate<'_>], key: u64) -> usize {
        choose(all, 0..all.len(), identity(&key.to_le_bytes())).unwrap()
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let cells = cells(3);
        let all = candidates(&cells, &[1, 2, 5]);
        let mut counts = [0u64; 3];
        (0..KEYS).for_each(|key| counts[owner(&all, key)] += 1);
        for (count, weight) in counts.iter().zip([1, 2, 5]) {
            let share = *count as f64 / KEYS as f64 * 8.0 / f64::from(weight);
            assert!((0.93..1.07).contains(&share), "{counts:?}");
        }
    }

    #[test]
    fn a_target_that_leaves_moves_its_own_keys_only() {
        let cells = cells(10);
        let all = candidates(&cells, &[1; 10]);
        let (mut moved, mut had) = (0, 0);
        for key in 0..KEYS {
            let hashed = identity(&key.to_le_bytes());
            let before = owner(&all, key);
            let after = choose(&all, (0..10).filter(|index| *index != 3), hashed).unwrap();
            had += u64::from(before == 3);
            moved += u64::from(before != after);
            assert!(before == 3 || before == after, "key {key} had another target");
        }
        assert_eq!(moved, had);
        let share = had as f64 / KEYS as f64;
        assert!((0.09..0.11).contains(&share), "a tenth: {share}");
    }

    #[test]
    fn the_order_of_targets_does_not_matter() {
        let cells = cells(5);
        let all = candidates(&cells, &[1; 5]);
        let turned: Vec<Candidate<'_>> = all.iter().rev().copied().collect();
        for key in 0..1_000 {
            assert_eq!(all[owner(&all, key)].identity, turned[owner(&turned, key)].identity);
        }
    }

    #[test]
    fn one_hot_key_is_bounded_and_goes_on_to_its_next() {
        let cells = cells(4);
        let all = candidates(&cells, &[1; 4]);
        let first = owner(&all, 7);
        // All of them for one key, and none ends.
        for _ in 0..400 {
            all[owner(&all, 7)].cell.begin(Moment::START);
        }
        let open: Vec<u32> = all.iter().map(|one| one.cell.open()).collect();
        assert_eq!(open.iter().sum::<u32>(), 400);
        assert!(open.iter().all(|open| *open <= 126), "1.25 times a quarter: {open:?}");
        assert_eq!(open[first], *open.iter().max().unwrap(), "its own has most: {open:?}");
    }

    #[test]
    fn few_requests_under_way_bound_nothing() {
        let cells = cells(4);
        let all = candidates(&cells, &[1; 4]);
        let first = owner(&all, 7);
        for _ in 0..8 {
            assert_eq!(owner(&all, 7), first);
            all[first].cell.begin(Moment::START);
        }
    }
}
