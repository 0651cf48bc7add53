//! The demo's control port: what its subcommands tell it.

use std::net::SocketAddr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fleet::Fleet;
use crate::cli::failure::Failure;

/// Serves the control port until it is aborted.
pub(super) async fn serve(at: SocketAddr, fleet: Fleet) -> Result<JoinHandle<()>, Failure> {
    let listener = TcpListener::bind(at)
        .await
        .map_err(|error| Failure::failed(format!("the demo cannot listen on {at}: {error}")))?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/slow", post(slow))
        .route("/cut", post(cut))
        .route("/silence", post(silence))
        .route("/kill", post(kill))
        .route("/restart", post(restart))
        .route("/heal", post(heal))
        .with_state(fleet);
    Ok(tokio::spawn(async move {
        // Ends with the demo.
        let _ = axum::serve(listener, router).await;
    }))
}

async fn status(State(fleet): State<Fleet>) -> Response {
    Json(fleet.status().await).into_response()
}

async fn slow(State(fleet): State<Fleet>, Json(body): Json<Value>) -> Response {
    let target = body["target"].as_str().unwrap_or_default();
    let ms = body["ms"].as_u64().unwrap_or(0);
    done(fleet.slow(target, ms), &format!("{target} answers {ms} ms later"))
}

async fn cut(State(fleet): State<Fleet>) -> Response {
    fleet.cut().await;
    done(Ok(()), "the orchestrator is gone")
}

async fn silence(State(fleet): State<Fleet>) -> Response {
    fleet.silence();
    done(Ok(()), "streams from the orchestrator stay open and say nothing")
}

async fn kill(State(fleet): State<Fleet>, Json(body): Json<Value>) -> Response {
    let node = body["node"].as_str().unwrap_or_default();
    done(fleet.kill(node).await, &format!("{node} is gone"))
}

async fn restart(State(fleet): State<Fleet>, Json(body): Json<Value>) -> Response {
    let node = body["node"].as_str().unwrap_or_default();
    let empty = body["emptyDisk"].as_bool().unwrap_or(false);
    done(fleet.restart(node, empty).await, &format!("{node} is back"))
}

async fn heal(State(fleet): State<Fleet>) -> Response {
    done(fleet.heal().await, "everything is as before")
}

fn done(result: Result<(), String>, said: &str) -> Response {
    match result {
        Ok(()) => Json(json!({ "done": said })).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, Json(json!({ "detail": why }))).into_response(),
    }
}
