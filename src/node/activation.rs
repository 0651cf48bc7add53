//! Puts rules in force: parses, judges, compiles, swaps; and says what it could not.
//!
//! A thread of its own, so that neither a hundred thousand rules nor a rule that makes the
//! compiler fall over touches the mind or the traffic. A rule that cannot be put in force leaves
//! its last active version in force, which is kept on disk too. Costs O(changed rules).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use bytes::Bytes;

use super::disk::Disk;
use crate::engine::port::Changed;
use crate::model::follow::RejectedRule;
use crate::model::head::Position;
use crate::model::ids::{RuleId, Version};
use crate::model::rule::Rule;
use crate::model::rule_set::{RuleSet, Serving};
use crate::proxy::resolve::AddressPolicy;
use crate::proxy::routes::{RouteChange, RoutesState};
use crate::wire::rule_document::decode_rule_data;

/// The way to the thread that puts rules in force.
#[derive(Clone)]
pub(crate) struct Activator {
    jobs: mpsc::Sender<Job>,
    standings: Arc<Mutex<Standings>>,
}

/// Who this node is, as far as rules ask.
pub(crate) struct Here {
    pub(crate) region: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) policy: Arc<AddressPolicy>,
}

/// How a rule stands at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In force.
    Active,
    /// Not meant for this node.
    NotHere,
    /// Could not be put in force.
    Rejected(String),
    /// There is no such rule.
    Absent,
}

#[derive(Default)]
struct Standings {
    active: BTreeSet<RuleId>,
    elsewhere: BTreeSet<RuleId>,
    rejected: BTreeMap<RuleId, RejectedRule>,
}

enum Job {
    Activate { set: Box<RuleSet>, changed: Changed },
    Sync(tokio::sync::oneshot::Sender<()>),
}

struct Work {
    here: Here,
    disk: Disk,
    routes: Arc<Mutex<RoutesState>>,
    standings: Arc<Mutex<Standings>>,
    fallback: BTreeMap<RuleId, (Version, Bytes)>,
    active: BTreeMap<RuleId, Serving>,
}

impl Activator {
    /// Starts the thread; `activated` is called from it after every swap.
    pub(crate) fn start(
        here: Here,
        disk: Disk,
        routes: Arc<Mutex<RoutesState>>,
        fallback: BTreeMap<RuleId, (Version, Bytes)>,
        activated: impl Fn(Option<Position>, Vec<RejectedRule>) + Send + 'static,
    ) -> std::io::Result<Activator> {
        let (jobs, waiting) = mpsc::channel();
        let standings = Arc::new(Mutex::new(Standings::default()));
        let shown = standings.clone();
        let mut work =
            Work { here, disk, routes, standings: shown, fallback, active: BTreeMap::new() };
        std::thread::Builder::new().name("activation".to_string()).spawn(move || {
            while let Some(round) = next(&waiting) {
                if let Some((set, changed)) = round.work {
                    let position = set.ledger.as_ref().map(|ledger| ledger.position());
                    let rejected = work.activate(&set, changed);
                    activated(position, rejected);
                }
                for done in round.done {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
            }
        })?;
        Ok(Activator { jobs, standings })
    }

    /// Puts the newest of these rules in force.
    pub(crate) fn activate(&self, set: RuleSet, changed: Changed) {
        // Without the thread there is nobody to tell; the node is ending.
        let _ = self.jobs.send(Job::Activate { set: Box::new(set), changed });
    }

    /// Waits until everything handed in so far is in force, or rejected.
    pub(crate) async fn settled(&self) {
        let (done, waiting) = tokio::sync::oneshot::channel();
        self.tell_settled(done);
        // Without the thread nothing changes any more.
        let _ = waiting.await;
    }

    /// The same for somebody who waits elsewhere.
    pub(crate) fn tell_settled(&self, done: tokio::sync::oneshot::Sender<()>) {
        // Without the thread the sender is dropped, and that ends the waiting too.
        let _ = self.jobs.send(Job::Sync(done));
    }

    /// How a rule stands here.
    pub(crate) fn standing(&self, id: &RuleId) -> Standing {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rejected) = standings.rejected.get(id) {
            Standing::Rejected(rejected.why.clone())
        } else if standings.active.contains(id) {
            Standing::Active
        } else if standings.elsewhere.contains(id) {
            Standing::NotHere
        } else {
            Standing::Absent
        }
    }

    /// How many rules are active, not for this node, and rejected.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        (standings.active.len(), standings.elsewhere.len(), standings.rejected.len())
    }
}

/// Everything that waits, as one.
struct Round {
    work: Option<(Box<RuleSet>, Changed)>,
    done: Vec<tokio::sync::oneshot::Sender<()>>,
}

fn next(waiting: &mpsc::Receiver<Job>) -> Option<Round> {
    let first = waiting.recv().ok()?;
    let mut round = Round { work: None, done: Vec::new() };
    for job in std::iter::once(first).chain(waiting.try_iter()) {
        match job {
            Job::Sync(done) => round.done.push(done),
            Job::Activate { set, changed } => {
                let changed = match (round.work.take(), changed) {
                    (None, changed) => changed,
                    (Some((_, Changed::Rules(mut some))), Changed::Rules(more)) => {
                        some.extend(more);
                        Changed::Rules(some)
                    }
                    _ => Changed::Everything,
                };
                round.work = Some((set, changed));
            }
        }
    }
    Some(round)
}

impl Work {
    fn activate(&mut self, set: &RuleSet, changed: Changed) -> Vec<RejectedRule> {
        let ids: BTreeSet<RuleId> = match changed {
            Changed::Rules(ids) => ids.into_iter().collect(),
            Changed::Everything => {
                set.ids().into_iter().chain(self.active.keys().cloned()).collect()
            }
        };
        let mut changes = Vec::new();
        let mut taken = Vec::new();
        for id in ids {
            match set.serving(&id) {
                None => changes.extend(self.gone(&id)),
                // What was rejected meanwhile, an overlay say, has gone again.
                Some(serving) if self.active.get(&id) == Some(&serving) => self.forgive(&id),
                Some(serving) => match self.judge(&serving) {
                    Ok(Some(rule)) => {
                        changes.push(change(&serving, rule));
                        taken.push(serving);
                    }
                    Ok(None) => {
                        changes.extend(self.gone(&id));
                        self.lock().elsewhere.insert(id);
                    }
                    Err(why) => changes.extend(self.reject(&serving, why)),
                },
            }
        }
        self.swap(changes, taken);
        self.lock().rejected.values().cloned().collect()
    }

    fn swap(&mut self, changes: Vec<RouteChange>, taken: Vec<Serving>) {
        let refused: BTreeMap<RuleId, String> = {
            let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
            let refused = routes.apply(changes);
            routes.publish();
            refused.into_iter().collect()
        };
        for serving in taken {
            match refused.get(&serving.id) {
                None => self.is_active(serving),
                Some(why) => {
                    let again = self.reject(&serving, why.clone());
                    if !again.is_empty() {
                        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
                        routes.apply(again);
                        routes.publish();
                    }
                }
            }
        }
    }

    /// The rule, if it is for this node; or why it cannot be put in force.
    fn judge(&self, serving: &Serving) -> Result<Option<Arc<Rule>>, String> {
        let decoded = catch_unwind(AssertUnwindSafe(|| decode_rule_data(&serving.data)));
        let rule = match decoded {
            Ok(Ok(rule)) => rule,
            Ok(Err(problems)) => return Err(problems.to_string()),
            Err(_) => return Err("reading the rule failed inside the node".to_string()),
        };
        if !rule.nodes.selects(&self.here.region, &self.here.labels) {
            return Ok(None);
        }
        for target in rule.targets() {
            let literal = target.address.literal();
            let at = literal.map(|ip| SocketAddr::new(ip, target.address.port));
            if at.is_some_and(|at| !self.here.policy.allows(at)) {
                return Err(format!("the target {} is not allowed at this node", target.address));
            }
        }
        Ok(Some(Arc::new(rule)))
    }

    fn is_active(&mut self, serving: Serving) {
        let id = serving.id.clone();
        let mut standings = self.lock();
        standings.active.insert(id.clone());
        standings.elsewhere.remove(&id);
        drop(standings);
        self.forgive(&id);
        self.active.insert(id, serving);
    }

    /// Forgets that something of this rule was rejected, and what was kept for then.
    fn forgive(&mut self, id: &RuleId) {
        let was_rejected = self.lock().rejected.remove(id).is_some();
        // Both: what is left here would come into force after a later rejection.
        let was_kept = self.fallback.remove(id).is_some();
        if was_rejected || was_kept {
            self.disk.fallback(id.clone(), None);
        }
    }

    fn gone(&mut self, id: &RuleId) -> Vec<RouteChange> {
        self.active.remove(id);
        let mut standings = self.lock();
        standings.active.remove(id);
        standings.elsewhere.remove(id);
        drop(standings);
        self.forgive(id);
        let created = crate::model::moment::WallTime(0);
        vec![RouteChange { id: id.clone(), version: None, rule: None, created }]
    }

    /// Keeps what was in force, or what the disk remembers of it.
    fn reject(&mut self, serving: &Serving, why: String) -> Vec<RouteChange> {
        let id = &serving.id;
        tracing::warn!(rule = %id, %why, "a rule cannot be put in force; its last version stays");
        let version = serving.version.unwrap_or(Version::FIRST);
        let rejected = RejectedRule { id: id.clone(), version, why };
        self.lock().rejected.insert(id.clone(), rejected);
        if let Some(active) = self.active.get(id) {
            if let (Some(version), false) = (active.version, active.overlay) {
                self.disk.fallback(id.clone(), Some((version, active.data.clone())));
            }
            return Vec::new();
        }
        let Some((version, data)) = self.fallback.get(id).cloned() else { return Vec::new() };
        let before = Serving { version: Some(version), data, overlay: false, ..serving.clone() };
        match self.judge(&before) {
            Ok(Some(rule)) => {
                self.lock().active.insert(id.clone());
                let change = change(&before, rule);
                self.active.insert(id.clone(), before);
                vec![change]
            }
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standings> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(serving: &Serving, rule: Arc<Rule>) -> RouteChange {
    RouteChange {
        id: serving.id.clone(),
        version: serving.version,
        rule: Some(rule),
        created: serving.created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::moment::WallTime;
    use crate::model::rule_set::FileRule;
    use crate::wire::rule_document::rules_from_yaml_or_json;

    #[test]
    fn a_rule_that_begins_anew_does_not_fall_back_on_its_former_life() {
        let directory = tempfile::tempdir().unwrap();
        let disk = super::super::disk::open(directory.path(), |_, _| {}).unwrap().disk;
        let id = RuleId::parse("one").unwrap();
        let parsed = rules_from_yaml_or_json("id: one\ndata: { respond: {} }\n").unwrap();
        let good = parsed.into_iter().next().unwrap().data;
        let policy = Arc::new(AddressPolicy { loopback: false, own: Vec::new() });
        let mut work = Work {
            here: Here { region: String::new(), labels: BTreeMap::new(), policy },
            disk,
            routes: Arc::new(Mutex::new(RoutesState::new(Arc::default()))),
            standings: Arc::default(),
            fallback: BTreeMap::from([(id.clone(), (Version::FIRST, good))]),
            active: BTreeMap::new(),
        };
        let mut says = |version: u64, data: Option<&'static [u8]>| {
            let mut set = RuleSet::default();
            if let Some(data) = data.map(Bytes::from_static) {
                let version = Version::new(version).unwrap();
                set.file.insert(id.clone(), FileRule { version, data, created: WallTime(1) });
            }
            let rejected = work.activate(&set, Changed::Rules(vec![id.clone()])).len();
            (rejected, work.active.len(), work.lock().active.len())
        };
        assert_eq!(says(2, Some(b"not a rule")), (1, 1, 1), "the disk remembers a better one");
        assert_eq!(says(2, None), (0, 0, 0));
        assert_eq!(says(3, Some(b"not a rule")), (1, 0, 0));
    }
}
