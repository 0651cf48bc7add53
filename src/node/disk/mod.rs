//! What a node keeps: one directory with its own key and a database.
//!
//! A thread of its own stores the newest `Keep`; the ones in between are skipped. A disk that does
//! not take the state is told once, shown in the status, and tried again until it does; the node
//! serves on meanwhile. A damaged file is moved aside, loudly, and the node begins with nothing.
//! A directory that is somebody else's, or of a later release, is left alone.

mod file;
mod own_key;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::engine::config::Keep;
use crate::engine::port::Ticket;
use crate::model::ids::{RuleId, Version};
use crate::model::key::PrivateKey;
use crate::model::manual::Override;
use file::{Files, Loaded, OpenError};
use writer::Writer;

/// What the disk held, and the way to the thread that writes to it.
pub(crate) struct Opened {
    pub(crate) keep: Keep,
    pub(crate) key: PrivateKey,
    pub(crate) fallback: Fallbacks,
    pub(crate) disk: Disk,
}

/// The last active bodies of rules whose newest version was rejected here.
pub(crate) type Fallbacks = BTreeMap<RuleId, (Version, Bytes)>;

/// The way to the thread that writes.
#[derive(Clone)]
pub(crate) struct Disk {
    waiting: Arc<Mutex<Waiting>>,
    /// Room for one: a thread that is awake already needs no second call.
    wake: mpsc::SyncSender<()>,
    trouble: Trouble,
}

/// Why the disk does not take the state; none while it does.
pub(crate) type Trouble = Arc<ArcSwapOption<String>>;

/// The directory cannot be used at all; nothing in it was touched.
#[derive(Debug)]
pub(crate) enum DiskError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It holds something, and that is no node's state.
    NotOurs { directory: PathBuf, found: String },
    /// A later release wrote it.
    Later(PathBuf),
    /// It cannot be read, or not be made.
    Unusable { attempted: &'static str, path: PathBuf, reason: String },
}

/// What the thread has not stored yet. Bounded by what there is to keep: newer words replace
/// older ones, and `extra` and `tickets` by the writes that the mind lets wait.
#[derive(Default)]
struct Waiting {
    keep: Option<Box<Keep>>,
    extra: Vec<Override>,
    tickets: Vec<Ticket>,
    fallbacks: BTreeMap<RuleId, Option<(Version, Bytes)>>,
    lending: Option<Lending>,
    end: Option<oneshot::Sender<()>>,
}

/// Another process takes this one's place, or did not.
enum Lending {
    Lend(oneshot::Sender<()>),
    TakeBack,
}

impl Disk {
    /// Stores this, or whatever newer comes first; `stored` hears of the ticket.
    pub(crate) fn store(&self, keep: Keep, extra: Vec<Override>, ticket: Option<Ticket>) {
        self.add(|waiting| {
            waiting.keep = Some(Box::new(keep));
            waiting.extra.extend(extra);
            waiting.tickets.extend(ticket);
        });
    }

    /// Keeps, or forgets, the last active body of a rejected rule.
    pub(crate) fn fallback(&self, id: RuleId, body: Option<(Version, Bytes)>) {
        self.add(|waiting| {
            waiting.fallbacks.insert(id, body);
        });
    }

    /// Gives the directory free for another process; resolves when it is. What is stored until
    /// `take_back` waits, and writes that somebody waits for are refused.
    pub(crate) fn lend(&self) -> oneshot::Receiver<()> {
        let (done, lent) = oneshot::channel();
        self.add(|waiting| waiting.lending = Some(Lending::Lend(done)));
        lent
    }

    /// Takes the directory back.
    pub(crate) fn take_back(&self) {
        self.add(|waiting| waiting.lending = Some(Lending::TakeBack));
    }

    /// Ends the thread once it has stored what it was given; resolves when the directory is free
    /// for another process.
    pub(crate) fn end(&self) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.add(|waiting| waiting.end = Some(done));
        ended
    }

    /// Why the disk does not take the state; none while it does.
    pub(crate) fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }

    fn add(&self, word: impl FnOnce(&mut Waiting)) {
        word(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        // Full: it is called already. Without the thread nobody waits; the node is ending.
        let _ = self.wake.try_send(());
    }
}

/// Opens a node's directory, making it if need be. `stored` is called from the disk's thread.
pub(crate) fn open(
    directory: &Path,
    stored: impl Fn(Ticket, bool) + Send + 'static,
) -> Result<Opened, DiskError> {
    open_with(directory, Files::on_disk(directory.join(DATABASE)), stored)
}

fn open_with(
    directory: &Path,
    files: Files,
    stored: impl Fn(Ticket, bool) + Send + 'static,
) -> Result<Opened, DiskError> {
    let unusable = |attempted: &'static str| {
        let path = directory.to_owned();
        move |error: std::io::Error| DiskError::Unusable {
            attempted,
            path,
            reason: error.to_string(),
        }
    };
    fs::create_dir_all(directory).map_err(unusable("make the directory"))?;
    if let Some(found) = stranger(directory).map_err(unusable("look into"))? {
        return Err(DiskError::NotOurs { directory: directory.to_owned(), found });
    }
    let (store, loaded, why) = load(&files)?;
    let key = own_key::read_or_make(&directory.join(KEY)).map_err(unusable("keep a key in"))?;
    let trouble = Trouble::default();
    let (wake, called) = mpsc::sync_channel(1);
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let mut writer = Writer::new(files, store, loaded.keep.clone(), trouble.clone());
    if let Some(why) = why {
        writer.in_trouble(why);
    }
    let inbox = waiting.clone();
    std::thread::Builder::new()
        .name("disk".to_string())
        .spawn(move || writer.run(&inbox, &called, &stored))
        .map_err(unusable("start a thread for"))?;
    let disk = Disk { waiting, wake, trouble };
    Ok(Opened { keep: loaded.keep, key, fallback: loaded.fallback, disk })
}

/// What the file holds; and where it can only be read, why, and no database to write to.
fn load(files: &Files) -> Result<(Option<redb::Database>, Loaded, Option<String>), DiskError> {
    let why = match files.open_or_begin_anew() {
        Ok((store, loaded)) => return Ok((Some(store), loaded, None)),
        Err(OpenError::InUse) => return Err(DiskError::InUse(files.path.clone())),
        Err(OpenError::Later) => return Err(DiskError::Later(files.path.clone())),
        Err(OpenError::Damaged(why) | OpenError::Unavailable(why)) => why,
    };
    // A full or read-only disk must not keep a node from what it knows.
    match files.read_only() {
        Ok(loaded) => Ok((None, loaded, Some(why))),
        Err(_) => Err(DiskError::Unusable {
            attempted: "open the database",
            path: files.path.clone(),
            reason: why,
        }),
    }
}

/// The first thing in a directory that shows it is somebody else's; none in an empty one.
fn stranger(directory: &Path) -> std::io::Result<Option<String>> {
    let mut found = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == KEY || name == DATABASE {
            return Ok(None);
        }
        // What a file system puts into each of its roots says nothing.
        if !name.starts_with('.') && name != "lost+found" {
            found = Some(found.map_or(name.clone(), |first: String| first.min(name)));
        }
    }
    Ok(found)
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskError::InUse(path) => {
                write!(f, "another process uses {}: one directory, one node", path.display())
            }
            DiskError::NotOurs { directory, found } => write!(
                f,
                "{} holds {found} and no node's state: --data needs a directory of its own",
                directory.display()
            ),
            DiskError::Later(path) => write!(
                f,
                "a later release wrote {}: run that one, or begin with an empty --data",
                path.display()
            ),
            DiskError::Unusable { attempted, path, reason } => {
                write!(f, "cannot {attempted} {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for DiskError {}

const DATABASE: &str = "node.redb";
const KEY: &str = "node.key";
