//! A codec that sends bytes as they are: frames are encoded once for all followers.

use bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use crate::wire::proto::FollowRequest;

/// Encoded messages out, `FollowRequest` in.
#[derive(Clone, Copy, Default)]
pub(super) struct FollowCodec;

/// Copies a message into tonic's buffer: one copy per follower.
pub(super) struct AsIs;

impl Codec for FollowCodec {
    type Encode = Bytes;
    type Decode = FollowRequest;
    type Encoder = AsIs;
    type Decoder = ProstDecoder<FollowRequest>;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> ProstDecoder<FollowRequest> {
        ProstDecoder::default()
    }
}

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}
