//! What a node keeps: one directory with its own key and a database.
//!
//! A thread of its own stores the newest `Keep`; the ones in between are skipped. It writes what
//! changed since the last one it stored, so a change costs O(changed rules). A full or read-only
//! disk is told once and the node serves on; a damaged file is moved aside, loudly, and the node
//! begins with nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;

use bytes::Bytes;
use rand::Rng;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::keeping::{self, Meta};
use crate::engine::config::Keep;
use crate::engine::port::Ticket;
use crate::model::delta::Changes;
use crate::model::ids::{RuleId, Version};
use crate::model::key::PrivateKey;
use crate::model::manual::{Override, OverrideSet};
use crate::wire::ledger_proto::{encode_override, encode_record};

/// Rules as the ledger holds them.
pub(super) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Winning overrides.
pub(super) const OVERRIDES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("overrides");
/// This node's own overrides that nobody has acknowledged.
pub(super) const AUTHORED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("authored");
/// The last active body of rules whose newest version was rejected here.
pub(super) const FALLBACK: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("fallback");
/// Everything there is one of.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// What the disk held, and the way to the thread that writes to it.
pub(crate) struct Opened {
    pub(crate) keep: Keep,
    pub(crate) key: PrivateKey,
    pub(crate) fallback: BTreeMap<RuleId, (Version, Bytes)>,
    pub(crate) disk: Disk,
}

/// The way to the thread that writes.
#[derive(Clone)]
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    /// The last store did not succeed.
    pub(crate) failing: Arc<AtomicBool>,
}

/// The directory cannot be used at all.
#[derive(Debug)]
pub(crate) struct DiskError {
    what: String,
}

enum Job {
    Keep { keep: Box<Keep>, extra: Vec<Override>, ticket: Option<Ticket> },
    Fallback { id: RuleId, body: Option<(Version, Bytes)> },
    End,
}

impl Disk {
    /// Stores this, or whatever newer comes first; `stored` hears of the ticket.
    pub(crate) fn store(&self, keep: Keep, extra: Vec<Override>, ticket: Option<Ticket>) {
        // Without the thread there is nobody to tell; the node is ending.
        let _ = self.jobs.send(Job::Keep { keep: Box::new(keep), extra, ticket });
    }

    /// Keeps, or forgets, the last active body of a rejected rule.
    pub(crate) fn fallback(&self, id: RuleId, body: Option<(Version, Bytes)>) {
        let _ = self.jobs.send(Job::Fallback { id, body });
    }

    /// Ends the thread once it has stored what it was given.
    pub(crate) fn end(&self) {
        let _ = self.jobs.send(Job::End);
    }
}

/// Opens a node's directory, making it if need be. `stored` is called from the disk's thread.
pub(crate) fn open(
    directory: &Path,
    stored: impl Fn(Ticket, bool) + Send + 'static,
) -> Result<Opened, DiskError> {
    let fail = |what: &str, error: &dyn std::fmt::Display| DiskError {
        what: format!("{what} in {}: {error}", directory.display()),
    };
    fs::create_dir_all(directory).map_err(|e| fail("cannot make the directory", &e))?;
    let key = own_key(&directory.join("node.key")).map_err(|e| fail("cannot keep a key", &e))?;
    let path = directory.join("node.redb");
    let (database, keep, fallback) = match load(&path) {
        Ok(loaded) => loaded,
        Err(LoadError::InUse) => {
            return Err(fail("cannot open the database", &"another process uses it"));
        }
        Err(LoadError::Damaged(why)) => {
            let aside = aside(&path);
            tracing::error!(
                %why, moved_to = %aside.display(),
                "the node's database is damaged: moved aside, beginning with nothing"
            );
            fs::rename(&path, &aside).map_err(|e| fail("cannot move a damaged file", &e))?;
            load(&path).map_err(|error| match error {
                LoadError::InUse => fail("cannot open the database", &"another process uses it"),
                LoadError::Damaged(why) => fail("cannot make a database", &why),
            })?
        }
    };
    let (jobs, waiting) = mpsc::channel();
    let failing = Arc::new(AtomicBool::new(false));
    let writer = Writer { database, last: keep.clone(), failing: failing.clone() };
    std::thread::Builder::new()
        .name("disk".to_string())
        .spawn(move || writer.run(&waiting, &stored))
        .map_err(|e| fail("cannot start a thread for the database", &e))?;
    Ok(Opened { keep, key, fallback, disk: Disk { jobs, failing } })
}

enum LoadError {
    InUse,
    Damaged(String),
}

type Loaded = (Database, Keep, BTreeMap<RuleId, (Version, Bytes)>);

fn load(path: &Path) -> Result<Loaded, LoadError> {
    let damaged = |why: &dyn std::fmt::Display| LoadError::Damaged(why.to_string());
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let database = database.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => LoadError::InUse,
        other => damaged(&other),
    })?;
    let begin = database.begin_write().map_err(|e| damaged(&e))?;
    for table in [RECORDS, OVERRIDES, AUTHORED, FALLBACK, META] {
        begin.open_table(table).map_err(|e| damaged(&e))?;
    }
    begin.commit().map_err(|e| damaged(&e))?;
    let read = database.begin_read().map_err(|e| damaged(&e))?;
    let table = |definition: TableDefinition<'_, &str, &[u8]>| -> Result<_, LoadError> {
        let table = read.open_table(definition).map_err(|e| damaged(&e))?;
        let entries = table.iter().map_err(|e| damaged(&e))?;
        let mut held = BTreeMap::new();
        for entry in entries {
            let (key, value) = entry.map_err(|e| damaged(&e))?;
            held.insert(key.value().to_string(), value.value().to_vec());
        }
        Ok(held)
    };
    let meta = Meta { entries: table(META)? };
    let keep = keeping::assemble(&meta, table(RECORDS)?, table(OVERRIDES)?, table(AUTHORED)?)
        .map_err(|why| LoadError::Damaged(why.to_string()))?;
    let fallback = keeping::fallbacks(table(FALLBACK)?);
    Ok((database, keep, fallback))
}

/// This node's own key, made at its first start.
fn own_key(path: &Path) -> std::io::Result<PrivateKey> {
    if let Ok(seed) = fs::read(path)
        && let Ok(seed) = <[u8; 32]>::try_from(seed.as_slice())
    {
        return Ok(PrivateKey::from_seed(seed));
    }
    let mut seed = [0u8; 32];
    rand::rng().fill_bytes(&mut seed);
    let fresh = path.with_extension("key.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(&seed)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(PrivateKey::from_seed(seed))
}

fn aside(path: &Path) -> PathBuf {
    (1..)
        .map(|number: u32| path.with_extension(format!("damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| path.with_extension("damaged"))
}

struct Writer {
    database: Database,
    last: Keep,
    failing: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>, stored: &impl Fn(Ticket, bool)) {
        let mut over = false;
        while !over {
            let Ok(first) = jobs.recv() else { return };
            let mut keep = None;
            let mut extra = Vec::new();
            let mut tickets = Vec::new();
            let mut fallbacks = Vec::new();
            // The newest says all that the older ones said.
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Keep { keep: newer, extra: more, ticket } => {
                        keep = Some(newer);
                        extra.extend(more);
                        tickets.extend(ticket);
                    }
                    Job::Fallback { id, body } => fallbacks.push((id, body)),
                    Job::End => over = true,
                }
            }
            let result = self.write(keep.as_deref(), &extra, &fallbacks);
            let done = result.is_ok();
            match result {
                Ok(()) => self.failing.store(false, Relaxed),
                Err(error) => {
                    if !self.failing.swap(true, Relaxed) {
                        tracing::error!(%error, "the disk does not take the state; serving on");
                    }
                }
            }
            for ticket in tickets {
                stored(ticket, done);
            }
        }
    }

    fn write(
        &mut self,
        keep: Option<&Keep>,
        extra: &[Override],
        fallbacks: &[(RuleId, Option<(Version, Bytes)>)],
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        if let Some(keep) = keep {
            self.write_ledger(&transaction, keep)?;
            self.write_overrides(&transaction, &keep.overrides)?;
            self.write_authored(&transaction, keep)?;
            let mut meta = transaction.open_table(META)?;
            for (name, value) in keeping::meta_of(keep) {
                match value {
                    Some(value) => meta.insert(name, value.as_slice())?,
                    None => meta.remove(name)?,
                };
            }
        }
        {
            let mut overrides = transaction.open_table(OVERRIDES)?;
            let mut authored = transaction.open_table(AUTHORED)?;
            for own in extra {
                let bytes = encode_override(own);
                overrides.insert(own.id.as_str(), bytes.as_slice())?;
                authored.insert(authored_name(&own.id, own.version).as_str(), bytes.as_slice())?;
            }
            let mut table = transaction.open_table(FALLBACK)?;
            for (id, body) in fallbacks {
                match body {
                    Some((version, data)) => {
                        let bytes = keeping::encode_fallback(*version, data);
                        table.insert(id.as_str(), bytes.as_slice())?;
                    }
                    None => {
                        table.remove(id.as_str())?;
                    }
                }
            }
        }
        transaction.commit()?;
        if let Some(keep) = keep {
            self.last = keep.clone();
            for own in extra {
                let own = Arc::new(own.clone());
                self.last.authored.insert((own.id.clone(), own.version), own.clone());
                self.last.overrides.merge(own);
            }
        }
        Ok(())
    }

    fn write_ledger(
        &self,
        transaction: &redb::WriteTransaction,
        keep: &Keep,
    ) -> Result<(), redb::Error> {
        // A ledger given up as damaged stays on the disk until another takes its place.
        let Some(ledger) = &keep.ledger else { return Ok(()) };
        let position = self.last.ledger.as_ref().map(|last| last.position());
        let changes = ledger.changes_since(position);
        let Changes::Delta(delta) = changes else { return Ok(()) };
        if delta.is_replace() {
            transaction.delete_table(RECORDS)?;
        }
        let mut table = transaction.open_table(RECORDS)?;
        for record in &delta.records {
            table.insert(record.id.as_str(), encode_record(record).as_slice())?;
        }
        let last = self.last.ledger.as_ref().filter(|_| !delta.is_replace());
        if let Some(last) = last.filter(|last| last.head().floor < ledger.head().floor) {
            for record in last.records().filter(|record| ledger.record(&record.id).is_none()) {
                table.remove(record.id.as_str())?;
            }
        }
        Ok(())
    }

    fn write_overrides(
        &self,
        transaction: &redb::WriteTransaction,
        overrides: &OverrideSet,
    ) -> Result<(), redb::Error> {
        if overrides.summary() == self.last.overrides.summary() {
            return Ok(());
        }
        let mut table = transaction.open_table(OVERRIDES)?;
        for gone in self.last.overrides.iter().filter(|held| overrides.of(&held.id).is_none()) {
            table.remove(gone.id.as_str())?;
        }
        for held in overrides.iter() {
            let known = self.last.overrides.of(&held.id);
            if known.is_none_or(|known| !Arc::ptr_eq(known, held)) {
                table.insert(held.id.as_str(), encode_override(held).as_slice())?;
            }
        }
        Ok(())
    }

    fn write_authored(
        &self,
        transaction: &redb::WriteTransaction,
        keep: &Keep,
    ) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(AUTHORED)?;
        for (id, version) in self.last.authored.keys() {
            if !keep.authored.contains_key(&(id.clone(), *version)) {
                table.remove(authored_name(id, *version).as_str())?;
            }
        }
        for ((id, version), own) in &keep.authored {
            if !self.last.authored.contains_key(&(id.clone(), *version)) {
                let name = authored_name(id, *version);
                table.insert(name.as_str(), encode_override(own).as_slice())?;
            }
        }
        Ok(())
    }
}

fn authored_name(id: &RuleId, version: Version) -> String {
    format!("{id}@{}", version.get())
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for DiskError {}

/// The working set is in memory anyway.
const CACHE_BYTES: usize = 16 << 20;
