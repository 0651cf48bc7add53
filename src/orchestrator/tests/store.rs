//! Claims about what survives.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::engine::commits::{Answer, Intent, Write};
use crate::model::moment::WallTime;
use crate::model::record::Body;

fn write(rule: &str, text: &str, write_id: &str) -> Write {
    let body = Body::Live(Bytes::copy_from_slice(text.as_bytes()));
    let id = RuleId::parse(rule).unwrap();
    Write {
        write_id: WriteId::parse(write_id),
        intents: vec![Intent { id, body, expected: None, version: None }],
        dry_run: false,
    }
}

/// Decides and stores one write, as acknowledged.
fn commit(opened: &mut Opened, write: &Write) -> Answer {
    let before = opened.commits.ledger().clone();
    let decision = opened.commits.decide(write, WallTime(7)).unwrap();
    opened.commits.seal(&opened.key);
    let answers: Vec<_> = decision.remembered.into_iter().collect();
    let group = Group {
        before: &before,
        commits: &opened.commits,
        filed: &decision.filed,
        answers: &answers,
        forgotten: decision.forgotten,
        hellos: &[],
        tick: Some(99),
    };
    opened.store.write(&group).unwrap();
    decision.answer
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_was_acknowledged_is_in_a_copy_made_at_any_moment() {
    let home = tempfile::tempdir().unwrap();
    let mut opened = Store::open(home.path()).unwrap();
    assert!(opened.is_new);
    for number in 0..30 {
        let text = format!("text {number}");
        let answer = commit(&mut opened, &write("a", &text, &format!("w{number}")));
        if number % 7 != 0 {
            continue;
        }
        // As after kill -9: the database was never closed.
        let other = tempfile::tempdir().unwrap();
        copy(home.path(), other.path());
        let mut copied = Store::open(other.path()).unwrap();
        assert!(!copied.is_new && copied.commits.fence().is_none());
        assert_eq!(copied.tick, 99);
        assert_eq!(copied.commits.ledger().signed(), opened.commits.ledger().signed());
        let named = |text: &str| write("a", text, &format!("w{number}"));
        let again = copied.commits.decide(&named(&text), WallTime(8));
        assert_eq!(again.unwrap().answer, answer);
        assert!(copied.commits.decide(&named("other"), WallTime(8)).is_err());
    }
    let id = RuleId::parse("a").unwrap();
    let history = opened.store.history(&id).unwrap();
    assert_eq!(history.len(), limits::HISTORY);
    assert_eq!(history[0].record.version.get(), 30);
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_harmless() {
    let home = tempfile::tempdir().unwrap();
    let mut opened = Store::open(home.path()).unwrap();
    let mut heads = vec![*opened.commits.ledger().signed()];
    for number in 0..10 {
        commit(&mut opened, &write(&format!("r{number}"), "body", &format!("w{number}")));
        heads.push(*opened.commits.ledger().signed());
    }
    drop(opened);
    let path = home.path().join("store.redb");
    let whole = fs::read(&path).unwrap();
    let seed = 7;
    println!("seed {seed}");
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(seed);
    for _ in 0..300 {
        let at = rand::RngExt::random_range(&mut rng, 0..whole.len());
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        if let Ok(opened) = Store::open(home.path()) {
            // An earlier commit may come back where the newest one's root is gone; its followers
            // fence the orchestrator then. Anything else would be a forgery.
            assert!(heads.contains(opened.commits.ledger().signed()), "byte {at}");
        }
    }
}

#[test]
fn a_lost_store_is_fenced_until_it_has_recovered() {
    let home = tempfile::tempdir().unwrap();
    let mut opened = Store::open(home.path()).unwrap();
    commit(&mut opened, &write("a", "1", "w"));
    drop(opened);
    fs::remove_file(home.path().join("store.redb")).unwrap();
    for _ in 0..2 {
        let opened = Store::open(home.path()).unwrap();
        assert_eq!(opened.commits.fence(), Some(&Fence::LostStore));
    }
}

#[test]
fn a_first_start_that_was_cut_short_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let key = KeyFile::within(home.path()).begun().unwrap();
    let opened = Store::open(home.path()).unwrap();
    assert_eq!(opened.key.public(), key.public());
    assert!(opened.commits.fence().is_none());
    drop(opened);
    // Cut between the store and the key's final name.
    let (settled, begun) = (home.path().join("cluster.key"), home.path().join("cluster.key.new"));
    fs::rename(&settled, &begun).unwrap();
    let opened = Store::open(home.path()).unwrap();
    assert!(opened.commits.fence().is_none() && settled.exists());
}

#[test]
fn the_key_is_private_and_its_loss_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    drop(Store::open(home.path()).unwrap());
    let key = home.path().join("cluster.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&key).unwrap();
    assert!(matches!(Store::open(home.path()), Err(StoreError::KeyLost(_))));
}

#[test]
fn a_second_process_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let _opened = Store::open(home.path()).unwrap();
    assert!(matches!(Store::open(home.path()), Err(StoreError::Locked(_))));
}

#[test]
fn a_flipped_byte_never_becomes_a_rule() {
    let home = tempfile::tempdir().unwrap();
    let mut opened = Store::open(home.path()).unwrap();
    for number in 0..20 {
        let (rule, text) = (format!("r{number}"), "body ".repeat(300));
        commit(&mut opened, &write(&rule, &text, &format!("w{number}")));
    }
    let truth = *opened.commits.ledger().signed();
    drop(opened);
    let path = home.path().join("store.redb");
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    let places = whole.windows(5).enumerate().filter(|(_, bytes)| bytes == b"body ");
    for at in places.map(|(at, _)| at).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        match Store::open(home.path()) {
            Err(StoreError::Damaged(_)) => refused += 1,
            Err(error) => panic!("{error}"),
            // A page that is not in use any more.
            Ok(opened) => assert_eq!(*opened.commits.ledger().signed(), truth),
        }
    }
    assert!(refused > 0);
}
