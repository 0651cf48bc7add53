//! The body of a peer's answer to a pull: messages behind their lengths, read as they arrive.
//!
//! Nobody above sees parts: the decoder gives whole deltas. Invariant: the decoder holds at most
//! one frame, what was fed since the last `next`, and one unfinished delta, and gives no more
//! frames of a kind than an honest answer has. After an error it gives nothing more.

use bytes::{Buf, BytesMut};
use prost::Message;

use super::delta_parts::{DeltaAssembly, delta_to_parts};
use super::error::WireError;
use super::field;
use super::proto::{self, pull_frame::Kind};
use crate::model::exchange::PullFrame;
use crate::model::head::Beacon;
use crate::model::key::KeyLink;
use crate::model::limits;
use crate::model::manual::Override;

/// Appends a frame; a delta becomes as many messages as it needs.
#[cfg(test)]
pub(crate) fn encode_pull_frame(frame: &PullFrame, out: &mut BytesMut) {
    pull_frame_chunks(frame).for_each(|chunk| out.unsplit(chunk));
}

/// The messages of a frame one by one, for bodies that are streamed: each at most about
/// `limits::FRAME_BYTES`.
pub(crate) fn pull_frame_chunks(frame: &PullFrame) -> impl Iterator<Item = BytesMut> + '_ {
    let single = match frame {
        PullFrame::Delta(_) => None,
        PullFrame::Link(link) => Some(Kind::Link(link.into())),
        PullFrame::Beacon(beacon) => Some(Kind::Beacon(beacon.into())),
        PullFrame::Override(by_hand) => Some(Kind::Override(by_hand.into())),
        PullFrame::Current => Some(Kind::Current(proto::Current {})),
    };
    let parts = match frame {
        PullFrame::Delta(delta) => Some(delta_to_parts(delta).map(Kind::Part)),
        _ => None,
    };
    single.into_iter().chain(parts.into_iter().flatten()).map(|kind| {
        let message = proto::PullFrame { kind: Some(kind) };
        let mut chunk = BytesMut::with_capacity(message.encoded_len() + 4);
        message
            .encode_length_delimited(&mut chunk)
            .expect("a BytesMut grows, so there is always room");
        chunk
    })
}

/// Reads the body of an answer, whatever chunks it arrives in.
#[derive(Debug, Default)]
pub(crate) struct PullDecoder {
    buffer: BytesMut,
    assembly: DeltaAssembly,
    given: Given,
    failed: Option<WireError>,
}

/// How many frames of each kind were given.
#[derive(Debug, Default)]
struct Given {
    links: usize,
    deltas: usize,
    beacons: usize,
    overrides: usize,
}

impl PullDecoder {
    /// A decoder at the beginning of a body.
    pub(crate) fn new() -> PullDecoder {
        PullDecoder::default()
    }

    /// Takes the next bytes of the body. Call `next` until it gives `None` before feeding more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<PullFrame>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.read();
        if let Err(error) = outcome {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
            self.assembly = DeltaAssembly::default();
        }
        outcome
    }

    /// Whether the body may end here.
    pub(crate) fn finish(&self) -> Result<(), WireError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.buffer.is_empty() && self.assembly.is_empty() => Ok(()),
            None => Err(WireError::Truncated),
        }
    }

    fn read(&mut self) -> Result<Option<PullFrame>, WireError> {
        while let Some((start, length)) = frame_length(&self.buffer)? {
            if self.buffer.len() < start + length {
                return Ok(None);
            }
            self.buffer.advance(start);
            let frame = self.buffer.split_to(length).freeze();
            let message =
                proto::PullFrame::decode(frame).map_err(|_| WireError::Undecodable("frame"))?;
            if let Some(frame) = self.take(message)? {
                self.given.count(&frame)?;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn take(&mut self, message: proto::PullFrame) -> Result<Option<PullFrame>, WireError> {
        let between_parts = !self.assembly.is_empty();
        let frame = match message.kind {
            // A kind from a later release: skipped, like every unknown field.
            None => return Ok(None),
            Some(Kind::Part(part)) => {
                return Ok(self.assembly.push(&part)?.map(PullFrame::Delta));
            }
            Some(_) if between_parts => return Err(WireError::OutOfOrder),
            Some(Kind::Link(link)) => PullFrame::Link(KeyLink::try_from(&link)?),
            Some(Kind::Beacon(beacon)) => PullFrame::Beacon(Beacon::try_from(&beacon)?),
            Some(Kind::Override(by_hand)) => PullFrame::Override(Override::try_from(&by_hand)?),
            Some(Kind::Current(_)) => PullFrame::Current,
        };
        Ok(Some(frame))
    }
}

impl Given {
    /// One more; an error beyond what an answer may have.
    fn count(&mut self, frame: &PullFrame) -> Result<(), WireError> {
        let (given, most, name) = match frame {
            PullFrame::Link(_) => (&mut self.links, limits::KEY_LINKS, "links"),
            PullFrame::Delta(_) => (&mut self.deltas, 1, "deltas"),
            PullFrame::Beacon(_) => (&mut self.beacons, 1, "beacons"),
            PullFrame::Override(_) => (&mut self.overrides, limits::PULL_RULES, "overrides"),
            PullFrame::Current => return Ok(()),
        };
        *given += 1;
        field::at_most(*given, most, name)
    }
}

/// Where the frame begins and how long it is, once its length has arrived.
fn frame_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let fits = length <= limits::FRAME_BYTES + limits::FRAME_SLACK;
            return if fits {
                Ok(Some((at + 1, length)))
            } else {
                Err(WireError::TooLarge("frame"))
            };
        }
    }
    if bytes.len() >= LENGTH_BYTES { Err(WireError::TooLarge("frame")) } else { Ok(None) }
}

/// A varint of four bytes reaches 256 MiB: far above the longest frame.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests;
