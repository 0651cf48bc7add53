//! Opening and reading the database file, and telling what is wrong with it.
//!
//! Every page's checksum is verified at each opening, and the ledger against its signed head: a
//! file that was altered behind the node's back is damaged, never half believed. Does not write
//! the state; that is `writer`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition,
};

use super::Fallbacks;
use crate::engine::config::Keep;
use crate::node::keeping::{self, Meta};

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

/// The layout of those tables. A later one is not touched.
pub(super) const FORMAT: u8 = 1;
/// Where the layout is said.
pub(super) const FORMAT_NAME: &str = "format";

/// Where the database is, and how its file is opened: tests put a disk there that fails.
pub(super) struct Files {
    pub(super) path: PathBuf,
    open: Box<Open>,
}

type Open = dyn Fn(&Path) -> Result<Database, DatabaseError> + Send;

/// What a file held.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) keep: Keep,
    pub(super) fallback: Fallbacks,
}

/// Why a file is not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another process has it.
    InUse,
    /// A later release wrote it.
    Later,
    /// Its content is not what was written.
    Damaged(String),
    /// The disk refuses; the content may be well.
    Unavailable(String),
}

impl Files {
    /// A file as everybody has it.
    pub(super) fn on_disk(path: PathBuf) -> Files {
        Files { path, open: Box::new(|path| builder().create(path)) }
    }

    #[cfg(test)]
    pub(super) fn opened_by(
        path: PathBuf,
        open: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + 'static,
    ) -> Files {
        Files { path, open: Box::new(open) }
    }

    /// Opens the file, making it if need be. A damaged one is moved aside for an empty one.
    pub(super) fn open_or_begin_anew(&self) -> Result<(Database, Loaded), OpenError> {
        let why = match self.open_and_load() {
            Err(OpenError::Damaged(why)) => why,
            other => return other,
        };
        let aside = aside(&self.path);
        tracing::error!(
            %why, moved_to = %aside.display(),
            "the node's database is damaged: moved aside, beginning with nothing"
        );
        fs::rename(&self.path, &aside)?;
        self.open_and_load()
    }

    fn open_and_load(&self) -> Result<(Database, Loaded), OpenError> {
        let database = match (self.open)(&self.path) {
            Ok(database) => database,
            Err(_) if is_of_later_release(&self.path) => return Err(OpenError::Later),
            Err(error) => return Err(error.into()),
        };
        let loaded = load(&database)?;
        sync_directory_of(&self.path)?;
        Ok((database, loaded))
    }

    /// What the file holds, read into memory: nothing on the disk is touched or needed but reads.
    pub(super) fn read_only(&self) -> Result<Loaded, OpenError> {
        let bytes = fs::read(&self.path)?;
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64).map_err(|e| OpenError::Unavailable(e.to_string()))?;
        copy.write(0, &bytes).map_err(|e| OpenError::Unavailable(e.to_string()))?;
        drop(bytes);
        load(&builder().create_with_backend(copy)?)
    }
}

/// How every file of this kind is opened.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn load(database: &Database) -> Result<Loaded, OpenError> {
    let read = database.begin_read().map_err(redb::Error::from)?;
    let table = |definition: TableDefinition<'_, &str, &[u8]>| -> Result<_, redb::Error> {
        let mut held = BTreeMap::new();
        let table = match read.open_table(definition) {
            // A fresh file has no tables yet.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(held),
            table => table?,
        };
        for entry in table.iter()? {
            let (key, value) = entry?;
            held.insert(key.value().to_string(), value.value().to_vec());
        }
        Ok(held)
    };
    let meta = Meta { entries: table(META)? };
    let format = meta.entries.get(FORMAT_NAME).map_or(FORMAT, |format| match format.as_slice() {
        [format] => *format,
        _ => u8::MAX,
    });
    if format > FORMAT {
        return Err(OpenError::Later);
    }
    let keep = keeping::assemble(&meta, table(RECORDS)?, table(OVERRIDES)?, table(AUTHORED)?)
        .map_err(|why| OpenError::Damaged(why.to_string()))?;
    Ok(Loaded { keep, fallback: keeping::fallbacks(table(FALLBACK)?) })
}

/// Whether a later release of the database library wrote this. It stands in both halves of its
/// double header; one alone is a flipped bit.
fn is_of_later_release(path: &Path) -> bool {
    const HALVES: [usize; 2] = [64, 192];
    const KNOWN: u8 = 3;
    let mut head = [0u8; 256];
    let read = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
    let magic = head.starts_with(b"redb\x1A\x0A\xA9\x0D\x0A");
    read.is_ok() && magic && HALVES.iter().all(|at| head[*at] > KNOWN)
}

/// A name beside it that is free.
pub(super) fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (1..)
        .map(|number: u32| path.with_file_name(format!("{name}.damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| path.with_extension("damaged"))
}

/// A new name is durable only with its directory.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse,
            redb::Error::Io(error) => error.into(),
            other => OpenError::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The file ends before its content does.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                OpenError::Damaged(error.to_string())
            }
            _ => OpenError::Unavailable(error.to_string()),
        }
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::InUse => f.write_str("another process uses it"),
            OpenError::Later => f.write_str("a later release wrote it"),
            OpenError::Damaged(why) | OpenError::Unavailable(why) => f.write_str(why),
        }
    }
}

/// The working set is in memory anyway.
const CACHE_BYTES: usize = 16 << 20;
