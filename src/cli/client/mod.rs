//! The orchestrator's gRPC services as this command line sees them: plain values in and out.

mod fleet;
mod follower;
mod rules;

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

pub(crate) use fleet::{NodeRow, Propagation};
pub(crate) use follower::{Arrival, Care, Naive, follow};
pub(crate) use rules::{Applied, Stored, Write};

use super::failure::Failure;

/// A connection to an orchestrator.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    url: String,
}

impl Client {
    /// Connects; fails with what to do when nobody is there.
    pub(crate) async fn connect(url: &str, token: Option<&str>) -> Result<Client, Failure> {
        let endpoint = Endpoint::from_shared(url.to_string())
            .map_err(|_| Failure::usage(format!("{url} is not a URL such as http://HOST:7400")))?
            .connect_timeout(CONNECT);
        let channel = endpoint.connect().await.map_err(|error| {
            Failure::failed(format!("no orchestrator can be reached at {url}"))
                .evidence(root(&error))
                .next(
                    "start one with `tradewind orchestrator`, or name another: --orchestrator URL",
                )
        })?;
        let token = token
            .map(|token| MetadataValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| Failure::usage("the token has characters that no token has"))?;
        Ok(Client { channel, token, url: url.to_string() })
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request.set_timeout(ANSWER);
        request
    }

    fn failed(&self, what: &str, status: &tonic::Status) -> Failure {
        let details = status.get_error_details();
        let mut lines: Vec<String> = Vec::new();
        if let Some(bad) = details.bad_request() {
            let violations = bad.field_violations.iter();
            lines.extend(violations.map(|one| format!("  {}: {}", one.field, one.description)));
        }
        if let Some(failed) = details.precondition_failure() {
            let violations = failed.violations.iter();
            lines.extend(violations.map(|one| format!("  {}: {}", one.subject, one.description)));
            return Failure::failed(format!("{what}: {}", status.message()))
                .evidence(lines.join("\n"));
        }
        let info = details.error_info();
        if let Some(version) = info.and_then(|info| info.metadata.get("current_version")) {
            lines.push(format!("  the current version is v{version}"));
        }
        let cause = format!("{what}: {} ({})", status.message(), status.code().description());
        let failure = match status.code() {
            tonic::Code::InvalidArgument => Failure::configuration(cause),
            tonic::Code::Unauthenticated => {
                Failure::failed(cause).next("name the cluster token: --token-file FILE")
            }
            tonic::Code::Unavailable => Failure::failed(cause)
                .next(format!("is the orchestrator at {} still there?", self.url)),
            _ => Failure::failed(cause),
        };
        if lines.is_empty() { failure } else { failure.evidence(lines.join("\n")) }
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
