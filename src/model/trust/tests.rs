//! Claims about whose signature counts.

use super::*;
use crate::model::key::PrivateKey;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

fn link(old: u8, new: u8, serial: u64, first_epoch: u64) -> KeyLink {
    let cluster = key(1).public().cluster();
    KeyLink::sign(&key(old), key(new).public(), (cluster, serial, Epoch(first_epoch)))
}

fn trust() -> Trust {
    Trust::configured(vec![key(1).public()])
}

#[test]
fn each_key_counts_in_its_own_epochs() {
    let mut trust = trust();
    assert!(trust.follow(&link(1, 2, 1, 3)));
    assert!(trust.follow(&link(2, 3, 2, 5)));
    let allowed = |seed: u8, epoch| trust.allows(&key(seed).public(), Epoch(epoch));
    for (epoch, signer) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (9, 3)] {
        for seed in 1..5 {
            assert_eq!(allowed(seed, epoch), seed == signer, "key {seed} in epoch {epoch}");
        }
    }
}

#[test]
fn a_link_that_does_not_follow_is_not_followed() {
    let mut trust = trust();
    assert!(!trust.follow(&link(9, 2, 1, 3)), "by a stranger");
    assert!(!trust.follow(&link(1, 2, 2, 3)), "with a gap");
    assert!(!trust.follow(&KeyLink { new: key(9).public(), ..link(1, 2, 1, 3) }), "altered");
    assert!(trust.follow(&link(1, 2, 1, 3)));
    assert!(trust.follow(&link(1, 2, 1, 3)), "again");
    assert!(!trust.follow(&link(1, 9, 1, 3)), "another in its place");
    assert!(!trust.follow(&link(1, 9, 2, 4)), "by a key that was left");
    assert!(!trust.follow(&link(2, 3, 2, 2)), "back into an epoch of the key before");
    assert_eq!(trust.links().len(), 1);
}

#[test]
fn a_stronger_source_replaces_a_weaker_one_and_never_the_reverse() {
    let mut trust = Trust::configured(Vec::new());
    assert!(trust.learn(key(1).public(), TrustSource::Provisional));
    assert!(!trust.learn(key(2).public(), TrustSource::Provisional));
    assert!(trust.follow(&link(1, 3, 1, 3)));
    assert!(trust.learn(key(2).public(), TrustSource::Pinned));
    assert!(!trust.allows(&key(1).public(), Epoch(1)));
    assert!(trust.links().is_empty());
    assert!(!trust.learn(key(4).public(), TrustSource::Pinned));
    assert!(!trust.learn(key(4).public(), TrustSource::Provisional));
    assert_eq!(trust.anchors(), [key(2).public()]);
}
