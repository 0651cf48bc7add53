//! Writes that a node forwards to an orchestrator.
//!
//! Each orchestrator is tried until one can be reached. Once a request was sent, silence means
//! that the outcome is unknown, and nobody else is asked.

use std::time::Duration;

use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::super::connect::Connector;
use crate::model::ids::WriteId;
use crate::wire::proto::rule_service_client::RuleServiceClient;
use crate::wire::write_proto::{ForwardedResult, ForwardedWrite, apply_request, read_apply};

/// The orchestrators that a node writes through.
#[derive(Clone)]
pub(crate) struct Orchestrators {
    urls: Vec<String>,
    token: Option<MetadataValue<Ascii>>,
    connector: Connector,
}

/// What became of a forwarded write.
pub(crate) enum Forwarded {
    /// It is in the ledger.
    Done(ForwardedResult),
    /// An orchestrator said no.
    Refused(Refusal),
    /// It was sent, and nobody knows.
    Unknown,
    /// None could be reached; nothing was sent.
    Unreachable,
}

/// An orchestrator's no.
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) message: String,
    /// Field, what is wrong with it.
    pub(crate) fields: Vec<(String, String)>,
    /// The current version, where that is what is wrong.
    pub(crate) current: Option<u64>,
}

/// What kind of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// The rules are not valid.
    Invalid,
    /// A precondition does not hold.
    Precondition,
    /// There is no such rule.
    NotFound,
    /// The orchestrator takes no writes now.
    Fenced,
    /// It does not let this node write.
    Forbidden,
    /// It has too much to do.
    Busy,
}

impl Orchestrators {
    pub(crate) fn new(
        urls: Vec<String>,
        token: Option<MetadataValue<Ascii>>,
        connector: Connector,
    ) -> Orchestrators {
        Orchestrators { urls, token, connector }
    }

    /// The URL of one of them, and the token to show.
    pub(crate) fn at(&self, index: usize) -> Option<(String, Option<MetadataValue<Ascii>>)> {
        Some((self.urls.get(index)?.clone(), self.token.clone()))
    }

    /// Whether none is configured.
    pub(crate) fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// Writes through the first orchestrator that can be reached.
    pub(crate) async fn apply(&self, writes: &[ForwardedWrite], id: &WriteId) -> Forwarded {
        for url in &self.urls {
            let Ok(endpoint) = Endpoint::from_shared(url.clone()) else { continue };
            let reaching = reach(&endpoint, self.connector.clone());
            let Ok(Some(channel)) = tokio::time::timeout(REACH, reaching).await else { continue };
            let mut client = RuleServiceClient::new(channel)
                .max_encoding_message_size(WRITE_BYTES)
                .max_decoding_message_size(WRITE_BYTES);
            let Ok(message) = apply_request(writes, id) else { return Forwarded::Unknown };
            let mut request = tonic::Request::new(message);
            if let Some(token) = &self.token {
                request.metadata_mut().insert("authorization", token.clone());
            }
            let answered = tokio::time::timeout(ANSWER, client.apply_rules(request)).await;
            return match answered {
                Err(_) => Forwarded::Unknown,
                Ok(Ok(answer)) => match read_apply(answer.get_ref()) {
                    Ok(result) => Forwarded::Done(result),
                    Err(_) => Forwarded::Unknown,
                },
                Ok(Err(status)) => refused(&status),
            };
        }
        Forwarded::Unreachable
    }
}

/// Connects and asks whether anybody is there. A port that accepts and says nothing, or hangs up,
/// is nobody: the write itself has not been sent yet.
async fn reach(endpoint: &Endpoint, connector: Connector) -> Option<Channel> {
    let channel = endpoint.connect_with_connector(connector).await.ok()?;
    let question = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel.clone()).check(question).await.ok()?;
    Some(channel)
}

fn refused(status: &tonic::Status) -> Forwarded {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => RefusalKind::Invalid,
        Code::Aborted | Code::AlreadyExists => RefusalKind::Precondition,
        Code::NotFound => RefusalKind::NotFound,
        Code::FailedPrecondition => RefusalKind::Fenced,
        Code::Unauthenticated | Code::PermissionDenied => RefusalKind::Forbidden,
        Code::ResourceExhausted => RefusalKind::Busy,
        _ => return Forwarded::Unknown,
    };
    let details = status.get_error_details();
    let bad = details.bad_request().map(|bad| bad.field_violations.iter());
    let bad = bad.into_iter().flatten().map(|one| (one.field.clone(), one.description.clone()));
    let failed = details.precondition_failure().map(|failed| failed.violations.iter());
    let failed = failed.into_iter().flatten();
    let failed = failed.map(|one| (format!("/{}", one.subject), one.description.clone()));
    let fields = bad.chain(failed).collect();
    let current = details
        .error_info()
        .and_then(|info| info.metadata.get("current_version"))
        .and_then(|version| version.parse().ok());
    Forwarded::Refused(Refusal { kind, message: status.message().to_string(), fields, current })
}

/// An orchestrator that does not say that it is there by then counts as not reached.
const REACH: Duration = Duration::from_secs(2);
/// How long an answer is waited for once the request was sent.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest configuration posted by hand.
const WRITE_BYTES: usize = 64 << 20;
