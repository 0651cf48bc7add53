//! Heads, beacons, branch points, key links and positions as protobuf messages.
//!
//! Shape only: whether a signature holds, and whose counts, is the model's business.

use bytes::Bytes;

use super::error::WireError;
use super::{field, proto};
use crate::model::head::{Beacon, Branch, Head, Position, SignedHead};
use crate::model::key::KeyLink;

impl From<&Position> for proto::Position {
    fn from(position: &Position) -> proto::Position {
        proto::Position { epoch: position.epoch.0, revision: position.revision.0 }
    }
}

impl TryFrom<&proto::Position> for Position {
    type Error = WireError;

    fn try_from(message: &proto::Position) -> Result<Position, WireError> {
        Ok(Position {
            epoch: field::epoch(message.epoch, "epoch")?,
            revision: field::revision(message.revision, "revision")?,
        })
    }
}

impl From<&Head> for proto::Head {
    fn from(head: &Head) -> proto::Head {
        proto::Head {
            cluster: bytes(&head.cluster.0),
            epoch: head.epoch.0,
            revision: head.revision.0,
            floor: head.floor.0,
            top: head.top,
            fingerprint: bytes(&head.fingerprint.0),
        }
    }
}

impl TryFrom<&proto::Head> for Head {
    type Error = WireError;

    fn try_from(message: &proto::Head) -> Result<Head, WireError> {
        let head = Head {
            cluster: field::cluster(&message.cluster)?,
            epoch: field::epoch(message.epoch, "epoch")?,
            revision: field::revision(message.revision, "revision")?,
            floor: field::revision(message.floor, "floor")?,
            top: field::number(message.top, "top")?,
            fingerprint: field::fingerprint(&message.fingerprint)?,
        };
        if head.floor > head.revision { Err(WireError::Invalid("floor")) } else { Ok(head) }
    }
}

impl From<&SignedHead> for proto::SignedHead {
    fn from(signed: &SignedHead) -> proto::SignedHead {
        proto::SignedHead {
            head: Some((&signed.head).into()),
            key: bytes(&signed.key.0),
            signature: bytes(&signed.signature.0),
        }
    }
}

impl TryFrom<&proto::SignedHead> for SignedHead {
    type Error = WireError;

    fn try_from(message: &proto::SignedHead) -> Result<SignedHead, WireError> {
        Ok(SignedHead {
            head: field::required(message.head.as_ref(), "head")?.try_into()?,
            key: field::key(&message.key, "key")?,
            signature: field::signature(&message.signature)?,
        })
    }
}

impl From<&Beacon> for proto::Beacon {
    fn from(beacon: &Beacon) -> proto::Beacon {
        proto::Beacon {
            head: Some((&beacon.head).into()),
            tick: beacon.tick,
            key: bytes(&beacon.key.0),
            signature: bytes(&beacon.signature.0),
        }
    }
}

impl TryFrom<&proto::Beacon> for Beacon {
    type Error = WireError;

    fn try_from(message: &proto::Beacon) -> Result<Beacon, WireError> {
        Ok(Beacon {
            head: field::required(message.head.as_ref(), "head")?.try_into()?,
            tick: field::number(message.tick, "tick")?,
            key: field::key(&message.key, "key")?,
            signature: field::signature(&message.signature)?,
        })
    }
}

impl From<&Branch> for proto::Branch {
    fn from(branch: &Branch) -> proto::Branch {
        proto::Branch {
            cluster: bytes(&branch.cluster.0),
            parent_epoch: branch.parent.0,
            revision: branch.revision.0,
            fingerprint: bytes(&branch.fingerprint.0),
            epoch: branch.epoch.0,
            key: bytes(&branch.key.0),
            signature: bytes(&branch.signature.0),
        }
    }
}

impl TryFrom<&proto::Branch> for Branch {
    type Error = WireError;

    fn try_from(message: &proto::Branch) -> Result<Branch, WireError> {
        let branch = Branch {
            cluster: field::cluster(&message.cluster)?,
            parent: field::epoch(message.parent_epoch, "parent_epoch")?,
            revision: field::revision(message.revision, "revision")?,
            fingerprint: field::fingerprint(&message.fingerprint)?,
            epoch: field::epoch(message.epoch, "epoch")?,
            key: field::key(&message.key, "key")?,
            signature: field::signature(&message.signature)?,
        };
        if branch.epoch <= branch.parent { Err(WireError::Invalid("epoch")) } else { Ok(branch) }
    }
}

impl From<&KeyLink> for proto::KeyLink {
    fn from(link: &KeyLink) -> proto::KeyLink {
        proto::KeyLink {
            cluster: bytes(&link.cluster.0),
            serial: link.serial,
            old_key: bytes(&link.old.0),
            new_key: bytes(&link.new.0),
            first_epoch: link.first_epoch.0,
            signature: bytes(&link.signature.0),
        }
    }
}

impl TryFrom<&proto::KeyLink> for KeyLink {
    type Error = WireError;

    fn try_from(message: &proto::KeyLink) -> Result<KeyLink, WireError> {
        Ok(KeyLink {
            cluster: field::cluster(&message.cluster)?,
            serial: field::number(message.serial, "serial")?,
            old: field::key(&message.old_key, "old_key")?,
            new: field::key(&message.new_key, "new_key")?,
            first_epoch: field::epoch(message.first_epoch, "first_epoch")?,
            signature: field::signature(&message.signature)?,
        })
    }
}

fn bytes(fixed: &[u8]) -> Bytes {
    Bytes::copy_from_slice(fixed)
}
