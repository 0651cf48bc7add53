//! Why the store could not be opened or written.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not be opened or written.
#[derive(Debug)]
pub enum StoreError {
    /// The disk refused.
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has this directory open.
    Locked(PathBuf),
    /// What is stored does not add up. Nothing was changed.
    Damaged(String),
    /// There is a store but not the key that signs for it.
    KeyLost(PathBuf),
    /// The file is not a cluster key.
    BadKey(PathBuf),
    /// The orchestrator is going down; nothing was touched.
    Closed,
    /// The database refused; what it holds of the last group is not known.
    Database(Box<redb::Error>),
}

impl StoreError {
    pub(super) fn io(
        attempt: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| StoreError::Io { attempt, path, source }
    }

    pub(super) fn database(error: impl Into<redb::Error>) -> StoreError {
        StoreError::Database(Box::new(error.into()))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io { attempt, path, source } => {
                write!(f, "cannot {attempt} {}: {source}", path.display())
            }
            StoreError::Locked(path) => {
                write!(f, "another orchestrator runs on {}", path.display())
            }
            StoreError::Damaged(what) => write!(
                f,
                "the store is damaged: {what}; move store.redb away, keep cluster.key, start \
                 again and run `tradewind orchestrator recover`"
            ),
            StoreError::KeyLost(path) => write!(
                f,
                "there is a store, but {} is missing; put a copy of it back",
                path.display()
            ),
            StoreError::BadKey(path) => write!(f, "{} is not a cluster key", path.display()),
            StoreError::Closed => f.write_str("the store is closed"),
            StoreError::Database(error) => write!(f, "the store failed: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}
