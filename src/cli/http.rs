//! A small HTTP client for a node's peer port and the demo's control port.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::failure::Failure;
use crate::wire::problem_document::ProblemDocument;

/// Asks one server.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Http {
    /// For a server at `http://HOST:PORT`.
    pub(crate) fn new(base: &str, token: Option<&str>) -> Http {
        Http {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: base.trim_end_matches('/').to_string(),
            token: token.map(str::to_string),
        }
    }

    /// One exchange, whatever the status.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        self.exchange(method, path, body, None).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        condition: Option<(HeaderName, String)>,
    ) -> Result<Answer, Failure> {
        let unreachable = |why: String| {
            Failure::failed(format!("nobody can be reached at {}", self.base)).evidence(why)
        };
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(bytes)).map_err(|_| {
            Failure::usage(format!("{} is not a URL such as http://HOST:7500", self.base))
        })?;
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|e| unreachable(e.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST).collect().await;
            let body = body.map_err(|e| unreachable(e.to_string()))?.to_bytes();
            Ok(Answer { status, body })
        };
        tokio::time::timeout(ANSWER, exchange)
            .await
            .map_err(|_| unreachable("no answer came in time".to_string()))?
    }

    /// GET something that is JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None).await
    }

    /// An exchange that must succeed, and its JSON.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.json_if(method, path, body, None).await
    }

    /// The same under a precondition, such as `If-Match: "v7"`.
    pub(crate) async fn json_if(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        condition: Option<(HeaderName, String)>,
    ) -> Result<Value, Failure> {
        let answer = self.exchange(method, path, body, condition).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(value);
        }
        let said = ProblemDocument::from_json(&answer.body).map_err(|_| {
            Failure::failed(format!("{}{path} answered {}", self.base, answer.status))
        })?;
        let mut lines: Vec<String> = said
            .errors()
            .iter()
            .map(|error| format!("  {}: {}: {}", error.pointer, error.code, error.detail))
            .collect();
        if let Some(version) = said.member("currentVersion").and_then(Value::as_u64) {
            lines.push(format!("  the current version is v{version}"));
        }
        let detail = if said.detail_text().is_empty() { said.title() } else { said.detail_text() };
        let (base, status, code) = (&self.base, answer.status, said.code());
        let failure = Failure::failed(format!("{base}{path} answered {status} {code}: {detail}"));
        Err(if lines.is_empty() { failure } else { failure.evidence(lines.join("\n")) })
    }
}

/// How long an exchange may take.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer read.
const MOST: usize = 256 << 20;
