//! Claims about going on after a loss.

use super::super::commits::tests::{NOW, commits, id, key, put, write};
use super::*;
use crate::engine::fence::{HeadVerdict, judge_head};

/// A history of one rule with these texts.
fn history(texts: &[&str]) -> Commits {
    let mut commits = commits();
    for text in texts {
        commits.decide(&write(vec![put("a", text)]), NOW).unwrap();
    }
    commits.seal(&key());
    commits
}

fn read_offer(commits: &Commits, offered: &Delta) -> Result<Ledger, Refusal> {
    offered_ledger(offered, commits.ledger().head().cluster, commits.trust())
}

fn fenced(mut commits: Commits) -> Commits {
    commits.raise_fence(Fence::LostStore);
    commits
}

#[test]
fn a_lost_store_comes_back_from_a_node() {
    let fleet = history(&["1", "2", "3"]);
    let mut lost = fenced(commits());
    let offer = read_offer(&lost, &fleet.ledger().replacement()).unwrap();
    let recovered = lost.recover(vec![offer], None, &key(), NOW).unwrap();
    assert!(recovered.orphaned.is_empty());
    assert_eq!(recovered.branch, fleet.ledger().position());
    assert!(lost.fence().is_none());
    assert_eq!(lost.ledger().head().epoch, Epoch(2));
    assert_eq!(lost.ledger().record(&id("a")).unwrap().version.get(), 3);
    assert!(lost.ledger().signed().holds() && lost.ledger().is_intact());
    // A node goes on without a replacement.
    let changes = lost.ledger().changes_since(Some(fleet.ledger().position()));
    let crate::model::delta::Changes::Delta(delta) = changes else { panic!("one epoch apart") };
    assert!(!delta.is_replace());
    assert!(fleet.ledger().apply(&delta, lost.trust()).is_ok());
}

#[test]
fn only_an_empty_store_begins_anew_and_only_where_nobody_holds_more() {
    let mut lost = fenced(commits());
    let known = history(&["1"]).ledger().position();
    let refused = lost.begin_anew(Some(known)).unwrap_err();
    assert_eq!(refused, RecoverError::Less { found: lost.ledger().position(), known });
    assert!(lost.fence().is_some());
    let own = lost.ledger().position();
    assert_eq!(lost.begin_anew(Some(own)).unwrap().branch, own);
    assert!(lost.fence().is_none() && lost.ledger().position() == own);
    assert_eq!(lost.begin_anew(None).unwrap_err(), RecoverError::NotFenced);
    let mut held = fenced(history(&["1"]));
    assert_eq!(held.begin_anew(None).unwrap_err(), RecoverError::NothingFound);
    // Whoever comes back with the old history fences the new one, ahead of it or behind.
    lost.decide(&write(vec![put("b", "1")]), NOW).unwrap();
    lost.seal(&key());
    let mark = *lost.ledger().signed();
    lost.decide(&write(vec![put("b", "2")]), NOW).unwrap();
    lost.seal(&key());
    for (texts, verdict) in
        [(&["1", "2", "3"][..], HeadVerdict::Ahead), (&["1"][..], HeadVerdict::Forked)]
    {
        let signed = *history(texts).ledger().signed();
        let judged = judge_head(&signed, lost.ledger(), lost.trust(), |_| Some(mark));
        assert_eq!(judged, verdict);
    }
}

#[test]
fn the_fleet_is_not_overwritten_with_less() {
    let fleet = history(&["1", "2", "3"]);
    let mut lost = fenced(commits());
    let error = lost.recover(Vec::new(), None, &key(), NOW).unwrap_err();
    assert_eq!(error, RecoverError::NothingFound);
    let stale = history(&["1", "2"]);
    let known = fleet.ledger().position();
    let error = lost.recover(vec![stale.ledger().clone()], Some(known), &key(), NOW);
    assert_eq!(error.unwrap_err(), RecoverError::Less { found: stale.ledger().position(), known });
    assert!(lost.fence().is_some() && lost.ledger().head().revision.0 == 0);
}

#[test]
fn what_lay_beyond_is_filed_and_no_version_falls() {
    // The store came back from a copy and went another way before anybody noticed.
    let fleet = history(&["1", "2", "3", "4"]);
    let mut restored = fenced(history(&["1", "x", "y", "z", "zz", "zzz"]));
    let offer = read_offer(&restored, &fleet.ledger().replacement()).unwrap();
    let recovered =
        restored.recover(vec![offer], Some(fleet.ledger().position()), &key(), NOW).unwrap();
    // Its own history is longer, so it is the base; the fleet's v4 is below its v6.
    assert!(recovered.orphaned.is_empty());
    let mut restored = fenced(history(&["1", "x", "y"]));
    let mut extra = write(vec![put("b", "only here")]);
    extra.intents[0].version = crate::model::ids::Version::new(9);
    restored.fence = None;
    restored.decide(&extra, NOW).unwrap();
    restored.seal(&key());
    let mut restored = fenced(restored);
    let fleet = history(&["1", "2", "3", "4", "5"]);
    let offer = read_offer(&restored, &fleet.ledger().replacement()).unwrap();
    let recovered =
        restored.recover(vec![offer], Some(fleet.ledger().position()), &key(), NOW).unwrap();
    assert_eq!(recovered.orphaned.len(), 1);
    assert_eq!(recovered.orphaned[0].record.id, id("b"));
    let lifted = restored.ledger().record(&id("b")).unwrap();
    assert!(lifted.body.is_retired() && lifted.version.get() == 10);
}

#[test]
fn a_foreign_or_altered_offer_is_refused() {
    let fleet = history(&["1", "2"]);
    let lost = fenced(commits());
    let mut altered = fleet.ledger().replacement();
    altered.records.clear();
    assert!(read_offer(&lost, &altered).is_err());
    let other = PrivateKey::from_seed([8; 32]);
    let foreign = Ledger::genesis(other.public().cluster(), |head| head.sign(&other));
    assert!(read_offer(&lost, &foreign.replacement()).is_err());
}

#[test]
fn only_a_signed_head_beyond_or_beside_ours_fences() {
    let ours = history(&["1", "2"]);
    let judge = |signed, recent: Option<crate::model::head::SignedHead>| {
        judge_head(&signed, ours.ledger(), ours.trust(), |_| recent)
    };
    let ahead = *history(&["1", "2", "3"]).ledger().signed();
    assert_eq!(judge(ahead, None), HeadVerdict::Ahead);
    assert_eq!(judge(*history(&["1", "x"]).ledger().signed(), None), HeadVerdict::Forked);
    let first = *history(&["1"]).ledger().signed();
    assert_eq!(judge(first, Some(first)), HeadVerdict::Behind);
    assert_eq!(judge(*history(&["y"]).ledger().signed(), Some(first)), HeadVerdict::Forked);
    assert_eq!(judge(*ours.ledger().signed(), None), HeadVerdict::Behind);
    let mut forged = ahead;
    forged.signature.0[5] ^= 1;
    assert_eq!(judge(forged, None), HeadVerdict::Unfounded);
}
