//! Digests and the replies to them.
//!
//! All but `from` and `versions` is optional: a plain peer knows no more than rule versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parts::{Binary, MarkJson, StatementJson, SummaryJson, read_versions, versions};
use crate::model::digest::{Digest, DigestReply};
use crate::model::ids::PeerAddr;
use crate::model::limits;
use crate::model::peer::PeerCard;
use crate::wire::error::WireError;
use crate::wire::field;

#[derive(Serialize, Deserialize)]
struct DigestJson {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    region: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Binary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<StatementJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beacon: Option<StatementJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrides: Option<SummaryJson>,
    versions: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<MarkJson>,
}

#[derive(Serialize, Deserialize)]
struct ReplyJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<StatementJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beacon: Option<StatementJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrides: Option<SummaryJson>,
    #[serde(default)]
    want: Vec<String>,
    #[serde(default)]
    newer: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<MarkJson>,
}

/// A digest as JSON.
pub(crate) fn digest_to_json(digest: &Digest) -> Vec<u8> {
    let json = DigestJson {
        from: digest.from.address.to_string(),
        node: digest.from.node.as_ref().map(|node| node.as_str().to_owned()),
        region: digest.from.region.clone(),
        cluster: digest.cluster.map(|cluster| Binary::of(&cluster.0)),
        head: digest.head.as_ref().map(StatementJson::of_head),
        beacon: digest.beacon.as_ref().map(StatementJson::of_beacon),
        overrides: digest.overrides.as_ref().map(SummaryJson::of),
        versions: versions(&digest.versions),
        marks: MarkJson::list(&digest.marks),
    };
    serde_json::to_vec(&json).expect("strings and numbers always serialise")
}

/// A digest from JSON.
pub(crate) fn digest_from_json(bytes: &[u8]) -> Result<Digest, WireError> {
    let json: DigestJson =
        serde_json::from_slice(bytes).map_err(|_| WireError::Undecodable("digest"))?;
    let from = PeerCard {
        address: PeerAddr::parse(&json.from).ok_or(WireError::Invalid("from"))?,
        node: json.node.as_deref().map(field::node_id).transpose()?,
        region: field::word(json.region, "region")?,
    };
    let cluster = json.cluster.map(|cluster| cluster.exact::<32>("cluster")).transpose()?;
    Ok(Digest {
        from,
        cluster: cluster.as_ref().map(|bytes| field::cluster(bytes)).transpose()?,
        head: json.head.map(|head| head.signed_head()).transpose()?,
        beacon: json.beacon.map(|beacon| beacon.beacon()).transpose()?,
        overrides: json.overrides.map(|summary| summary.read()).transpose()?,
        versions: read_versions(&json.versions, "versions")?,
        marks: MarkJson::read_list(&json.marks)?,
    })
}

/// A reply as JSON.
pub(crate) fn reply_to_json(reply: &DigestReply) -> Vec<u8> {
    let want = reply.want.iter().take(limits::DIGEST_VERSIONS);
    let json = ReplyJson {
        head: reply.head.as_ref().map(StatementJson::of_head),
        beacon: reply.beacon.as_ref().map(StatementJson::of_beacon),
        overrides: reply.overrides.as_ref().map(SummaryJson::of),
        want: want.map(|id| id.as_str().to_owned()).collect(),
        newer: versions(&reply.newer),
        marks: MarkJson::list(&reply.marks),
    };
    serde_json::to_vec(&json).expect("strings and numbers always serialise")
}

/// A reply from JSON.
pub(crate) fn reply_from_json(bytes: &[u8]) -> Result<DigestReply, WireError> {
    let json: ReplyJson =
        serde_json::from_slice(bytes).map_err(|_| WireError::Undecodable("reply"))?;
    field::at_most(json.want.len(), limits::DIGEST_VERSIONS, "want")?;
    Ok(DigestReply {
        head: json.head.map(|head| head.signed_head()).transpose()?,
        beacon: json.beacon.map(|beacon| beacon.beacon()).transpose()?,
        overrides: json.overrides.map(|summary| summary.read()).transpose()?,
        want: json.want.iter().map(|id| field::rule_id(id)).collect::<Result<_, _>>()?,
        newer: read_versions(&json.newer, "newer")?,
        marks: MarkJson::read_list(&json.marks)?,
    })
}
