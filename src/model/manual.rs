//! Overrides: rule versions written by hand at a node while no orchestrator could be reached.
//!
//! Each is self-contained: signed by its author, with the author's certificate. The set of them
//! is a join semilattice per rule, so nodes agree whatever arrives in whatever order. Overlays,
//! which never leave a node, live in `rule_set`.

use std::cmp::Reverse;
use std::sync::Arc;

use imbl::OrdMap;

use super::ids::{ClusterId, NodeId, RuleId, Version};
use super::key::{Domain, PrivateKey, PublicKey, Signature};
use super::ledger::Ledger;
use super::limits;
use super::moment::WallTime;
use super::record::{Body, hash_bytes};

/// A rule version written by hand at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The fleet; zeros in open mode, where there is none yet.
    pub cluster: ClusterId,
    /// Which rule.
    pub id: RuleId,
    /// One above what was in force at the author, or what the writer named.
    pub version: Version,
    /// The version of the ledger that the author stood on; 0 when the ledger lacked the rule.
    pub base: u64,
    /// What the version says.
    pub body: Body,
    /// The author.
    pub node: NodeId,
    /// The author's wall clock.
    pub written: WallTime,
    /// The author's key.
    pub key: PublicKey,
    /// By the author's key over all of the above.
    pub signature: Signature,
    /// Why the author may write; none in open mode.
    pub certificate: Option<AuthorCertificate>,
}

/// The orchestrator's word that a node with this key may write overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorCertificate {
    /// The fleet.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's own key.
    pub key: PublicKey,
    /// The cluster key that signed.
    pub issuer: PublicKey,
    /// By the issuer.
    pub signature: Signature,
}

/// The name of one override: enough to see who lacks what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OverrideMark {
    /// Which rule.
    pub id: RuleId,
    /// Its version.
    pub version: Version,
    /// Its author.
    pub node: NodeId,
}

/// Equal summaries mean equal sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverrideSummary {
    /// How many there are.
    pub count: u64,
    /// Exclusive or of their hashes.
    pub hash: [u8; 32],
}

/// The winning override of each rule.
#[derive(Clone, Debug, Default)]
pub struct OverrideSet {
    held: OrdMap<RuleId, Arc<Override>>,
    // Invariant: of exactly what is held.
    summary: OverrideSummary,
}

/// What became of an override that was merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is in force now; the one that it beat, if any.
    Won(Option<Arc<Override>>),
    /// It was held already.
    Known,
    /// The one held beats it.
    Lost,
    /// The set is full.
    Full,
}

/// Why an override counts for nothing beside a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// The ledger's version is at least its own.
    Overtaken,
    /// It is further above the ledger than any honest author goes.
    TooFar,
}

impl Override {
    /// Signs what is in the fields; `signature` is filled in.
    pub fn sign(self, key: &PrivateKey) -> Override {
        let unsigned = Override { key: key.public(), ..self };
        let signature = key.sign(Domain::Override, &unsigned.hash());
        Override { signature, ..unsigned }
    }

    /// Whether its key really signed it, and the certificate, if any, is for this author.
    ///
    /// Whether the certificate's issuer counts is `trust`'s business.
    pub fn holds(&self) -> bool {
        let named = self.certificate.as_ref().is_none_or(|certificate| {
            certificate.node == self.node
                && certificate.key == self.key
                && certificate.cluster == self.cluster
        });
        named && self.key.verifies(Domain::Override, &self.hash(), &self.signature)
    }

    /// What is signed: a hash over every field but the signature and the certificate.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.cluster.0);
        hash_bytes(&mut hasher, self.id.as_str().as_bytes());
        for number in [self.version.get(), self.base, self.written.0] {
            hasher.update(&number.to_le_bytes());
        }
        self.body.hash_into(&mut hasher);
        hash_bytes(&mut hasher, self.node.as_str().as_bytes());
        hasher.update(&self.key.0);
        *hasher.finalize().as_bytes()
    }

    /// Its name.
    pub fn mark(&self) -> OverrideMark {
        OverrideMark { id: self.id.clone(), version: self.version, node: self.node.clone() }
    }

    /// Why it counts for nothing beside this ledger, if so.
    pub fn void_beside(&self, ledger: Option<&Ledger>) -> Option<Void> {
        let ledger = ledger?;
        let top = ledger.head().top;
        let known = ledger.record(&self.id).map_or(top, |record| record.version.get());
        let version = self.version.get();
        if version <= known {
            Some(Void::Overtaken)
        } else if version > known.max(top) + limits::VERSION_JUMP {
            Some(Void::TooFar)
        } else {
            None
        }
    }

    /// The greater one is in force: version, then the lesser node id, then the lesser hash.
    fn rank(&self) -> (Version, Reverse<&NodeId>, Reverse<[u8; 32]>) {
        (self.version, Reverse(&self.node), Reverse(self.hash()))
    }
}

impl AuthorCertificate {
    /// Signs that `node` with `key` may write overrides in this fleet.
    pub fn sign(
        cluster: ClusterId,
        node: NodeId,
        key: PublicKey,
        issuer: &PrivateKey,
    ) -> AuthorCertificate {
        let signature = Signature([0; 64]);
        let unsigned = AuthorCertificate { cluster, node, key, issuer: issuer.public(), signature };
        let signature = issuer.sign(Domain::Author, &unsigned.statement());
        AuthorCertificate { signature, ..unsigned }
    }

    /// Whether its issuer really signed it.
    pub fn holds(&self) -> bool {
        self.issuer.verifies(Domain::Author, &self.statement(), &self.signature)
    }

    fn statement(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(self.node.as_str().as_bytes());
        bytes
    }
}

impl OverrideSet {
    /// Takes an override in if it beats what is held. The caller has verified it.
    pub fn merge(&mut self, offered: Arc<Override>) -> Merged {
        match self.held.get(&offered.id) {
            Some(held) if held.hash() == offered.hash() => return Merged::Known,
            Some(held) if held.rank() > offered.rank() => return Merged::Lost,
            None if self.held.len() >= limits::OVERRIDES => return Merged::Full,
            _ => {}
        }
        self.summary.mix(&offered);
        self.summary.count += 1;
        let beaten = self.held.insert(offered.id.clone(), offered);
        if let Some(beaten) = &beaten {
            self.summary.mix(beaten);
            self.summary.count -= 1;
        }
        Merged::Won(beaten)
    }

    /// Takes out the override of a rule.
    pub fn remove(&mut self, id: &RuleId) -> Option<Arc<Override>> {
        let removed = self.held.remove(id)?;
        self.summary.mix(&removed);
        self.summary.count -= 1;
        Some(removed)
    }

    /// The override of a rule.
    pub fn of(&self, id: &RuleId) -> Option<&Arc<Override>> {
        self.held.get(id)
    }

    /// All of them, by rule id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Override>> {
        self.held.values()
    }

    /// The names of at most `most` of them, from the first id not below `from` on, going round.
    pub fn marks(&self, from: &RuleId, most: usize) -> Vec<OverrideMark> {
        let after = self.held.range(from.clone()..).map(|(_, held)| held.mark());
        let before = self.held.range(..from.clone()).map(|(_, held)| held.mark());
        after.chain(before).take(most).collect()
    }

    /// What to compare with a peer's.
    pub fn summary(&self) -> OverrideSummary {
        self.summary
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl OverrideSummary {
    fn mix(&mut self, one: &Override) {
        for (byte, other) in self.hash.iter_mut().zip(one.hash()) {
            *byte ^= other;
        }
    }
}

#[cfg(test)]
mod tests;
