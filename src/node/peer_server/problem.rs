//! Problem documents as responses.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode, Uri};

use crate::wire::problem_document::{PROBLEM_JSON, ProblemDocument};

/// A problem with a status, a stable word and what happened.
pub(super) fn of(status: StatusCode, code: &str, detail: &str) -> ProblemDocument {
    let title = status.canonical_reason().unwrap_or("Error");
    ProblemDocument::new(status.as_u16(), code, title).detail(detail)
}

/// The response that carries it.
pub(super) fn answer(problem: &ProblemDocument) -> Response {
    let status =
        StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, problem.to_json()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}

/// JSON as a response.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = (status, value.to_string()).into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(super) async fn not_found(uri: Uri) -> Response {
    let detail = format!("there is nothing at {}", uri.path());
    answer(&of(StatusCode::NOT_FOUND, "no_such_path", &detail))
}

pub(super) async fn method_not_allowed(method: Method) -> Response {
    let detail = format!("{method} is not served at this path");
    answer(&of(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail))
}
