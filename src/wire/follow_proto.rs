//! The messages of the node's stream as protobuf, in both directions.
//!
//! One thing said may be several messages: deltas travel in parts, long lists in pieces. Each
//! stream has one reader per direction, which holds the parts of at most one unfinished delta.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::delta_parts::{DeltaAssembly, delta_to_parts};
use super::error::WireError;
use super::proto::{self, follow_request, follow_response};
use super::{field, follow_words};
use crate::model::delta::Delta;
use crate::model::exchange::{FromNode, FromOrchestrator};
use crate::model::follow::{Hello, Settled, Welcome};
use crate::model::head::{Beacon, SignedHead};
use crate::model::ids::PeerAddr;
use crate::model::key::KeyLink;
use crate::model::limits;
use crate::model::manual::{AuthorCertificate, Override, OverrideMark};

/// What a node says, as messages of its stream; never none.
pub(crate) fn follow_requests(said: &FromNode) -> Vec<proto::FollowRequest> {
    use follow_request::Kind;
    let kinds = match said {
        FromNode::Hello(hello) => vec![Kind::Hello(hello_message(hello))],
        FromNode::Report(report) => vec![Kind::Report(follow_words::report_message(report))],
        FromNode::HandIn(overrides) => hand_ins(overrides).map(Kind::HandIn).collect(),
        FromNode::Ledger(delta) => delta_to_parts(delta)
            .map(|part| Kind::Ledger(proto::LedgerAnswer { part: Some(part) }))
            .collect(),
    };
    kinds.into_iter().map(|kind| proto::FollowRequest { kind: Some(kind) }).collect()
}

/// What the orchestrator says, as messages of its stream; never none.
pub(crate) fn follow_responses(said: &FromOrchestrator) -> Vec<proto::FollowResponse> {
    use follow_response::Kind;
    let kinds = match said {
        FromOrchestrator::Welcome(welcome) => vec![Kind::Welcome(welcome_message(welcome))],
        FromOrchestrator::Delta(delta) => delta_to_parts(delta).map(Kind::Part).collect(),
        FromOrchestrator::Beacon(beacon) => vec![Kind::Beacon(beacon.into())],
        FromOrchestrator::Link(link) => vec![Kind::Link(link.into())],
        FromOrchestrator::Settled(settled) => settled
            .chunks(SETTLED_PER_MESSAGE)
            .map(|some| {
                let overrides = some.iter().map(settled_message).collect();
                Kind::Settled(proto::Settled { overrides })
            })
            .collect(),
        FromOrchestrator::LedgerRequest => vec![Kind::LedgerRequest(proto::LedgerRequest {})],
    };
    kinds.into_iter().map(|kind| proto::FollowResponse { kind: Some(kind) }).collect()
}

/// What a node says of itself, as bytes for the orchestrator's store.
pub(crate) fn encode_hello(hello: &Hello) -> Vec<u8> {
    hello_message(hello).encode_to_vec()
}

/// What a node said of itself, from its bytes.
pub(crate) fn decode_hello(bytes: &[u8]) -> Result<Hello, WireError> {
    read_hello(&proto::Hello::decode(bytes).map_err(|_| WireError::Undecodable("hello"))?)
}

/// What the orchestrator says, as the bytes of its stream's messages; never none.
pub(crate) fn follow_frames(said: &FromOrchestrator) -> Vec<Bytes> {
    let messages = follow_responses(said);
    messages.iter().map(|message| Bytes::from(message.encode_to_vec())).collect()
}

/// The parts of a delta as bytes of the stream's messages, one by one.
pub(crate) fn delta_frames(delta: &Delta) -> impl Iterator<Item = Bytes> + '_ {
    delta_to_parts(delta).map(|part| {
        let kind = Some(follow_response::Kind::Part(part));
        Bytes::from(proto::FollowResponse { kind }.encode_to_vec())
    })
}

/// Reads what a node says; one per stream.
#[derive(Debug, Default)]
pub(crate) struct NodeReader {
    assembly: DeltaAssembly,
}

/// Reads what the orchestrator says; one per stream.
#[derive(Debug, Default)]
pub(crate) struct OrchestratorReader {
    assembly: DeltaAssembly,
}

impl NodeReader {
    /// Takes the next message; `None` while a delta is under way, and for kinds not known here.
    pub(crate) fn push(
        &mut self,
        message: &proto::FollowRequest,
    ) -> Result<Option<FromNode>, WireError> {
        use follow_request::Kind;
        let said = match &message.kind {
            None => return Ok(None),
            Some(Kind::Hello(hello)) => FromNode::Hello(Box::new(read_hello(hello)?)),
            Some(Kind::Report(report)) => {
                FromNode::Report(Box::new(follow_words::read_report(report)?))
            }
            Some(Kind::HandIn(hand_in)) => {
                field::at_most(hand_in.overrides.len(), limits::OVERRIDES, "overrides")?;
                let overrides = hand_in.overrides.iter().map(Override::try_from);
                FromNode::HandIn(overrides.collect::<Result<_, _>>()?)
            }
            Some(Kind::Ledger(answer)) => {
                let part = field::required(answer.part.as_ref(), "part")?;
                return Ok(self.assembly.push(part)?.map(FromNode::Ledger));
            }
        };
        Ok(Some(said))
    }
}

impl OrchestratorReader {
    /// Takes the next message; `None` while a delta is under way, and for kinds not known here.
    pub(crate) fn push(
        &mut self,
        message: &proto::FollowResponse,
    ) -> Result<Option<FromOrchestrator>, WireError> {
        use follow_response::Kind;
        let said = match &message.kind {
            None => return Ok(None),
            Some(Kind::Welcome(welcome)) => {
                FromOrchestrator::Welcome(Box::new(read_welcome(welcome)?))
            }
            Some(Kind::Part(part)) => {
                return Ok(self.assembly.push(part)?.map(FromOrchestrator::Delta));
            }
            Some(Kind::Beacon(beacon)) => FromOrchestrator::Beacon(Beacon::try_from(beacon)?),
            Some(Kind::Link(link)) => FromOrchestrator::Link(KeyLink::try_from(link)?),
            Some(Kind::Settled(settled)) => {
                field::at_most(settled.overrides.len(), limits::OVERRIDES, "overrides")?;
                let settled = settled.overrides.iter().map(read_settled);
                FromOrchestrator::Settled(settled.collect::<Result<_, _>>()?)
            }
            Some(Kind::LedgerRequest(_)) => FromOrchestrator::LedgerRequest,
        };
        Ok(Some(said))
    }
}

/// Overrides in messages of at most `limits::FRAME_BYTES`, apart from a single larger one.
fn hand_ins(overrides: &[Override]) -> impl Iterator<Item = proto::HandIn> + '_ {
    let mut rest = overrides;
    let mut begun = false;
    std::iter::from_fn(move || {
        if begun && rest.is_empty() {
            return None;
        }
        begun = true;
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|by_hand| {
            bytes += OVERRIDE_BYTES + by_hand.body.data().map_or(0, Bytes::len);
            bytes <= limits::FRAME_BYTES
        });
        let (some, after) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = after;
        Some(proto::HandIn { overrides: some.iter().map(proto::Override::from).collect() })
    })
}

pub(super) fn hello_message(hello: &Hello) -> proto::Hello {
    proto::Hello {
        node: hello.node.as_str().to_owned(),
        region: hello.region.clone(),
        labels: hello.labels.clone(),
        traffic_addresses: hello.traffic_addresses.clone(),
        peer_address: hello.peer_address.map_or_else(String::new, |address| address.to_string()),
        head: hello.head.as_ref().map(proto::SignedHead::from),
        key: Bytes::copy_from_slice(&hello.key.0),
        program_version: hello.program_version.clone(),
        link_serial: hello.link_serial,
    }
}

fn read_hello(message: &proto::Hello) -> Result<Hello, WireError> {
    field::at_most(message.labels.len(), limits::LABELS, "labels")?;
    for (name, value) in &message.labels {
        field::at_most(name.len().max(value.len()), limits::WORD_BYTES, "labels")?;
    }
    let addresses = &message.traffic_addresses;
    field::at_most(addresses.len(), limits::TRAFFIC_ADDRESSES, "traffic_addresses")?;
    for address in addresses {
        field::at_most(address.len(), limits::WORD_BYTES, "traffic_addresses")?;
    }
    let peer_address = match message.peer_address.as_str() {
        "" => None,
        url => Some(PeerAddr::parse(url).ok_or(WireError::Invalid("peer_address"))?),
    };
    Ok(Hello {
        node: field::node_id(&message.node)?,
        region: field::word(message.region.clone(), "region")?,
        labels: message.labels.clone(),
        traffic_addresses: addresses.clone(),
        peer_address,
        head: message.head.as_ref().map(SignedHead::try_from).transpose()?,
        key: field::key(&message.key, "key")?,
        program_version: field::word(message.program_version.clone(), "program_version")?,
        link_serial: field::number(message.link_serial, "link_serial")?,
    })
}

fn welcome_message(welcome: &Welcome) -> proto::Welcome {
    let interval = welcome.beacon_interval.as_millis();
    proto::Welcome {
        cluster: Bytes::copy_from_slice(&welcome.cluster.0),
        key: Bytes::copy_from_slice(&welcome.key.0),
        certificate: welcome.certificate.as_ref().map(proto::AuthorCertificate::from),
        fenced: welcome.fenced,
        beacon_interval_ms: u32::try_from(interval).unwrap_or(u32::MAX),
    }
}

fn read_welcome(message: &proto::Welcome) -> Result<Welcome, WireError> {
    if message.beacon_interval_ms == 0 {
        return Err(WireError::Invalid("beacon_interval_ms"));
    }
    Ok(Welcome {
        cluster: field::cluster(&message.cluster)?,
        key: field::key(&message.key, "key")?,
        certificate: message.certificate.as_ref().map(AuthorCertificate::try_from).transpose()?,
        fenced: message.fenced,
        beacon_interval: Duration::from_millis(message.beacon_interval_ms.into()),
    })
}

fn settled_message(settled: &Settled) -> proto::SettledOverride {
    proto::SettledOverride {
        mark: Some((&settled.mark).into()),
        outcome: settled.outcome.as_str().to_owned(),
        why: field::reason(settled.why.clone()),
    }
}

fn read_settled(message: &proto::SettledOverride) -> Result<Settled, WireError> {
    Ok(Settled {
        mark: OverrideMark::try_from(field::required(message.mark.as_ref(), "mark")?)?,
        outcome: follow_words::outcome(&message.outcome)?,
        why: field::reason(message.why.clone()),
    })
}

/// With marks and reasons of at most 1.3 KiB each a message stays below a frame.
const SETTLED_PER_MESSAGE: usize = 512;
/// An override apart from its data: names, keys, signatures and certificate.
const OVERRIDE_BYTES: usize = 768;

#[cfg(test)]
mod tests;
