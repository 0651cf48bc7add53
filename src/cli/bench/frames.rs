//! WebSocket frames (RFC 6455), as far as measurements need them: whole messages of up to 64 KiB.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn text(payload: &[u8]) -> Frame {
        Frame { kind: TEXT, payload: payload.to_vec() }
    }

    /// The next one, its mask taken off; an error when the other side has gone or speaks otherwise.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
        let [first, second] = read_bytes::<2>(from).await?;
        // Only whole messages: FIN, and none of the bits that extensions use.
        if first & 0xf0 != 0x80 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let length = match second & 0x7f {
            126 => usize::from(u16::from_be_bytes(read_bytes::<2>(from).await?)),
            127 => return Err(std::io::ErrorKind::InvalidData.into()),
            length => usize::from(length),
        };
        let mask = if second & 0x80 == 0 { [0; 4] } else { read_bytes::<4>(from).await? };
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        cover(&mut payload, mask);
        Ok(Frame { kind: first & 0x0f, payload })
    }

    /// Clients mask what they send, servers do not.
    pub(super) async fn write(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        mask: Option<[u8; 4]>,
    ) -> std::io::Result<()> {
        let length = u16::try_from(self.payload.len())
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | self.kind];
        if length < 126 {
            bytes.push(masked | length as u8);
        } else {
            bytes.push(masked | 126);
            bytes.extend(length.to_be_bytes());
        }
        bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
        let begin = bytes.len();
        bytes.extend(&self.payload);
        cover(&mut bytes[begin..], mask.unwrap_or_default());
        to.write_all(&bytes).await?;
        to.flush().await
    }
}

/// What a server answers to a client's key (section 4.2.2).
pub(super) fn accepted(key: &[u8]) -> String {
    let salted = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    BASE64.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &salted))
}

async fn read_bytes<const N: usize>(
    from: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn cover(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written() {
        for length in [0, 1, 125, 126, 127, 65_535] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let frame = Frame::text(&vec![b'a'; length]);
                let mut bytes = Vec::new();
                frame.write(&mut bytes, mask).await.unwrap();
                assert_eq!(bytes[1] & 0x80 != 0, mask.is_some());
                let read = Frame::read(&mut bytes.as_slice()).await.unwrap();
                assert_eq!(read, frame, "{length} {mask:?}");
            }
        }
        let long = Frame::text(&vec![b'a'; 65_536]);
        assert!(long.write(&mut Vec::new(), None).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_whole_frame_is_an_error() {
        for bytes in [&[0x81][..], &[0x81, 5, b'a'], &[0x01, 1, b'a'], &[0x81, 127]] {
            assert!(Frame::read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accepted(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
