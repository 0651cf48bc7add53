//! The access log: one JSON line a request, written by a thread of its own.
//!
//! A request hands its line to a bounded queue and goes on; a line that finds no room is dropped
//! and counted. Cost for a request: one line formatted, one slot taken, and no system call while
//! the log is busy: the thread sleeps between rounds instead of being woken for each line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde::Serialize;

use crate::model::moment::WallTime;

/// What is said of a request. Without its query, which may hold secrets.
#[derive(Debug, Serialize)]
pub(crate) struct AccessLine<'a> {
    /// When it came, RFC 3339 in UTC.
    pub(crate) time: String,
    pub(crate) client: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    /// 0: the request ended before there was an answer.
    pub(crate) status: u16,
    /// Bytes of the answer's body that were passed on.
    pub(crate) bytes: u64,
    /// None: no rule took it.
    pub(crate) rule: Option<&'a str>,
    pub(crate) rule_version: Option<u64>,
    /// The last one tried.
    pub(crate) target: Option<String>,
    pub(crate) attempts: u32,
    /// Until the last byte of the answer was passed on.
    pub(crate) duration_ms: f64,
    /// Until the head of the answer, without the waiting for targets.
    pub(crate) overhead_ms: Option<f64>,
    /// Whether the whole answer was passed on.
    pub(crate) complete: bool,
    pub(crate) request_id: Option<&'a str>,
}

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Word>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Word {
    Line(Vec<u8>),
    End(SyncSender<()>),
}

/// Where lines go.
enum Output {
    Stdout,
    File(PathBuf, File),
    #[cfg(test)]
    Given(Box<dyn Write + Send>),
}

impl AccessLog {
    /// Begins to write to a file, or to standard output for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<AccessLog> {
        let output = if path == Path::new("-") {
            Output::Stdout
        } else {
            Output::File(path.to_owned(), append(path)?)
        };
        AccessLog::to(output)
    }

    fn to(output: Output) -> io::Result<AccessLog> {
        let (lines, waiting) = sync_channel(QUEUE);
        let (dropped, reopen) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut writer =
            Writer { output, dropped: dropped.clone(), reopen: reopen.clone(), failing: false };
        std::thread::Builder::new()
            .name("access-log".to_string())
            .spawn(move || writer.run(&waiting))?;
        Ok(AccessLog { lines, dropped, reopen })
    }

    /// Takes a line, or drops and counts it.
    pub(crate) fn say(&self, line: &AccessLine<'_>) {
        let mut text = Vec::with_capacity(LINE_BYTES);
        // Nothing in a line can fail to be written as JSON.
        if serde_json::to_writer(&mut text, line).is_err() {
            return;
        }
        text.push(b'\n');
        if self.lines.try_send(Word::Line(text)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped, for want of room in the queue or on the disk.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Opens the file anew before the next line: somebody has moved it.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Waits until everything taken so far is written, or a moment has passed.
    pub(crate) fn flush(&self) {
        let (done, ended) = sync_channel(1);
        if self.lines.try_send(Word::End(done)).is_ok() {
            // A disk that hangs must not keep the process.
            let _ = ended.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

struct Writer {
    output: Output,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    /// Told already.
    failing: bool,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Word>) {
        let mut text = Vec::new();
        while let Ok(first) = waiting.recv() {
            let (mut lines, mut ended) = (0, Vec::new());
            for word in std::iter::once(first).chain(waiting.try_iter()) {
                match word {
                    Word::Line(line) => {
                        text.extend_from_slice(&line);
                        lines += 1;
                    }
                    Word::End(done) => ended.push(done),
                }
                if text.len() > ROUND_BYTES {
                    break;
                }
            }
            match self.write(&text) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.dropped.fetch_add(lines, Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "the access log takes no lines: they are dropped");
                    }
                }
            }
            text.clear();
            for done in ended {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
            std::thread::sleep(ROUND);
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.reopen.swap(false, Relaxed)
            && let Output::File(path, file) = &mut self.output
        {
            match append(path) {
                Ok(opened) => *file = opened,
                Err(error) => tracing::error!(%error, "the access log cannot be opened anew"),
            }
        }
        match &mut self.output {
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Output::File(_, file) => file.write_all(text),
            #[cfg(test)]
            Output::Given(output) => output.write_all(text),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A wall time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(at: WallTime) -> String {
    let (seconds, millis) = (at.0 / 1_000, at.0 % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day ends its year (Howard Hinnant's civil_from_days).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let mut text = String::with_capacity("2000-01-01T00:00:00.000Z".len());
    let parts = [
        (era * 400 + year + next, 1_000, '-'),
        (month, 10, '-'),
        (date, 10, 'T'),
        (second / 3_600, 10, ':'),
        (second / 60 % 60, 10, ':'),
        (second % 60, 10, '.'),
        (millis, 100, 'Z'),
    ];
    // By hand: a template is more work, and this is done for each request.
    for (number, mut place, behind) in parts {
        while place > 0 {
            text.push(char::from(b'0' + (number / place % 10) as u8));
            place /= 10;
        }
        text.push(behind);
    }
    text
}

/// Bytes of most lines.
const LINE_BYTES: usize = 512;
/// Lines that may wait: what 100,000 requests a second bring in eight rounds.
const QUEUE: usize = 8_192;
/// From one write to the next.
const ROUND: Duration = Duration::from_millis(10);
/// Bytes written at once.
const ROUND_BYTES: usize = 1 << 20;
/// How long the last lines may take.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    fn line<'a>(path: &'a str) -> AccessLine<'a> {
        AccessLine {
            time: rfc3339(WallTime(0)),
            client: "::1",
            protocol: "HTTP/1.1",
            method: "GET",
            host: "a",
            path,
            status: 200,
            bytes: 3,
            rule: Some("one"),
            rule_version: Some(7),
            target: None,
            attempts: 0,
            duration_ms: 0.5,
            overhead_ms: None,
            complete: true,
            request_id: None,
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(WallTime(millis)), text);
        }
    }

    #[test]
    fn what_a_client_sends_cannot_forge_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = AccessLog::open(&path).unwrap();
        log.say(&line("/a\"}\n{\"status\":500,\"x\":\"\u{1b}[31m"));
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["status"], &read["rule_version"]), (&200.into(), &7.into()));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_file_that_was_moved_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("now"), directory.path().join("before"));
        let log = AccessLog::open(&path).unwrap();
        log.say(&line("/1"));
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.say(&line("/2"));
        log.flush();
        assert!(std::fs::read_to_string(moved).unwrap().contains("/1"));
        assert!(std::fs::read_to_string(path).unwrap().contains("/2"));
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
        let log = AccessLog::to(Output::Given(Box::new(Stuck(gate.clone())))).unwrap();
        let many = QUEUE as u64 * 3;
        for _ in 0..many {
            log.say(&line("/"));
        }
        assert!(log.dropped() >= QUEUE as u64, "{}", log.dropped());
        drop(closed);
        // The rest finds no room on the disk.
        let begun = std::time::Instant::now();
        while log.dropped() < many {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", log.dropped());
            std::thread::yield_now();
        }
    }
}
