//! Begins with what neighbours know about targets that are unknown here.
//!
//! Asks a few neighbours, nearest first and at distinct distances; what they say is clamped and
//! weighed in `routing::prior`. Runs while there is anything unknown, then rests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::driver::View;
use super::peer_client::PeerClient;
use crate::model::head::Position;
use crate::model::ids::PeerAddr;
use crate::model::latency::LatencyInfoRow;
use crate::model::rule::TargetAddress;
use crate::proxy::routes::RoutesState;
use crate::routing::prior::{PeerWord, Prior, triangulate};
use crate::telemetry::clock::Clock;

/// Imports priors until the node ends; `active` tells when rules came into force.
pub(crate) async fn run(
    view: Arc<ArcSwap<View>>,
    routes: Arc<Mutex<RoutesState>>,
    peers: PeerClient,
    clock: Clock,
    mut active: watch::Receiver<Option<Position>>,
    mut ended: watch::Receiver<bool>,
) {
    let mut wait = FIRST;
    let mut asked: Vec<Arc<TargetAddress>> = Vec::new();
    loop {
        // What comes into force from here on is looked at, too.
        active.mark_unchanged();
        let unknown = {
            let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes.unknown_targets(clock.now())
        };
        if unknown.iter().any(|target| asked.binary_search(target).is_err()) {
            wait = FIRST;
        }
        if !unknown.is_empty() {
            let told = ask(&view.load_full(), &peers).await;
            let priors = join(&unknown, &told);
            let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = routes.import(&priors, clock.now());
            if taken > 0 {
                tracing::debug!(taken, "began with what peers know of targets");
            }
        }
        let least = if asked.is_empty() { FIRST } else { APART };
        asked = unknown;
        let pause = async {
            tokio::time::sleep(least).await;
            // Without the thread that puts rules in force nothing changes any more.
            let change = async {
                if active.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let rest = if asked.is_empty() { RESTING } else { wait };
            // Whichever comes first.
            let _ = tokio::time::timeout(rest.saturating_sub(least), change).await;
        };
        tokio::select! {
            () = pause => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        wait = (wait * 2).min(LONGEST);
    }
}

/// What a few neighbours say: the nearest of each distance first.
async fn ask(view: &View, peers: &PeerClient) -> Vec<(Duration, Vec<LatencyInfoRow>)> {
    let mut near: Vec<(Duration, PeerAddr)> = view
        .neighbours
        .iter()
        .filter_map(|neighbour| Some((neighbour.rtt?, neighbour.card.address)))
        .collect();
    near.sort();
    let mut chosen: Vec<(Duration, PeerAddr)> = Vec::new();
    for (rtt, address) in near {
        let distinct = chosen.iter().all(|(other, _)| rtt.abs_diff(*other) > DISTINCT);
        if chosen.len() < ASKED && (distinct || chosen.is_empty()) {
            chosen.push((rtt, address));
        }
    }
    let mut told = Vec::new();
    for (rtt, address) in chosen {
        if let Ok(rows) = peers.latency_info(address).await {
            told.push((rtt, rows));
        }
    }
    told
}

/// Costs what was told and what is unknown, not the product: both may be very many.
fn join(
    unknown: &[Arc<TargetAddress>],
    told: &[(Duration, Vec<LatencyInfoRow>)],
) -> BTreeMap<Arc<TargetAddress>, Prior> {
    let mut words: HashMap<&str, Vec<PeerWord<'_>>> = HashMap::new();
    for (rtt, rows) in told {
        for row in rows {
            words.entry(&row.target).or_default().push(PeerWord { row, rtt: *rtt });
        }
    }
    let about = |target: &Arc<TargetAddress>| {
        let prior = triangulate(words.get(target.to_string().as_str())?)?;
        Some((target.clone(), prior))
    };
    if words.is_empty() { BTreeMap::new() } else { unknown.iter().filter_map(about).collect() }
}

/// The first look: neighbours must be known and measured by then.
const FIRST: Duration = Duration::from_millis(200);
/// Between looks while rules keep changing.
const APART: Duration = Duration::from_secs(1);
/// Between looks while nothing is unknown.
const RESTING: Duration = Duration::from_secs(5);
/// Between looks while nobody knows what is unknown.
const LONGEST: Duration = Duration::from_secs(30);
/// Neighbours asked at a time.
const ASKED: usize = 4;
/// Round trips closer than this are one distance.
const DISTINCT: Duration = Duration::from_millis(3);
