//! Asks peers: digests, pulls, neighbour lists, latency.
//!
//! Plain HTTP/1.1 on the control runtime with kept connections; every call has a deadline and a
//! cap on what it reads; no redirects are followed. Whom to ask is the mind's decision.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::Connector;
use crate::engine::port::{PullWhat, Pulled};
use crate::model::digest::{Digest, DigestReply};
use crate::model::exchange::PullFrame;
use crate::model::ids::{NodeId, PeerAddr, RuleId, Version};
use crate::model::latency::LatencyInfoRow;
use crate::model::peer::PeerCard;
use crate::model::record::Body;
use crate::wire::peer_json;
use crate::wire::pull::PullDecoder;
use crate::wire::rule_document::rule_data_from_json;

/// Media type of pulled bodies.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";
/// Who answers, for peers that only have an address so far.
pub(crate) const NODE_HEADER: &str = "x-tradewind-node";
/// Where it stands.
pub(crate) const REGION_HEADER: &str = "x-tradewind-region";

/// Asks peers.
#[derive(Clone)]
pub(crate) struct PeerClient {
    client: Client<Connector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

/// A question came to nothing.
#[derive(Debug)]
pub(crate) enum PeerError {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Late,
    /// An answer that is none: this status.
    Status(StatusCode),
    /// An answer that cannot be read, or too much of it.
    Unreadable(&'static str),
}

impl PeerClient {
    pub(crate) fn new(connector: Connector, authorization: Option<HeaderValue>) -> PeerClient {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(2)
            .build(connector);
        PeerClient { client, authorization }
    }

    /// POST configuration-update.
    pub(crate) async fn digest(
        &self,
        to: PeerAddr,
        digest: &Digest,
    ) -> Result<(DigestReply, Duration), PeerError> {
        let body = Bytes::from(peer_json::digest_to_json(digest));
        let begun = Instant::now();
        let call = async {
            let response = self.post(to, "/v1/configuration-update", body).await?;
            let bytes = gather(response, REPLY_BYTES).await?;
            peer_json::reply_from_json(&bytes).map_err(|e| PeerError::Unreadable(e.field()))
        };
        let reply = within(DEADLINE, call).await?;
        Ok((reply, begun.elapsed()))
    }

    /// GET configuration, as the mind asks for it.
    pub(crate) async fn pull(&self, from: PeerAddr, what: &PullWhat) -> Result<Pulled, PeerError> {
        let path = match what {
            PullWhat::Since(position) => {
                let (epoch, revision) = position.map_or((0, 0), |at| (at.epoch.0, at.revision.0));
                format!("/v1/configuration?since={epoch}:{revision}")
            }
            PullWhat::Overrides(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| format!("rule={id}")).collect();
                format!("/v1/configuration?{}", ids.join("&"))
            }
            PullWhat::Plain(ids) => return self.plain(from, ids).await,
        };
        within(PULL_DEADLINE, self.pull_frames(from, &path)).await
    }

    async fn pull_frames(&self, from: PeerAddr, path: &str) -> Result<Pulled, PeerError> {
        let response = self.call(Method::GET, from, path, PROTOBUF, Bytes::new()).await?;
        let protobuf = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes() == PROTOBUF.as_bytes());
        if !protobuf {
            return Err(PeerError::Unreadable("content type"));
        }
        let mut body = response.into_body();
        let mut decoder = PullDecoder::new();
        let mut pulled = Pulled::default();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| PeerError::Unreachable)?;
            let Some(bytes) = frame.data_ref() else { continue };
            read += bytes.len();
            if read > PULL_BYTES {
                return Err(PeerError::Unreadable("length"));
            }
            decoder.feed(bytes);
            while let Some(frame) = decoder.next().map_err(|e| PeerError::Unreadable(e.field()))? {
                match frame {
                    PullFrame::Link(link) => pulled.links.push(link),
                    PullFrame::Delta(delta) => pulled.delta = Some(delta),
                    PullFrame::Beacon(beacon) => pulled.beacon = Some(beacon),
                    PullFrame::Override(by_hand) => pulled.overrides.push(by_hand),
                    PullFrame::Current => {}
                }
            }
        }
        decoder.finish().map_err(|e| PeerError::Unreadable(e.field()))?;
        Ok(pulled)
    }

    /// Rules of a peer that knows only versions, one by one.
    async fn plain(&self, from: PeerAddr, ids: &[RuleId]) -> Result<Pulled, PeerError> {
        let mut pulled = Pulled::default();
        for id in ids.iter().take(PLAIN_AT_ONCE) {
            let one = within(DEADLINE, self.plain_rule(from, id)).await?;
            pulled.plain.extend(one.map(|(version, body)| (id.clone(), version, body)));
        }
        Ok(pulled)
    }

    async fn plain_rule(
        &self,
        from: PeerAddr,
        id: &RuleId,
    ) -> Result<Option<(Version, Body)>, PeerError> {
        let path = format!("/v1/configuration/{id}");
        let request = self.request(Method::GET, from, &path, "application/json", Bytes::new())?;
        let response = self.client.request(request).await.map_err(|_| PeerError::Unreachable)?;
        let status = response.status();
        let bytes = gather(response, crate::model::limits::RULE_BYTES * 2).await?;
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| PeerError::Unreadable("rule"))?;
        let Some(version) = json["version"].as_u64().and_then(Version::new) else {
            return Ok(None);
        };
        match status {
            StatusCode::OK => {
                let parsed = rule_data_from_json(id.as_str(), &json["data"])
                    .map_err(|_| PeerError::Unreadable("data"))?;
                Ok(Some((version, Body::Live(parsed.data))))
            }
            StatusCode::NOT_FOUND if json["retired"] == true => Ok(Some((version, Body::Retired))),
            other => Err(PeerError::Status(other)),
        }
    }

    /// GET neighbours: whom the peer knows, and who it is itself.
    pub(crate) async fn neighbours(
        &self,
        from: PeerAddr,
    ) -> Result<(Vec<PeerCard>, Option<PeerCard>, Duration), PeerError> {
        let begun = Instant::now();
        let call = async {
            let json = "application/json";
            let path = "/v1/neighbours";
            let response = self.call(Method::GET, from, path, json, Bytes::new()).await?;
            let word =
                |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let node = word(NODE_HEADER).and_then(NodeId::parse);
            let region = word(REGION_HEADER).unwrap_or_default().to_string();
            let card = node.map(|node| PeerCard { address: from, node: Some(node), region });
            let bytes = gather(response, REPLY_BYTES).await?;
            let list = peer_json::neighbour_list_from_json(&bytes)
                .map_err(|e| PeerError::Unreadable(e.field()))?;
            Ok((list.into_iter().map(|listed| listed.card).collect(), card))
        };
        let (list, card) = within(DEADLINE, call).await?;
        Ok((list, card, begun.elapsed()))
    }

    /// GET latency-info.
    pub(crate) async fn latency_info(
        &self,
        from: PeerAddr,
    ) -> Result<Vec<LatencyInfoRow>, PeerError> {
        let call = async {
            let json = "application/json";
            let path = "/v1/latency-info";
            let response = self.call(Method::GET, from, path, json, Bytes::new()).await?;
            let bytes = gather(response, LATENCY_BYTES).await?;
            peer_json::latency_info_from_json(&bytes).map_err(|e| PeerError::Unreadable(e.field()))
        };
        within(DEADLINE, call).await
    }

    async fn post(
        &self,
        to: PeerAddr,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, PeerError> {
        self.call(Method::POST, to, path, "application/json", body).await
    }

    async fn call(
        &self,
        method: Method,
        peer: PeerAddr,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, PeerError> {
        let request = self.request(method, peer, path, accept, body)?;
        let response = self.client.request(request).await.map_err(|_| PeerError::Unreachable)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(PeerError::Status(response.status()))
        }
    }

    fn request(
        &self,
        method: Method,
        peer: PeerAddr,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, PeerError> {
        let mut request =
            Request::builder().method(method).uri(format!("{peer}{path}")).header(ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.body(Full::new(body)).map_err(|_| PeerError::Unreadable("address"))
    }
}

async fn gather(response: Response<Incoming>, most: usize) -> Result<Bytes, PeerError> {
    let limited = http_body_util::Limited::new(response.into_body(), most);
    let gathered = limited.collect().await.map_err(|_| PeerError::Unreadable("body"))?;
    Ok(gathered.to_bytes())
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    tokio::time::timeout(deadline, call).await.map_err(|_| PeerError::Late)?
}

impl std::fmt::Display for PeerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerError::Unreachable => f.write_str("the peer cannot be reached"),
            PeerError::Late => f.write_str("the peer did not answer in time"),
            PeerError::Status(status) => write!(f, "the peer answered {status}"),
            PeerError::Unreadable(what) => write!(f, "the peer's answer is unreadable: {what}"),
        }
    }
}

/// For everything small.
const DEADLINE: Duration = Duration::from_secs(3);
/// For pulls; the mind gives a delta much less before it asks elsewhere.
const PULL_DEADLINE: Duration = Duration::from_secs(30);
/// The largest answer to a digest or a neighbours question.
const REPLY_BYTES: usize = 1 << 20;
/// The largest latency table.
const LATENCY_BYTES: usize = 8 << 20;
/// The largest pull: the ledger of a large fleet.
const PULL_BYTES: usize = 1 << 30;
/// Rules asked of a plain peer in one go.
const PLAIN_AT_ONCE: usize = 64;
