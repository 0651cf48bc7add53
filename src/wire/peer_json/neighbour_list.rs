//! Neighbour lists, as shown to people and exchanged between peers.
//!
//! `since` is a wall clock for people, in milliseconds since the Unix epoch; the mind's own
//! moments never leave the process.

use serde::{Deserialize, Serialize};

use crate::model::ids::PeerAddr;
use crate::model::limits;
use crate::model::moment::WallTime;
use crate::model::peer::{NeighbourKind, PeerCard};
use crate::wire::error::WireError;
use crate::wire::field;

/// One neighbour of some node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListedNeighbour {
    /// Who it is.
    pub(crate) card: PeerCard,
    /// Why it was chosen; none where the word is not known here.
    pub(crate) kind: Option<NeighbourKind>,
    /// Smoothed round trip in milliseconds, once measured.
    pub(crate) rtt_ms: Option<f64>,
    /// Since when it is a neighbour.
    pub(crate) since: Option<WallTime>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NeighbourJson {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default)]
    region: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

/// A neighbour list as JSON; at most `limits::NEIGHBOUR_LIST` entries.
pub(crate) fn neighbour_list_to_json(list: &[ListedNeighbour]) -> Vec<u8> {
    let json: Vec<NeighbourJson> =
        list.iter().take(limits::NEIGHBOUR_LIST).map(neighbour_json).collect();
    serde_json::to_vec(&json).expect("strings and numbers always serialise")
}

/// A neighbour list from JSON.
pub(crate) fn neighbour_list_from_json(bytes: &[u8]) -> Result<Vec<ListedNeighbour>, WireError> {
    let json: Vec<NeighbourJson> =
        serde_json::from_slice(bytes).map_err(|_| WireError::Undecodable("neighbour list"))?;
    field::at_most(json.len(), limits::NEIGHBOUR_LIST, "neighbours")?;
    json.into_iter().map(read_neighbour).collect()
}

fn neighbour_json(neighbour: &ListedNeighbour) -> NeighbourJson {
    NeighbourJson {
        address: neighbour.card.address.to_string(),
        node: neighbour.card.node.as_ref().map(|node| node.as_str().to_owned()),
        region: neighbour.card.region.clone(),
        kind: neighbour.kind.map(|kind| kind_word(kind).to_owned()),
        rtt_ms: neighbour.rtt_ms.filter(|rtt| rtt.is_finite()),
        since: neighbour.since.map(|since| since.0),
    }
}

fn read_neighbour(json: NeighbourJson) -> Result<ListedNeighbour, WireError> {
    let card = PeerCard {
        address: PeerAddr::parse(&json.address).ok_or(WireError::Invalid("address"))?,
        node: json.node.as_deref().map(field::node_id).transpose()?,
        region: field::word(json.region, "region")?,
    };
    let kind = json
        .kind
        .as_deref()
        .and_then(|word| KINDS.iter().copied().find(|kind| kind_word(*kind) == word));
    Ok(ListedNeighbour { card, kind, rtt_ms: json.rtt_ms, since: json.since.map(WallTime) })
}

fn kind_word(kind: NeighbourKind) -> &'static str {
    match kind {
        NeighbourKind::Near => "near",
        NeighbourKind::Far => "far",
        NeighbourKind::Fixed => "fixed",
        NeighbourKind::Inbound => "inbound",
    }
}

const KINDS: [NeighbourKind; 4] =
    [NeighbourKind::Near, NeighbourKind::Far, NeighbourKind::Fixed, NeighbourKind::Inbound];
