//! A rules file that is watched.
//!
//! Read anew when its content changes; a file that does not parse leaves the last good rules in
//! force and says why in the log and in the status. One that rests is seldom read: 100,000 rules
//! are 10 MB, and to read them twice a second took 3 % of a core and all that its caches held.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Note;
use crate::engine::port::Input;
use crate::model::ids::RuleId;
use crate::telemetry::clock::Clock;
use crate::wire::rule_document::rules_from_yaml_or_json;

/// What a rules file says, or what is wrong with it.
pub(crate) fn read(text: &str) -> Result<BTreeMap<RuleId, Bytes>, String> {
    let parsed = rules_from_yaml_or_json(text).map_err(|problems| problems.to_string())?;
    let mut rules = BTreeMap::new();
    for rule in parsed {
        if let Some(id) = rules.insert(rule.id.clone(), rule.data).map(|_| rule.id) {
            return Err(format!("the rule {id} stands twice in the file"));
        }
    }
    Ok(rules)
}

/// Watches until the node ends; `first` hears when it was read once.
pub(crate) async fn watch_file(
    path: PathBuf,
    first: oneshot::Sender<()>,
    clock: Clock,
    notes: mpsc::Sender<Note>,
    state: Arc<ArcSwap<String>>,
    mut ended: watch::Receiver<bool>,
) {
    let (mut last, mut first, mut looks) = (None, Some(first), Looks::default());
    loop {
        let metadata = tokio::fs::metadata(&path).await;
        let content = if looks.call_for_reading(metadata.ok()) {
            Some(tokio::fs::read(&path).await)
        } else {
            None
        };
        let hash = |content: &std::io::Result<Vec<u8>>| content.as_deref().ok().map(blake3::hash);
        if let Some(content) = content.filter(|content| last != Some(hash(content))) {
            last = Some(hash(&content));
            match understood(content, &path) {
                Ok(rules) => {
                    tracing::info!(rules = rules.len(), "the rules file was read");
                    state.store(Arc::new("ok".to_string()));
                    let input = Input::FileRead { rules, wall: clock.wall() };
                    if notes.send(Note::input(input)).await.is_err() {
                        return;
                    }
                }
                Err(why) => {
                    tracing::error!(%why, "the rules file is not usable; the last good rules stay");
                    state.store(Arc::new(why));
                }
            }
        }
        if let Some(first) = first.take() {
            // Whoever asked may have stopped waiting.
            let _ = first.send(());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
    }
}

fn understood(
    content: std::io::Result<Vec<u8>>,
    path: &Path,
) -> Result<BTreeMap<RuleId, Bytes>, String> {
    let bytes = content.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_string())?;
    read(&text)
}

/// What was seen of the file without reading it.
#[derive(Debug, Default)]
struct Looks {
    last: Option<Outside>,
    /// How often in a row it looked the same.
    same: u32,
}

/// What changes outside a file when its content does: which one it is, its length, and the time
/// of its last change, which nobody can set.
#[derive(Debug, PartialEq, Eq)]
struct Outside {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Looks {
    /// Whether the content may be another one than when it was read last. Times are coarse, so
    /// what was just written is read again for a while; and some file systems keep none.
    fn call_for_reading(&mut self, metadata: Option<Metadata>) -> bool {
        let now = metadata.map(|metadata| Outside {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
        self.same = if now == self.last { self.same.saturating_add(1) } else { 0 };
        self.last = now;
        self.last.is_none() || self.same < FRESH || self.same.is_multiple_of(SELDOM)
    }
}

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Looks at which a file that was written is read: for five seconds.
const FRESH: u32 = 10;
/// Every so many looks it is read in any case: once a minute.
const SELDOM: u32 = 120;

#[cfg(test)]
mod tests {
    use std::fs::{File, metadata, rename, write};

    use super::*;

    #[test]
    fn a_file_that_rests_is_seldom_read_and_one_that_was_written_always() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.yaml");
        write(&path, "one").unwrap();
        let mut looks = Looks::default();
        let mut reads =
            || (0..SELDOM).filter(|_| looks.call_for_reading(metadata(&path).ok())).count();
        assert_eq!(reads(), FRESH as usize);
        assert_eq!(reads(), 1, "once a minute all the same");

        let before = metadata(&path).unwrap();
        let changed = || metadata(&path).unwrap().ctime_nsec() != before.ctime_nsec();
        // The clock of some file systems goes in steps of milliseconds.
        while !changed() {
            write(&path, "two").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        assert_eq!(reads(), FRESH as usize, "of the same length, with the same time put on it");

        let other = directory.path().join("other");
        write(&other, "six").unwrap();
        rename(&other, &path).unwrap();
        assert_eq!(reads(), FRESH as usize, "another file in its place");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reads(), SELDOM as usize, "looked for until it is there");
    }
}
