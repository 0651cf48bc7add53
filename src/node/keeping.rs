//! The bytes of what a node keeps, and back.
//!
//! Everything read is verified as if a stranger had sent it: the ledger against its signed head,
//! overrides by their signatures (in the mind). No IO here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::config::Keep;
use crate::model::delta::{Basis, Delta, Refusal};
use crate::model::head::Position;
use crate::model::ids::{Epoch, NodeId, Revision, RuleId, Version};
use crate::model::key::PublicKey;
use crate::model::ledger::Ledger;
use crate::model::manual::OverrideSet;
use crate::model::trust::{Trust, TrustSource};
use crate::wire::error::WireError;
use crate::wire::ledger_proto as bytes_of;

/// Everything there is one of.
pub(super) struct Meta {
    pub(super) entries: BTreeMap<String, Vec<u8>>,
}

/// Why what was read cannot be used.
#[derive(Debug)]
pub(super) enum KeepError {
    /// A field does not decode.
    Field(&'static str),
    /// The ledger is not what its head says.
    Ledger(Refusal),
}

impl Meta {
    fn one<T>(
        &self,
        name: &'static str,
        decode: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Option<T>, KeepError> {
        let bytes = self.entries.get(name);
        bytes.map(|bytes| decode(bytes)).transpose().map_err(|_| KeepError::Field(name))
    }

    fn list<T>(
        &self,
        name: &'static str,
        decode: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Vec<T>, KeepError> {
        let Some(mut rest) = self.entries.get(name).map(Vec::as_slice) else {
            return Ok(Vec::new());
        };
        let mut list = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let item = after.get(..length).ok_or(KeepError::Field(name))?;
            list.push(decode(item).map_err(|_| KeepError::Field(name))?);
            rest = &after[length..];
        }
        Ok(list)
    }
}

/// What the tables held, verified.
pub(super) fn assemble(
    meta: &Meta,
    records: BTreeMap<String, Vec<u8>>,
    overrides: BTreeMap<String, Vec<u8>>,
    authored: BTreeMap<String, Vec<u8>>,
) -> Result<Keep, KeepError> {
    let trust = trust_from(meta)?;
    let head = meta.one("head", bytes_of::decode_signed_head)?;
    let branches = meta.list("branches", bytes_of::decode_branch)?;
    let ledger = match head {
        None => None,
        Some(to) => {
            let mut list = records
                .values()
                .map(|bytes| bytes_of::decode_record(bytes).map(Arc::new))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| KeepError::Field("records"))?;
            list.sort_by(|a, b| (a.revision, &a.id).cmp(&(b.revision, &b.id)));
            let delta = Delta { basis: Basis::Nothing, to, branches, records: list };
            // Whom to trust may be told by configuration only, which is looked at later: what is
            // checked here is that the content is what its own head says.
            let mut reader = trust.clone();
            if !reader.accepts_head(&to) {
                reader = Trust::configured(vec![to.key]);
            }
            Some(Ledger::from_replace(&delta, &reader).map_err(KeepError::Ledger)?)
        }
    };
    let mut set = OverrideSet::default();
    for bytes in overrides.values() {
        let held = bytes_of::decode_override(bytes).map_err(|_| KeepError::Field("overrides"))?;
        set.merge(Arc::new(held));
    }
    let mut own = imbl::OrdMap::new();
    for bytes in authored.values() {
        let held = bytes_of::decode_override(bytes).map_err(|_| KeepError::Field("authored"))?;
        own.insert((held.id.clone(), held.version), Arc::new(held));
    }
    let high_water = meta.one("high_water", |bytes| {
        let numbers = <[u8; 16]>::try_from(bytes).map_err(|_| WireError::Invalid("high_water"))?;
        let half = |range: std::ops::Range<usize>| {
            numbers[range].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Ok(Position { epoch: Epoch(half(0..8)), revision: Revision(half(8..16)) })
    })?;
    Ok(Keep {
        ledger,
        high_water,
        overrides: set,
        authored: own,
        certificate: meta.one("certificate", bytes_of::decode_certificate)?,
        trust,
        pins: pins_from(meta)?,
        beacon: meta.one("beacon", bytes_of::decode_beacon)?,
    })
}

fn trust_from(meta: &Meta) -> Result<Trust, KeepError> {
    let source = meta.entries.get("trust_source").and_then(|bytes| bytes.first().copied());
    let source = match source {
        Some(1) => TrustSource::Provisional,
        Some(2) => TrustSource::Pinned,
        // Configured keys come from configuration each time, never from the disk.
        _ => return Ok(Trust::default()),
    };
    let mut trust = Trust::default();
    for key in meta.list("trust", read_key)?.into_iter().take(1) {
        trust.learn(key, source);
    }
    for link in meta.list("links", bytes_of::decode_key_link)? {
        trust.follow(&link);
    }
    Ok(trust)
}

fn pins_from(meta: &Meta) -> Result<BTreeMap<NodeId, PublicKey>, KeepError> {
    let pins = meta.list("pins", |bytes| {
        let invalid = WireError::Invalid("pins");
        let (key, name) = bytes.split_at_checked(32).ok_or(invalid)?;
        let name = std::str::from_utf8(name).ok().and_then(NodeId::parse).ok_or(invalid)?;
        Ok((name, read_key(key)?))
    })?;
    Ok(pins.into_iter().collect())
}

fn read_key(bytes: &[u8]) -> Result<PublicKey, WireError> {
    <[u8; 32]>::try_from(bytes).map(PublicKey).map_err(|_| WireError::Invalid("key"))
}

/// What stands in the meta table for this.
pub(super) fn meta_of(keep: &Keep) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let ledger = keep.ledger.as_ref();
    let source = keep.trust.source() as u8;
    let mut entries = vec![
        ("certificate", keep.certificate.as_ref().map(bytes_of::encode_certificate)),
        ("beacon", keep.beacon.as_ref().map(bytes_of::encode_beacon)),
        ("trust_source", Some(vec![source])),
        ("trust", Some(join(keep.trust.anchors().iter().map(|key| key.0.to_vec())))),
        ("links", Some(join(keep.trust.links().iter().map(bytes_of::encode_key_link)))),
        (
            "pins",
            Some(join(
                keep.pins
                    .iter()
                    .map(|(node, key)| [key.0.as_slice(), node.as_str().as_bytes()].concat()),
            )),
        ),
        (
            "high_water",
            keep.high_water
                .map(|at| [at.epoch.0.to_be_bytes(), at.revision.0.to_be_bytes()].concat()),
        ),
    ];
    if let Some(ledger) = ledger {
        entries.push(("head", Some(bytes_of::encode_signed_head(ledger.signed()))));
        let branches = join(ledger.branches().iter().map(bytes_of::encode_branch));
        entries.push(("branches", Some(branches)));
    }
    entries
}

/// Each behind its length.
fn join(items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    for item in items {
        all.extend_from_slice(&u32::try_from(item.len()).unwrap_or(u32::MAX).to_be_bytes());
        all.extend_from_slice(&item);
    }
    all
}

/// The last active body of a rejected rule.
pub(super) fn encode_fallback(version: Version, data: &[u8]) -> Vec<u8> {
    [version.get().to_be_bytes().as_slice(), data].concat()
}

/// The last active bodies; one that does not decode is left out, for it is only a fallback.
pub(super) fn fallbacks(table: BTreeMap<String, Vec<u8>>) -> BTreeMap<RuleId, (Version, Bytes)> {
    table
        .into_iter()
        .filter_map(|(id, bytes)| {
            let (version, data) = bytes.split_first_chunk::<8>()?;
            let version = Version::new(u64::from_be_bytes(*version))?;
            Some((RuleId::parse(&id)?, (version, Bytes::copy_from_slice(data))))
        })
        .collect()
}

impl std::fmt::Display for KeepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeepError::Field(name) => write!(f, "the field {name} does not decode"),
            KeepError::Ledger(refusal) => write!(f, "the ledger {refusal}"),
        }
    }
}
