//! Whose signature counts at a node.
//!
//! Keys come from configuration, from the first orchestrator at a configured URL, or, for want of
//! both, from a peer (provisional). A chain of links leads from those to later keys. Nothing is
//! believed because of who relayed it: every check here is over signed bytes.

use super::head::{Beacon, Branch, SignedHead};
use super::ids::{ClusterId, Epoch};
use super::key::{KeyLink, PublicKey};
use super::limits;
use super::manual::AuthorCertificate;

/// Whose signature counts.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    anchors: Vec<PublicKey>,
    source: TrustSource,
    // Invariant: each link holds, and its old key is an anchor or the new key of an earlier one.
    links: Vec<KeyLink>,
}

/// Where the anchors came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustSource {
    /// Nowhere: no key is trusted yet.
    #[default]
    Nobody,
    /// From peers only: served with, warned about, replaced by the first orchestrator.
    Provisional,
    /// From the first orchestrator at a configured URL.
    Pinned,
    /// From configuration.
    Configured,
}

impl Trust {
    /// Trusts these keys because configuration says so; none means nobody is trusted yet.
    pub fn configured(keys: Vec<PublicKey>) -> Trust {
        let source = if keys.is_empty() { TrustSource::Nobody } else { TrustSource::Configured };
        Trust { anchors: keys, source, links: Vec::new() }
    }

    /// Where the anchors came from.
    pub fn source(&self) -> TrustSource {
        self.source
    }

    /// The keys that everything else follows from.
    pub fn anchors(&self) -> &[PublicKey] {
        &self.anchors
    }

    /// The rotations followed so far, oldest first.
    pub fn links(&self) -> &[KeyLink] {
        &self.links
    }

    /// Takes the key of the first orchestrator at a configured URL, or of a peer.
    ///
    /// Returns whether anything changed: a stronger source replaces a weaker one only.
    pub fn learn(&mut self, key: PublicKey, source: TrustSource) -> bool {
        if (source as u8) <= (self.source as u8) {
            return false;
        }
        self.anchors = vec![key];
        self.source = source;
        self.links.clear();
        true
    }

    /// Follows a rotation; `false` when it does not hold or does not follow from what is trusted.
    pub fn follow(&mut self, link: &KeyLink) -> bool {
        let known = self.links.iter().any(|held| held == link);
        if known {
            return true;
        }
        let next = self.links.last().map_or(1, |last| last.serial + 1);
        let follows = self.links.last().map_or_else(
            || self.anchors.contains(&link.old),
            |last| {
                last.new == link.old
                    && last.cluster == link.cluster
                    && last.first_epoch <= link.first_epoch
            },
        );
        if self.links.len() >= limits::KEY_LINKS || link.serial != next || !follows || !link.holds()
        {
            return false;
        }
        self.links.push(*link);
        true
    }

    /// Whether `key` may sign for this epoch.
    pub fn allows(&self, key: &PublicKey, epoch: Epoch) -> bool {
        let outlived = self.links.iter().any(|link| link.old == *key && epoch >= link.first_epoch);
        let reached = self.anchors.contains(key)
            || self.links.iter().any(|link| link.new == *key && epoch >= link.first_epoch);
        reached && !outlived
    }

    /// Whether a head is signed by a key that counts.
    pub fn accepts_head(&self, signed: &SignedHead) -> bool {
        self.allows(&signed.key, signed.head.epoch) && signed.holds()
    }

    /// Whether a beacon is signed by a key that counts.
    pub fn accepts_beacon(&self, beacon: &Beacon) -> bool {
        self.allows(&beacon.key, beacon.head.epoch) && beacon.holds()
    }

    /// Whether a branch point is signed by a key that counts in the epoch it opens.
    pub fn accepts_branch(&self, branch: &Branch) -> bool {
        self.allows(&branch.key, branch.epoch) && branch.holds()
    }

    /// Whether an author certificate was given by a key that counts, now or before a rotation.
    pub fn accepts_certificate(&self, certificate: &AuthorCertificate, cluster: ClusterId) -> bool {
        let issuer = &certificate.issuer;
        let known = self.anchors.contains(issuer)
            || self.links.iter().any(|link| link.new == *issuer || link.old == *issuer);
        certificate.cluster == cluster && known && certificate.holds()
    }
}

#[cfg(test)]
mod tests;
