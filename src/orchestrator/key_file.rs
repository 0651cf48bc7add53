//! The cluster key's file: made once, apart from the store, never replaced.
//!
//! Invariant: a key that lies under its final name has had a store beside it. A first start that
//! is cut short leaves the key under its first name, and the next start goes on from there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use super::store_error::StoreError;
use crate::model::key::PrivateKey;

/// Where the key is and how far the first start came.
pub(super) struct KeyFile {
    path: PathBuf,
    new_path: PathBuf,
}

impl KeyFile {
    pub(super) fn within(directory: &Path) -> KeyFile {
        KeyFile { path: directory.join(NAME), new_path: directory.join(NEW_NAME) }
    }

    /// The key of a start before this one.
    pub(super) fn settled(&self) -> Result<Option<PrivateKey>, StoreError> {
        read(&self.path)
    }

    /// The key of a first start that is under way; made if there is none.
    pub(super) fn begun(&self) -> Result<PrivateKey, StoreError> {
        if let Some(key) = read(&self.new_path)? {
            return Ok(key);
        }
        let mut seed = [0u8; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(|_| {
            StoreError::io("make a key", &self.path)(io::Error::other("no randomness"))
        })?;
        let key = PrivateKey::from_seed(seed);
        // Under a third name first: a torn file must not look like a key.
        let draft = self.new_path.with_extension("draft");
        write(&draft, &key).map_err(StoreError::io("write", &draft))?;
        fs::rename(&draft, &self.new_path).map_err(StoreError::io("rename", &draft))?;
        self.sync_directory()?;
        Ok(key)
    }

    /// The key of a first start that was cut short, if there was one.
    pub(super) fn unfinished(&self) -> Result<Option<PrivateKey>, StoreError> {
        read(&self.new_path)
    }

    /// The store is there: the key takes its final name.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.sync_directory()?;
        fs::rename(&self.new_path, &self.path).map_err(StoreError::io("rename", &self.new_path))?;
        self.sync_directory()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn sync_directory(&self) -> Result<(), StoreError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(StoreError::io("sync", directory))
    }
}

fn read(path: &Path) -> Result<Option<PrivateKey>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let seed = text.strip_prefix(HEADER).and_then(|rest| parse_hex(rest.trim()));
    match seed {
        Some(seed) => Ok(Some(PrivateKey::from_seed(seed))),
        None => Err(StoreError::BadKey(path.to_owned())),
    }
}

fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(HEADER.as_bytes())?;
    for byte in key.seed() {
        write!(file, "{byte:02x}")?;
    }
    file.write_all(b"\n")?;
    file.sync_all()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut seed = [0u8; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in seed.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(seed)
}

const NAME: &str = "cluster.key";
const NEW_NAME: &str = "cluster.key.new";
const HEADER: &str = "tradewind cluster key v1: keep a copy in a safe place\n";
