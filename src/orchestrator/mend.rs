//! Looking for the most advanced ledger of the fleet, once an orchestrator is fenced.
//!
//! Asks followers over their streams and named nodes over their peer ports; what they answer is
//! checked by signature and fingerprint, and judged by the engine.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::driver::{Command, DriverError, Otherwise, Outcome};
use super::shared::Shared;
use crate::engine::recovery::{RecoverError, offered_ledger};
use crate::model::delta::Delta;
use crate::model::exchange::PullFrame;
use crate::model::ids::ClusterId;
use crate::model::ledger::Ledger;
use crate::model::limits;
use crate::model::trust::Trust;
use crate::wire::pull::PullDecoder;

/// A recovery that worked.
pub(super) struct Mended {
    pub(super) outcome: Outcome,
    /// Who did not help, and why.
    pub(super) failures: Vec<(String, String)>,
}

/// Why nothing was mended. Nothing was touched.
pub(super) enum MendError {
    /// The engine refused.
    Recover(RecoverError),
    /// The driver did not answer.
    Driver(DriverError),
    /// There is one under way.
    UnderWay,
    /// More nodes are named than one recovery takes.
    TooManyNodes,
}

/// Why a node's ledger was not taken.
#[derive(Debug)]
enum PullError {
    Url,
    Request(hyper_util::client::legacy::Error),
    Status(http::StatusCode),
    Body(hyper::Error),
    Wire(crate::wire::error::WireError),
    NoLedger,
    Refused(crate::model::delta::Refusal),
    Late,
}

/// Goes on from the best ledger that followers and these nodes have.
pub(super) async fn recover(
    shared: &Shared,
    from: &[String],
    token: Option<&str>,
    otherwise: Otherwise,
) -> Result<Mended, MendError> {
    if from.len() > limits::RECOVER_FROM {
        return Err(MendError::TooManyNodes);
    }
    if shared.published.load().fence.is_none() {
        return Err(MendError::Recover(RecoverError::NotFenced));
    }
    if !shared.offers.open() {
        return Err(MendError::UnderWay);
    }
    let closing = Closing(shared);
    shared.ask(Command::AskLedgers).await.map_err(MendError::Driver)?;
    let ((pulled, failures), ()) =
        tokio::join!(pull_all(shared, from, token), offers_arrive(shared, from.is_empty()));
    let mut offers = shared.offers.close();
    drop(closing);
    offers.extend(pulled);
    let outcome = shared.ask(|reply| Command::Recover(offers, otherwise, reply)).await;
    let outcome = outcome.map_err(MendError::Driver)?.map_err(MendError::Recover)?;
    Ok(Mended { outcome, failures })
}

/// Closes the offers however the recovery ends.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.offers.close();
    }
}

/// Waits until whoever was asked over a stream has answered, or it takes too long.
async fn offers_arrive(shared: &Shared, only_these: bool) {
    let patience = if only_these { PATIENCE } else { SHORT_PATIENCE };
    let until = Instant::now() + patience;
    loop {
        let arrived = shared.offers.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
        if shared.offers.is_complete() || timeout_at(until, arrived).await.is_err() {
            return;
        }
    }
}

async fn pull_all(
    shared: &Shared,
    from: &[String],
    token: Option<&str>,
) -> (Vec<Ledger>, Vec<(String, String)>) {
    let mut pulls = JoinSet::new();
    for url in from.iter().cloned() {
        let (cluster, trust) = (shared.cluster, shared.trust.clone());
        let authorization = token.map(|token| format!("Bearer {token}"));
        pulls.spawn(async move {
            let pulled = timeout(PULL, pull(&url, authorization, cluster, &trust)).await;
            (url, pulled.unwrap_or(Err(PullError::Late)))
        });
    }
    let (mut ledgers, mut failures): (Vec<Ledger>, _) = (Vec::new(), Vec::new());
    while let Some(pulled) = pulls.join_next().await {
        match pulled {
            Ok((_, Ok(ledger))) if ledgers.len() < limits::OFFERED_LEDGERS => ledgers.push(ledger),
            Ok((_, Ok(ledger))) => {
                // Full: the least advanced gives way.
                let least = ledgers.iter_mut().min_by_key(|held| held.position());
                if let Some(least) = least.filter(|held| held.position() < ledger.position()) {
                    *least = ledger;
                }
            }
            Ok((url, Err(why))) => failures.push((url, why.to_string())),
            Err(_) => {}
        }
    }
    (ledgers, failures)
}

async fn pull(
    url: &str,
    authorization: Option<String>,
    cluster: ClusterId,
    trust: &Trust,
) -> Result<Ledger, PullError> {
    let uri = format!("{}/v1/configuration?since=0:0", url.trim_end_matches('/'));
    let mut request = http::Request::get(uri).header("accept", "application/x-protobuf");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| PullError::Url)?;
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(PullError::Request)?;
    if response.status() != http::StatusCode::OK {
        return Err(PullError::Status(response.status()));
    }
    let delta = read_ledger(response.into_body()).await?;
    let (trust, read) = (trust.clone(), delta);
    let offered = tokio::task::spawn_blocking(move || offered_ledger(&read, cluster, &trust));
    offered.await.map_err(|_| PullError::Late)?.map_err(PullError::Refused)
}

/// The first replacement in a body; the rest of it is not read.
async fn read_ledger(mut body: hyper::body::Incoming) -> Result<Delta, PullError> {
    let mut decoder = PullDecoder::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(PullError::Body)?;
        let Ok(bytes) = frame.into_data() else { continue };
        decoder.feed(&bytes);
        while let Some(frame) = decoder.next().map_err(PullError::Wire)? {
            if let PullFrame::Delta(delta) = frame {
                return Ok(delta);
            }
        }
    }
    Err(PullError::NoLedger)
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PullError::Url => f.write_str("is not a URL of a peer port"),
            PullError::Request(error) => write!(f, "does not answer: {error}"),
            PullError::Status(status) => write!(f, "answered {status}"),
            PullError::Body(error) => write!(f, "broke off: {error}"),
            PullError::Wire(error) => write!(f, "answered something else: {error}"),
            PullError::NoLedger => f.write_str("holds no ledger"),
            PullError::Refused(refusal) => write!(f, "its ledger {refusal}"),
            PullError::Late => f.write_str("took too long"),
        }
    }
}

/// How long followers may take where nobody else is asked.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long followers may take where nodes are named.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long one named node may take for a whole ledger.
const PULL: Duration = Duration::from_secs(60);
