//! What peers say about targets, made into something to begin with.
//!
//! Service time and errors belong to the target and transfer as they are; the network part
//! belongs to the pair and is triangulated. Peer numbers are clamped, finite, and outweighed by
//! four samples of one's own; they never eject anybody.

use std::time::Duration;

use super::cell::{LEAST_MS, MOST_MS, TTL};
use crate::model::latency::LatencyInfoRow;

/// Something to begin with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// The part of the latency that is the wire.
    pub net_ms: f64,
    /// The part of it that is the target.
    pub svc_ms: f64,
    /// Error share, at most 0.5.
    pub err: f64,
    /// Age of the freshest row that went in.
    pub age: Duration,
}

/// One peer's word about one target.
#[derive(Clone, Copy, Debug)]
pub struct PeerWord<'a> {
    /// What it says.
    pub row: &'a LatencyInfoRow,
    /// The round trip to that peer.
    pub rtt: Duration,
}

/// Joins what peers say about one target; none when nobody says anything usable.
pub fn triangulate(words: &[PeerWord<'_>]) -> Option<Prior> {
    let mut total = 0.0;
    let (mut svc, mut err, mut same_zone) = (0.0, 0.0, 0.0);
    let mut zone_weight = 0.0;
    let mut bound: f64 = 0.0;
    let mut freshest = TTL;
    for word in words {
        let Some(row) = usable(word.row) else { continue };
        let rtt = word.rtt.as_secs_f64() * 1e3;
        let age = Duration::from_millis(word.row.age_ms);
        let enough = f64::from(u32::try_from(word.row.samples.min(16)).unwrap_or(16));
        let weight = enough * (-age.as_secs_f64() / 10.0).exp2() / (1.0 + rtt / 50.0);
        if !weight.is_finite() || weight <= 0.0 {
            continue;
        }
        total += weight;
        svc += weight * row.svc_ms;
        err += weight * row.err;
        freshest = freshest.min(age);
        if rtt < SAME_ZONE_MS {
            zone_weight += weight;
            same_zone += weight * row.net_ms;
        } else {
            bound = bound.max((row.net_ms - rtt).abs());
        }
    }
    if total <= 0.0 {
        return None;
    }
    let net = if zone_weight > 0.0 { same_zone / zone_weight } else { bound };
    Some(Prior {
        net_ms: net.clamp(LEAST_MS, MOST_PRIOR_MS),
        svc_ms: (svc / total).clamp(LEAST_MS, MOST_PRIOR_MS),
        err: (err / total).clamp(0.0, 0.5),
        age: freshest,
    })
}

struct Usable {
    net_ms: f64,
    svc_ms: f64,
    err: f64,
}

fn usable(row: &LatencyInfoRow) -> Option<Usable> {
    let sane = |x: f64| x.is_finite() && (0.0..=MOST_MS).contains(&x);
    let fits = sane(row.net_ms) && sane(row.svc_ms) && row.err.is_finite() && row.samples > 0;
    let young = Duration::from_millis(row.age_ms) < TTL;
    (fits && young).then(|| Usable {
        net_ms: row.net_ms.clamp(LEAST_MS, MOST_PRIOR_MS),
        svc_ms: row.svc_ms.clamp(LEAST_MS, MOST_PRIOR_MS),
        err: row.err.clamp(0.0, 0.5),
    })
}

/// Peers nearer than this see the wire as this node does.
const SAME_ZONE_MS: f64 = 3.0;
/// No peer makes a target look slower than this.
const MOST_PRIOR_MS: f64 = 60_000.0;
