//! What digests and replies are made of: binary text, heads, beacons, summaries and marks.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::model::head::{Beacon, Head, SignedHead};
use crate::model::ids::{RuleId, Version};
use crate::model::limits;
use crate::model::manual::{OverrideMark, OverrideSummary};
use crate::wire::error::WireError;
use crate::wire::field;

/// Bytes as base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Binary(String);

impl Binary {
    pub(super) fn of(bytes: &[u8]) -> Binary {
        Binary(STANDARD.encode(bytes))
    }

    pub(super) fn exact<const N: usize>(&self, name: &'static str) -> Result<[u8; N], WireError> {
        // The longest fixed field has 64 bytes: nothing longer is worth decoding.
        if self.0.len() > 96 {
            return Err(WireError::Invalid(name));
        }
        let bytes = STANDARD.decode(&self.0).map_err(|_| WireError::Invalid(name))?;
        field::exact(&bytes, name)
    }
}

/// A signed statement about a ledger: a head, and with a tick a beacon.
#[derive(Serialize, Deserialize)]
pub(super) struct StatementJson {
    cluster: Binary,
    epoch: u64,
    revision: u64,
    floor: u64,
    top: u64,
    fingerprint: Binary,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick: Option<u64>,
    key: Binary,
    signature: Binary,
}

impl StatementJson {
    pub(super) fn of_head(signed: &SignedHead) -> StatementJson {
        StatementJson::of(&signed.head, None, &signed.key.0, &signed.signature.0)
    }

    pub(super) fn of_beacon(beacon: &Beacon) -> StatementJson {
        StatementJson::of(&beacon.head, Some(beacon.tick), &beacon.key.0, &beacon.signature.0)
    }

    fn of(head: &Head, tick: Option<u64>, key: &[u8], signature: &[u8]) -> StatementJson {
        StatementJson {
            cluster: Binary::of(&head.cluster.0),
            epoch: head.epoch.0,
            revision: head.revision.0,
            floor: head.floor.0,
            top: head.top,
            fingerprint: Binary::of(&head.fingerprint.0),
            tick,
            key: Binary::of(key),
            signature: Binary::of(signature),
        }
    }

    pub(super) fn signed_head(&self) -> Result<SignedHead, WireError> {
        Ok(SignedHead {
            head: self.head()?,
            key: field::key(&self.key.exact::<32>("key")?, "key")?,
            signature: field::signature(&self.signature.exact::<64>("signature")?)?,
        })
    }

    pub(super) fn beacon(&self) -> Result<Beacon, WireError> {
        let tick = field::number(field::required(self.tick, "tick")?, "tick")?;
        let SignedHead { head, key, signature } = self.signed_head()?;
        Ok(Beacon { head, tick, key, signature })
    }

    fn head(&self) -> Result<Head, WireError> {
        let head = Head {
            cluster: field::cluster(&self.cluster.exact::<32>("cluster")?)?,
            epoch: field::epoch(self.epoch, "epoch")?,
            revision: field::revision(self.revision, "revision")?,
            floor: field::revision(self.floor, "floor")?,
            top: field::number(self.top, "top")?,
            fingerprint: field::fingerprint(&self.fingerprint.exact::<32>("fingerprint")?)?,
        };
        if head.floor > head.revision { Err(WireError::Invalid("floor")) } else { Ok(head) }
    }
}

/// How many overrides there are, and a hash over them.
#[derive(Serialize, Deserialize)]
pub(super) struct SummaryJson {
    count: u64,
    hash: Binary,
}

impl SummaryJson {
    pub(super) fn of(summary: &OverrideSummary) -> SummaryJson {
        SummaryJson { count: summary.count, hash: Binary::of(&summary.hash) }
    }

    pub(super) fn read(&self) -> Result<OverrideSummary, WireError> {
        let count = field::number(self.count, "count")?;
        Ok(OverrideSummary { count, hash: self.hash.exact("hash")? })
    }
}

/// The name of one override.
#[derive(Serialize, Deserialize)]
pub(super) struct MarkJson {
    id: String,
    version: u64,
    node: String,
}

impl MarkJson {
    pub(super) fn list(marks: &[OverrideMark]) -> Vec<MarkJson> {
        let marks = marks.iter().take(limits::OVERRIDE_MARKS);
        marks
            .map(|mark| MarkJson {
                id: mark.id.as_str().to_owned(),
                version: mark.version.get(),
                node: mark.node.as_str().to_owned(),
            })
            .collect()
    }

    pub(super) fn read_list(list: &[MarkJson]) -> Result<Vec<OverrideMark>, WireError> {
        field::at_most(list.len(), limits::OVERRIDE_MARKS, "marks")?;
        list.iter()
            .map(|mark| {
                Ok(OverrideMark {
                    id: field::rule_id(&mark.id)?,
                    version: field::version(mark.version)?,
                    node: field::node_id(&mark.node)?,
                })
            })
            .collect()
    }
}

/// Versions by rule id, as an object; at most `limits::DIGEST_VERSIONS`.
pub(super) fn versions(list: &[(RuleId, Version)]) -> BTreeMap<String, u64> {
    let list = list.iter().take(limits::DIGEST_VERSIONS);
    list.map(|(id, version)| (id.as_str().to_owned(), version.get())).collect()
}

/// Reads versions; in the order of their ids.
pub(super) fn read_versions(
    object: &BTreeMap<String, u64>,
    name: &'static str,
) -> Result<Vec<(RuleId, Version)>, WireError> {
    field::at_most(object.len(), limits::DIGEST_VERSIONS, name)?;
    object.iter().map(|(id, number)| Ok((field::rule_id(id)?, field::version(*number)?))).collect()
}
