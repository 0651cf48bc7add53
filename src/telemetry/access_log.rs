//! The access log: one JSON line a request, written by a thread of its own.
//!
//! Each traffic thread puts its lines on a page of its own. A page that is full, or was begun a
//! `ROUND` ago, is handed to the writing thread, which takes what there is and then rests for a
//! moment: what is said stands in the log after both, so a process that is killed loses no more
//! than that, and one that ends flushes. Where too many pages wait, the last one takes no more:
//! lines are dropped and counted, and nobody waits. Cost for a request: one line copied, without a
//! lock and without a system call. Knows nothing of what a line says.
//!
//! A page is large, since files take a megabyte at once for less than in pieces, and so its memory
//! is in no near cache when its turn comes: whoever is about to say a line has its place fetched
//! first.

use std::cell::{RefCell, RefMut};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;
use super::prefetch::{CACHE_LINE, prefetch};
use super::timestamps::{self, Timestamps};
use crate::model::moment::Moment;

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct AccessLog {
    words: Sender<Word>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

/// What one thread writes its lines with. What it wrote is handed on by `keep`, and at its end.
pub(crate) struct Pen {
    /// Whole lines.
    page: RefCell<Vec<u8>>,
    /// The page has its first line.
    begun: Notify,
    away: Arc<Away>,
    words: Sender<Word>,
    dropped: Arc<AtomicU64>,
    clock: Clock,
    times: RefCell<Timestamps>,
    /// Of lines that were said; a request finds one in the cache that its last one wrote.
    sheets: RefCell<Vec<Vec<u8>>>,
}

/// The pages of a pen that are not in its hands.
#[derive(Debug, Default)]
struct Away {
    /// How many wait to be written.
    waiting: AtomicUsize,
    /// Those that were, empty again.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Word {
    /// There are lines.
    Page(Vec<u8>, Arc<Away>),
    /// Somebody waits until everything so far is written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Begins to write to a file, or to standard output for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<AccessLog> {
        if path == Path::new("-") {
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            AccessLog::to(None, Box::new(stdout))
        } else {
            AccessLog::to(Some(path.to_owned()), Box::new(append(path)?))
        }
    }

    fn to(path: Option<PathBuf>, output: Box<dyn Write + Send>) -> io::Result<AccessLog> {
        let (words, heard) = channel();
        let (dropped, reopen) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let writer = Writer {
            path,
            output,
            torn: Vec::new(),
            dropped: dropped.clone(),
            reopen: reopen.clone(),
            failing: false,
        };
        std::thread::Builder::new()
            .name("access-log".to_string())
            .spawn(move || writer.run(&heard))?;
        Ok(AccessLog { words, dropped, reopen })
    }

    /// A pen for one more thread.
    pub(crate) fn pen(&self, clock: Clock) -> Pen {
        Pen {
            page: RefCell::new(empty_page()),
            begun: Notify::new(),
            away: Arc::default(),
            words: self.words.clone(),
            dropped: self.dropped.clone(),
            clock,
            times: RefCell::new(Timestamps::new()),
            sheets: RefCell::default(),
        }
    }

    /// Lines that were dropped, for want of room on the pages or on the disk.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Opens the file anew before the next line: somebody has moved it.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Waits until everything handed on so far is written, or a moment has passed.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.words.send(Word::Flush(done)).is_ok() {
            // A disk that hangs must not keep the process.
            let _ = written.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

impl Pen {
    /// Something empty to write a line on.
    pub(crate) fn sheet(&self) -> Vec<u8> {
        let spare = self.sheets.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(SHEET))
    }

    /// Has the place brought near that the next line goes to.
    pub(crate) fn prefetch(&self) {
        let page = &mut *self.page.borrow_mut();
        let room = page.spare_capacity_mut().chunks(CACHE_LINE).take(SHEET / CACHE_LINE);
        room.for_each(|line| prefetch(&line[0]));
    }

    /// Adds a line, or drops and counts it: what stands on the sheet, and an end that is written
    /// where the line goes. The only newline is the last byte.
    pub(crate) fn say(&self, mut sheet: Vec<u8>, end: impl FnOnce(&mut Vec<u8>)) {
        if let Some(page) = &mut self.page_with_room() {
            page.extend_from_slice(&sheet);
            end(page);
        }
        let mut sheets = self.sheets.borrow_mut();
        if sheet.capacity() <= 2 * SHEET && sheets.len() < SHEETS {
            sheet.clear();
            sheets.push(sheet);
        }
    }

    fn page_with_room(&self) -> Option<RefMut<'_, Vec<u8>>> {
        let mut page = self.page.borrow_mut();
        if page.len() >= PAGE {
            if self.away.waiting.load(Relaxed) >= PAGES {
                self.dropped.fetch_add(1, Relaxed);
                return None;
            }
            self.hand_on(&mut page);
        }
        if page.is_empty() {
            self.begun.notify_one();
        }
        Some(page)
    }

    fn hand_on(&self, page: &mut Vec<u8>) {
        self.away.waiting.fetch_add(1, Relaxed);
        let spare = self.away.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let written = std::mem::replace(page, spare.unwrap_or_else(empty_page));
        // The writer is there for as long as anybody can say anything to it.
        let _ = self.words.send(Word::Page(written, self.away.clone()));
    }

    /// Hands on what is written, a round after it was begun. Runs on the pen's own thread, for as
    /// long as that writes.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(ROUND).await;
            // What the writer cannot take yet is better written on one page than on many.
            while self.away.waiting.load(Relaxed) > 0 {
                tokio::time::sleep(ROUND).await;
            }
            self.hand_on(&mut self.page.borrow_mut());
        }
    }

    /// The wall time of a moment that was just now, as text.
    pub(crate) fn time(&self, at: Moment) -> timestamps::Text {
        self.times.borrow_mut().text(at, || self.clock.wall_at(at))
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        let mut page = self.page.take();
        self.hand_on(&mut page);
    }
}

/// The thread that writes.
struct Writer {
    /// None for what cannot be opened anew.
    path: Option<PathBuf>,
    output: Box<dyn Write + Send>,
    /// What is missing of the last line in the output, when there was no room for all of it.
    torn: Vec<u8>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    /// Told already.
    failing: bool,
}

impl Writer {
    fn run(mut self, heard: &Receiver<Word>) {
        while let Ok(first) = heard.recv() {
            self.hear(first);
            heard.try_iter().for_each(|word| self.hear(word));
            // To be woken for each page costs whoever hands it on more than this costs anybody.
            std::thread::sleep(PAUSE);
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Page(mut page, from) => {
                self.write(&page);
                page.clear();
                let mut spare = from.spare.lock().unwrap_or_else(PoisonError::into_inner);
                if spare.len() < SPARES {
                    spare.push(page);
                }
                from.waiting.fetch_sub(1, Relaxed);
            }
            Word::Flush(done) => {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Writes lines, and counts those that find no room.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        self.open_anew();
        let torn = std::mem::take(&mut self.torn);
        let (written, mut outcome) = write_all(&mut self.output, &torn);
        self.torn.extend_from_slice(&torn[written..]);
        let mut left = lines;
        if outcome.is_ok() {
            let (written, ended) = write_all(&mut self.output, lines);
            outcome = ended;
            left = &lines[written..];
            if !lines[..written].ends_with(b"\n") && written > 0 {
                // The beginning of a line stands there: the rest of it comes first, later.
                let rest = left.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                self.torn.extend_from_slice(&left[..rest]);
                left = &left[rest..];
            }
        }
        let lost = left.iter().filter(|byte| **byte == b'\n').count();
        self.dropped.fetch_add(lost as u64, Relaxed);
        let failed = std::mem::replace(&mut self.failing, outcome.is_err());
        if let Err(error) = outcome
            && !failed
        {
            tracing::error!(%error, "the access log takes no lines: they are dropped");
        }
    }

    fn open_anew(&mut self) {
        if !self.reopen.swap(false, Relaxed) {
            return;
        }
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(opened) => {
                self.output = Box::new(opened);
                // The line that it is missing from stands elsewhere.
                self.dropped.fetch_add(u64::from(!self.torn.is_empty()), Relaxed);
                self.torn.clear();
            }
            Err(error) => tracing::error!(%error, "the access log cannot be opened anew"),
        }
    }
}

/// Writes all of it, or says how far it came.
fn write_all(output: &mut dyn Write, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < text.len() {
        match output.write(&text[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// With room for all that it will take, so that it never moves.
fn empty_page() -> Vec<u8> {
    Vec::with_capacity(PAGE + LONGEST_LINE)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// From the first line on a page to the moment it is handed on, if it is not full before.
const ROUND: Duration = Duration::from_millis(40);
/// For how long the writer rests.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes on a page that is handed on at once.
const PAGE: usize = 1 << 20;
/// Pages of a thread that wait at the most; with the one at hand, some 9,000 lines.
const PAGES: usize = 2;
/// Empty pages that wait for a pen.
const SPARES: usize = 2;
/// Bytes beyond which hardly a line goes; one that does, at the end of a full page, moves the page.
const LONGEST_LINE: usize = 16 << 10;
/// Bytes of most lines.
const SHEET: usize = 384;
/// Sheets that wait for a line.
const SHEETS: usize = 64;
/// How long the last lines may take.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn line(pen: &Pen, text: &str) {
        pen.say(text.into(), |page| page.push(b'\n'));
    }

    fn hand_on(pen: &Pen) {
        pen.hand_on(&mut pen.page.borrow_mut());
    }

    fn opened(path: &Path) -> (AccessLog, Pen) {
        let log = AccessLog::open(path).unwrap();
        let pen = log.pen(Clock::new());
        (log, pen)
    }

    fn eventually(what: &str, mut claim: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !claim() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_was_moved_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("now"), directory.path().join("before"));
        let (log, pen) = opened(&path);
        line(&pen, "1");
        hand_on(&pen);
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        line(&pen, "2");
        hand_on(&pen);
        log.flush();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "2\n");
    }

    #[tokio::test(flavor = "local")]
    async fn lines_come_by_themselves_also_those_of_a_thread_that_says_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, pen) = opened(&path);
        let (pen, other) = (Rc::new(pen), Rc::new(log.pen(Clock::new())));
        let keepers = [pen.clone(), other.clone()].map(|pen| tokio::task::spawn_local(pen.keep()));
        let shown = async |text: &str| {
            let begun = Instant::now();
            loop {
                let written = std::fs::read_to_string(&path).unwrap();
                let mut lines: Vec<&str> = written.lines().collect();
                lines.sort_unstable();
                if lines.join(" ") == text {
                    return;
                }
                assert!(begun.elapsed() < Duration::from_secs(10), "{written}");
                tokio::task::yield_now().await;
            }
        };
        line(&pen, "1");
        shown("1").await;
        line(&other, "2");
        line(&pen, "3");
        shown("1 2 3").await;
        line(&other, "4");
        keepers.iter().for_each(|keeper| keeper.abort());
        drop((other, pen, log));
        shown("1 2 3 4").await;
    }

    #[test]
    fn every_line_is_there_whole_and_in_its_order_however_many_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, pen) = opened(&path);
        let many = 3 * PAGES * PAGE / 8;
        for number in 0..many {
            line(&pen, &format!("{number:07}"));
            if number % (PAGES * PAGE / 16) == 0 {
                log.flush();
            }
        }
        hand_on(&pen);
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let in_order = text.lines().enumerate().all(|(at, line)| line == format!("{at:07}"));
        assert!(in_order && text.len() == many * 8 && log.dropped() == 0);
    }

    /// An output with as much room as it is given.
    #[derive(Clone, Default)]
    struct Narrow(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Narrow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().unwrap();
            let fits = text.len().min(*room);
            *room -= fits;
            written.extend_from_slice(&text[..fits]);
            if fits > 0 { Ok(fits) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_torn_for_want_of_room_is_made_whole_first() {
        let output = Narrow::default();
        let log = AccessLog::to(None, Box::new(output.clone())).unwrap();
        let pen = log.pen(Clock::new());
        let room = |room: usize| output.0.lock().unwrap().0 = room;
        room(9);
        let say = |lines: &[&str]| {
            lines.iter().for_each(|text| line(&pen, text));
            hand_on(&pen);
            log.flush();
        };
        say(&["first", "second", "third"]);
        assert_eq!((output.0.lock().unwrap().1.as_slice(), log.dropped()), (&b"first\nsec"[..], 1));
        say(&["fourth"]);
        assert_eq!(log.dropped(), 2);
        room(2);
        say(&["fifth"]);
        assert_eq!(log.dropped(), 3);
        room(99);
        say(&["sixth"]);
        assert_eq!(output.0.lock().unwrap().1, b"first\nsecond\nsixth\n");
        assert_eq!(log.dropped(), 3);
    }

    /// Takes nothing until it is let; then fails.
    struct Stuck(Arc<Mutex<()>>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_is_stuck_holds_nobody_up_and_counts_what_it_drops() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let log = AccessLog::to(None, Box::new(Stuck(gate.clone()))).unwrap();
        let pen = log.pen(Clock::new());
        let text = "x".repeat(1_023);
        // All pages wait, and one more is full.
        let most = (PAGES as u64 + 1) * (PAGE as u64 / 1_024);
        let many = most + 1_000;
        for _ in 0..many {
            line(&pen, &text);
        }
        assert_eq!(log.dropped(), 1_000);
        drop(closed);
        drop(pen);
        // The rest finds no room on the disk.
        eventually("all are counted", || log.dropped() == many);
    }
}
