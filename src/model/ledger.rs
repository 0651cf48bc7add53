//! The orchestrator's rules at one revision: the compacted history.
//!
//! One structure for the orchestrator, every node and the disk. Two operations carry the whole
//! protocol: `changes_since` and `apply`. Both cost O(changes): the maps are persistent, the
//! lattice moves by what an insert or a removal returns, and a staged copy shares all the rest.
//! No network, no disk; bodies are opaque bytes.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::delta::{Basis, Changes, Delta, Refusal};
use super::fingerprint::{Fingerprint, Lattice};
use super::head::{Branch, Head, Position, SignedHead};
use super::ids::{ClusterId, Epoch, Revision, RuleId, Version};
use super::limits;
use super::moment::WallTime;
use super::record::{Body, Record};
use super::trust::Trust;

/// The rules at one revision, with the head that vouches for them.
#[derive(Clone, Debug)]
pub struct Ledger {
    content: Content,
    // Invariant: `signed.head` describes `content`; branches are in order and lead to its epoch.
    signed: SignedHead,
    branches: Vec<Branch>,
}

/// One change in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which rule.
    pub id: RuleId,
    /// Its new version; must be above the held one, and above `top` for an unknown id.
    pub version: Version,
    /// What it says from now on.
    pub body: Body,
}

/// Rules and their indexes, without a signature.
#[derive(Clone, Debug)]
struct Content {
    rules: OrdMap<RuleId, Arc<Record>>,
    // Invariant: exactly one entry per rule.
    by_revision: OrdSet<(Revision, RuleId)>,
    // Invariant: exactly the retired ones.
    retired: OrdSet<(Revision, RuleId)>,
    lattice: Arc<Lattice>,
    top: u64,
}

impl Ledger {
    /// The beginning of a fleet's history: nothing in it, at revision 0 of the first epoch.
    pub fn genesis(cluster: ClusterId, sign: impl FnOnce(Head) -> SignedHead) -> Ledger {
        let content = Content::empty();
        let head = Head {
            cluster,
            epoch: FIRST_EPOCH,
            revision: Revision(0),
            floor: Revision(0),
            top: 0,
            fingerprint: content.fingerprint(),
        };
        Ledger { content, signed: sign(head), branches: Vec::new() }
    }

    /// Takes a whole ledger from a replacement, without a ledger to compare with.
    pub fn from_replace(delta: &Delta, trust: &Trust) -> Result<Ledger, Refusal> {
        if !delta.is_replace() {
            return Err(Refusal::NeedsReplace);
        }
        if !trust.accepts_head(&delta.to) {
            return Err(Refusal::BadSignature);
        }
        let head = &delta.to.head;
        check_branches(&delta.branches, head, trust)?;
        // Every history begins in the first epoch; only the oldest of too many are forgotten.
        let begins = match delta.branches.first() {
            Some(first) => first.parent == FIRST_EPOCH || delta.branches.len() == limits::BRANCHES,
            None => head.epoch == FIRST_EPOCH,
        };
        if !begins {
            return Err(Refusal::Malformed);
        }
        check_records(&delta.records, Revision(0), head.revision)?;
        let mut content = Content::empty();
        content.top = head.top;
        for record in &delta.records {
            if record.body.is_retired() && record.revision <= head.floor {
                return Err(Refusal::Malformed);
            }
            if content.insert(record.clone()).is_some() {
                return Err(Refusal::Malformed);
            }
        }
        if content.fingerprint() != head.fingerprint {
            return Err(Refusal::WrongFingerprint);
        }
        Ok(Ledger { content, signed: delta.to, branches: delta.branches.clone() })
    }

    /// What somebody at `position` lacks. `None` asks for everything.
    ///
    /// Costs O(changes). A replacement where the asker's history cannot be continued.
    pub fn changes_since(&self, position: Option<Position>) -> Changes {
        let head = &self.signed.head;
        if position.is_some_and(|at| at >= head.position()) {
            return Changes::Current;
        }
        let floor = head.floor;
        match position.filter(|at| self.passes_through(*at) && at.revision >= floor) {
            Some(at) => Changes::Delta(Delta {
                basis: Basis::After(at),
                to: self.signed,
                branches: self.branches.iter().filter(|b| b.epoch > at.epoch).copied().collect(),
                records: self.content.changed_after(at.revision),
            }),
            None => Changes::Delta(self.replacement()),
        }
    }

    /// The whole ledger as a delta.
    pub fn replacement(&self) -> Delta {
        Delta {
            basis: Basis::Nothing,
            to: self.signed,
            branches: self.branches.clone(),
            records: self.content.changed_after(Revision(0)),
        }
    }

    /// Whether this history passes through `position`, as far as positions tell.
    fn passes_through(&self, position: Position) -> bool {
        let opened = self.branches.iter().find(|branch| branch.epoch == position.epoch);
        let begun = opened.is_none_or(|branch| position.revision > branch.revision);
        let left = self.branches.iter().find(|branch| branch.parent == position.epoch);
        let end = match left {
            Some(branch) => branch.revision,
            None if position.epoch == self.signed.head.epoch => self.signed.head.revision,
            None => return false,
        };
        begun && position.revision <= end
    }

    /// The ledger after `delta`; this one stays as it is.
    ///
    /// Checks everything: cluster, that it leads forward, that it builds on this history, order
    /// and range of the records, that versions rise, signatures, and the resulting fingerprint.
    pub fn apply(&self, delta: &Delta, trust: &Trust) -> Result<Ledger, Refusal> {
        let mine = self.signed.head;
        let to = delta.to.head;
        if to.cluster != mine.cluster {
            return Err(Refusal::OtherCluster);
        }
        if to.position() <= mine.position() {
            return Err(Refusal::NotNewer);
        }
        match delta.basis {
            Basis::Nothing => self.apply_replace(delta, trust),
            Basis::After(from) => self.apply_changes(from, delta, trust),
        }
    }

    fn apply_replace(&self, delta: &Delta, trust: &Trust) -> Result<Ledger, Refusal> {
        let next = Ledger::from_replace(delta, trust)?;
        // A new epoch may leave out what lay beyond its branch point, and it is what ends a fork.
        if next.signed.head.epoch == self.signed.head.epoch {
            self.check_continued(&next)?;
        }
        Ok(next)
    }

    /// Within one epoch history is one line: no version falls, nothing retired returns, no
    /// version has two bodies.
    fn check_continued(&self, next: &Ledger) -> Result<(), Refusal> {
        let mine = &self.signed.head;
        let to = &next.signed.head;
        if to.floor < mine.floor || to.top < mine.top {
            return Err(Refusal::Malformed);
        }
        for record in next.content.rules.values() {
            self.content.admits(record, mine.revision)?;
        }
        for record in self.content.rules.values() {
            let kept = next.content.rules.contains_key(&record.id);
            if !kept && record.version.get() > to.top {
                return Err(Refusal::Contradiction(record.id.clone(), record.version));
            }
        }
        Ok(())
    }

    fn apply_changes(
        &self,
        from: Position,
        delta: &Delta,
        trust: &Trust,
    ) -> Result<Ledger, Refusal> {
        let mine = self.signed.head;
        let to = delta.to.head;
        // Signatures first: who forges is blamed, and cannot make anybody ask for a replacement.
        if !trust.accepts_head(&delta.to) {
            return Err(Refusal::BadSignature);
        }
        let (known, fresh): (Vec<Branch>, Vec<Branch>) =
            delta.branches.iter().partition(|branch| branch.epoch <= mine.epoch);
        check_branches(&fresh, &to, trust)?;
        let same = known.iter().all(|branch| self.branches.contains(branch));
        let covered = match fresh.first() {
            Some(branch) => self.stands_before(branch),
            None => to.epoch == mine.epoch,
        };
        let reaches =
            from <= mine.position() && from.revision <= mine.revision && mine.revision >= to.floor;
        if !reaches || !same || !covered {
            return Err(Refusal::NeedsReplace);
        }
        if to.floor < mine.floor || to.top < mine.top || to.revision < mine.revision {
            return Err(Refusal::Malformed);
        }
        check_records(&delta.records, from.revision, to.revision)?;
        let mut content = self.content.clone();
        for record in &delta.records {
            content.take(record, mine.revision)?;
        }
        content.drop_retired(to.floor);
        // A retired rule may have been dropped and written anew between two heads: what was
        // dropped is not seen here then, so the signed `top` may be above what was counted.
        if content.top > to.top || content.fingerprint() != to.fingerprint {
            return Err(Refusal::WrongFingerprint);
        }
        content.top = to.top;
        let branches = self.branches.iter().copied().chain(fresh).collect();
        Ok(Ledger { content, signed: delta.to, branches: newest(branches) })
    }

    /// Whether the history that leaves at this branch point goes on from here.
    fn stands_before(&self, branch: &Branch) -> bool {
        let mine = &self.signed.head;
        let differs = mine.revision == branch.revision && mine.fingerprint != branch.fingerprint;
        branch.parent == mine.epoch && mine.revision <= branch.revision && !differs
    }

    /// The ledger after a commit of these changes; for the one who holds the key.
    ///
    /// # Errors
    /// `Contradiction` names the first rule whose version would not rise; `Malformed` says that an
    /// id stands twice or that there are too many.
    pub fn commit(
        &self,
        changes: &[Change],
        now: WallTime,
        sign: impl FnOnce(Head) -> SignedHead,
    ) -> Result<Ledger, Refusal> {
        self.commit_keeping(limits::RETIRED, changes, now, sign)
    }

    /// A commit that lets about so many retired rules be remembered.
    fn commit_keeping(
        &self,
        retired: usize,
        changes: &[Change],
        now: WallTime,
        sign: impl FnOnce(Head) -> SignedHead,
    ) -> Result<Ledger, Refusal> {
        if changes.len() > limits::COMMIT_RULES {
            return Err(Refusal::Malformed);
        }
        let mine = self.signed.head;
        let revision = mine.revision.next();
        let mut content = self.content.clone();
        let mut seen = std::collections::BTreeSet::new();
        for change in changes {
            if !seen.insert(&change.id) {
                return Err(Refusal::Malformed);
            }
            let held = content.rules.get(&change.id);
            let lived = held.filter(|record| !record.body.is_retired());
            let record = Record {
                id: change.id.clone(),
                version: change.version,
                revision,
                created: lived.map_or(now, |record| record.created),
                changed: now,
                body: change.body.clone(),
            };
            content.take(&Arc::new(record), mine.revision)?;
        }
        if content.rules.len() > limits::RULES {
            return Err(Refusal::Malformed);
        }
        // Never above the revision before: who is one commit behind needs no replacement.
        let floor = content.next_floor(mine.floor, retired).min(mine.revision);
        content.drop_retired(floor);
        let head =
            Head { revision, floor, top: content.top, fingerprint: content.fingerprint(), ..mine };
        Ok(Ledger { content, signed: sign(head), branches: self.branches.clone() })
    }

    /// The ledger in a new epoch: same content, one revision on, with the branch point.
    pub fn open_epoch(
        &self,
        epoch: Epoch,
        branch: impl FnOnce(&Head) -> Branch,
        sign: impl FnOnce(Head) -> SignedHead,
    ) -> Ledger {
        let mine = self.signed.head;
        assert!(epoch > mine.epoch, "an epoch opens after the one it leaves");
        let mut branches = self.branches.clone();
        branches.push(branch(&mine));
        let head = Head { epoch, revision: mine.revision.next(), ..mine };
        Ledger { content: self.content.clone(), signed: sign(head), branches: newest(branches) }
    }

    /// Signs the same content anew (a commit that is not the last of its group goes unsigned
    /// until then, and key rotation re-signs).
    pub fn signed_again(&self, sign: impl FnOnce(Head) -> SignedHead) -> Ledger {
        Ledger { signed: sign(self.signed.head), ..self.clone() }
    }

    /// Whether the content is still what the head says; O(rules).
    pub fn is_intact(&self) -> bool {
        let mut lattice = Lattice::empty();
        for record in self.content.rules.values() {
            lattice.add(&record.element());
        }
        lattice.fingerprint() == self.signed.head.fingerprint
    }

    /// Its head, signed.
    pub fn signed(&self) -> &SignedHead {
        &self.signed
    }

    /// Its head.
    pub fn head(&self) -> &Head {
        &self.signed.head
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.signed.head.position()
    }

    /// The branch points that led here, oldest first.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The newest version of a rule, live or retired.
    pub fn record(&self, id: &RuleId) -> Option<&Arc<Record>> {
        self.content.rules.get(id)
    }

    /// All rules by id, retired ones included.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.content.rules.values()
    }

    /// Those after an id (from the first where it is empty) that begin with a prefix, by id.
    pub fn records_from(&self, after: &str, prefix: &str) -> impl Iterator<Item = &Arc<Record>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = RuleId::parse(after).map_or(Unbounded, Excluded);
        let prefix = prefix.to_owned();
        let rest = self.content.rules.range((after, Unbounded)).map(|(_, record)| record);
        rest.filter(move |record| record.id.as_str().starts_with(&prefix))
    }

    /// What changed after a revision, oldest first; O(changes).
    pub fn changed_after(&self, revision: Revision) -> Vec<Arc<Record>> {
        self.content.changed_after(revision)
    }

    /// How many rules are live.
    pub fn live_count(&self) -> usize {
        self.content.rules.len() - self.content.retired.len()
    }

    /// How many retired rules are remembered.
    pub fn retired_count(&self) -> usize {
        self.content.retired.len()
    }

    /// The lowest version that a write of this rule may take.
    pub fn next_version(&self, id: &RuleId) -> Option<Version> {
        let last = self.record(id).map_or(self.content.top, |record| record.version.get());
        Version::new(last + 1)
    }
}

impl Content {
    fn empty() -> Content {
        Content {
            rules: OrdMap::new(),
            by_revision: OrdSet::new(),
            retired: OrdSet::new(),
            lattice: Arc::new(Lattice::empty()),
            top: 0,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        self.lattice.fingerprint()
    }

    fn changed_after(&self, revision: Revision) -> Vec<Arc<Record>> {
        let least = RuleId::parse("0").expect("a single digit is an id, and the least one");
        self.by_revision
            .range((revision.next(), least)..)
            .map(|(_, id)| self.rules.get(id).expect("the index names only held rules").clone())
            .collect()
    }

    /// Takes a record of a delta into a staged copy. `known` is the revision of the copied ledger.
    fn take(&mut self, record: &Arc<Record>, known: Revision) -> Result<(), Refusal> {
        self.admits(record, known)?;
        if record.revision > known {
            self.insert(record.clone());
        }
        Ok(())
    }

    /// Whether a record of a later ledger fits this content at revision `known`.
    fn admits(&self, record: &Arc<Record>, known: Revision) -> Result<(), Refusal> {
        let held = self.rules.get(&record.id);
        let fits = if record.revision <= known {
            held == Some(record)
        } else {
            record.version.get() > held.map_or(self.top, |held| held.version.get())
        };
        let contradiction = || Refusal::Contradiction(record.id.clone(), record.version);
        if fits { Ok(()) } else { Err(contradiction()) }
    }

    fn insert(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let key = (record.revision, record.id.clone());
        let lattice = Arc::make_mut(&mut self.lattice);
        lattice.add(&record.element());
        let retired = record.body.is_retired();
        let old = self.rules.insert(record.id.clone(), record);
        if let Some(old) = &old {
            lattice.remove(&old.element());
            let old_key = (old.revision, old.id.clone());
            self.by_revision.remove(&old_key);
            self.retired.remove(&old_key);
        }
        if retired {
            self.retired.insert(key.clone());
        }
        self.by_revision.insert(key);
        old
    }

    /// Drops retired rules last changed at or below `floor`; O(dropped).
    fn drop_retired(&mut self, floor: Revision) {
        while let Some(key) = self.retired.get_min().filter(|(at, _)| *at <= floor).cloned() {
            self.retired.remove(&key);
            self.by_revision.remove(&key);
            if let Some(old) = self.rules.remove(&key.1) {
                Arc::make_mut(&mut self.lattice).remove(&old.element());
                self.top = self.top.max(old.version.get());
            }
        }
    }

    /// Where the floor goes: up over the older half once too many retired rules are remembered.
    fn next_floor(&self, floor: Revision, most: usize) -> Revision {
        if self.retired.len() <= most {
            return floor;
        }
        let middle = self.retired.iter().nth(most / 2);
        middle.map_or(floor, |(revision, _)| (*revision).max(floor))
    }
}

/// Strictly rising by (revision, id), within (after, upto].
fn check_records(records: &[Arc<Record>], after: Revision, upto: Revision) -> Result<(), Refusal> {
    let in_range = records.iter().all(|r| r.revision > after && r.revision <= upto);
    let in_order =
        records.windows(2).all(|w| (w[0].revision, &w[0].id) < (w[1].revision, &w[1].id));
    let bounded = records.len() <= limits::RULES + limits::RETIRED;
    let mut ids: Vec<&RuleId> = records.iter().map(|r| &r.id).collect();
    ids.sort_unstable();
    let distinct = ids.windows(2).all(|w| w[0] != w[1]);
    if in_range && in_order && bounded && distinct { Ok(()) } else { Err(Refusal::Malformed) }
}

/// Branch points that follow from each other, signed, of the head's cluster, up to its epoch.
fn check_branches(branches: &[Branch], head: &Head, trust: &Trust) -> Result<(), Refusal> {
    let rising = branches.iter().all(|branch| branch.parent < branch.epoch);
    let linked = branches
        .windows(2)
        .all(|pair| pair[0].epoch == pair[1].parent && pair[0].revision < pair[1].revision);
    let arrives = branches
        .last()
        .is_none_or(|last| last.epoch == head.epoch && last.revision < head.revision);
    if branches.len() > limits::BRANCHES || !rising || !linked || !arrives {
        return Err(Refusal::Malformed);
    }
    let signed = branches.iter().all(|b| b.cluster == head.cluster && trust.accepts_branch(b));
    if signed { Ok(()) } else { Err(Refusal::BadSignature) }
}

/// The newest branch points, as many as are kept.
fn newest(mut branches: Vec<Branch>) -> Vec<Branch> {
    let beyond = branches.len().saturating_sub(limits::BRANCHES);
    branches.drain(..beyond);
    branches
}

/// Where every fleet's history begins.
const FIRST_EPOCH: Epoch = Epoch(1);

#[cfg(test)]
mod tests;
