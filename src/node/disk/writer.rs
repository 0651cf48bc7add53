//! The thread that stores: what changed since the last time, one transaction at a time.
//!
//! Costs O(changed rules) while the disk is well. After a failure the file is opened and read
//! anew before the next attempt, for whether the last one reached it is not known. What has no
//! ticket waits until the disk takes it; a write that waits for its ticket is refused at once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, Durability, WriteTransaction};

use super::file::{
    AUTHORED, FALLBACK, FORMAT, FORMAT_NAME, Files, META, OVERRIDES, OpenError, RECORDS,
};
use super::{Lending, Trouble, Waiting};
use crate::engine::config::Keep;
use crate::engine::port::Ticket;
use crate::model::delta::Changes;
use crate::model::ids::{RuleId, Version};
use crate::model::manual::{Override, OverrideSet};
use crate::node::keeping;
use crate::wire::ledger_proto::{encode_override, encode_record};

/// What the thread works with.
pub(super) struct Writer {
    files: Files,
    /// None after a failure, until it is opened again.
    store: Option<Database>,
    /// What the file holds, as far as is known.
    last: Keep,
    /// What it does not hold yet, and nobody waits for.
    keep: Option<Box<Keep>>,
    fallbacks: BTreeMap<RuleId, Option<(Version, Bytes)>>,
    trouble: Trouble,
    retry_at: Instant,
    retry_wait: Duration,
    /// Another process has the directory.
    lent: bool,
}

impl Writer {
    pub(super) fn new(
        files: Files,
        store: Option<Database>,
        last: Keep,
        trouble: Trouble,
    ) -> Writer {
        Writer {
            files,
            store,
            last,
            keep: None,
            fallbacks: BTreeMap::new(),
            trouble,
            retry_at: Instant::now(),
            retry_wait: FIRST_RETRY,
            lent: false,
        }
    }

    /// Runs until it is ended, or nobody is left to call it.
    pub(super) fn run(
        mut self,
        inbox: &Mutex<Waiting>,
        called: &Receiver<()>,
        stored: &impl Fn(Ticket, bool),
    ) {
        loop {
            let abandoned = match self.pause() {
                None => called.recv().is_err(),
                Some(pause) => called.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected),
            };
            if abandoned {
                return;
            }
            let mut waiting =
                std::mem::take(&mut *inbox.lock().unwrap_or_else(PoisonError::into_inner));
            self.keep = waiting.keep.take().or(self.keep.take());
            self.fallbacks.append(&mut waiting.fallbacks);
            let over = waiting.end.is_some();
            let done = self.attempt(&waiting.extra, over);
            for ticket in waiting.tickets {
                stored(ticket, done);
            }
            match waiting.lending {
                Some(Lending::Lend(done)) => {
                    self.lent = true;
                    self.store = None;
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
                Some(Lending::TakeBack) => {
                    self.lent = false;
                    self.retry_at = Instant::now();
                }
                None => {}
            }
            if over {
                drop(self);
                if let Some(done) = waiting.end {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
                return;
            }
        }
    }

    /// The disk does not take the state, for this reason.
    pub(super) fn in_trouble(&mut self, why: String) {
        if self.trouble.load().is_none() {
            tracing::error!(%why, "the disk does not take the state; serving on");
        }
        self.trouble.store(Some(Arc::new(why)));
        self.store = None;
        self.retry_at = Instant::now() + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(LONGEST_RETRY);
    }

    /// How long to wait for a call; none: until there is one.
    fn pause(&self) -> Option<Duration> {
        let well = self.store.is_some() || self.lent;
        (!well).then(|| self.retry_at.saturating_duration_since(Instant::now()))
    }

    /// Whether everything that waits is on the disk now.
    fn attempt(&mut self, extra: &[Override], last_chance: bool) -> bool {
        let early = self.store.is_none() && Instant::now() < self.retry_at;
        if self.lent || early && !last_chance {
            return false;
        }
        // The database library asserts its invariants; a panic is a failure like any other.
        let result = catch_unwind(AssertUnwindSafe(|| self.write(extra)));
        match result.unwrap_or_else(|_| Err("the database library failed".to_string())) {
            Ok(()) => {
                if self.trouble.swap(None).is_some() {
                    tracing::info!("the disk takes the state again");
                }
                self.retry_wait = FIRST_RETRY;
                true
            }
            Err(why) => {
                self.in_trouble(why);
                false
            }
        }
    }

    fn write(&mut self, extra: &[Override]) -> Result<(), String> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let (store, loaded) =
                    self.files.open_or_begin_anew().map_err(|e: OpenError| e.to_string())?;
                // The mind has gone on with what this thread knew; what an emptied file lacks is
                // in it too.
                if self.keep.is_none() {
                    self.keep = Some(Box::new(self.last.clone()));
                }
                self.last = loaded.keep;
                store
            }
        };
        let keep = self.keep.as_deref();
        self.transact(&store, keep, extra).map_err(|error| error.to_string())?;
        self.store = Some(store);
        self.fallbacks.clear();
        if let Some(keep) = self.keep.take() {
            self.last = *keep;
            for own in extra {
                let own = Arc::new(own.clone());
                self.last.authored.insert((own.id.clone(), own.version), own.clone());
                self.last.overrides.merge(own);
            }
        }
        Ok(())
    }

    fn transact(
        &self,
        store: &Database,
        keep: Option<&Keep>,
        extra: &[Override],
    ) -> Result<(), redb::Error> {
        let mut transaction = store.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        if let Some(keep) = keep {
            self.write_ledger(&transaction, keep)?;
            self.write_overrides(&transaction, &keep.overrides)?;
            self.write_authored(&transaction, keep)?;
            write_meta(&transaction, keep)?;
        }
        write_extra(&transaction, extra)?;
        self.write_fallbacks(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    fn write_fallbacks(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(FALLBACK)?;
        for (id, body) in &self.fallbacks {
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
        Ok(())
    }

    fn write_ledger(&self, transaction: &WriteTransaction, keep: &Keep) -> Result<(), redb::Error> {
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
        transaction: &WriteTransaction,
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
        transaction: &WriteTransaction,
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

fn write_meta(transaction: &WriteTransaction, keep: &Keep) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT_NAME, [FORMAT].as_slice())?;
    for (name, value) in keeping::meta_of(keep) {
        match value {
            Some(value) => meta.insert(name, value.as_slice())?,
            None => meta.remove(name)?,
        };
    }
    Ok(())
}

/// Overrides that take effect once they are durable.
fn write_extra(transaction: &WriteTransaction, extra: &[Override]) -> Result<(), redb::Error> {
    let mut overrides = transaction.open_table(OVERRIDES)?;
    let mut authored = transaction.open_table(AUTHORED)?;
    for own in extra {
        let bytes = encode_override(own);
        overrides.insert(own.id.as_str(), bytes.as_slice())?;
        authored.insert(authored_name(&own.id, own.version).as_str(), bytes.as_slice())?;
    }
    Ok(())
}

fn authored_name(id: &RuleId, version: Version) -> String {
    format!("{id}@{}", version.get())
}

/// After the first failure; doubled with each, for every attempt reads the whole file.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest that room on the disk stays unused.
const LONGEST_RETRY: Duration = Duration::from_secs(8);
