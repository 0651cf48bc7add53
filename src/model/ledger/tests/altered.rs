//! Claims about deltas that are not what somebody signed: each is refused, and the ledger stays.

use proptest::prelude::*;

use super::*;
use crate::model::key::Signature;

type Alteration = (String, Delta);

/// Every way to bend a delta that changes what it says.
fn alterations(delta: &Delta) -> Vec<Alteration> {
    let mut all = head_alterations(delta);
    all.extend(record_alterations(delta));
    all.extend(branch_alterations(delta));
    all
}

fn head_alterations(delta: &Delta) -> Vec<Alteration> {
    let head = delta.to.head;
    let mut fingerprint = head.fingerprint;
    fingerprint.0[31] ^= 1;
    let heads = [
        ("cluster", Head { cluster: ClusterId([9; 32]), ..head }),
        ("epoch up", Head { epoch: Epoch(head.epoch.0 + 1), ..head }),
        ("revision up", Head { revision: head.revision.next(), ..head }),
        ("revision down", Head { revision: Revision(head.revision.0 - 1), ..head }),
        ("floor up", Head { floor: head.floor.next(), ..head }),
        ("floor down", Head { floor: Revision(head.floor.0.saturating_sub(1)), ..head }),
        ("top up", Head { top: head.top + 1, ..head }),
        ("top down", Head { top: head.top.saturating_sub(1), ..head }),
        ("fingerprint", Head { fingerprint, ..head }),
    ];
    let changed = heads.into_iter().filter(|(_, changed)| *changed != head);
    let bend = |(name, head): (&str, Head)| {
        (format!("head {name}"), Delta { to: SignedHead { head, ..delta.to }, ..delta.clone() })
    };
    let mut all: Vec<Alteration> = changed.map(bend).collect();
    let mut signature = delta.to.signature;
    signature.0[0] ^= 1;
    let stranger = key(9);
    let signed = [
        ("signature", SignedHead { signature, ..delta.to }),
        ("no signature", SignedHead { signature: Signature([0; 64]), ..delta.to }),
        ("other key", SignedHead { key: stranger.public(), ..delta.to }),
        ("signed by a stranger", head.sign(&stranger)),
    ];
    all.extend(signed.map(|(name, to)| (name.to_owned(), Delta { to, ..delta.clone() })));
    all
}

fn record_alterations(delta: &Delta) -> Vec<Alteration> {
    let mut all = Vec::new();
    let mut with = |name: String, records: Vec<Arc<Record>>| {
        all.push((name, Delta { records, ..delta.clone() }));
    };
    let records = &delta.records;
    for at in 0..records.len() {
        let mut dropped = records.clone();
        dropped.remove(at);
        with(format!("record {at} dropped"), dropped);
        let mut doubled = records.clone();
        doubled.insert(at, records[at].clone());
        with(format!("record {at} doubled"), doubled);
        with(format!("truncated at {at}"), records[..at].to_vec());
        if at > 0 {
            let mut swapped = records.clone();
            swapped.swap(at - 1, at);
            with(format!("record {at} swapped"), swapped);
        }
        for (name, changed) in bent_records(&records[at]) {
            let mut records = records.clone();
            records[at] = Arc::new(changed);
            with(format!("record {at} {name}"), records);
        }
    }
    let foreign = Record {
        id: id(201),
        version: version(500),
        revision: delta.to.head.revision,
        created: WallTime(1),
        changed: WallTime(1),
        body: live("foreign"),
    };
    let mut more = records.clone();
    more.push(Arc::new(foreign));
    with("a foreign record".to_owned(), more);
    all
}

fn bent_records(was: &Record) -> Vec<(&'static str, Record)> {
    let other_life = if was.body.is_retired() { live("") } else { Body::Retired };
    let below = version((was.version.get() - 1).max(1));
    let fields = [
        ("id", Record { id: id(200), ..was.clone() }),
        ("version up", Record { version: version(was.version.get() + 1), ..was.clone() }),
        ("version down", Record { version: below, ..was.clone() }),
        ("revision up", Record { revision: was.revision.next(), ..was.clone() }),
        ("revision down", Record { revision: Revision(was.revision.0 - 1), ..was.clone() }),
        ("created", Record { created: WallTime(was.created.0 + 1), ..was.clone() }),
        ("changed", Record { changed: WallTime(was.changed.0 + 1), ..was.clone() }),
        ("body", Record { body: live("altered"), ..was.clone() }),
        ("life", Record { body: other_life, ..was.clone() }),
    ];
    fields.into_iter().filter(|(_, changed)| changed != was).collect()
}

fn branch_alterations(delta: &Delta) -> Vec<Alteration> {
    let mut all = Vec::new();
    let mut with = |name: String, branches: Vec<Branch>| {
        all.push((name, Delta { branches, ..delta.clone() }));
    };
    for at in 0..delta.branches.len() {
        let mut dropped = delta.branches.clone();
        dropped.remove(at);
        with(format!("branch {at} dropped"), dropped);
        let mut doubled = delta.branches.clone();
        doubled.insert(at, delta.branches[at]);
        with(format!("branch {at} doubled"), doubled);
        let was = delta.branches[at];
        let mut fingerprint = was.fingerprint;
        fingerprint.0[0] ^= 1;
        let mut signature = was.signature;
        signature.0[9] ^= 1;
        let fields = [
            ("cluster", Branch { cluster: ClusterId([9; 32]), ..was }),
            ("parent", Branch { parent: Epoch(was.parent.0 + 1), ..was }),
            ("revision", Branch { revision: was.revision.next(), ..was }),
            ("fingerprint", Branch { fingerprint, ..was }),
            ("epoch", Branch { epoch: Epoch(was.epoch.0 + 1), ..was }),
            ("key", Branch { key: key(9).public(), ..was }),
            ("signature", Branch { signature, ..was }),
        ];
        for (name, branch) in fields {
            let mut branches = delta.branches.clone();
            branches[at] = branch;
            with(format!("branch {at} {name}"), branches);
        }
    }
    let head = delta.to.head;
    let mut more = delta.branches.clone();
    more.push(Branch::sign(&head, Epoch(head.epoch.0 + 1), &key(9)));
    with("a branch of a stranger".to_owned(), more);
    all
}

fn assert_all_refused(mine: &Ledger, delta: &Delta, trust: &Trust) -> usize {
    let before = mine.clone();
    let alterations = alterations(delta);
    for (name, altered) in &alterations {
        assert_ne!(altered, delta, "{name} alters nothing");
        assert!(mine.apply(altered, trust).is_err(), "{name} was taken");
        if altered.is_replace() {
            assert!(Ledger::from_replace(altered, trust).is_err(), "{name} was taken at first");
        }
    }
    assert_same(mine, &before);
    // The same unaltered is taken: the refusals above were for the alterations.
    assert!(mine.apply(delta, trust).is_ok());
    alterations.len()
}

#[test]
fn every_altered_delta_is_refused_and_leaves_the_ledger_as_it_was() {
    let history = History::eventful();
    let last = history.last();
    let middle = &history.ledgers[20];
    let mut tried = 0;
    for mine in history.ledgers.iter().step_by(3).filter(|l| l.position() < last.position()) {
        let delta = delta_of(last.changes_since(Some(mine.position())));
        tried += assert_all_refused(mine, &delta, &history.trust);
        if mine.position() < middle.position() {
            let delta = delta_of(middle.changes_since(Some(mine.position())));
            tried += assert_all_refused(mine, &delta, &history.trust);
        }
    }
    assert!(tried > 500, "only {tried} alterations");
}

#[test]
fn an_altered_basis_changes_nothing_about_the_result() {
    let history = History::eventful();
    let last = history.last();
    for mine in history.ledgers.iter().step_by(4).filter(|l| l.position() < last.position()) {
        let delta = delta_of(last.changes_since(Some(mine.position())));
        let positions = (0..5).flat_map(|e| (0..40).step_by(3).map(move |r| position(e, r)));
        let bases = positions.map(Basis::After).chain([Basis::Nothing]);
        for basis in bases {
            // The basis is not signed: it is a hint, and the result is what is proven.
            let altered = Delta { basis, ..delta.clone() };
            if let Ok(next) = mine.apply(&altered, &history.trust) {
                assert_same(&next, last);
            }
        }
    }
}

#[test]
fn what_was_taken_already_is_not_taken_again() {
    let history = History::eventful();
    let last = history.last();
    for older in &history.ledgers {
        let replay = older.replacement();
        assert_eq!(last.apply(&replay, &history.trust).unwrap_err(), Refusal::NotNewer);
        let Changes::Delta(delta) = last.changes_since(Some(older.position())) else { continue };
        assert_eq!(last.apply(&delta, &history.trust).unwrap_err(), Refusal::NotNewer);
    }
}

#[test]
fn a_delta_of_another_fleet_is_refused() {
    let history = History::eventful();
    let stranger = key(9);
    let genesis = Ledger::genesis(stranger.public().cluster(), |head| head.sign(&stranger));
    let foreign = genesis.commit(&[], WallTime(1), |head| head.sign(&stranger)).unwrap();
    let both = Trust::configured(vec![history.key.public(), stranger.public()]);
    let mine = &history.ledgers[0];
    let refused = mine.apply(&foreign.replacement(), &both).unwrap_err();
    assert_eq!(refused, Refusal::OtherCluster);
    let refused = Ledger::from_replace(&foreign.replacement(), &history.trust).unwrap_err();
    assert_eq!(refused, Refusal::BadSignature);
    let delta = delta_of(history.last().changes_since(Some(mine.position())));
    let nobody = Trust::configured(Vec::new());
    assert_eq!(mine.apply(&delta, &nobody).unwrap_err(), Refusal::BadSignature);
}

#[test]
fn a_gap_needs_a_replacement() {
    let mut history = History::new();
    for round in 0..6 {
        history.commit(9, &[(round, Some("x"), 0)]);
    }
    let delta = delta_of(history.last().changes_since(Some(history.ledgers[4].position())));
    let mine = &history.ledgers[2];
    assert_eq!(mine.apply(&delta, &history.trust).unwrap_err(), Refusal::NeedsReplace);
}

#[test]
fn a_forger_cannot_make_anybody_ask_for_a_replacement() {
    let mut history = History::new();
    history.commit(9, &[(1, Some("x"), 0)]);
    let mine = history.last().clone();
    history.commit(9, &[(1, Some("y"), 0)]);
    history.open_epoch();
    let honest = delta_of(history.last().changes_since(Some(mine.position())));
    let forged_head = Head { revision: Revision(900), ..honest.to.head }.sign(&key(9));
    let basis = Basis::After(position(1, 800));
    let forged = Delta { basis, to: forged_head, ..honest.clone() };
    assert_eq!(mine.apply(&forged, &history.trust).unwrap_err(), Refusal::BadSignature);
    let parent = Head { revision: Revision(0), ..*mine.head() };
    let branches = vec![Branch::sign(&parent, Epoch(2), &key(9))];
    let forged = Delta { branches, ..honest };
    assert_eq!(mine.apply(&forged, &history.trust).unwrap_err(), Refusal::BadSignature);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn records_of_other_deltas_never_mix_in(
        picks in any::<[proptest::sample::Index; 3]>(),
        takes in any::<u64>(),
    ) {
        let history = History::eventful();
        let mut at = picks.map(|index| index.index(history.ledgers.len()));
        at.sort_unstable();
        let [mine, one, other] = at.map(|index| &history.ledgers[index]);
        prop_assume!(mine.position() < one.position());
        let one = delta_of(one.changes_since(Some(mine.position())));
        let other = delta_of(other.changes_since(Some(mine.position())));
        let both = one.records.iter().chain(&other.records).cloned();
        let taken = both.enumerate().filter(|(at, _)| takes >> (at % 64) & 1 == 1);
        let mut records: Vec<_> = taken.map(|(_, record)| record).collect();
        records.sort_by(|a, b| (a.revision, &a.id).cmp(&(b.revision, &b.id)));
        let mixed = Delta { records, ..one.clone() };
        if let Ok(next) = mine.apply(&mixed, &history.trust) {
            assert_same(&next, &mine.apply(&one, &history.trust).unwrap());
        }
        assert_consistent(mine);
    }
}
