//! A rules file that is watched.
//!
//! Read anew when its content changes; a file that does not parse leaves the last good rules in
//! force and says why in the log and in the status.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
    let (mut last, mut first) = (None, Some(first));
    loop {
        let content = tokio::fs::read(&path).await;
        let hash = content.as_ref().ok().map(|bytes| blake3::hash(bytes));
        if last != Some(hash) {
            last = Some(hash);
            let read = content
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))
                .and_then(|bytes| {
                    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_string())
                })
                .and_then(|text| read(&text));
            match read {
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

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(500);
