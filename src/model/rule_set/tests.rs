//! Claims about what is in force.

use super::*;
use crate::model::ids::ClusterId;
use crate::model::key::{PrivateKey, Signature};
use crate::model::ledger::Change;
use crate::model::manual::Override;

fn key() -> PrivateKey {
    PrivateKey::from_seed([1; 32])
}

fn id(text: &str) -> RuleId {
    RuleId::parse(text).unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn by_hand(rule: &str, at: u64, body: Body) -> Arc<Override> {
    Arc::new(Override {
        cluster: ClusterId([1; 32]),
        id: id(rule),
        version: version(at),
        base: 0,
        body,
        node: NodeId::parse("fra2").unwrap(),
        written: WallTime(50),
        key: key().public(),
        signature: Signature([0; 64]),
        certificate: None,
    })
}

/// `both` at version 3 and `gone` retired at 4 in the ledger; `both`, `gone` and `mine` on file.
fn rule_set() -> RuleSet {
    let genesis = Ledger::genesis(key().public().cluster(), |head| head.sign(&key()));
    let changes = [
        Change { id: id("both"), version: version(3), body: Body::Live(data("ledger")) },
        Change { id: id("gone"), version: version(4), body: Body::Retired },
    ];
    let ledger = genesis.commit(&changes, WallTime(10), |head| head.sign(&key())).unwrap();
    let mut set = RuleSet { ledger: Some(ledger), ..RuleSet::default() };
    for name in ["both", "gone", "mine"] {
        let rule = FileRule { version: version(1), data: data("file"), created: WallTime(5) };
        set.file.insert(id(name), rule);
    }
    set
}

fn served(set: &RuleSet, rule: &str) -> Option<(u64, String)> {
    set.serving(&id(rule)).map(|serving| {
        let version = serving.version.map_or(0, Version::get);
        (version, String::from_utf8_lossy(&serving.data).into_owned())
    })
}

#[test]
fn the_file_is_below_everything_else() {
    let set = rule_set();
    assert_eq!(served(&set, "both"), Some((3, "ledger".into())));
    assert_eq!(served(&set, "gone"), None);
    assert_eq!(served(&set, "mine"), Some((1, "file".into())));
    assert_eq!(set.effective(&id("mine")).unwrap().origin, Origin::File);
    assert_eq!(set.effective(&id("none")), None);
}

#[test]
fn the_higher_version_is_in_force_and_the_ledger_wins_ties() {
    for (at, shown, origin) in [
        (2, "ledger", Origin::Ledger),
        (3, "ledger", Origin::Ledger),
        (4, "hand", Origin::Override(NodeId::parse("fra2").unwrap())),
    ] {
        let mut set = rule_set();
        set.overrides.merge(by_hand("both", at, Body::Live(data("hand"))));
        let effective = set.effective(&id("both")).unwrap();
        assert_eq!(effective.origin, origin);
        assert_eq!(effective.created, WallTime(10), "the rule goes on living");
        assert_eq!(served(&set, "both"), Some((at.max(3), shown.into())));
    }
}

#[test]
fn an_override_retires_and_brings_back() {
    let mut set = rule_set();
    set.overrides.merge(by_hand("both", 4, Body::Retired));
    set.overrides.merge(by_hand("gone", 5, Body::Live(data("back"))));
    set.overrides.merge(by_hand("mine", 2, Body::Retired));
    assert_eq!(served(&set, "both"), None);
    assert_eq!(set.effective(&id("both")).unwrap().version, version(4));
    assert_eq!(served(&set, "gone"), Some((5, "back".into())));
    assert_eq!(set.effective(&id("gone")).unwrap().created, WallTime(50), "a new life");
    assert_eq!(served(&set, "mine"), None);
}

#[test]
fn an_overlay_wins_here_and_changes_no_version() {
    let mut set = rule_set();
    for name in ["both", "gone", "alone"] {
        let overlay = Overlay { data: data("overlay"), until: Moment::START };
        set.overlays.insert(id(name), overlay);
    }
    assert_eq!(served(&set, "both"), Some((3, "overlay".into())));
    assert_eq!(served(&set, "gone"), Some((4, "overlay".into())));
    assert_eq!(served(&set, "alone"), Some((0, "overlay".into())));
    assert_eq!(set.effective(&id("alone")), None);
    assert_eq!(set.effective(&id("both")).unwrap().body, Body::Live(data("ledger")));
    assert_eq!(set.ids(), ["alone", "both", "gone", "mine"].map(id));
}

#[test]
fn the_tag_changes_with_whatever_is_in_force() {
    let set = rule_set();
    let mut tags = vec![set.tag(), RuleSet::default().tag()];
    let mut overridden = set.clone();
    overridden.overrides.merge(by_hand("both", 4, Body::Retired));
    tags.push(overridden.tag());
    let ledger = set.ledger.clone().unwrap();
    let change = Change { id: id("both"), version: version(4), body: Body::Retired };
    let next = ledger.commit(&[change], WallTime(11), |head| head.sign(&key())).unwrap();
    tags.push(RuleSet { ledger: Some(next), ..set.clone() }.tag());
    tags.push(RuleSet { local_changes: 1, ..set.clone() }.tag());
    let distinct: std::collections::BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len());
    assert_eq!(set.tag(), rule_set().tag());
}
