//! Claims about overrides: what holds, what wins, and what counts for nothing.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::ledger::Change;
use crate::model::trust::Trust;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

fn cluster() -> ClusterId {
    key(1).public().cluster()
}

fn id(number: u8) -> RuleId {
    RuleId::parse(&format!("rule-{number}")).unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::parse(&format!("node-{number}")).unwrap()
}

fn body(text: Option<&str>) -> Body {
    text.map_or(Body::Retired, |text| Body::Live(Bytes::copy_from_slice(text.as_bytes())))
}

/// Unsigned: merging does not verify.
fn unsigned(rule: u8, at: u64, author: u8, text: Option<&str>) -> Override {
    Override {
        cluster: cluster(),
        id: id(rule),
        version: version(at),
        base: at - 1,
        body: body(text),
        node: node(author),
        written: WallTime(7),
        key: key(author).public(),
        signature: Signature([0; 64]),
        certificate: None,
    }
}

fn certified() -> Override {
    let certificate = AuthorCertificate::sign(cluster(), node(3), key(3).public(), &key(1));
    let by_hand = unsigned(1, 8, 3, Some("by hand"));
    Override { certificate: Some(certificate), ..by_hand }.sign(&key(3))
}

fn ledger(changes: &[(u8, u64, Option<&str>)]) -> Ledger {
    let genesis = Ledger::genesis(cluster(), |head| head.sign(&key(1)));
    let changes: Vec<Change> = changes
        .iter()
        .map(|(rule, at, text)| Change { id: id(*rule), version: version(*at), body: body(*text) })
        .collect();
    genesis.commit(&changes, WallTime(1), |head| head.sign(&key(1))).unwrap()
}

fn set_of(overrides: &[Arc<Override>]) -> OverrideSet {
    let mut set = OverrideSet::default();
    for by_hand in overrides {
        set.merge(by_hand.clone());
    }
    set
}

fn assert_same(one: &OverrideSet, other: &OverrideSet) {
    assert_eq!(one.summary(), other.summary());
    assert!(one.iter().eq(other.iter()));
    assert_eq!(one.len() as u64, one.summary().count);
}

#[test]
fn an_override_holds_as_it_was_signed() {
    assert!(certified().holds());
    assert!(Override { certificate: None, ..certified() }.holds());
    let trust = Trust::configured(vec![key(1).public()]);
    let certificate = certified().certificate.unwrap();
    assert!(trust.accepts_certificate(&certificate, cluster()));
}

#[test]
fn an_override_altered_in_any_field_does_not_hold() {
    let good = certified();
    let mut signature = good.signature;
    signature.0[5] ^= 1;
    let altered = [
        Override { cluster: ClusterId([9; 32]), ..good.clone() },
        Override { id: id(2), ..good.clone() },
        Override { version: version(9), ..good.clone() },
        Override { base: 6, ..good.clone() },
        Override { body: body(Some("other")), ..good.clone() },
        Override { body: body(None), ..good.clone() },
        Override { node: node(4), ..good.clone() },
        Override { written: WallTime(8), ..good.clone() },
        Override { key: key(4).public(), ..good.clone() },
        Override { signature, ..good.clone() },
    ];
    for by_hand in altered {
        assert!(!by_hand.holds(), "{by_hand:?}");
        // Nor without the certificate, which alone might have refused it.
        assert!(!Override { certificate: None, ..by_hand }.holds());
    }
}

#[test]
fn a_certificate_is_for_its_author_and_fleet_only() {
    let good = certified();
    let of = |cluster, author: u8, keyed: u8| {
        AuthorCertificate::sign(cluster, node(author), key(keyed).public(), &key(1))
    };
    for certificate in [of(ClusterId([9; 32]), 3, 3), of(cluster(), 4, 3), of(cluster(), 3, 4)] {
        assert!(certificate.holds());
        assert!(!Override { certificate: Some(certificate), ..good.clone() }.holds());
    }
}

#[test]
fn a_certificate_altered_or_by_a_stranger_is_not_accepted() {
    let trust = Trust::configured(vec![key(1).public()]);
    let good = certified().certificate.unwrap();
    let mut signature = good.signature;
    signature.0[5] ^= 1;
    let altered = [
        AuthorCertificate { cluster: ClusterId([9; 32]), ..good.clone() },
        AuthorCertificate { node: node(4), ..good.clone() },
        AuthorCertificate { key: key(4).public(), ..good.clone() },
        AuthorCertificate { issuer: key(4).public(), ..good.clone() },
        AuthorCertificate { signature, ..good.clone() },
        AuthorCertificate::sign(cluster(), node(3), key(3).public(), &key(9)),
    ];
    for certificate in altered {
        assert!(!trust.accepts_certificate(&certificate, cluster()), "{certificate:?}");
    }
    assert!(!trust.accepts_certificate(&good, ClusterId([9; 32])));
    assert!(!Trust::default().accepts_certificate(&good, cluster()));
}

#[test]
fn the_higher_version_wins_then_the_lesser_node() {
    let mut set = OverrideSet::default();
    let at = |at, author| Arc::new(unsigned(1, at, author, Some("x")));
    assert_eq!(set.merge(at(3, 5)), Merged::Won(None));
    assert_eq!(set.merge(at(3, 5)), Merged::Known);
    assert_eq!(set.merge(at(2, 1)), Merged::Lost);
    assert_eq!(set.merge(at(3, 6)), Merged::Lost);
    assert_eq!(set.merge(at(3, 4)), Merged::Won(Some(at(3, 5))));
    assert_eq!(set.merge(at(4, 9)), Merged::Won(Some(at(3, 4))));
    assert_eq!(set.len(), 1);
    assert_eq!(set.remove(&id(1)), Some(at(4, 9)));
    assert_eq!(set.summary(), OverrideSummary::default());
    assert_eq!(set.remove(&id(1)), None);
}

#[test]
fn marks_go_round() {
    let set = set_of(&[1, 2, 3].map(|rule| Arc::new(unsigned(rule, 2, 1, None))));
    let ids = |from: u8, most| {
        set.marks(&id(from), most).iter().map(|mark| mark.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(2, 9), [id(2), id(3), id(1)]);
    assert_eq!(ids(2, 2), [id(2), id(3)]);
    assert_eq!(ids(9, 1), [id(1)]);
}

#[test]
fn an_override_is_void_beside_a_ledger_that_overtook_it() {
    let ledger = ledger(&[(1, 5, Some("x")), (2, 7, None)]);
    let void = |rule, at| unsigned(rule, at, 1, None).void_beside(Some(&ledger));
    assert_eq!(void(1, 4), Some(Void::Overtaken));
    assert_eq!(void(1, 5), Some(Void::Overtaken));
    assert_eq!(void(1, 6), None);
    // A retired rule counts like a live one; one never heard of starts from the top.
    assert_eq!(void(2, 7), Some(Void::Overtaken));
    assert_eq!(void(2, 8), None);
    assert_eq!(void(3, 1), None);
    assert_eq!(void(1, 5 + limits::VERSION_JUMP), None);
    assert_eq!(void(1, 6 + limits::VERSION_JUMP), Some(Void::TooFar));
    assert_eq!(unsigned(1, 1, 1, None).void_beside(None), None);
    let last = Override { version: Version::MAX, ..unsigned(1, 1, 1, None) };
    assert_eq!(last.void_beside(Some(&ledger)), Some(Void::TooFar));
}

#[test]
fn an_override_is_too_far_only_above_both_its_rule_and_the_top() {
    let plain = ledger(&[(1, 5, Some("x"))]);
    let mut delta = plain.replacement();
    delta.to = crate::model::head::Head { top: 5000, ..delta.to.head }.sign(&key(1));
    let trust = Trust::configured(vec![key(1).public()]);
    let ledger = Ledger::from_replace(&delta, &trust).unwrap();
    let void = |rule, at| unsigned(rule, at, 1, None).void_beside(Some(&ledger));
    assert_eq!(void(1, 5001), None);
    assert_eq!(void(1, 5001 + limits::VERSION_JUMP), Some(Void::TooFar));
    assert_eq!(void(2, 5000), Some(Void::Overtaken));
    assert_eq!(void(2, 5001), None);
}

fn any_override() -> impl Strategy<Value = Arc<Override>> {
    let text = proptest::option::of(prop_oneof![Just("a"), Just("b")]);
    (0u8..4, 1u64..4, 0u8..3, text)
        .prop_map(|(rule, at, author, text)| Arc::new(unsigned(rule, at, author, text)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_commutative(
        overrides in proptest::collection::vec(any_override(), 0..12),
        seed in any::<u64>(),
    ) {
        let mut shuffled: Vec<(u64, Arc<Override>)> = overrides
            .iter()
            .zip(1u64..)
            .map(|(by_hand, at)| (seed.wrapping_mul(at * 2 + 1).rotate_left(17), by_hand.clone()))
            .collect();
        shuffled.sort_by_key(|(order, _)| *order);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(_, by_hand)| by_hand).collect();
        assert_same(&set_of(&overrides), &set_of(&shuffled));
    }

    #[test]
    fn merging_is_associative_and_idempotent(
        parts in proptest::array::uniform3(proptest::collection::vec(any_override(), 0..6)),
    ) {
        let [a, b, c] = parts.map(|part| set_of(&part));
        let join = |one: &OverrideSet, other: &OverrideSet| {
            let mut joined = one.clone();
            other.iter().for_each(|by_hand| { joined.merge(by_hand.clone()); });
            joined
        };
        assert_same(&join(&join(&a, &b), &c), &join(&a, &join(&b, &c)));
        assert_same(&join(&a, &b), &join(&b, &a));
        assert_same(&join(&a, &a), &a);
        let joined = join(&a, &b);
        assert_same(&join(&joined, &b), &joined);
    }

    #[test]
    fn a_version_never_falls_by_merging(
        overrides in proptest::collection::vec(any_override(), 0..12),
    ) {
        let mut set = OverrideSet::default();
        for by_hand in overrides {
            let before = set.of(&by_hand.id).map(|held| held.version);
            set.merge(by_hand.clone());
            let after = set.of(&by_hand.id).unwrap().version;
            prop_assert!(Some(after) >= before && after >= by_hand.version);
        }
    }
}
