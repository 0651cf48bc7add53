//! What an operator does to the data directory of a stopped orchestrator: look at its key, copy
//! its store, have it recover.
//!
//! Decides nothing about history: `recover` runs the orchestrator on ports of its own and asks it
//! to mend itself. Invariant: nothing that is there already is ever overwritten.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::driver::{DriverError, Otherwise};
use super::key_file::KeyFile;
use super::mend::{self, MendError};
use super::server::{Orchestrator, OrchestratorError, OrchestratorOptions};
use super::store::Store;
use super::store_error::StoreError;
use crate::engine::recovery::RecoverError;
use crate::model::head::Position;
use crate::model::key::PublicKey;

/// How to recover a stopped orchestrator.
#[derive(Clone)]
pub struct RecoverOptions {
    /// Its directory; the cluster key has to be in it.
    pub data: PathBuf,
    /// Peer ports of nodes that may hold the ledger, as URLs.
    pub from: Vec<String>,
    /// The cluster token, where the nodes ask for it.
    pub token: Option<String>,
    /// Where no node has a ledger: begin with no rules.
    pub new_fleet: bool,
}

/// What was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverReport {
    /// Where the history goes on.
    pub position: Position,
    /// Where it left the one before; the same where a new fleet was begun.
    pub branch: Position,
    /// Live rules now.
    pub rules: usize,
    /// Versions that lay beyond; they stand in the rules' histories.
    pub orphaned: usize,
    /// Which nodes did not help, and why.
    pub failures: Vec<(String, String)>,
}

/// Why a stopped orchestrator was not recovered.
#[derive(Debug)]
pub enum RecoverFailure {
    /// There is no cluster key. Nothing was touched.
    NoKey(PathBuf),
    /// It could not be started. Nothing was touched.
    Start(OrchestratorError),
    /// It takes writes, or too little was found. Nothing was touched.
    Refused(RecoverError),
    /// More nodes are named than one recovery asks. Nothing was touched.
    TooManyNodes,
    /// The store failed: whether it recovered is not known until it starts again.
    Unknown,
}

/// Recovers a stopped orchestrator from the nodes named.
///
/// # Errors
/// Says why not.
pub async fn recover(options: RecoverOptions) -> Result<RecoverReport, RecoverFailure> {
    let key_file = KeyFile::within(&options.data);
    if !key_file.path().exists() {
        return Err(RecoverFailure::NoKey(key_file.path().to_owned()));
    }
    let local = OrchestratorOptions::local(&options.data);
    let orchestrator = Orchestrator::start(local).await.map_err(RecoverFailure::Start)?;
    let token = options.token.as_deref();
    let otherwise = if options.new_fleet { Otherwise::BeginAnew } else { Otherwise::Wait };
    let mended = mend::recover(orchestrator.shared(), &options.from, token, otherwise).await;
    orchestrator.shutdown().await;
    let mended = mended.map_err(|error| match error {
        MendError::Recover(error) => RecoverFailure::Refused(error),
        MendError::TooManyNodes => RecoverFailure::TooManyNodes,
        // Nobody else knows its ports, so that no other recovery can be under way.
        MendError::UnderWay | MendError::Driver(DriverError::Busy | DriverError::Write(_)) => {
            RecoverFailure::Unknown
        }
        MendError::Driver(DriverError::Unknown(_) | DriverError::Stopped) => {
            RecoverFailure::Unknown
        }
    })?;
    Ok(RecoverReport {
        position: mended.outcome.position,
        branch: mended.outcome.recovered.branch,
        rules: mended.outcome.rules,
        orphaned: mended.outcome.recovered.orphaned.len(),
        failures: mended.failures,
    })
}

/// The public half of the cluster key, for `--trust` at the nodes; works beside a running
/// orchestrator.
///
/// # Errors
/// There is no key, or it cannot be read.
pub fn show_key(data: &Path) -> Result<PublicKey, StoreError> {
    let key_file = KeyFile::within(data);
    let missing = || StoreError::KeyLost(key_file.path().to_owned());
    Ok(key_file.settled()?.ok_or_else(missing)?.public())
}

/// Copies the store of a stopped orchestrator into a new file, checked before and afterwards.
/// The cluster key is not in it.
///
/// # Errors
/// An orchestrator runs there, something is at `to` already, or the store is damaged.
pub fn back_up(data: &Path, to: &Path) -> Result<(), StoreError> {
    show_key(data)?;
    let from = data.join("store.redb");
    // Opening would make a store where there is none.
    File::open(&from).map_err(StoreError::io("open", &from))?;
    let opened = Store::open(data)?;
    let copied = copy_new(&from, to);
    opened.store.close();
    copied?;
    let copy = redb::Database::builder().set_check_integrity_on_open(true).open(to);
    copy.map(drop).map_err(|error| StoreError::Damaged(format!("the copy: {error}")))
}

/// Held open and without a transaction, the file on disk is a whole database.
fn copy_new(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut copy = File::create_new(to).map_err(StoreError::io("create", to))?;
    let copied = File::open(from)
        .and_then(|mut source| io::copy(&mut source, &mut copy))
        .and_then(|_| copy.sync_all());
    copied.map_err(|error| {
        // Half a backup is worse than none; it is ours, so that it may go.
        drop(fs::remove_file(to));
        StoreError::io("write", to)(error)
    })
}

impl fmt::Debug for RecoverOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoverOptions")
            .field("data", &self.data)
            .field("from", &self.from)
            .field("new_fleet", &self.new_fleet)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .finish()
    }
}

impl fmt::Display for RecoverFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverFailure::NoKey(path) => write!(
                f,
                "there is no {}: without the cluster key no node would believe this orchestrator",
                path.display()
            ),
            RecoverFailure::Start(error) => error.fmt(f),
            RecoverFailure::Refused(error) => error.fmt(f),
            RecoverFailure::TooManyNodes => f.write_str("too many nodes are named"),
            RecoverFailure::Unknown => f.write_str(
                "the store failed, so that it is not known whether it recovered: see to the disk \
                 and start the orchestrator",
            ),
        }
    }
}

impl std::error::Error for RecoverFailure {}
