//! The embedded store: one directory with `store.redb` and, apart from it, `cluster.key`.
//!
//! One group of commits is one transaction, on disk before anybody is answered. Decides nothing.
//! Invariant: what is read back is what its signed head says, or it is refused loudly.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use super::key_file::KeyFile;
use super::store_error::StoreError;
use crate::engine::commits::{Commits, Filed, FiledKind};
use crate::engine::fence::Fence;
use crate::engine::write_memory::Remembered;
use crate::model::delta::{Basis, Delta};
use crate::model::follow::Hello;
use crate::model::head::SignedHead;
use crate::model::ids::{NodeId, RuleId, WriteId};
use crate::model::key::{PrivateKey, PublicKey};
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::record::Record;
use crate::model::trust::Trust;
use crate::wire::admin_proto::{decode_remembered, encode_remembered};
use crate::wire::follow_proto::{decode_hello, encode_hello};
use crate::wire::ledger_proto as coding;

/// An open store; one per directory.
pub(super) struct Store {
    // None once it is closed: streams may outlive their orchestrator by a moment, its lock on the
    // directory must not.
    database: Mutex<Option<Arc<Database>>>,
}

/// What a store held when it was opened.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) key: PrivateKey,
    pub(super) commits: Commits,
    pub(super) followers: Vec<Hello>,
    /// No beacon had a higher tick.
    pub(super) tick: u64,
    /// The key was made just now.
    pub(super) is_new: bool,
}

/// What goes to disk as one.
pub(super) struct Group<'a> {
    pub(super) before: &'a Ledger,
    pub(super) commits: &'a Commits,
    pub(super) filed: &'a [Filed],
    pub(super) answers: &'a [(WriteId, Remembered)],
    /// How many of the oldest answers go for them.
    pub(super) forgotten: usize,
    pub(super) hellos: &'a [Hello],
    pub(super) tick: Option<u64>,
}

impl Store {
    /// Opens the directory, or makes it.
    pub(super) fn open(directory: &Path) -> Result<Opened, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::io("make", directory))?;
        let key_file = KeyFile::within(directory);
        let path = directory.join("store.redb");
        let database = open_database(&path)?;
        let store = Store { database: Mutex::new(Some(Arc::new(database))) };
        let head = store.head()?;
        match (key_file.settled()?, head) {
            (Some(key), Some(head)) => store.read(key, &head),
            (Some(key), None) => store.begin(key, Some(Fence::LostStore)),
            (None, None) => {
                let opened = store.begin(key_file.begun()?, None)?;
                key_file.settle()?;
                Ok(Opened { is_new: true, ..opened })
            }
            (None, Some(head)) => match key_file.unfinished()? {
                Some(key) if key.public() == head.key => {
                    key_file.settle()?;
                    store.read(key, &head)
                }
                _ => Err(StoreError::KeyLost(key_file.path().to_owned())),
            },
        }
    }

    /// Writes a group; on disk when this returns.
    ///
    /// # Errors
    /// Whether the group is on disk is not known then.
    pub(super) fn write(&self, group: &Group<'_>) -> Result<(), StoreError> {
        let mut transaction = self.database()?.begin_write().map_err(StoreError::database)?;
        transaction.set_durability(Durability::Immediate).map_err(StoreError::database)?;
        write_group(&transaction, group).map_err(|error| StoreError::Database(Box::new(error)))?;
        transaction.commit().map_err(StoreError::database)
    }

    /// The remembered versions of a rule, newest first.
    pub(super) fn history(&self, id: &RuleId) -> Result<Vec<Filed>, StoreError> {
        let database = self.database()?;
        let read = || -> Result<Vec<(u8, String, Vec<u8>)>, redb::Error> {
            let table = database.begin_read()?.open_table(HISTORY)?;
            let mut lines = Vec::new();
            for line in table.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))?.rev() {
                let (_, value) = line?;
                let (kind, node, record) = value.value();
                lines.push((kind, node.to_owned(), record.to_vec()));
            }
            Ok(lines)
        };
        let lines = read().map_err(|error| StoreError::Database(Box::new(error)))?;
        lines.iter().map(|(kind, node, record)| read_filed(*kind, node, record)).collect()
    }

    /// Lets go of the directory; every later call fails.
    pub(super) fn close(&self) {
        drop(self.database.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or(StoreError::Closed)
    }

    fn head(&self) -> Result<Option<SignedHead>, StoreError> {
        let database = self.database()?;
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let transaction = database.begin_read()?;
            match transaction.open_table(META) {
                Ok(table) => Ok(table.get("head")?.map(|head| head.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let head = read().map_err(|error| StoreError::Database(Box::new(error)))?;
        head.map(|head| coding::decode_signed_head(&head)).transpose().map_err(damaged("the head"))
    }

    /// Begins an empty history.
    fn begin(self, key: PrivateKey, fence: Option<Fence>) -> Result<Opened, StoreError> {
        let ledger = Ledger::genesis(key.public().cluster(), |head| head.sign(&key));
        let commits = Commits::new(ledger.clone(), key.public(), fence);
        let group = Group {
            before: &ledger,
            commits: &commits,
            filed: &[],
            answers: &[],
            forgotten: 0,
            hellos: &[],
            tick: Some(0),
        };
        self.write(&group)?;
        let followers = Vec::new();
        Ok(Opened { store: self, key, commits, followers, tick: 0, is_new: false })
    }

    fn read(self, key: PrivateKey, head: &SignedHead) -> Result<Opened, StoreError> {
        if head.key != key.public() {
            return Err(StoreError::Damaged("it was signed by another key".to_owned()));
        }
        let transaction = self.database()?.begin_read().map_err(StoreError::database)?;
        let ledger = read_ledger(&transaction, &key, head)?;
        let read = Reader { transaction };
        let fence = read.meta("fence")?;
        let fence = fence.and_then(|words| Fence::parse(&String::from_utf8_lossy(&words)));
        let mut commits = Commits::new(ledger, key.public(), fence);
        for (id, answer) in read.answers()? {
            commits.remember(id, answer);
        }
        for (node, author) in read.pinned()? {
            commits.pin(node, author);
        }
        for hash in read.settled()? {
            commits.settled_before(hash);
        }
        let tick = read.meta("tick")?.and_then(|tick| tick.try_into().ok());
        let tick = u64::from_le_bytes(tick.unwrap_or_default());
        let followers = read.followers()?;
        Ok(Opened { store: self, key, commits, followers, tick, is_new: false })
    }
}

/// Reads the tables of an opened store, once.
struct Reader {
    transaction: ReadTransaction,
}

impl Reader {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.transaction.open_table(META).map_err(StoreError::database)?;
        let value = table.get(name).map_err(StoreError::database)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn answers(&self) -> Result<Vec<(WriteId, Remembered)>, StoreError> {
        let table = self.transaction.open_table(WRITES).map_err(StoreError::database)?;
        let lines = table.iter().map_err(StoreError::database)?;
        lines
            .map(|line| {
                let (_, value) = line.map_err(StoreError::database)?;
                let (id, answer) = value.value();
                let id = WriteId::parse(id);
                let id = id.ok_or_else(|| StoreError::Damaged("a write id".to_owned()))?;
                Ok((id, decode_remembered(answer).map_err(damaged("an answer"))?))
            })
            .collect()
    }

    fn pinned(&self) -> Result<Vec<(NodeId, PublicKey)>, StoreError> {
        let table = self.transaction.open_table(PINNED).map_err(StoreError::database)?;
        let lines = table.iter().map_err(StoreError::database)?;
        lines
            .map(|line| {
                let (node, key) = line.map_err(StoreError::database)?;
                let pinned = NodeId::parse(node.value()).zip(key.value().try_into().ok());
                let (node, key) =
                    pinned.ok_or_else(|| StoreError::Damaged("a pinned author".to_owned()))?;
                Ok((node, PublicKey(key)))
            })
            .collect()
    }

    fn followers(&self) -> Result<Vec<Hello>, StoreError> {
        let table = self.transaction.open_table(NODES).map_err(StoreError::database)?;
        let lines = table.iter().map_err(StoreError::database)?;
        lines
            .map(|line| {
                let (_, hello) = line.map_err(StoreError::database)?;
                decode_hello(hello.value()).map_err(damaged("a node"))
            })
            .collect()
    }

    /// What was adopted or filed of overrides, so that it is not filed again.
    fn settled(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let table = self.transaction.open_table(HISTORY).map_err(StoreError::database)?;
        let lines = table.iter().map_err(StoreError::database)?;
        let mut hashes = Vec::new();
        for line in lines {
            let (_, value) = line.map_err(StoreError::database)?;
            let (kind, node, record) = value.value();
            if !node.is_empty() {
                let filed = read_filed(kind, node, record)?;
                let (id, version) = (&filed.record.id, filed.record.version);
                hashes.push(Commits::settled_hash(id, version, node));
            }
        }
        Ok(hashes)
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(what)) => {
            StoreError::Damaged(what)
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            StoreError::io("open", path)(source)
        }
        other => StoreError::Damaged(other.to_string()),
    })
}

fn read_ledger(
    transaction: &ReadTransaction,
    key: &PrivateKey,
    head: &SignedHead,
) -> Result<Ledger, StoreError> {
    let mut records = Vec::new();
    let table = transaction.open_table(RECORDS).map_err(StoreError::database)?;
    for line in table.iter().map_err(StoreError::database)? {
        let (_, record) = line.map_err(StoreError::database)?;
        let record = coding::decode_record(record.value()).map_err(damaged("a rule"))?;
        records.push(Arc::new(record));
    }
    records.sort_unstable_by(|a: &Arc<Record>, b| (a.revision, &a.id).cmp(&(b.revision, &b.id)));
    let mut branches = Vec::new();
    let table = transaction.open_table(BRANCHES).map_err(StoreError::database)?;
    for line in table.iter().map_err(StoreError::database)? {
        let (_, branch) = line.map_err(StoreError::database)?;
        branches.push(coding::decode_branch(branch.value()).map_err(damaged("a branch point"))?);
    }
    let delta = Delta { basis: Basis::Nothing, to: *head, branches, records };
    Ledger::from_replace(&delta, &Trust::configured(vec![key.public()]))
        .map_err(|refusal| StoreError::Damaged(format!("its ledger {refusal}")))
}

fn write_group(transaction: &WriteTransaction, group: &Group<'_>) -> Result<(), redb::Error> {
    write_ledger(transaction, group)?;
    write_history(transaction, group)?;
    let mut writes = transaction.open_table(WRITES)?;
    for (id, answer) in group.answers {
        let next = writes.last()?.map_or(0, |(number, _)| number.value() + 1);
        writes.insert(next, (id.as_str(), encode_remembered(answer).as_slice()))?;
    }
    for _ in 0..group.forgotten {
        writes.pop_first()?;
    }
    let mut nodes = transaction.open_table(NODES)?;
    for hello in group.hellos {
        nodes.insert(hello.node.as_str(), encode_hello(hello).as_slice())?;
    }
    while nodes.len()? > limits::FOLLOWERS as u64 {
        nodes.pop_first()?;
    }
    let mut pinned = transaction.open_table(PINNED)?;
    if pinned.len()? != group.commits.pinned().count() as u64 {
        for (node, key) in group.commits.pinned() {
            pinned.insert(node.as_str(), key.0.as_slice())?;
        }
    }
    let mut meta = transaction.open_table(META)?;
    let head = coding::encode_signed_head(group.commits.ledger().signed());
    meta.insert("head", head.as_slice())?;
    match group.commits.fence().and_then(Fence::words) {
        Some(words) => drop(meta.insert("fence", words.as_bytes())?),
        None => drop(meta.remove("fence")?),
    }
    if let Some(tick) = group.tick {
        meta.insert("tick", tick.to_le_bytes().as_slice())?;
    }
    Ok(())
}

fn write_ledger(transaction: &WriteTransaction, group: &Group<'_>) -> Result<(), redb::Error> {
    let (before, after) = (group.before, group.commits.ledger());
    let mut records = transaction.open_table(RECORDS)?;
    let mut branches = transaction.open_table(BRANCHES)?;
    let mut history = transaction.open_table(HISTORY)?;
    let changed = if before.head().epoch == after.head().epoch {
        if before.head().floor != after.head().floor {
            for gone in before.records().filter(|record| after.record(&record.id).is_none()) {
                records.remove(gone.id.as_str())?;
                let all = (gone.id.as_str(), 0)..=(gone.id.as_str(), u64::MAX);
                history.retain_in(all, |_, _| false)?;
            }
        }
        after.changed_after(before.head().revision)
    } else {
        // Another line of history: nothing of the old one may stay.
        records.retain(|_, _| false)?;
        branches.retain(|_, _| false)?;
        after.records().cloned().collect()
    };
    for record in changed {
        records.insert(record.id.as_str(), coding::encode_record(&record).as_slice())?;
    }
    for branch in after.branches() {
        if branches.get(branch.epoch.0)?.is_none() {
            branches.insert(branch.epoch.0, coding::encode_branch(branch).as_slice())?;
        }
    }
    while branches.len()? > limits::BRANCHES as u64 {
        branches.pop_first()?;
    }
    Ok(())
}

fn write_history(transaction: &WriteTransaction, group: &Group<'_>) -> Result<(), redb::Error> {
    let mut history = transaction.open_table(HISTORY)?;
    for filed in group.filed {
        let id = filed.record.id.as_str();
        let (mut count, mut next, mut oldest) = (0, 0, None);
        for line in history.range((id, 0)..=(id, u64::MAX))? {
            let number = line?.0.value().1;
            oldest = oldest.or(Some(number));
            (count, next) = (count + 1, number + 1);
        }
        let kind = FiledKind::ALL.iter().position(|kind| *kind == filed.kind).unwrap_or(0);
        let node = filed.node.as_ref().map_or("", |node| node.as_str());
        let record = coding::encode_record(&filed.record);
        history.insert((id, next), (kind as u8, node, record.as_slice()))?;
        if let Some(oldest) = oldest.filter(|_| count >= limits::HISTORY) {
            history.remove((id, oldest))?;
        }
    }
    Ok(())
}

fn read_filed(kind: u8, node: &str, record: &[u8]) -> Result<Filed, StoreError> {
    let known = FiledKind::ALL.get(usize::from(kind)).copied();
    Ok(Filed {
        record: coding::decode_record(record).map_err(damaged("a rule's history"))?,
        kind: known.ok_or_else(|| StoreError::Damaged("a rule's history".to_owned()))?,
        node: NodeId::parse(node),
    })
}

fn damaged<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Damaged(format!("{what}: {error}"))
}

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const BRANCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("branches");
/// By rule and number: kind, the node that wrote it by hand, record.
const HISTORY: TableDefinition<'_, (&str, u64), (u8, &str, &[u8])> =
    TableDefinition::new("history");
const WRITES: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("writes");
const NODES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("nodes");
const PINNED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pinned");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Reads come from memory; the cache only helps commits.
const CACHE_BYTES: usize = 32 << 20;

#[cfg(test)]
#[path = "tests/store.rs"]
mod tests;
