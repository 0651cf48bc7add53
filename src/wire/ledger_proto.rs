//! Records as protobuf messages, and single messages as bytes for the stores on disk.
//!
//! Not a file format: framing, checksums and order on disk belong to the stores.

use prost::Message;

use super::error::WireError;
use super::{field, proto};
use crate::model::head::{Beacon, Branch, SignedHead};
use crate::model::key::KeyLink;
use crate::model::manual::{AuthorCertificate, Override};
use crate::model::moment::WallTime;
use crate::model::record::Record;

impl From<&Record> for proto::Record {
    fn from(record: &Record) -> proto::Record {
        proto::Record {
            id: record.id.as_str().to_owned(),
            version: record.version.get(),
            revision: record.revision.0,
            created_ms: record.created.0,
            changed_ms: record.changed.0,
            data: record.body.data().cloned(),
        }
    }
}

impl TryFrom<&proto::Record> for Record {
    type Error = WireError;

    fn try_from(message: &proto::Record) -> Result<Record, WireError> {
        Ok(Record {
            id: field::rule_id(&message.id)?,
            version: field::version(message.version)?,
            revision: field::revision(message.revision, "revision")?,
            created: WallTime(message.created_ms),
            changed: WallTime(message.changed_ms),
            body: field::body(message.data.as_ref())?,
        })
    }
}

macro_rules! byte_forms {
    ($($encode:ident, $decode:ident: $model:ident as $message:ident, $name:literal;)*) => {$(
        #[doc = concat!("The bytes of a ", $name, ".")]
        pub(crate) fn $encode(value: &$model) -> Vec<u8> {
            proto::$message::from(value).encode_to_vec()
        }

        #[doc = concat!("A ", $name, " from its bytes.")]
        pub(crate) fn $decode(bytes: &[u8]) -> Result<$model, WireError> {
            let message =
                proto::$message::decode(bytes).map_err(|_| WireError::Undecodable($name))?;
            $model::try_from(&message)
        }
    )*};
}

byte_forms! {
    encode_record, decode_record: Record as Record, "record";
    encode_signed_head, decode_signed_head: SignedHead as SignedHead, "signed head";
    encode_beacon, decode_beacon: Beacon as Beacon, "beacon";
    encode_branch, decode_branch: Branch as Branch, "branch point";
    encode_key_link, decode_key_link: KeyLink as KeyLink, "key link";
    encode_override, decode_override: Override as Override, "override";
    encode_certificate, decode_certificate: AuthorCertificate as AuthorCertificate, "certificate";
}

#[cfg(test)]
mod tests;
