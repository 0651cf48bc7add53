//! The question and the answer of grpc.health.v1, as they stand in the body of a request.
//!
//! Not a client: how they travel is the caller's business. A message of gRPC is a flag for
//! compression, its length in four bytes, and its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Where the question is asked.
pub(crate) const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer that are taken in.
pub(crate) const MOST_BYTES: usize = 1 << 10;

/// Asks whether a service is well; the empty name is the server as a whole.
pub(crate) fn question(service: &str) -> Bytes {
    let question = HealthCheckRequest { service: service.to_owned() };
    let mut frame = BytesMut::with_capacity(PREFIX + question.encoded_len());
    frame.put_u8(0);
    // The name of a service was bounded with its rule.
    frame.put_u32(u32::try_from(question.encoded_len()).unwrap_or(0));
    frame.put_slice(&question.encode_to_vec());
    frame.freeze()
}

/// Whether an answer is one message, and that says SERVING.
pub(crate) fn is_serving(frame: &[u8]) -> bool {
    let Some((&[0, a, b, c, d], message)) = frame.split_first_chunk() else { return false };
    let whole = usize::try_from(u32::from_be_bytes([a, b, c, d])) == Ok(message.len());
    let said = HealthCheckResponse::decode(message).map(|answer| answer.status);
    whole && said == Ok(i32::from(ServingStatus::Serving))
}

const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_that_says_serving_is_good() {
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert!(is_serving(b"\0\0\0\0\x02\x08\x01"));
        for bad in [
            &b"\0\0\0\0\x02\x08\x02"[..],
            b"\0\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x02\x08",
            b"\0\0\0",
            b"",
        ] {
            assert!(!is_serving(bad), "{bad:?}");
        }
    }
}
