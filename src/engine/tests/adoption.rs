//! Claims about taking overrides in.

use super::super::commits::tests::{NOW, commits, id, key, live, put, write};
use super::*;
use crate::model::ids::{ClusterId, NodeId, Version};
use crate::model::key::{PrivateKey, Signature};
use crate::model::manual::AuthorCertificate;

fn author(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

fn by_hand(rule: &str, version: u64, base: u64, text: &str) -> Override {
    let (node, cluster) = (NodeId::parse("fra2").unwrap(), key().public().cluster());
    let certificate = AuthorCertificate::sign(cluster, node.clone(), author(9).public(), &key());
    Override {
        cluster,
        id: id(rule),
        version: Version::new(version).unwrap(),
        base,
        body: live(text),
        node,
        written: NOW,
        key: author(9).public(),
        signature: Signature([0; 64]),
        certificate: Some(certificate),
    }
    .sign(&author(9))
}

fn open_mode(rule: &str, seed: u8) -> Override {
    let node = NodeId::parse(&format!("n{seed}")).unwrap();
    let bare = by_hand(rule, 1, 0, "x");
    Override { cluster: ClusterId([0; 32]), node, certificate: None, ..bare }.sign(&author(seed))
}

fn outcomes(adoption: &Adoption) -> Vec<SettledOutcome> {
    adoption.settled.iter().map(|settled| settled.outcome).collect()
}

#[test]
fn an_override_goes_in_at_its_own_version_with_its_own_bytes() {
    let mut commits = commits();
    commits.decide(&write(vec![put("a", "1")]), NOW).unwrap();
    let one = by_hand("a", 5, 1, "by hand");
    let adoption = commits.adopt(std::slice::from_ref(&one), NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Adopted]);
    assert!(adoption.conflicts.is_empty());
    let record = commits.ledger().record(&id("a")).unwrap();
    assert_eq!((record.version, &record.body), (one.version, &one.body));
    assert!(one.void_beside(Some(commits.ledger())).is_some());
    let again = commits.adopt(&[one], NOW);
    assert_eq!(outcomes(&again), [SettledOutcome::Void]);
}

#[test]
fn a_body_that_lost_is_filed_once() {
    let mut commits = commits();
    for text in ["1", "2"] {
        commits.decide(&write(vec![put("a", text)]), NOW).unwrap();
    }
    let late = by_hand("a", 2, 1, "by hand");
    let adoption = commits.adopt(std::slice::from_ref(&late), NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Conflict]);
    assert_eq!(adoption.filed[0].kind, FiledKind::Conflict);
    assert_eq!(adoption.filed[0].record.body, late.body);
    assert_eq!(commits.ledger().record(&id("a")).unwrap().body, live("2"));
    assert_eq!(outcomes(&commits.adopt(&[late], NOW)), [SettledOutcome::Void]);
}

#[test]
fn an_override_in_force_is_adopted_even_where_the_base_moved_on() {
    let mut commits = commits();
    for text in ["1", "2"] {
        commits.decide(&write(vec![put("a", text)]), NOW).unwrap();
    }
    let adoption = commits.adopt(&[by_hand("a", 7, 1, "by hand")], NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Adopted]);
    assert_eq!(adoption.conflicts, [id("a")]);
}

#[test]
fn of_several_for_one_rule_the_greatest_is_adopted() {
    let mut commits = commits();
    let adoption = commits.adopt(&[by_hand("a", 1, 0, "x"), by_hand("a", 3, 0, "z")], NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Void, SettledOutcome::Adopted]);
    assert_eq!(commits.ledger().record(&id("a")).unwrap().version.get(), 3);
}

#[test]
fn two_edits_of_one_outage_are_no_conflict_in_either_order() {
    for backwards in [false, true] {
        let mut commits = commits();
        let mut edits = vec![by_hand("a", 2, 0, "earlier"), by_hand("a", 3, 0, "later")];
        if backwards {
            edits.reverse();
        }
        for edit in edits {
            let adoption = commits.adopt(&[edit], NOW);
            assert_eq!(adoption.conflicts, [], "backwards: {backwards}");
        }
        assert_eq!(commits.ledger().record(&id("a")).unwrap().version.get(), 3);
    }
}

#[test]
fn without_a_certificate_every_author_is_taken_at_its_first_key() {
    let mut commits = commits();
    let adoption = commits.adopt(&[open_mode("a", 3), open_mode("b", 4)], NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Adopted; 2]);
    assert!(adoption.pinned);
    // A hand-in travels in several messages: whoever comes in a later one counts as well.
    let late = open_mode("c", 5);
    let pinned = open_mode("d", 3);
    let stolen = Override { id: id("e"), ..open_mode("e", 4) }.sign(&author(6));
    let foreign = Override { cluster: ClusterId([7; 32]), ..open_mode("f", 7) }.sign(&author(7));
    let adoption = commits.adopt(&[late, pinned, stolen, foreign], NOW);
    let (refused, adopted) = (SettledOutcome::Refused, SettledOutcome::Adopted);
    assert_eq!(outcomes(&adoption), [adopted, adopted, refused, refused]);
}

#[test]
fn what_does_not_hold_changes_nothing() {
    let mut commits = commits();
    let good = by_hand("a", 1, 0, "x");
    let altered = Override { body: live("y"), ..good.clone() };
    let too_far = by_hand("a", 5_000, 0, "x");
    let mut foreign = good.clone();
    foreign.certificate =
        Some(AuthorCertificate::sign(good.cluster, good.node.clone(), good.key, &author(7)));
    let adoption = commits.adopt(&[altered, too_far, foreign], NOW);
    assert_eq!(outcomes(&adoption), [SettledOutcome::Refused; 3]);
    assert_eq!(commits.ledger().head().revision.0, 0);
}

#[test]
fn behind_a_fence_nothing_is_settled() {
    let mut commits = commits();
    commits.raise_fence(crate::engine::fence::Fence::LostStore);
    assert!(commits.adopt(&[by_hand("a", 1, 0, "x")], NOW).settled.is_empty());
}
