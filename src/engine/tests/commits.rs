//! Claims about the single point where writes become history.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

pub(crate) const NOW: WallTime = WallTime(1_790_000_000_000);

pub(crate) fn key() -> PrivateKey {
    PrivateKey::from_seed([1; 32])
}

pub(crate) fn commits() -> Commits {
    let key = key();
    let ledger = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
    Commits::new(ledger, key.public(), None)
}

pub(crate) fn id(text: &str) -> RuleId {
    RuleId::parse(text).unwrap()
}

pub(crate) fn live(text: &str) -> Body {
    Body::Live(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn put(rule: &str, text: &str) -> Intent {
    Intent { id: id(rule), body: live(text), expected: None, version: None }
}

pub(crate) fn write(intents: Vec<Intent>) -> Write {
    Write { write_id: None, intents, dry_run: false }
}

fn retire(rule: &str) -> Intent {
    Intent { body: Body::Retired, ..put(rule, "") }
}

fn versions(decision: &Decision) -> Vec<(u64, u64, Outcome)> {
    decision.answer.results.iter().map(|r| (r.previous, r.version, r.outcome)).collect()
}

fn faults(error: &WriteError) -> Vec<(usize, FaultKind)> {
    let WriteError::Faults(faults) = error else { panic!("{error}") };
    faults.iter().map(|fault| (fault.at, fault.kind.clone())).collect()
}

#[test]
fn versions_count_up_and_unchanged_bodies_make_no_commit() {
    let mut commits = commits();
    let first = commits.decide(&write(vec![put("a", "1")]), NOW).unwrap();
    assert_eq!(versions(&first), [(0, 1, Outcome::Written)]);
    let same = commits.decide(&write(vec![put("a", "1")]), NOW).unwrap();
    assert_eq!(versions(&same), [(1, 1, Outcome::Unchanged)]);
    assert_eq!(same.answer.position.revision.0, 1);
    let both = commits.decide(&write(vec![put("a", "2"), put("b", "1")]), NOW).unwrap();
    assert_eq!(versions(&both), [(1, 2, Outcome::Written), (0, 1, Outcome::Written)]);
    assert_eq!(commits.ledger().head().revision.0, 2);
    let gone = commits.decide(&write(vec![retire("a")]), NOW).unwrap();
    assert_eq!(versions(&gone), [(2, 3, Outcome::Retired)]);
    let back = commits.decide(&write(vec![put("a", "2")]), NOW).unwrap();
    assert_eq!(versions(&back), [(0, 4, Outcome::Written)]);
}

#[test]
fn of_two_writers_one_wins_and_the_other_learns_the_version() {
    let mut commits = commits();
    let create = |text| Intent { expected: Some(0), ..put("a", text) };
    commits.decide(&write(vec![create("1")]), NOW).unwrap();
    let lost = commits.decide(&write(vec![create("2")]), NOW).unwrap_err();
    assert_eq!(faults(&lost), [(0, FaultKind::Mismatch { expected: 0, current: 1 })]);
    let on_v1 = |text| Intent { expected: Some(1), ..put("a", text) };
    commits.decide(&write(vec![on_v1("2")]), NOW).unwrap();
    let lost = commits.decide(&write(vec![on_v1("3")]), NOW).unwrap_err();
    assert_eq!(faults(&lost), [(0, FaultKind::Mismatch { expected: 1, current: 2 })]);
}

#[test]
fn a_refused_write_changes_nothing_at_all() {
    let mut commits = commits();
    commits.decide(&write(vec![put("a", "1")]), NOW).unwrap();
    let before = *commits.ledger().signed();
    let far = |version| Intent { version: Version::new(version), ..put("a", "x") };
    for (intents, refusal) in [
        (vec![put("b", "1"), retire("none")], "NotFound"),
        (vec![put("b", "1"), put("b", "2")], "Duplicate"),
        (vec![put("b", "1"), far(1)], "VersionRange"),
        (vec![far(2 + limits::VERSION_JUMP)], "VersionRange"),
        (vec![], "Empty"),
    ] {
        let error = commits.decide(&write(intents), NOW).unwrap_err();
        assert!(format!("{error:?}").contains(refusal), "{error:?}");
        assert_eq!(commits.ledger().signed().head, before.head);
    }
    let named = commits.decide(&write(vec![far(1 + limits::VERSION_JUMP)]), NOW).unwrap();
    assert_eq!(named.answer.results[0].version, 1 + limits::VERSION_JUMP);
}

#[test]
fn everything_that_is_wrong_with_a_write_is_said_at_once() {
    let mut commits = commits();
    commits.decide(&write(vec![put("a", "1"), put("b", "1")]), NOW).unwrap();
    let before = *commits.ledger().signed();
    let stale = Intent { expected: Some(7), version: Version::new(1), ..put("a", "2") };
    let gone = Intent { expected: Some(3), ..retire("gone") };
    let same_but_stale = Intent { expected: Some(0), ..put("b", "1") };
    let intents =
        vec![stale, put("fine", "1"), retire("none"), gone, same_but_stale, put("a", "3")];
    let refused = commits.decide(&write(intents), NOW).unwrap_err();
    let highest = 1 + limits::VERSION_JUMP;
    assert_eq!(
        faults(&refused),
        [
            (0, FaultKind::Mismatch { expected: 7, current: 1 }),
            (0, FaultKind::VersionRange { named: 1, lowest: 2, highest }),
            (2, FaultKind::NotFound),
            (3, FaultKind::Mismatch { expected: 3, current: 0 }),
            (4, FaultKind::Mismatch { expected: 0, current: 1 }),
            (5, FaultKind::Duplicate),
        ]
    );
    assert_eq!(*commits.ledger().signed(), before);
    let many = (0..limits::PROBLEMS + 5).map(|number| retire(&format!("r{number}"))).collect();
    let refused = commits.decide(&write(many), NOW).unwrap_err();
    assert_eq!(faults(&refused).len(), limits::PROBLEMS);
    let WriteError::Faults(all) = refused else { panic!("faults") };
    assert_eq!(all.count(), limits::PROBLEMS + 5);
}

#[test]
fn a_repeat_of_a_write_id_gets_the_first_answer() {
    let mut commits = commits();
    let named = |intents| Write { write_id: WriteId::parse("w1"), ..write(intents) };
    let first = commits.decide(&named(vec![put("a", "1")]), NOW).unwrap();
    commits.decide(&write(vec![put("a", "2")]), NOW).unwrap();
    let again = commits.decide(&named(vec![put("a", "1")]), NOW).unwrap();
    assert!(again.repeated);
    assert_eq!(again.answer, first.answer);
    assert_eq!(commits.ledger().record(&id("a")).unwrap().version.get(), 2);
}

#[test]
fn a_write_id_stands_for_one_write() {
    let mut commits = commits();
    let named = |intents| Write { write_id: WriteId::parse("w1"), ..write(intents) };
    let first = commits.decide(&named(vec![put("a", "1"), put("b", "1")]), NOW).unwrap();
    let before = *commits.ledger().signed();
    for other in [
        vec![put("a", "1"), put("b", "2")],
        vec![put("a", "1")],
        vec![put("a", "1"), retire("b")],
        vec![put("a", "1"), put("b1", "")],
        vec![],
    ] {
        let refused = commits.decide(&named(other), NOW).unwrap_err();
        assert_eq!(refused, WriteError::OtherWrite(WriteId::parse("w1").unwrap()));
    }
    assert_eq!(*commits.ledger().signed(), before);
    // A node repeats with what it has learned since.
    let again = vec![Intent { expected: Some(1), ..put("a", "1") }, put("b", "1")];
    assert_eq!(commits.decide(&named(again), NOW).unwrap().answer, first.answer);
}

#[test]
fn a_dry_run_answers_and_changes_nothing() {
    let mut commits = commits();
    let write =
        Write { write_id: WriteId::parse("w1"), intents: vec![put("a", "1")], dry_run: true };
    let decision = commits.decide(&write, NOW).unwrap();
    assert_eq!(versions(&decision), [(0, 1, Outcome::Written)]);
    assert_eq!(commits.ledger().head().revision.0, 0);
    let real = commits.decide(&Write { dry_run: false, ..write }, NOW).unwrap();
    assert!(!real.repeated && real.remembered.is_some());
}

#[test]
fn a_fenced_orchestrator_takes_no_writes() {
    let mut commits = commits();
    assert!(commits.raise_fence(Fence::LostStore));
    let error = commits.decide(&write(vec![put("a", "1")]), NOW).unwrap_err();
    assert_eq!(error, WriteError::Fenced(Fence::LostStore));
}

#[test]
fn a_sealed_group_leads_where_each_commit_led() {
    let mut grouped = commits();
    for number in 0..5 {
        grouped.decide(&write(vec![put("a", &number.to_string())]), NOW).unwrap();
    }
    grouped.seal(&key());
    assert!(grouped.ledger().signed().holds());
    let delta = commits().ledger().apply(
        &match grouped.ledger().changes_since(Some(commits().ledger().position())) {
            crate::model::delta::Changes::Delta(delta) => delta,
            crate::model::delta::Changes::Current => panic!("five commits apart"),
        },
        grouped.trust(),
    );
    assert_eq!(delta.unwrap().signed(), grouped.ledger().signed());
}

proptest! {
    #[test]
    fn versions_only_rise_whatever_is_written(
        writes in prop::collection::vec((0u8..4, 0u8..5, prop::option::of(0u64..12)), 1..60),
    ) {
        let mut commits = commits();
        let mut highest = std::collections::BTreeMap::new();
        for (rule, body, expected) in writes {
            let rule = format!("r{rule}");
            let body = if body == 0 { Body::Retired } else { live(&body.to_string()) };
            let intent = Intent { expected, body, ..put(&rule, "") };
            let before = commits.ledger().position();
            let Ok(decision) = commits.decide(&write(vec![intent]), NOW) else {
                prop_assert_eq!(commits.ledger().position(), before);
                continue;
            };
            let result = &decision.answer.results[0];
            let last = highest.insert(rule, result.version).unwrap_or(0);
            let rises = result.version > last;
            prop_assert!(rises || (result.outcome == Outcome::Unchanged && result.version == last));
            prop_assert_eq!(rises, commits.ledger().position() > before);
        }
        prop_assert!(commits.ledger().is_intact());
    }
}
