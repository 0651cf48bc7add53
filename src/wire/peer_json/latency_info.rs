//! Latency info: what a node has measured, for peers that have not yet.
//!
//! Nothing is judged here: numbers come through as they are, absurd ones included, and whoever
//! uses them clamps. A number that JSON cannot hold is written as `null` and read as NaN.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::latency::{LatencyInfoRow, LatencySource};
use crate::model::limits;
use crate::wire::error::WireError;
use crate::wire::field;

#[derive(Serialize, Deserialize)]
struct TableJson {
    targets: BTreeMap<String, RowJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowJson {
    #[serde(default)]
    latency_ms: Option<f64>,
    #[serde(default)]
    net_ms: Option<f64>,
    #[serde(default)]
    svc_ms: Option<f64>,
    #[serde(default)]
    err: Option<f64>,
    #[serde(default)]
    confidence: Option<f64>,
    #[serde(default)]
    samples: u64,
    #[serde(default)]
    age_ms: u64,
    #[serde(default)]
    source: String,
}

/// Latency rows as JSON; at most `limits::LATENCY_ROWS`.
pub(crate) fn latency_info_to_json(rows: &[LatencyInfoRow]) -> Vec<u8> {
    let rows = rows.iter().take(limits::LATENCY_ROWS);
    let json = TableJson { targets: rows.map(|row| (row.target.clone(), row_json(row))).collect() };
    serde_json::to_vec(&json).expect("strings and numbers always serialise")
}

/// Latency rows from JSON, in the order of their targets.
pub(crate) fn latency_info_from_json(bytes: &[u8]) -> Result<Vec<LatencyInfoRow>, WireError> {
    let json: TableJson =
        serde_json::from_slice(bytes).map_err(|_| WireError::Undecodable("latency info"))?;
    field::at_most(json.targets.len(), limits::LATENCY_ROWS, "targets")?;
    json.targets.into_iter().map(|(target, row)| read_row(target, &row)).collect()
}

fn row_json(row: &LatencyInfoRow) -> RowJson {
    let finite = |number: f64| number.is_finite().then_some(number);
    RowJson {
        latency_ms: finite(row.latency_ms),
        net_ms: finite(row.net_ms),
        svc_ms: finite(row.svc_ms),
        err: finite(row.err),
        confidence: finite(row.confidence),
        samples: row.samples,
        age_ms: row.age_ms,
        source: source_word(row.source).to_owned(),
    }
}

fn read_row(target: String, json: &RowJson) -> Result<LatencyInfoRow, WireError> {
    let number = |number: Option<f64>| number.unwrap_or(f64::NAN);
    Ok(LatencyInfoRow {
        target: field::word(target, "target")?,
        latency_ms: number(json.latency_ms),
        net_ms: number(json.net_ms),
        svc_ms: number(json.svc_ms),
        err: number(json.err),
        confidence: number(json.confidence),
        samples: json.samples,
        age_ms: json.age_ms,
        source: match json.source.as_str() {
            "measured" => LatencySource::Measured,
            "peer" => LatencySource::Peer,
            // Also for words from a later release: the weakest claim.
            _ => LatencySource::Default,
        },
    })
}

/// The word for where numbers come from.
pub(crate) fn source_word(source: LatencySource) -> &'static str {
    match source {
        LatencySource::Measured => "measured",
        LatencySource::Peer => "peer",
        LatencySource::Default => "default",
    }
}
