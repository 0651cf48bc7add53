//! Claims that once did not hold.

use super::*;

#[test]
fn a_rule_dropped_and_written_anew_between_two_heads_moves_the_top() {
    let mut history = History::new();
    history.commit(1, &[(1, Some("a"), 8)]);
    history.commit(1, &[(1, None, 0)]);
    history.commit(1, &[(2, Some("b"), 0), (3, Some("c"), 0)]);
    let behind = history.last().clone();
    assert!(behind.record(&id(1)).unwrap().body.is_retired());
    // The floor passes rule 1, and then it is written anew: who is behind sees no drop.
    history.commit(1, &[(2, None, 0)]);
    assert_eq!(history.last().record(&id(1)), None);
    history.commit(9, &[(1, Some("again"), 0)]);
    let last = history.last();
    assert!(last.head().top >= 10 && last.head().floor <= behind.head().revision);
    let delta = delta_of(last.changes_since(Some(behind.position())));
    assert!(!delta.is_replace());
    assert_same(&behind.apply(&delta, &history.trust).unwrap(), last);
}

#[test]
fn a_commit_that_retires_everything_leaves_its_followers_a_delta() {
    let mut history = History::new();
    let all: Vec<_> = (0..20u8).map(|at| (at, Some("x"), 0)).collect();
    history.commit(4, &all);
    let behind = history.last().clone();
    let none: Vec<_> = (0..20u8).map(|at| (at, None, 0)).collect();
    history.commit(4, &none);
    let delta = delta_of(history.last().changes_since(Some(behind.position())));
    assert!(!delta.is_replace());
    assert_same(&behind.apply(&delta, &history.trust).unwrap(), history.last());
    history.commit(4, &[]);
    assert_eq!(history.last().retired_count(), 0);
}

#[test]
fn positions_that_no_history_has_get_a_replacement() {
    let mut history = History::eventful();
    let numbers = [0, 1, 2, 12, 13, 14, 1 << 53, u64::MAX - 1, u64::MAX];
    for _ in 0..2 {
        let last = history.last();
        for (epoch, revision) in numbers.iter().flat_map(|e| numbers.map(|r| (*e, r))) {
            let at = position(epoch, revision);
            match last.changes_since(Some(at)) {
                Changes::Current => assert!(at >= last.position()),
                Changes::Delta(delta) if delta.is_replace() => {}
                Changes::Delta(_) => {
                    assert!(history.ledgers.iter().any(|l| l.position() == at), "{at:?}");
                }
            }
        }
        history = History::new();
        history.commit(9, &[(1, Some("x"), 0)]);
    }
}

#[test]
fn an_epoch_that_left_earlier_is_not_on_the_history() {
    // Epoch 2 left at revision 2 and was lost; epoch 3 left epoch 1 later, at revision 4.
    let mut lost = History::new();
    lost.commit(9, &[(1, Some("a"), 0)]);
    lost.commit(9, &[(1, Some("b"), 0)]);
    let mut kept = History { ledgers: lost.ledgers.clone(), ..History::new() };
    lost.open_epoch();
    kept.commit(9, &[(2, Some("c"), 0)]);
    kept.commit(9, &[(3, Some("d"), 0)]);
    let third = kept.last().open_epoch(
        Epoch(3),
        |parent| Branch::sign(parent, Epoch(3), &kept.key),
        |head| head.sign(&kept.key),
    );
    assert!(lost.last().head().revision < third.branches()[0].revision);
    let delta = delta_of(third.changes_since(Some(lost.last().position())));
    assert!(delta.is_replace());
    // And the delta that others take is none for who stands there.
    let others = delta_of(third.changes_since(Some(kept.ledgers[2].position())));
    assert!(!others.is_replace());
    assert_eq!(lost.last().apply(&others, &kept.trust).unwrap_err(), Refusal::NeedsReplace);
    assert_same(&lost.last().apply(&delta, &kept.trust).unwrap(), &third);
}

#[test]
fn a_version_has_one_body_even_in_a_replacement() {
    let mut one = History::new();
    one.commit(9, &[(1, Some("shared"), 0)]);
    let mut other = History::new();
    other.commit(9, &[(1, Some("another"), 0)]);
    other.commit(9, &[(2, Some("more"), 0)]);
    let replacement = other.last().replacement();
    let refusal = Refusal::Contradiction(id(1), version(1));
    assert_eq!(one.last().apply(&replacement, &one.trust).unwrap_err(), refusal);
}

#[test]
fn branch_points_beyond_the_limit_are_forgotten_from_the_oldest_on() {
    let mut history = History::new();
    history.commit(9, &[(1, Some("x"), 0)]);
    let before = history.last().clone();
    let mut ledger = before.clone();
    for epoch in 2..limits::BRANCHES as u64 + 4 {
        // Unsigned: a thousand signatures would say nothing more.
        let unsigned = |parent: &Head| Branch {
            cluster: parent.cluster,
            parent: parent.epoch,
            revision: parent.revision,
            fingerprint: parent.fingerprint,
            epoch: Epoch(epoch),
            key: history.key.public(),
            signature: crate::model::key::Signature([0; 64]),
        };
        let signed = *before.signed();
        ledger = ledger.open_epoch(Epoch(epoch), unsigned, |head| SignedHead { head, ..signed });
    }
    assert_eq!(ledger.branches().len(), limits::BRANCHES);
    assert!(delta_of(ledger.changes_since(Some(before.position()))).is_replace());
}

#[test]
fn a_replacement_keeps_all_its_branch_points() {
    let history = History::eventful();
    let whole = history.last().replacement();
    for at in 0..whole.branches.len() {
        let mut stripped = whole.clone();
        stripped.branches.remove(at);
        let refused = Ledger::from_replace(&stripped, &history.trust).unwrap_err();
        assert_eq!(refused, Refusal::Malformed);
    }
    let bare = Delta { branches: Vec::new(), ..whole };
    assert_eq!(Ledger::from_replace(&bare, &history.trust).unwrap_err(), Refusal::Malformed);
}
