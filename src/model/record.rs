//! One rule in a ledger: its newest version and what is known about it.

use bytes::Bytes;

use super::ids::{Revision, RuleId, Version};
use super::moment::WallTime;

/// The newest version of one rule, live or retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which rule.
    pub id: RuleId,
    /// Its newest version.
    pub version: Version,
    /// The commit that made this version.
    pub revision: Revision,
    /// When the rule began to live.
    pub created: WallTime,
    /// When this version was written.
    pub changed: WallTime,
    /// What the version says.
    pub body: Body,
}

/// What a version says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The rule's data, as it was signed: opaque here.
    Live(Bytes),
    /// The rule is gone.
    Retired,
}

impl Body {
    /// The data of a live rule.
    pub fn data(&self) -> Option<&Bytes> {
        match self {
            Body::Live(data) => Some(data),
            Body::Retired => None,
        }
    }

    /// Whether the rule is gone.
    pub fn is_retired(&self) -> bool {
        matches!(self, Body::Retired)
    }

    /// Feeds kind and data, length-prefixed, into a hash.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        match self {
            Body::Live(data) => {
                hasher.update(&[1]);
                hash_bytes(hasher, data);
            }
            Body::Retired => {
                hasher.update(&[2]);
            }
        }
    }
}

impl Record {
    /// What stands for this record in a ledger's lattice.
    pub fn element(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hash_bytes(&mut hasher, b"rule");
        hash_bytes(&mut hasher, self.id.as_str().as_bytes());
        for number in [self.version.get(), self.revision.0, self.created.0, self.changed.0] {
            hasher.update(&number.to_le_bytes());
        }
        self.body.hash_into(&mut hasher);
        hasher
    }

    /// Bytes it takes, about; for caps, not for accounting.
    pub fn size(&self) -> usize {
        96 + self.id.as_str().len() + self.body.data().map_or(0, Bytes::len)
    }
}

/// Feeds a length-prefixed field into a hash.
pub(crate) fn hash_bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
