//! Claims about cost: counted in operations, never in time.

use super::*;
use crate::model::fingerprint::mixed;

/// A ledger of so many rules, in commits of a thousand.
fn large(rules: u64) -> History {
    let mut history = History::new();
    let ids: Vec<RuleId> =
        (0..rules).map(|at| RuleId::parse(&format!("rule-{at}")).unwrap()).collect();
    for some in ids.chunks(1000) {
        let change = |id: &RuleId| Change { id: id.clone(), version: version(1), body: live("x") };
        let changes: Vec<Change> = some.iter().map(change).collect();
        let sign = |head: Head| head.sign(&history.key);
        let next = history.last().commit(&changes, WallTime(1), sign).unwrap();
        history.ledgers.push(next);
    }
    history
}

/// How many records two ledgers hold that are not the very same allocation.
fn not_shared(one: &Ledger, other: &Ledger) -> usize {
    one.records().zip(other.records()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count()
}

#[test]
fn one_change_among_ten_thousand_rules_costs_one_change() {
    let mut history = large(10_000);
    let before = history.last().clone();
    let start = mixed::so_far();
    history.commit(100, &[(7, Some("changed"), 0)]);
    assert_eq!(mixed::so_far() - start, 2, "one in, one out");
    let after = history.last().clone();
    assert_eq!(not_shared(&before, &after), 1);

    let start = mixed::so_far();
    let delta = delta_of(after.changes_since(Some(before.position())));
    assert_eq!(delta.records.len(), 1);
    assert!(Arc::ptr_eq(&delta.records[0], after.record(&id(7)).unwrap()));
    assert_eq!(mixed::so_far() - start, 0, "nothing is hashed to answer");

    let start = mixed::so_far();
    let moved = before.apply(&delta, &history.trust).unwrap();
    assert_eq!(mixed::so_far() - start, 2, "one in, one out");
    assert_eq!(not_shared(&before, &moved), 1);
    assert_eq!(not_shared(&after, &moved), 0, "the record is the delta's own");
}

#[test]
fn many_commits_to_one_rule_are_one_record_for_who_is_behind() {
    let mut history = large(1000);
    let before = history.last().clone();
    for round in 0..50 {
        history.commit(100, &[(7, Some(&format!("body {round}")), 0)]);
    }
    let delta = delta_of(history.last().changes_since(Some(before.position())));
    assert_eq!(delta.records.len(), 1);
    let start = mixed::so_far();
    before.apply(&delta, &history.trust).unwrap();
    assert_eq!(mixed::so_far() - start, 2);
}

#[test]
fn dropping_costs_what_is_dropped() {
    let mut history = large(1000);
    for at in 0..5 {
        history.commit(100, &[(at, None, 0)]);
    }
    let before = history.last().clone();
    let start = mixed::so_far();
    history.commit(3, &[(9, Some("x"), 0)]);
    let dropped = before.retired_count() - history.last().retired_count();
    assert!(dropped > 0);
    assert_eq!(mixed::so_far() - start, 2 + dropped);
}
