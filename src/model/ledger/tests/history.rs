//! Claims about moving along a history: every pair of revisions, and what may never fall.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What happens to the orchestrator's history.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, bool, u64)>),
    OpenEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    let jump = prop_oneof![3 => Just(0u64), 1 => 0u64..9];
    let write = (0u8..8, proptest::bool::weighted(0.4), jump);
    prop_oneof![
        9 => proptest::collection::vec(write, 0..4).prop_map(Step::Commit),
        1 => Just(Step::OpenEpoch),
    ]
}

fn history(steps: &[Step], kept: usize) -> History {
    let mut history = History::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Commit(writes) => {
                let text = format!("body {at}");
                let writes: Vec<_> = writes
                    .iter()
                    .map(|(id, dead, jump)| (*id, (!dead).then_some(text.as_str()), *jump))
                    .collect();
                history.commit(kept, &writes);
            }
            Step::OpenEpoch => history.open_epoch(),
        }
    }
    history
}

/// What somebody who saw `before` must find in `after`.
fn assert_never_falls(before: &Ledger, after: &Ledger) {
    for record in before.records() {
        match after.record(&record.id) {
            Some(newer) if newer.version == record.version => assert_eq!(newer, record),
            Some(newer) => assert!(newer.version > record.version),
            None => assert!(record.version.get() <= after.head().top),
        }
    }
    for record in after.records().filter(|record| before.record(&record.id).is_none()) {
        assert!(record.version.get() > before.head().top, "{record:?} came back");
    }
    assert!(after.head().top >= before.head().top);
    assert!(after.head().floor >= before.head().floor);
    assert!(after.position() >= before.position());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn apply_and_changes_since_agree_for_every_pair_of_revisions(
        steps in proptest::collection::vec(step(), 1..16),
        kept in 0usize..5,
    ) {
        let history = history(&steps, kept);
        for (index, older) in history.ledgers.iter().enumerate() {
            assert_consistent(older);
            prop_assert_eq!(older.changes_since(Some(older.position())), Changes::Current);
            for newer in &history.ledgers[index + 1..] {
                prop_assert!(newer.position() > older.position());
                prop_assert_eq!(older.changes_since(Some(newer.position())), Changes::Current);
                let delta = delta_of(newer.changes_since(Some(older.position())));
                let below = older.head().revision < newer.head().floor;
                prop_assert_eq!(delta.is_replace(), below);
                let moved = older.apply(&delta, &history.trust).unwrap();
                assert_same(&moved, newer);
                assert_never_falls(older, newer);
                let replaced = older.apply(&newer.replacement(), &history.trust).unwrap();
                assert_same(&replaced, newer);
            }
            let restarted = Ledger::from_replace(&older.replacement(), &history.trust).unwrap();
            assert_same(&restarted, older);
        }
    }

    #[test]
    fn a_delta_applies_to_whoever_stands_between_its_ends(
        steps in proptest::collection::vec(step(), 3..14),
        kept in 0usize..5,
        cut in any::<[proptest::sample::Index; 3]>(),
    ) {
        let history = history(&steps, kept);
        let mut at = cut.map(|index| index.index(history.ledgers.len()));
        at.sort_unstable();
        let [from, mine, to] = at.map(|index| &history.ledgers[index]);
        prop_assume!(mine.position() < to.position());
        let delta = delta_of(to.changes_since(Some(from.position())));
        assert_same(&mine.apply(&delta, &history.trust).unwrap(), to);
    }

    #[test]
    fn whatever_arrives_in_whatever_order_nothing_falls_or_returns(
        steps in proptest::collection::vec(step(), 3..14),
        kept in 0usize..4,
        arrivals in proptest::collection::vec(any::<[proptest::sample::Index; 2]>(), 1..40),
        restarts in any::<u64>(),
    ) {
        let history = history(&steps, kept);
        let mut mine = history.ledgers[0].clone();
        let mut highest: BTreeMap<RuleId, Version> = BTreeMap::new();
        for (round, [from, to]) in arrivals.iter().enumerate() {
            let from = &history.ledgers[from.index(history.ledgers.len())];
            let to = &history.ledgers[to.index(history.ledgers.len())];
            let Changes::Delta(delta) = to.changes_since(Some(from.position())) else { continue };
            if let Ok(next) = mine.apply(&delta, &history.trust) {
                assert_same(&next, to);
                assert_never_falls(&mine, &next);
                mine = next;
            }
            if restarts >> (round % 64) & 1 == 1 {
                mine = Ledger::from_replace(&mine.replacement(), &history.trust).unwrap();
            }
            for record in mine.records() {
                let version = highest.entry(record.id.clone()).or_insert(record.version);
                prop_assert!(record.version >= *version, "{} fell", record.id);
                *version = record.version;
            }
        }
    }
}

#[test]
fn an_eventful_history_has_what_the_claims_are_about() {
    let history = History::eventful();
    let last = history.last();
    assert_eq!(last.head().epoch, Epoch(3));
    assert!(last.head().floor > Revision(0) && last.head().top > 0);
    assert!(last.retired_count() > 0 && last.live_count() > 0);
    assert_eq!(last.branches().len(), 2);
}

#[test]
fn the_fingerprint_of_a_known_ledger_never_changes() {
    // Every replica has to compute the same: another value here is another protocol.
    let mut history = History::new();
    assert_eq!(history.last().head().fingerprint.to_string(), EMPTY);
    history.commit(9, &[(1, Some("one"), 0), (2, Some("two"), 6)]);
    history.commit(9, &[(1, None, 0)]);
    assert_eq!(history.last().head().fingerprint.to_string(), KNOWN);
}

#[test]
fn an_adopted_version_is_kept_and_later_ones_go_on_from_it() {
    let mut history = History::new();
    history.commit(3, &[(1, Some("first"), 0)]);
    // Written by hand, 40 versions ahead, while no orchestrator was there.
    history.commit(3, &[(1, Some("by hand"), 40)]);
    assert_eq!(history.last().record(&id(1)).unwrap().version, version(42));
    assert_eq!(history.last().next_version(&id(1)), Some(version(43)));
    history.commit(0, &[(1, None, 0)]);
    history.commit(0, &[(2, Some("other"), 0)]);
    assert_eq!(history.last().record(&id(1)), None);
    assert_eq!(history.last().head().top, 43);
    assert_eq!(history.last().next_version(&id(1)), Some(version(44)));
}

#[test]
fn a_commit_that_does_not_rise_is_refused() {
    let mut history = History::new();
    history.commit(0, &[(1, Some("x"), 4)]);
    history.commit(0, &[(1, None, 0)]);
    history.commit(0, &[(2, Some("y"), 0)]);
    let last = history.last();
    assert_eq!((last.record(&id(1)), last.head().top), (None, 6));
    let write = |id: RuleId, at: u64| Change { id, version: version(at), body: live("z") };
    let commit = |changes: &[Change]| last.commit(changes, WallTime(1), |h| h.sign(&history.key));
    let held = last.record(&id(2)).unwrap().version.get();
    for change in [write(id(1), 6), write(id(2), held), write(id(3), 6)] {
        let refusal = Refusal::Contradiction(change.id.clone(), change.version);
        assert_eq!(commit(&[change]).unwrap_err(), refusal);
    }
    let twice = [write(id(1), 8), write(id(1), 9)];
    assert_eq!(commit(&twice).unwrap_err(), Refusal::Malformed);
    assert!(commit(&[write(id(1), 7), write(id(2), held + 1)]).is_ok());
}

#[test]
fn who_is_below_the_floor_or_off_the_history_gets_a_replacement() {
    let history = History::eventful();
    let last = history.last();
    let floor = last.head().floor;
    let replaced = |at: Position| delta_of(last.changes_since(Some(at))).is_replace();
    for ledger in &history.ledgers[..history.ledgers.len() - 1] {
        let below = ledger.head().revision < floor;
        assert_eq!(replaced(ledger.position()), below, "{:?}", ledger.position());
    }
    // The second epoch went on beyond the branch point without us.
    let branch = last.branches()[1].revision.0;
    assert!(replaced(position(2, branch + 1)));
    assert!(replaced(position(1, branch)));
    assert!(delta_of(last.changes_since(None)).is_replace());
}

#[test]
fn what_lay_beyond_a_branch_point_is_orphaned_by_a_replacement_only() {
    let mut kept = History::new();
    kept.commit(9, &[(1, Some("shared"), 0)]);
    let mut lost = History { ledgers: kept.ledgers.clone(), ..History::new() };
    lost.commit(9, &[(1, Some("beyond"), 0)]);
    kept.open_epoch();
    kept.commit(9, &[(2, Some("after"), 0)]);
    let orphan = lost.last();
    let delta = delta_of(kept.last().changes_since(Some(kept.ledgers[1].position())));
    assert!(!delta.is_replace());
    assert_eq!(orphan.apply(&delta, &kept.trust).unwrap_err(), Refusal::NeedsReplace);
    let delta = delta_of(kept.last().changes_since(Some(orphan.position())));
    assert!(delta.is_replace());
    assert_same(&orphan.apply(&delta, &kept.trust).unwrap(), kept.last());
}

#[test]
fn one_fork_never_turns_into_the_other_within_an_epoch() {
    let mut one = History::new();
    one.commit(9, &[(1, Some("shared"), 0)]);
    let mut other = History { ledgers: one.ledgers.clone(), ..History::new() };
    one.commit(9, &[(1, Some("mine"), 0)]);
    other.commit(9, &[(1, Some("theirs"), 0)]);
    other.commit(9, &[(2, Some("more"), 0)]);
    let delta = delta_of(other.last().changes_since(Some(one.last().position())));
    assert_eq!(one.last().apply(&delta, &one.trust).unwrap_err(), Refusal::WrongFingerprint);
    let replacement = other.last().replacement();
    let refusal = Refusal::Contradiction(id(1), version(2));
    assert_eq!(one.last().apply(&replacement, &one.trust).unwrap_err(), refusal);
    // A higher epoch ends it, also where both stand at the same revision.
    let mut ending = History { ledgers: other.ledgers[..3].to_vec(), ..History::new() };
    ending.open_epoch();
    let delta = delta_of(ending.last().changes_since(Some(one.last().position())));
    assert_eq!(one.last().apply(&delta, &one.trust).unwrap_err(), Refusal::NeedsReplace);
    let replacement = ending.last().replacement();
    assert_same(&one.last().apply(&replacement, &one.trust).unwrap(), ending.last());
}

const EMPTY: &str = "be2a8de3dcf46c94ce85cdc8e07ac308f4d8a95490d956c38d780fd610db0813";
const KNOWN: &str = "20dcb7f6bb0806bad338cb242daf48fd1741408d961bd05acd60a07e5f941a1a";
