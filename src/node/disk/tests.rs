//! Claims about the disk: what is kept, what is said, and what is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::file::{Files, builder};
use super::*;
use crate::model::ledger::{Change, Ledger};
use crate::model::moment::WallTime;
use crate::model::record::Body;
use crate::model::trust::{Trust, TrustSource};
use crate::wire::samples;

/// A state with `count` rules, by the orchestrator with key 1.
fn keep(count: u32) -> Keep {
    let key = samples::key(1);
    let mut ledger = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
    for number in 0..count {
        let change = Change {
            id: RuleId::parse(&format!("rule-{number}")).unwrap(),
            version: Version::FIRST,
            body: Body::Live(Bytes::from(vec![b'x'; 1_000])),
        };
        ledger = ledger.commit(&[change], WallTime(1), |head| head.sign(&key)).unwrap();
    }
    let mut trust = Trust::default();
    trust.learn(key.public(), TrustSource::Pinned);
    Keep { high_water: Some(ledger.position()), ledger: Some(ledger), trust, ..Keep::default() }
}

/// What tells two states apart.
fn mark(keep: &Keep) -> String {
    let head = keep.ledger.as_ref().map(|ledger| *ledger.head());
    format!("{head:?} {:?} {:?}", keep.high_water, keep.overrides.summary())
}

fn override_of(rule: &str) -> Override {
    Override { id: RuleId::parse(rule).unwrap(), ..samples::by_hand(Some(b"by hand")) }
}

/// A disk and the words of its thread.
struct Bed {
    disk: Disk,
    words: mpsc::Receiver<(Ticket, bool)>,
    tickets: u64,
}

impl Bed {
    fn of(open: impl FnOnce(mpsc::Sender<(Ticket, bool)>) -> Opened) -> (Bed, Keep) {
        let (said, words) = mpsc::channel();
        let opened = open(said);
        (Bed { disk: opened.disk, words, tickets: 0 }, opened.keep)
    }

    fn at(directory: &Path) -> (Bed, Keep) {
        Bed::of(|said| {
            open(directory, move |ticket, done| said.send((ticket, done)).unwrap_or_default())
                .unwrap()
        })
    }

    /// Stores, and says whether the disk took it.
    fn store(&mut self, keep: &Keep, extra: Vec<Override>) -> bool {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.disk.store(keep.clone(), extra, Some(ticket));
        let (answered, done) = self.words.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answered, ticket);
        done
    }

    /// Waits until the disk takes the state again.
    fn heals(&self) {
        let begun = std::time::Instant::now();
        while self.disk.trouble().is_some() {
            assert!(begun.elapsed() < PATIENCE, "not healed");
            std::thread::yield_now();
        }
    }

    fn end(self) {
        self.disk.end().blocking_recv().unwrap();
    }
}

/// A directory with `count` rules in it, closed in good order.
fn filled(count: u32) -> (tempfile::TempDir, Keep) {
    let directory = tempfile::tempdir().unwrap();
    let keep = keep(count);
    let (mut bed, empty) = Bed::at(directory.path());
    assert_eq!(mark(&empty), mark(&Keep::default()));
    assert!(bed.store(&keep, Vec::new()));
    bed.end();
    (directory, keep)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(directory: &Path) -> String {
    open(directory, |_, _| {}).err().expect("the directory is refused").to_string()
}

#[test]
fn what_was_stored_is_found_again_with_the_same_key() {
    let (directory, keep) = filled(20);
    let first = open(directory.path(), |_, _| {}).unwrap();
    assert_eq!(mark(&first.keep), mark(&keep));
    first.disk.end().blocking_recv().unwrap();
    let again = open(directory.path(), |_, _| {}).unwrap();
    assert_eq!(again.key.seed(), first.key.seed());
}

#[test]
fn an_acknowledged_write_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (mut bed, _) = Bed::at(directory.path());
    let keep = keep(3);
    assert!(bed.store(&keep, vec![override_of("mine")]));
    // As the power would leave it: the file as it is, never closed.
    let crashed = tempfile::tempdir().unwrap();
    for name in names(directory.path()) {
        fs::copy(directory.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let (_, found) = Bed::at(crashed.path());
    assert_eq!(found.ledger.unwrap().head(), keep.ledger.unwrap().head());
    assert!(found.overrides.of(&RuleId::parse("mine").unwrap()).is_some());
    assert_eq!(found.authored.len(), 1);
}

#[test]
fn a_crash_in_the_middle_of_a_write_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let state = DiskState::default();
    let (mut bed, _) = faulty_bed(directory.path(), &state);
    let before = keep(3);
    assert!(bed.store(&before, vec![override_of("mine")]));
    let durable = fs::read(directory.path().join(DATABASE)).unwrap();
    state.log.lock().unwrap().clear();
    let after = keep(100);
    assert!(bed.store(&after, Vec::new()));
    let log = state.log.lock().unwrap().clone();
    let key = fs::read(directory.path().join(KEY)).unwrap();
    assert!(log.len() > 10, "the second write takes many steps");
    // The power goes between any two steps, and in the middle of each.
    let (mut old, mut new) = (0, 0);
    for (steps, torn) in (0..=log.len()).flat_map(|steps| [(steps, true), (steps, false)]) {
        let crashed = tempfile::tempdir().unwrap();
        let mut image = durable.clone();
        for (number, step) in log.iter().take(steps).enumerate() {
            step.play(&mut image, torn && number + 1 == steps);
        }
        fs::write(crashed.path().join(KEY), &key).unwrap();
        fs::write(crashed.path().join(DATABASE), image).unwrap();
        let (bed, found) = Bed::at(crashed.path());
        let head = |keep: &Keep| keep.ledger.as_ref().map(|ledger| *ledger.head());
        assert_eq!(names(crashed.path()), [KEY, DATABASE], "after {steps} steps");
        if head(&found) == head(&before) {
            assert_eq!(found.authored.len(), 1, "after {steps} steps");
            old += 1;
        } else {
            assert_eq!(head(&found), head(&after), "after {steps} steps");
            new += 1;
        }
        bed.end();
    }
    assert!(old > 5 && new > 0, "{old} old, {new} new");
}

#[test]
fn a_flipped_byte_is_harmless_or_noticed_and_never_believed() {
    let (directory, keep) = filled(20);
    let path = directory.path().join(DATABASE);
    let whole = fs::read(&path).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 150).chain(0..64) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let damaged = tempfile::tempdir().unwrap();
        fs::copy(directory.path().join(KEY), damaged.path().join(KEY)).unwrap();
        fs::write(damaged.path().join(DATABASE), &flipped).unwrap();
        let (mut bed, found) = Bed::at(damaged.path());
        let aside = names(damaged.path()).iter().any(|name| name.ends_with(".damaged-1"));
        if aside {
            noticed += 1;
            assert_eq!(mark(&found), mark(&Keep::default()), "byte {at}");
            assert_eq!(fs::read(damaged.path().join("node.redb.damaged-1")).unwrap(), flipped);
        } else {
            assert_eq!(mark(&found), mark(&keep), "byte {at}");
        }
        assert!(bed.store(&keep, Vec::new()), "byte {at}");
        bed.end();
    }
    assert!(noticed > 10, "only {noticed} flips were noticed");
}

#[test]
fn a_truncated_file_is_moved_aside_and_the_node_begins_with_nothing() {
    let (directory, keep) = filled(20);
    let path = directory.path().join(DATABASE);
    let whole = fs::read(&path).unwrap();
    for length in [1, 100, 5_000, whole.len() / 2] {
        let cut = tempfile::tempdir().unwrap();
        fs::copy(directory.path().join(KEY), cut.path().join(KEY)).unwrap();
        fs::write(cut.path().join(DATABASE), &whole[..length]).unwrap();
        let (mut bed, found) = Bed::at(cut.path());
        assert_eq!(mark(&found), mark(&Keep::default()), "{length} bytes");
        assert_eq!(names(cut.path()), [KEY, DATABASE, "node.redb.damaged-1"], "{length} bytes");
        assert!(bed.store(&keep, Vec::new()));
        bed.end();
    }
}

#[test]
fn what_a_later_release_wrote_is_left_as_it_is() {
    let (directory, _) = filled(2);
    let path = directory.path().join(DATABASE);
    let whole = fs::read(&path).unwrap();
    // A later layout of the tables.
    let database = builder().create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = |value: &[u8]| {
        transaction.open_table(file::META).unwrap().insert(file::FORMAT_NAME, value).unwrap();
    };
    meta(&[file::FORMAT + 1]);
    transaction.commit().unwrap();
    drop(database);
    assert!(refused(directory.path()).contains("a later release wrote"));
    assert_eq!(names(directory.path()), [KEY, DATABASE], "nothing is moved");
    // A later layout of the file itself.
    let mut later = whole;
    later[64] = 4;
    later[192] = 4;
    fs::write(&path, &later).unwrap();
    assert!(refused(directory.path()).contains("a later release wrote"));
    assert_eq!(fs::read(&path).unwrap(), later, "nothing is written");
}

#[test]
fn a_directory_that_is_somebody_elses_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cluster.key"), "secret").unwrap();
    let said = refused(directory.path());
    assert!(said.contains("cluster.key") && said.contains("--data"), "{said}");
    assert_eq!(names(directory.path()), ["cluster.key"]);
    let file = directory.path().join("cluster.key");
    assert!(refused(&file).contains("cannot make the directory"));
    // What a file system puts there is nobody's.
    let mounted = tempfile::tempdir().unwrap();
    fs::create_dir(mounted.path().join("lost+found")).unwrap();
    fs::write(mounted.path().join(".keep"), "").unwrap();
    assert!(open(mounted.path(), |_, _| {}).is_ok());
}

#[test]
fn two_nodes_never_share_a_directory() {
    let (directory, keep) = filled(2);
    let (mut first, _) = Bed::at(directory.path());
    assert!(refused(directory.path()).contains("another process uses"));
    assert!(first.store(&keep, Vec::new()), "the first one is not disturbed");
    first.end();
    assert!(open(directory.path(), |_, _| {}).is_ok(), "free again once it has ended");
}

#[test]
fn a_lent_directory_is_another_processs_until_it_is_taken_back() {
    let (directory, keep) = filled(2);
    let (mut first, _) = Bed::at(directory.path());
    first.disk.lend().blocking_recv().unwrap();
    let (second, found) = Bed::at(directory.path());
    assert_eq!(mark(&found), mark(&keep));
    assert!(!first.store(&keep, Vec::new()), "nothing is acknowledged meanwhile");
    second.end();
    first.disk.take_back();
    let begun = std::time::Instant::now();
    while !first.store(&keep, vec![override_of("mine")]) {
        assert!(begun.elapsed() < PATIENCE, "not taken back");
    }
    first.end();
    assert_eq!(Bed::at(directory.path()).1.authored.len(), 1);
}

#[test]
fn a_key_of_the_wrong_length_is_moved_aside_and_an_unreadable_one_never_replaced() {
    let (directory, _) = filled(1);
    let key = directory.path().join(KEY);
    fs::write(&key, [7; 31]).unwrap();
    open(directory.path(), |_, _| {}).unwrap().disk.end().blocking_recv().unwrap();
    assert_eq!(fs::read(&key).unwrap().len(), 32);
    assert_eq!(fs::read(directory.path().join("node.key.damaged-1")).unwrap(), [7; 31]);
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(refused(directory.path()).contains("cannot keep a key"));
    assert!(key.is_dir());
}

/// What a disk does on demand, and what was asked of it.
#[derive(Clone, Debug, Default)]
struct DiskState {
    /// Whatever would change the file fails.
    full: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Step>>>,
}

#[derive(Clone, Debug)]
enum Step {
    Length(u64),
    Write(u64, Vec<u8>),
}

impl Step {
    /// Does it to a file in memory; half of a write when it is torn.
    fn play(&self, image: &mut Vec<u8>, torn: bool) {
        match self {
            Step::Length(length) => image.resize(usize::try_from(*length).unwrap(), 0),
            Step::Write(at, bytes) => {
                let at = usize::try_from(*at).unwrap();
                let most = if torn { bytes.len() / 2 } else { bytes.len() };
                image[at..at + most].copy_from_slice(&bytes[..most]);
            }
        }
    }
}

/// A file on such a disk.
#[derive(Debug)]
struct Faulty {
    inner: FileBackend,
    state: DiskState,
}

impl Faulty {
    fn files(path: PathBuf, state: &DiskState) -> Files {
        let state = state.clone();
        Files::opened_by(path, move |path| {
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
            let inner = FileBackend::new(file)?;
            builder().create_with_backend(Faulty { inner, state: state.clone() })
        })
    }

    fn change(&self, step: Step) -> std::io::Result<()> {
        if self.state.full.load(SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        self.state.log.lock().unwrap().push(step);
        Ok(())
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.change(Step::Length(len))?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.change(Step::Write(offset, data.to_vec()))?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.inner.close()
    }
}

fn faulty_bed(directory: &Path, state: &DiskState) -> (Bed, Keep) {
    let files = Faulty::files(directory.join(DATABASE), state);
    Bed::of(|said| {
        let stored = move |ticket, done| said.send((ticket, done)).unwrap_or_default();
        open_with(directory, files, stored).unwrap()
    })
}

#[test]
fn a_full_disk_is_told_and_heals_by_itself_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let state = DiskState::default();
    let (mut bed, _) = faulty_bed(directory.path(), &state);
    assert!(bed.store(&keep(2), vec![override_of("before")]));
    assert_eq!(bed.disk.trouble(), None);

    state.full.store(true, SeqCst);
    assert!(!bed.store(&keep(30), vec![override_of("refused")]), "it is not acknowledged");
    let why = bed.disk.trouble().expect("it is told");
    assert!(why.contains("no storage space"), "{why}");
    // Rules go on changing; nobody waits for these.
    let newest = keep(40);
    bed.disk.store(newest.clone(), Vec::new(), None);
    bed.disk.fallback(RuleId::parse("rejected").unwrap(), Some((Version::FIRST, Bytes::new())));

    state.full.store(false, SeqCst);
    bed.heals();
    bed.end();
    let opened = open(directory.path(), |_, _| {}).unwrap();
    assert_eq!(opened.keep.ledger.unwrap().head(), newest.ledger.unwrap().head());
    assert!(opened.keep.authored.is_empty(), "the newest state has none; the refused one is gone");
    assert_eq!(opened.fallback.len(), 1);
    assert_eq!(names(directory.path()), [KEY, DATABASE], "a full disk is not a damaged file");
}

#[test]
fn a_node_starts_from_a_disk_that_is_full_already() {
    let (directory, keep) = filled(20);
    // Not closed in good order: opening it would have to write.
    let crashed = tempfile::tempdir().unwrap();
    let (mut bed, _) = Bed::at(directory.path());
    assert!(bed.store(&keep, vec![override_of("mine")]));
    for name in names(directory.path()) {
        fs::copy(directory.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let state = DiskState::default();
    state.full.store(true, SeqCst);
    let (mut bed, found) = faulty_bed(crashed.path(), &state);
    assert_eq!(found.ledger.as_ref().unwrap().head(), keep.ledger.as_ref().unwrap().head());
    assert_eq!(found.authored.len(), 1);
    assert!(bed.disk.trouble().is_some(), "it is told");
    assert!(!bed.store(&found, vec![override_of("refused")]));
    state.full.store(false, SeqCst);
    bed.heals();
    assert!(bed.store(&found, Vec::new()));
    bed.end();
    assert_eq!(names(crashed.path()), [KEY, DATABASE]);
}

#[test]
fn a_file_that_is_damaged_under_a_running_node_is_replaced_by_what_the_node_knows() {
    let directory = tempfile::tempdir().unwrap();
    let state = DiskState::default();
    let (mut bed, _) = faulty_bed(directory.path(), &state);
    let keep = keep(20);
    assert!(bed.store(&keep, Vec::new()));
    state.full.store(true, SeqCst);
    assert!(!bed.store(&keep, vec![override_of("refused")]));
    fs::write(directory.path().join(DATABASE), b"not a database at all").unwrap();
    state.full.store(false, SeqCst);
    bed.heals();
    bed.end();
    let (_, found) = Bed::at(directory.path());
    assert_eq!(found.ledger.unwrap().head(), keep.ledger.unwrap().head());
    assert!(names(directory.path()).iter().any(|name| name == "node.redb.damaged-1"));
}

#[test]
fn news_in_quick_succession_cost_the_newest_only() {
    let directory = tempfile::tempdir().unwrap();
    let (mut bed, _) = Bed::at(directory.path());
    let newest = keep(300);
    for _ in 0..10_000 {
        bed.disk.store(newest.clone(), Vec::new(), None);
    }
    assert!(bed.store(&newest, Vec::new()));
    assert!(bed.disk.waiting.lock().unwrap().keep.is_none());
    bed.end();
}

const PATIENCE: Duration = Duration::from_secs(30);
