//! Claims about what followers are sent.

use super::*;
use crate::engine::commits::{Commits, Intent, Write};
use crate::model::ids::RuleId;
use crate::model::key::PrivateKey;
use crate::model::moment::WallTime;
use crate::model::record::Body;

fn key() -> PrivateKey {
    PrivateKey::from_seed([1; 32])
}

fn commit(commits: &mut Commits, text: &[u8]) {
    let id = RuleId::parse("a").unwrap();
    let body = Body::Live(Bytes::copy_from_slice(text));
    let intents = vec![Intent { id, body, expected: None, version: None }];
    let write = Write { write_id: None, intents, dry_run: false };
    commits.decide(&write, WallTime(1)).unwrap();
    commits.seal(&key());
}

fn frame(next: Next) -> Arc<Frame> {
    match next {
        Next::Frame(frame) => frame,
        _ => panic!("a frame was due"),
    }
}

#[test]
fn followers_at_one_place_share_their_bytes_wherever_it_is() {
    let ledger = Ledger::genesis(key().public().cluster(), |head| head.sign(&key()));
    let mut commits = Commits::new(ledger.clone(), key().public(), None);
    let mut view = View::new(ledger, None);
    let mut positions = vec![view.ledger.position()];
    for number in 0..10u8 {
        commit(&mut commits, &[number; 50]);
        let (next, bytes) = view.advance(commits.ledger().clone(), None, None, 0);
        assert!(bytes > 50);
        view = next;
        positions.push(view.ledger.position());
    }
    // None is somebody new; the first is far behind; the last but one is one commit behind.
    for cursor in [None, Some(positions[0]), Some(positions[9])] {
        let (one, other) = (frame(view.next(cursor)), frame(view.next(cursor)));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.to, positions[10]);
    }
    assert_eq!(frame(view.next(Some(positions[8]))).to, positions[9]);
    assert!(matches!(view.next(Some(positions[10])), Next::Current));
}

#[test]
fn frames_kept_are_bounded() {
    let ledger = Ledger::genesis(key().public().cluster(), |head| head.sign(&key()));
    let mut commits = Commits::new(ledger.clone(), key().public(), None);
    let mut view = View::new(ledger, None);
    for number in 0..40 {
        commit(&mut commits, &vec![number; 600 << 10]);
        view = view.advance(commits.ledger().clone(), None, None, 0).0;
    }
    assert!(view.frame_bytes <= FRAMES_BYTES && view.frames.len() > 10);
    let before = view.ledger.position();
    commit(&mut commits, &[1; 20]);
    view = view.advance(commits.ledger().clone(), None, None, 0).0;
    assert_eq!(frame(view.next(Some(before))).to, view.ledger.position());
}
