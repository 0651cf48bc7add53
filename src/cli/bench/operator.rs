//! An operator of a node under measurement: writes rules at its peer port, one after the other.

use std::net::SocketAddr;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;

use super::traffic;
use crate::cli::failure::Failure;

/// A kept connection to somebody who answers.
pub(super) struct Conversation {
    at: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// What was said.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Conversation {
    pub(super) async fn begin(at: SocketAddr) -> Result<Conversation, Failure> {
        let connected = traffic::connect(at).await;
        let sender = connected.ok_or_else(|| Failure::failed(format!("nobody answers at {at}")))?;
        Ok(Conversation { at, sender })
    }

    /// Puts overlays in force, for this node only, as JSON says: an object of rules by id.
    pub(super) async fn push(&mut self, rules: String, ttl: &str) -> Result<(), Failure> {
        let path = format!("/v1/configuration?scope=node&ttl={ttl}");
        let host = self.at.to_string();
        let answer = self.ask(Method::POST, &path, &host, rules).await?;
        if !(200..300).contains(&answer.status) {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(Failure::failed(format!("a push was a {}", answer.status)).evidence(said));
        }
        Ok(())
    }

    pub(super) async fn get(&mut self, host: &str, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, host, String::new()).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        host: &str,
        body: String,
    ) -> Result<Answer, Failure> {
        let lost = |error: String| Failure::failed(format!("{path}: {error}"));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| lost(error.to_string()))?;
        let sender = &mut self.sender;
        sender.ready().await.map_err(|error| lost(error.to_string()))?;
        let response =
            sender.send_request(request).await.map_err(|error| lost(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| lost(error.to_string()))?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}
