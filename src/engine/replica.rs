//! What a node holds about rules and whom it believes: the ledger, overrides, trust.
//!
//! Knows nothing of peers, streams or timers. Invariant: nothing gets in that is not vouched for
//! by a signature that counts, and no position or version falls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use crate::model::delta::{Changes, Delta, Refusal};
use crate::model::follow::Path;
use crate::model::head::{Beacon, Position, SignedHead};
use crate::model::ids::{ClusterId, NodeId, PeerAddr, RuleId, Version};
use crate::model::key::{KeyLink, PublicKey};
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::manual::{AuthorCertificate, Merged, Override};
use crate::model::moment::Moment;
use crate::model::rule_set::RuleSet;
use crate::model::trust::{Trust, TrustSource};

use super::config::Keep;
use super::port::Changed;

/// What a node holds about rules and whom it believes.
pub(super) struct Replica {
    pub(super) set: RuleSet,
    pub(super) trust: Trust,
    pub(super) certificate: Option<AuthorCertificate>,
    pub(super) path: Path,
    pub(super) confirmed: bool,
    pub(super) alarm: String,
    /// The next question shall ask for the whole ledger.
    pub(super) resync: bool,
    authored: OrdMap<(RuleId, Version), Arc<Override>>,
    pins: BTreeMap<NodeId, PublicKey>,
    high_water: Option<Position>,
    beacon: Option<(Beacon, Moment)>,
    /// The highest head that a signature which counts vouches for, and since when it is ahead.
    known: Option<(SignedHead, Moment)>,
    agreeing: Vec<PeerAddr>,
}

/// What a head from elsewhere means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadNews {
    /// It is ahead of what is held.
    Ahead(Position),
    /// It is exactly what is held.
    Same,
    /// It is behind what is held.
    Behind(Position),
    /// It says something else about the same position: a fork, or damage here.
    Contradicts,
    /// Its signature does not count.
    Unbelieved,
}

/// What became of an override offered from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in force now.
    Won,
    /// It changes nothing here.
    Nothing,
    /// It is not believed; the reason is a stable word.
    Refused(&'static str),
}

/// What a delta changed.
pub(super) struct Applied {
    pub(super) changed: Changed,
    pub(super) rules: usize,
    pub(super) void: Vec<(RuleId, Version)>,
}

impl Replica {
    pub(super) fn new(keep: Keep, trusted: Vec<PublicKey>, now: Moment) -> Replica {
        let mut trust = keep.trust;
        if !trusted.is_empty() && trusted != trust.anchors() {
            trust = Trust::configured(trusted);
        }
        let ledger = keep.ledger.filter(|ledger| trust.accepts_head(ledger.signed()));
        let high_water = keep.high_water.max(ledger.as_ref().map(Ledger::position));
        let mut set = RuleSet { ledger, ..RuleSet::default() };
        for held in keep.overrides.iter() {
            if held.holds() && held.void_beside(set.ledger.as_ref()).is_none() {
                set.overrides.merge(held.clone());
            }
        }
        Replica {
            set,
            trust,
            certificate: keep.certificate,
            path: Path::Disk,
            confirmed: false,
            alarm: String::new(),
            resync: false,
            authored: keep.authored,
            pins: keep.pins,
            high_water,
            beacon: keep.beacon.map(|beacon| (beacon, now)),
            known: None,
            agreeing: Vec::new(),
        }
    }

    pub(super) fn keep(&self) -> Keep {
        Keep {
            ledger: self.set.ledger.clone(),
            high_water: self.high_water,
            overrides: self.set.overrides.clone(),
            authored: self.authored.clone(),
            certificate: self.certificate.clone(),
            trust: self.trust.clone(),
            pins: self.pins.clone(),
            beacon: self.beacon.map(|(beacon, _)| beacon),
        }
    }

    /// No orchestrator is trusted and none was ever seen: overrides are the configuration.
    pub(super) fn open_mode(&self) -> bool {
        self.set.ledger.is_none() && self.trust.source() == TrustSource::Nobody
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.set.ledger.as_ref().map(Ledger::position)
    }

    pub(super) fn cluster(&self) -> Option<ClusterId> {
        let from_ledger = self.set.ledger.as_ref().map(|ledger| ledger.head().cluster);
        from_ledger.or_else(|| self.certificate.as_ref().map(|own| own.cluster))
    }

    pub(super) fn beacon(&self) -> Option<&Beacon> {
        self.beacon.as_ref().map(|(beacon, _)| beacon)
    }

    /// Since a higher tick first arrived.
    pub(super) fn staleness(&self, now: Moment) -> Option<Duration> {
        self.beacon.map(|(_, at)| now.since(at))
    }

    /// The position that is known to exist, and since when something of it is lacking.
    pub(super) fn known(&self) -> Option<Position> {
        self.known.map(|(signed, _)| signed.position()).max(self.position())
    }

    /// Since when something that is known to exist is lacking.
    pub(super) fn behind_since(&self) -> Option<Moment> {
        let (signed, since) = self.known.as_ref()?;
        (Some(signed.position()) > self.position()).then_some(*since)
    }

    /// The key of the first orchestrator at a configured URL. Drops what another cluster left.
    pub(super) fn pin(&mut self, key: PublicKey, cluster: ClusterId) -> bool {
        let learned = key.cluster() == cluster && self.trust.learn(key, TrustSource::Pinned);
        if learned {
            let trust = &self.trust;
            let foreign =
                self.set.ledger.as_ref().is_some_and(|held| !trust.accepts_head(held.signed()));
            if foreign {
                self.set.ledger = None;
                self.high_water = None;
                self.known = None;
                self.beacon = None;
                self.resync = true;
            }
        }
        learned
    }

    pub(super) fn follow(&mut self, link: &KeyLink) -> bool {
        if self.trust.source() == TrustSource::Nobody && link.old.cluster() == link.cluster {
            self.trust.learn(link.old, TrustSource::Provisional);
        }
        self.trust.follow(link)
    }

    /// Looks at a head from elsewhere; remembers it when it is ahead.
    pub(super) fn offer_head(&mut self, signed: &SignedHead, now: Moment) -> HeadNews {
        if let Some(ledger) = &self.set.ledger {
            if ledger.signed() == signed {
                return HeadNews::Same;
            }
            let position = signed.position();
            let mine = ledger.position();
            if signed.head.cluster != ledger.head().cluster {
                return HeadNews::Unbelieved;
            }
            if position < mine {
                return HeadNews::Behind(position);
            }
            if position == mine {
                if signed.head == *ledger.head() {
                    return HeadNews::Same;
                }
                let believed = self.trust.accepts_head(signed);
                return if believed { HeadNews::Contradicts } else { HeadNews::Unbelieved };
            }
        }
        if self.known.is_some_and(|(known, _)| known == *signed) {
            return HeadNews::Ahead(signed.position());
        }
        self.learn_provisionally(signed);
        if !self.trust.accepts_head(signed) {
            return HeadNews::Unbelieved;
        }
        self.note_known(*signed, now);
        HeadNews::Ahead(signed.position())
    }

    /// Takes a beacon that proves more freshness than the one held; returns whether it did.
    pub(super) fn offer_beacon(&mut self, beacon: &Beacon, now: Moment) -> Result<bool, ()> {
        if self.beacon.as_ref().is_some_and(|(held, _)| !beacon.is_newer_than(held)) {
            return Ok(false);
        }
        let foreign = self.cluster().is_some_and(|own| own != beacon.head.cluster);
        if foreign || !self.trust.accepts_beacon(beacon) {
            return Err(());
        }
        self.beacon = Some((*beacon, now));
        Ok(true)
    }

    /// A beacon vouches for its head: remembers it when it is ahead.
    pub(super) fn note_beacon_head(&mut self, beacon: &Beacon, now: Moment) {
        let as_head =
            SignedHead { head: beacon.head, key: beacon.key, signature: beacon.signature };
        self.note_known(as_head, now);
    }

    fn note_known(&mut self, signed: SignedHead, now: Moment) {
        if self.position() >= Some(signed.position()) {
            return;
        }
        let since = self.behind_since();
        if self.known.is_none_or(|(known, _)| known.position() < signed.position()) {
            self.known = Some((signed, since.unwrap_or(now)));
        }
    }

    /// With nobody to trust, the first valid head of a peer gives a key to go on with.
    fn learn_provisionally(&mut self, signed: &SignedHead) {
        let first_key = signed.key.cluster() == signed.head.cluster;
        if self.trust.source() == TrustSource::Nobody && first_key && signed.holds() {
            self.trust.learn(signed.key, TrustSource::Provisional);
        }
    }

    /// Somebody else stands exactly where this ledger does.
    pub(super) fn note_agreement(&mut self, peer: PeerAddr, needed: usize) {
        if self.confirmed || self.agreeing.contains(&peer) {
            return;
        }
        self.agreeing.push(peer);
        self.confirmed = self.agreeing.len() >= needed.clamp(1, 3);
    }

    /// Moves the ledger by a delta, or says why not; then nothing was touched.
    pub(super) fn apply(&mut self, delta: &Delta, path: Path) -> Result<Applied, Refusal> {
        self.learn_provisionally(&delta.to);
        let next = match &self.set.ledger {
            Some(ledger) => ledger.apply(delta, &self.trust)?,
            None => {
                let next = Ledger::from_replace(delta, &self.trust)?;
                if self.high_water.is_some_and(|mark| next.position() < mark) {
                    return Err(Refusal::NotNewer);
                }
                next
            }
        };
        let top_rose = self.set.ledger.as_ref().map_or(0, |l| l.head().top) < next.head().top;
        let rises_epoch = self.position().is_some_and(|p| p.epoch < next.position().epoch);
        self.set.ledger = Some(next);
        self.high_water = self.high_water.max(self.position());
        self.path = path;
        self.resync = false;
        self.agreeing.clear();
        if rises_epoch {
            self.alarm.clear();
        }
        let replaced = delta.is_replace();
        let ids: Vec<RuleId> = delta.records.iter().map(|record| record.id.clone()).collect();
        let void = if replaced || top_rose {
            let all: Vec<RuleId> = self.set.overrides.iter().map(|o| o.id.clone()).collect();
            self.drop_void(&all)
        } else {
            self.drop_void(&ids)
        };
        let rules = ids.len();
        let changed = if replaced { Changed::Everything } else { Changed::Rules(ids) };
        Ok(Applied { changed, rules, void })
    }

    /// A delta led elsewhere than its head says: is it this ledger that is damaged?
    ///
    /// If so the ledger is given up (requests go on with what is active) and asked for anew.
    pub(super) fn doubt_oneself(&mut self) -> bool {
        let damaged = self.set.ledger.as_ref().is_some_and(|ledger| !ledger.is_intact());
        if damaged {
            self.set.ledger = None;
        }
        self.resync = true;
        damaged
    }

    fn drop_void(&mut self, ids: &[RuleId]) -> Vec<(RuleId, Version)> {
        let mut void = Vec::new();
        for id in ids {
            let Some(held) = self.set.overrides.of(id) else { continue };
            let known = self.set.ledger.as_ref().map_or(0, |ledger| {
                ledger.record(id).map_or(ledger.head().top, |record| record.version.get())
            });
            if held.version.get() <= known {
                void.push((id.clone(), held.version));
                self.set.overrides.remove(id);
            }
        }
        void
    }

    /// Takes an override that somebody else holds, if it is believed and beats what is held.
    pub(super) fn take_override(&mut self, offered: Override) -> Taken {
        let ledger = self.set.ledger.as_ref();
        match offered.void_beside(ledger) {
            Some(crate::model::manual::Void::Overtaken) => return Taken::Nothing,
            Some(crate::model::manual::Void::TooFar) => return Taken::Refused("version_jump"),
            None => {}
        }
        if self.set.overrides.of(&offered.id).is_some_and(|held| held.hash() == offered.hash()) {
            return Taken::Nothing;
        }
        if let Err(reason) = self.believes(&offered) {
            return Taken::Refused(reason);
        }
        match self.set.overrides.merge(Arc::new(offered)) {
            Merged::Won(_) => Taken::Won,
            Merged::Known | Merged::Lost => Taken::Nothing,
            Merged::Full => Taken::Refused("too_many_overrides"),
        }
    }

    fn believes(&mut self, offered: &Override) -> Result<(), &'static str> {
        if !offered.holds() {
            return Err("bad_override_signature");
        }
        if let Some(certificate) = &offered.certificate {
            let own = self.cluster().unwrap_or(certificate.cluster);
            if self.trust.accepts_certificate(certificate, own) {
                return Ok(());
            }
        }
        if !self.open_mode() || offered.certificate.is_some() {
            return Err("no_author_certificate");
        }
        match self.pins.get(&offered.node) {
            Some(pinned) if *pinned == offered.key => Ok(()),
            Some(_) => Err("author_key_changed"),
            None if self.pins.len() >= limits::PINNED_AUTHORS => Err("too_many_authors"),
            None => {
                self.pins.insert(offered.node.clone(), offered.key);
                Ok(())
            }
        }
    }

    /// Takes this node's own override: it is in force and waits to be acknowledged.
    pub(super) fn author(&mut self, own: Override) {
        if own.certificate.is_none() {
            self.pins.insert(own.node.clone(), own.key);
        }
        let own = Arc::new(own);
        self.authored.insert((own.id.clone(), own.version), own.clone());
        self.set.overrides.merge(own);
    }

    /// Everything that an orchestrator has not acknowledged yet, as far as this node knows.
    pub(super) fn to_hand_in(&self) -> Vec<Override> {
        let held = self.set.overrides.iter().map(|held| (**held).clone());
        let own = self.authored.values().filter(|own| {
            self.set.overrides.of(&own.id).is_none_or(|held| held.hash() != own.hash())
        });
        held.chain(own.map(|own| (**own).clone())).collect()
    }

    /// An orchestrator has dealt with this override.
    pub(super) fn settled(&mut self, id: &RuleId, version: Version, node: &NodeId) -> bool {
        let key = (id.clone(), version);
        let own = self.authored.get(&key).is_some_and(|own| own.node == *node);
        own && self.authored.remove(&key).is_some()
    }

    /// The same for one that the orchestrator refused: it is not in force any more either.
    pub(super) fn withdraw(&mut self, id: &RuleId, version: Version, node: &NodeId) -> bool {
        let held = self
            .set
            .overrides
            .of(id)
            .is_some_and(|held| held.version == version && held.node == *node);
        held && self.set.overrides.remove(id).is_some()
    }

    /// The effective versions of what changed after a position, for a peer that stands there.
    pub(super) fn newer_than(&self, position: Option<Position>) -> Vec<(RuleId, Version)> {
        let Some(ledger) = &self.set.ledger else { return Vec::new() };
        let Some(position) = position else { return Vec::new() };
        match ledger.changes_since(Some(position)) {
            Changes::Delta(delta) if !delta.is_replace() => delta
                .records
                .iter()
                .rev()
                .take(limits::DIGEST_VERSIONS)
                .map(|record| (record.id.clone(), record.version))
                .collect(),
            _ => Vec::new(),
        }
    }
}
