//! The access log: one JSON line a request, written by a thread of its own.
//!
//! Each traffic thread puts its lines on a page of its own, and the writing thread takes all pages
//! away a few times a second, leaving empty ones; it sleeps while there is nothing on any. What is
//! said stands in the log after `ROUND` at the latest, so a process that is killed loses no more
//! than that; one that ends flushes. A page that is full takes no more: lines are dropped and
//! counted, and nobody waits. Cost for a request: one line copied under a lock that is free except
//! for the moment in which a page is taken away, and no system call but for the first line on a
//! page. Knows nothing of what a line says.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::timestamps::Timestamps;
use crate::model::moment::Moment;

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct AccessLog {
    words: Sender<Word>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

/// What one thread writes its lines with.
pub(crate) struct Pen {
    page: Arc<Page>,
    words: Sender<Word>,
    dropped: Arc<AtomicU64>,
    clock: Clock,
    times: RefCell<Timestamps>,
    /// Of lines that were said; a request finds one in the cache that its last one wrote.
    sheets: RefCell<Vec<Vec<u8>>>,
}

/// Whole lines that wait to be taken away. Only ever locked to add one, and to swap them all.
type Page = Mutex<Vec<u8>>;

/// What the writing thread is told; at most two for a page that it has taken away.
#[derive(Debug)]
enum Word {
    /// There is one more page.
    Page(Arc<Page>),
    /// A page has its first line.
    Begun,
    /// A page has so many that it is better taken away at once.
    Full,
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
            pages: Vec::new(),
            spare: empty_page(),
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
        let page = Arc::new(Mutex::new(empty_page()));
        // The writer is there for as long as anybody can say anything to it.
        let _ = self.words.send(Word::Page(page.clone()));
        let (words, dropped) = (self.words.clone(), self.dropped.clone());
        let times = RefCell::new(Timestamps::new());
        Pen { page, words, dropped, clock, times, sheets: RefCell::default() }
    }

    /// Lines that were dropped, for want of room on a page or on the disk.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Opens the file anew before the next line: somebody has moved it.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Waits until everything said so far is written, or a moment has passed.
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

    /// Adds a line, which ends with the only newline in it; or drops and counts it.
    pub(crate) fn say(&self, mut line: Vec<u8>) {
        self.add(&line);
        let mut sheets = self.sheets.borrow_mut();
        if line.capacity() <= 2 * SHEET && sheets.len() < SHEETS {
            line.clear();
            sheets.push(line);
        }
    }

    fn add(&self, line: &[u8]) {
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let before = page.len();
        if before >= PAGE_MOST {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        page.extend_from_slice(line);
        drop(page);
        if before == 0 {
            let _ = self.words.send(Word::Begun);
        } else if before < PAGE_FULL && before + line.len() >= PAGE_FULL {
            let _ = self.words.send(Word::Full);
        }
    }

    /// Writes the wall time of a moment that was just now.
    pub(crate) fn time(&self, at: Moment, out: &mut Vec<u8>) {
        self.times.borrow_mut().write(at, || self.clock.wall_at(at), out);
    }
}

/// The thread that writes.
struct Writer {
    /// None for what cannot be opened anew.
    path: Option<PathBuf>,
    output: Box<dyn Write + Send>,
    pages: Vec<Arc<Page>>,
    /// Left behind for the page that is taken away next.
    spare: Vec<u8>,
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
            let waiting = self.listen(first, heard);
            self.take_pages();
            if let Some(done) = waiting {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
        self.take_pages();
    }

    /// Lets lines gather, until it is time or somebody is in a hurry; returns who waits.
    fn listen(&mut self, first: Word, heard: &Receiver<Word>) -> Option<SyncSender<()>> {
        let until = Instant::now() + ROUND;
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Word::Page(page)) => self.pages.push(page),
                Ok(Word::Begun) => {}
                Ok(Word::Flush(done)) => return Some(done),
                Ok(Word::Full) | Err(_) => return None,
            }
            next = heard.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Writes what is on the pages; forgets those whose pen is gone.
    fn take_pages(&mut self) {
        let mut pages = std::mem::take(&mut self.pages);
        pages.retain_mut(|page| {
            let held = Arc::get_mut(page).is_none();
            let mut text = std::mem::take(&mut self.spare);
            std::mem::swap(&mut *page.lock().unwrap_or_else(PoisonError::into_inner), &mut text);
            self.write(&text);
            text.clear();
            self.spare = text;
            held
        });
        self.pages = pages;
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

/// With room for all that it will take, so that it never moves: growing and giving back what had
/// grown cost more than the lines. The system gives memory only to what is written.
fn empty_page() -> Vec<u8> {
    Vec::with_capacity(PAGE_MOST + LONGEST_LINE)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// From the first line on a page to the moment it is written.
const ROUND: Duration = Duration::from_millis(50);
/// Bytes on a page that call for the writer before its round ends; hardly any traffic has so many.
/// To wake it costs as much as a hundred lines.
const PAGE_FULL: usize = 1 << 20;
/// Bytes on a page that takes no more: some 6,000 lines, of a tenth of a second at the least.
const PAGE_MOST: usize = 2 << 20;
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
    use super::*;

    fn line(pen: &Pen, text: &str) {
        pen.say(format!("{text}\n").into_bytes());
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
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        line(&pen, "2");
        log.flush();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "2\n");
    }

    #[test]
    fn lines_come_by_themselves_also_those_of_a_thread_that_says_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, pen) = opened(&path);
        let other = log.pen(Clock::new());
        let shown = |text: &str| {
            eventually(text, || {
                let mut lines: Vec<String> =
                    std::fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
                lines.sort();
                lines.join(" ") == text
            });
        };
        line(&pen, "1");
        shown("1");
        line(&other, "2");
        line(&pen, "3");
        shown("1 2 3");
        line(&other, "4");
        drop((other, pen, log));
        shown("1 2 3 4");
    }

    #[test]
    fn every_line_is_there_whole_and_in_its_order_however_many_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, pen) = opened(&path);
        let many = 3 * PAGE_MOST / 8;
        for number in 0..many {
            line(&pen, &format!("{number:07}"));
            if number % (PAGE_MOST / 16) == 0 {
                log.flush();
            }
        }
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
        ["first", "second", "third"].iter().for_each(|text| line(&pen, text));
        log.flush();
        assert_eq!((output.0.lock().unwrap().1.as_slice(), log.dropped()), (&b"first\nsec"[..], 1));
        line(&pen, "fourth");
        log.flush();
        assert_eq!(log.dropped(), 2);
        room(2);
        line(&pen, "fifth");
        log.flush();
        assert_eq!(log.dropped(), 3);
        room(99);
        line(&pen, "sixth");
        log.flush();
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
        // What one page holds is being written, another is full.
        let most = 2 * (PAGE_MOST as u64 / 1_024);
        let many = most + 1_000;
        for _ in 0..many {
            line(&pen, &text);
        }
        assert!(log.dropped() >= 1_000, "{}", log.dropped());
        drop(closed);
        // The rest finds no room on the disk.
        eventually("all are counted", || log.dropped() == many);
    }
}
