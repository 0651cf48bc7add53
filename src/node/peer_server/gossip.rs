//! What peers ask of each other all the time: digests, neighbours, latency.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::oneshot;

use super::super::driver::Note;
use super::{Door, problem};
use crate::model::moment::WallTime;
use crate::wire::peer_json::{self, ListedNeighbour};

/// POST configuration-update: a digest in, what follows from it out.
pub(super) async fn update(State(door): State<Arc<Door>>, body: Bytes) -> Response {
    let digest = match peer_json::digest_from_json(&body) {
        Ok(digest) => digest,
        Err(error) => {
            let mut document =
                problem::of(StatusCode::BAD_REQUEST, "bad_digest", "the digest cannot be read");
            document =
                document.error(format!("/{}", error.field()), error.reason(), error.to_string());
            return problem::answer(&document);
        }
    };
    if !door.policy.allows(digest.from.address) {
        return problem::answer(&problem::of(
            StatusCode::BAD_REQUEST,
            "bad_digest",
            "the address in `from` is not one that a peer of this node can have",
        ));
    }
    let (reply, waiting) = oneshot::channel();
    let note = Note::Digest { digest: Box::new(digest), reply };
    let sent = tokio::time::timeout(PATIENCE, door.notes.send(note)).await;
    let answered = match sent {
        Ok(Ok(())) => tokio::time::timeout(PATIENCE, waiting).await,
        _ => return busy(),
    };
    match answered {
        Ok(Ok(reply)) => json_bytes(peer_json::reply_to_json(&reply)),
        _ => busy(),
    }
}

fn busy() -> Response {
    let detail = "the node's control side does not keep up";
    problem::answer(&problem::of(StatusCode::SERVICE_UNAVAILABLE, "busy", detail))
}

/// GET neighbours.
pub(super) async fn neighbours(State(door): State<Arc<Door>>) -> Response {
    let view = door.view.load();
    let (now, wall) = (door.clock.now(), door.clock.wall());
    let list: Vec<ListedNeighbour> = view
        .neighbours
        .iter()
        .map(|neighbour| {
            let age = u64::try_from(now.since(neighbour.since).as_millis()).unwrap_or(0);
            ListedNeighbour {
                card: neighbour.card.clone(),
                kind: Some(neighbour.kind),
                rtt_ms: neighbour.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                since: Some(WallTime(wall.0.saturating_sub(age))),
            }
        })
        .collect();
    json_bytes(peer_json::neighbour_list_to_json(&list))
}

/// GET latency-info.
pub(super) async fn latency_info(State(door): State<Arc<Door>>) -> Response {
    let rows = {
        let routes = door.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.latency_rows(door.clock.now())
    };
    json_bytes(peer_json::latency_info_to_json(&rows))
}

fn json_bytes(bytes: Vec<u8>) -> Response {
    let mut response = bytes.into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// How long a peer is kept waiting.
const PATIENCE: Duration = Duration::from_secs(2);
