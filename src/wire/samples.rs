//! Signed samples for the tests of this floor.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::delta::{Basis, Delta};
use crate::model::fingerprint::Fingerprint;
use crate::model::head::{Beacon, Branch, Head, Position, SignedHead};
use crate::model::ids::{ClusterId, Epoch, NodeId, Revision, RuleId, Version};
use crate::model::key::{KeyLink, PrivateKey, Signature};
use crate::model::manual::{AuthorCertificate, Override};
use crate::model::moment::WallTime;
use crate::model::record::{Body, Record};

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed([seed; 32])
}

pub(crate) fn cluster() -> ClusterId {
    key(1).public().cluster()
}

pub(crate) fn id(text: &str) -> RuleId {
    RuleId::parse(text).unwrap()
}

pub(crate) fn node() -> NodeId {
    NodeId::parse("fra2").unwrap()
}

pub(crate) fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub(crate) fn head() -> Head {
    Head {
        cluster: cluster(),
        epoch: Epoch(2),
        revision: Revision(48_211),
        floor: Revision(47_000),
        top: 9,
        fingerprint: Fingerprint([5; 32]),
    }
}

pub(crate) fn signed_head() -> SignedHead {
    head().sign(&key(1))
}

pub(crate) fn beacon() -> Beacon {
    Beacon::sign(head(), 77, &key(1))
}

pub(crate) fn branch() -> Branch {
    let parent = Head { epoch: Epoch(1), revision: Revision(40_000), floor: Revision(3), ..head() };
    Branch::sign(&parent, Epoch(2), &key(1))
}

pub(crate) fn link() -> KeyLink {
    KeyLink::sign(&key(1), key(2).public(), (cluster(), 1, Epoch(3)))
}

pub(crate) fn certificate() -> AuthorCertificate {
    AuthorCertificate::sign(cluster(), node(), key(3).public(), &key(1))
}

pub(crate) fn by_hand(data: Option<&[u8]>) -> Override {
    Override {
        cluster: cluster(),
        id: id("shop-api"),
        version: version(8),
        base: 7,
        body: data.map_or(Body::Retired, |data| Body::Live(Bytes::copy_from_slice(data))),
        node: node(),
        written: WallTime(1_790_000_000_000),
        key: key(3).public(),
        signature: Signature([0; 64]),
        certificate: Some(certificate()),
    }
    .sign(&key(3))
}

pub(crate) fn record(name: &str, revision: u64, data: Option<Vec<u8>>) -> Record {
    Record {
        id: id(name),
        version: version(3),
        revision: Revision(revision),
        created: WallTime(1_700_000_000_000),
        changed: WallTime(1_790_000_000_000),
        body: data.map_or(Body::Retired, |data| Body::Live(Bytes::from(data))),
    }
}

pub(crate) fn delta(records: Vec<Record>) -> Delta {
    let after = Position { epoch: Epoch(1), revision: Revision(40_000) };
    let records = records.into_iter().map(Arc::new).collect();
    Delta { basis: Basis::After(after), to: signed_head(), branches: vec![branch()], records }
}
