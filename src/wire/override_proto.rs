//! Overrides, their marks and author certificates as protobuf messages.
//!
//! Shape only: whether an override holds and counts is the model's business.

use bytes::Bytes;

use super::error::WireError;
use super::{field, proto};
use crate::model::manual::{AuthorCertificate, Override, OverrideMark};
use crate::model::moment::WallTime;

impl From<&Override> for proto::Override {
    fn from(by_hand: &Override) -> proto::Override {
        proto::Override {
            cluster: Bytes::copy_from_slice(&by_hand.cluster.0),
            id: by_hand.id.as_str().to_owned(),
            version: by_hand.version.get(),
            base: by_hand.base,
            data: by_hand.body.data().cloned(),
            node: by_hand.node.as_str().to_owned(),
            written_ms: by_hand.written.0,
            key: Bytes::copy_from_slice(&by_hand.key.0),
            signature: Bytes::copy_from_slice(&by_hand.signature.0),
            certificate: by_hand.certificate.as_ref().map(proto::AuthorCertificate::from),
        }
    }
}

impl TryFrom<&proto::Override> for Override {
    type Error = WireError;

    fn try_from(message: &proto::Override) -> Result<Override, WireError> {
        Ok(Override {
            cluster: field::cluster(&message.cluster)?,
            id: field::rule_id(&message.id)?,
            version: field::version(message.version)?,
            base: field::number(message.base, "base")?,
            body: field::body(message.data.as_ref())?,
            node: field::node_id(&message.node)?,
            written: WallTime(message.written_ms),
            key: field::key(&message.key, "key")?,
            signature: field::signature(&message.signature)?,
            certificate: message.certificate.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&AuthorCertificate> for proto::AuthorCertificate {
    fn from(certificate: &AuthorCertificate) -> proto::AuthorCertificate {
        proto::AuthorCertificate {
            cluster: Bytes::copy_from_slice(&certificate.cluster.0),
            node: certificate.node.as_str().to_owned(),
            key: Bytes::copy_from_slice(&certificate.key.0),
            issuer: Bytes::copy_from_slice(&certificate.issuer.0),
            signature: Bytes::copy_from_slice(&certificate.signature.0),
        }
    }
}

impl TryFrom<&proto::AuthorCertificate> for AuthorCertificate {
    type Error = WireError;

    fn try_from(message: &proto::AuthorCertificate) -> Result<AuthorCertificate, WireError> {
        Ok(AuthorCertificate {
            cluster: field::cluster(&message.cluster)?,
            node: field::node_id(&message.node)?,
            key: field::key(&message.key, "key")?,
            issuer: field::key(&message.issuer, "issuer")?,
            signature: field::signature(&message.signature)?,
        })
    }
}

impl From<&OverrideMark> for proto::OverrideMark {
    fn from(mark: &OverrideMark) -> proto::OverrideMark {
        proto::OverrideMark {
            id: mark.id.as_str().to_owned(),
            version: mark.version.get(),
            node: mark.node.as_str().to_owned(),
        }
    }
}

impl TryFrom<&proto::OverrideMark> for OverrideMark {
    type Error = WireError;

    fn try_from(message: &proto::OverrideMark) -> Result<OverrideMark, WireError> {
        Ok(OverrideMark {
            id: field::rule_id(&message.id)?,
            version: field::version(message.version)?,
            node: field::node_id(&message.node)?,
        })
    }
}
