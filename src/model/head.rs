//! Signed statements about a ledger: heads, beacons and branch points.
//!
//! Only the statements and their signatures; whose key counts is `trust`'s business.

use super::fingerprint::Fingerprint;
use super::ids::{ClusterId, Epoch, Revision};
use super::key::{Domain, PrivateKey, PublicKey, Signature};

/// Where a ledger stands in the fleet's history; the higher one is the later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The life of the history.
    pub epoch: Epoch,
    /// The commit.
    pub revision: Revision,
}

/// "This is the whole ledger at this revision."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The fleet.
    pub cluster: ClusterId,
    /// The life of the history.
    pub epoch: Epoch,
    /// The last commit in it.
    pub revision: Revision,
    /// Retired rules last changed at or below it are dropped.
    pub floor: Revision,
    /// The highest version ever dropped; 0 when none was.
    pub top: u64,
    /// The content.
    pub fingerprint: Fingerprint,
}

/// A head with its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The statement.
    pub head: Head,
    /// Whose signature it is.
    pub key: PublicKey,
    /// Over the statement.
    pub signature: Signature,
}

/// A head with a tick: proof that the orchestrator was alive this late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The orchestrator's head then.
    pub head: Head,
    /// Strictly rises with every beacon of a fleet.
    pub tick: u64,
    /// Whose signature it is.
    pub key: PublicKey,
    /// Over head and tick.
    pub signature: Signature,
}

/// Where a new epoch left its parent: histories agree up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The fleet.
    pub cluster: ClusterId,
    /// The epoch that was left.
    pub parent: Epoch,
    /// The last revision that both share.
    pub revision: Revision,
    /// The content at that revision.
    pub fingerprint: Fingerprint,
    /// The epoch that begins after it.
    pub epoch: Epoch,
    /// Whose signature it is.
    pub key: PublicKey,
    /// Over all of the above.
    pub signature: Signature,
}

impl Head {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, revision: self.revision }
    }

    /// Signs it.
    pub fn sign(self, key: &PrivateKey) -> SignedHead {
        let signature = key.sign(Domain::Head, &self.statement());
        SignedHead { head: self, key: key.public(), signature }
    }

    fn statement(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(104);
        bytes.extend_from_slice(&self.cluster.0);
        for number in [self.epoch.0, self.revision.0, self.floor.0, self.top] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.fingerprint.0);
        bytes
    }
}

impl SignedHead {
    /// Where it stands.
    pub fn position(&self) -> Position {
        self.head.position()
    }

    /// Whether its key really signed it; whether that key counts is another question.
    pub fn holds(&self) -> bool {
        self.key.verifies(Domain::Head, &self.head.statement(), &self.signature)
    }
}

impl Beacon {
    /// Signs a head with a tick.
    pub fn sign(head: Head, tick: u64, key: &PrivateKey) -> Beacon {
        let signature = key.sign(Domain::Beacon, &beacon_statement(&head, tick));
        Beacon { head, tick, key: key.public(), signature }
    }

    /// Whether its key really signed it.
    pub fn holds(&self) -> bool {
        self.key.verifies(Domain::Beacon, &beacon_statement(&self.head, self.tick), &self.signature)
    }

    /// Whether it proves more freshness than `other`.
    pub fn is_newer_than(&self, other: &Beacon) -> bool {
        (self.head.epoch, self.tick) > (other.head.epoch, other.tick)
    }
}

impl Branch {
    /// Signs the point where `epoch` leaves the history of `parent`.
    pub fn sign(parent: &Head, epoch: Epoch, key: &PrivateKey) -> Branch {
        let branch = Branch {
            cluster: parent.cluster,
            parent: parent.epoch,
            revision: parent.revision,
            fingerprint: parent.fingerprint,
            epoch,
            key: key.public(),
            signature: Signature([0; 64]),
        };
        Branch { signature: key.sign(Domain::Branch, &branch.statement()), ..branch }
    }

    /// Whether its key really signed it.
    pub fn holds(&self) -> bool {
        self.key.verifies(Domain::Branch, &self.statement(), &self.signature)
    }

    fn statement(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&self.cluster.0);
        for number in [self.parent.0, self.revision.0, self.epoch.0] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.fingerprint.0);
        bytes
    }
}

fn beacon_statement(head: &Head, tick: u64) -> Vec<u8> {
    let mut bytes = head.statement();
    bytes.extend_from_slice(&tick.to_be_bytes());
    bytes
}
