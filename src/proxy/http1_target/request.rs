//! What goes to the target: a head, and a body in the form that the head announced (RFC 9112,
//! sections 3, 6 and 7.1).

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{Method, Uri};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::super::broken::Broken;
use super::super::headers::{self, Fields};
use super::super::noted::Noted;

/// How a body is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Announced {
    /// Not at all: there is none.
    Nothing,
    /// As so many bytes.
    Length(u64),
    /// As chunks, and these fields behind them.
    Chunks(Vec<HeaderName>),
}

/// What is still to be sent of a request.
pub(super) struct Outgoing<B> {
    /// A head, or what stands before a chunk, or after all of them.
    text: Vec<u8>,
    /// Bytes of it that are gone.
    gone: usize,
    data: Bytes,
    /// What stands behind the data.
    end: &'static [u8],
    body: Option<(B, Announced)>,
    /// How often anything of this request went on; until then nothing of it is gone.
    moves: u64,
    /// Whether everything is handed to the connection, down to its last layer.
    flushed: bool,
}

impl Announced {
    /// What to say of this body, when the client said this.
    pub(in crate::proxy) fn of(body: &impl Body, received: &HeaderMap, noted: Noted) -> Announced {
        if body.is_end_stream() {
            // That there is none is said where the client said so.
            return if noted.content_length { Announced::Length(0) } else { Announced::Nothing };
        }
        match body.size_hint().exact() {
            Some(length) => Announced::Length(length),
            None => Announced::Chunks(headers::names_of_trailers(received)),
        }
    }

    /// Adds what it is to a head.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Announced::Nothing => {}
            Announced::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(length.to_string().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Announced::Chunks(trailers) => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                if let Some(trailers) = headers::announcement(trailers) {
                    out.add(&TRAILER, &trailers);
                }
            }
        }
    }
}

/// The first line of a request's head.
pub(in crate::proxy) fn line(method: &Method, uri: &Uri, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    // Never in absolute form: the target is the origin (RFC 9112, section 3.2.1).
    out.extend_from_slice(uri.path().as_bytes());
    if let Some(query) = uri.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Fields that were gathered before; how the body is framed is nobody's to say but `Announced`'s.
pub(in crate::proxy) fn fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING && name != TRAILER {
            out.add(name, value);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    pub(super) fn new() -> Outgoing<B> {
        Outgoing {
            text: Vec::new(),
            gone: 0,
            data: Bytes::new(),
            end: b"",
            body: None,
            moves: 0,
            flushed: true,
        }
    }

    /// A request of this head, which is written without its last line.
    pub(super) fn begin(&mut self, head: impl FnOnce(&mut Vec<u8>), announced: Announced, body: B) {
        self.text.clear();
        head(&mut self.text);
        announced.write(&mut self.text);
        self.text.extend_from_slice(b"\r\n");
        (self.gone, self.moves, self.flushed) = (0, 0, false);
        self.body = (!body.is_end_stream()).then_some((body, announced));
    }

    /// Whether all of it is gone.
    pub(super) fn is_over(&self) -> bool {
        self.flushed
    }

    /// How often anything of it went on.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// Whether something stands here to be sent, the first of the request being gone. Otherwise it
    /// is the client that is waited for, or nothing that an answer could be to.
    pub(super) fn is_cut_off(&self) -> bool {
        let waiting = self.is_held() || (self.body.is_some() && self.has_no_data());
        self.moves > 0 && !self.flushed && !waiting
    }

    /// Whether all of it stands here but its end, which only HTTP/2 says apart. What comes in its
    /// place may make the request malformed, which must not have gone on then (RFC 9113, section
    /// 8.1.1).
    fn is_held(&self) -> bool {
        matches!(self.body, Some((_, Announced::Length(0))))
    }

    fn has_no_data(&self) -> bool {
        self.data.is_empty() && self.end.is_empty()
    }

    /// The body, where nothing of the request is gone.
    pub(super) fn take_unsent(&mut self) -> Option<B> {
        if self.moves > 0 { None } else { self.body.take().map(|(body, _)| body) }
    }

    /// Sends what can be sent; ready once all of it is gone.
    pub(super) fn poll<T>(&mut self, to: &mut T, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        T: AsyncWrite + Unpin,
    {
        while !self.flushed {
            // What comes first of a body goes with the head.
            let more =
                if self.is_held() || self.has_no_data() { self.more(cx)? } else { Poll::Ready(()) };
            if !self.is_held() && (self.gone < self.text.len() || !self.has_no_data()) {
                ready!(self.write(to, cx))?;
                continue;
            }
            if more.is_ready() && self.body.is_some() {
                continue;
            }
            // TLS may hold back what it took, also while the client pauses. That it cannot be sent
            // is for whoever writes next to find; until then the target may say why.
            let flushed = Pin::new(&mut *to).poll_flush(cx);
            ready!(more);
            ready!(flushed).map_err(|_| Broken::Ended)?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next piece of the body, if there is one.
    fn more(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        let Some((body, announced)) = &mut self.body else { return Ok(Poll::Ready(())) };
        let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        // A body that was begun is not the caller's any more.
        self.moves += 1;
        let frame = next.transpose().map_err(|_| Broken::Request)?;
        if self.gone == self.text.len() {
            self.text.clear();
            self.gone = 0;
        }
        let ended = match frame.map(Frame::into_data) {
            None => {
                end(announced, None, &mut self.text)?;
                true
            }
            Some(Err(frame)) => {
                end(announced, frame.into_trailers().ok(), &mut self.text)?;
                true
            }
            Some(Ok(data)) => {
                match announced {
                    Announced::Length(left) => {
                        *left = left.checked_sub(data.len() as u64).ok_or(Broken::Request)?;
                    }
                    Announced::Chunks(_) if !data.is_empty() => {
                        size(data.len(), &mut self.text);
                        self.end = b"\r\n";
                    }
                    _ => {}
                }
                // An empty piece may come behind the last byte.
                if !data.is_empty() {
                    self.data = data;
                }
                matches!(announced, Announced::Length(0)) && body.is_end_stream()
            }
        };
        if ended {
            self.body = None;
        }
        Ok(Poll::Ready(()))
    }

    fn write<T>(&mut self, to: &mut T, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        T: AsyncWrite + Unpin,
    {
        let text = &self.text[self.gone..];
        let written = if self.has_no_data() {
            Pin::new(to).poll_write(cx, text)
        } else {
            let slices = [IoSlice::new(text), IoSlice::new(&self.data), IoSlice::new(self.end)];
            Pin::new(to).poll_write_vectored(cx, &slices)
        };
        let mut written = ready!(written).map_err(|_| Broken::Ended)?;
        if written == 0 {
            return Poll::Ready(Err(Broken::Ended));
        }
        self.moves += 1;
        let of_text = written.min(self.text.len() - self.gone);
        self.gone += of_text;
        written -= of_text;
        let of_data = written.min(self.data.len());
        self.data.advance(of_data);
        self.end = &self.end[written - of_data..];
        Poll::Ready(Ok(()))
    }
}

/// What stands behind a body; an error where it is not as long as was said.
fn end(
    announced: &Announced,
    trailers: Option<HeaderMap>,
    out: &mut Vec<u8>,
) -> Result<(), Broken> {
    match announced {
        Announced::Nothing | Announced::Length(0) => Ok(()),
        Announced::Length(_) => Err(Broken::Request),
        Announced::Chunks(names) => {
            out.extend_from_slice(b"0\r\n");
            // Nobody waits for one that was not announced (RFC 9110, section 6.5.1).
            let trailers = trailers.iter().flatten();
            for (name, value) in trailers.filter(|(name, _)| names.contains(name)) {
                out.add(name, value);
            }
            out.extend_from_slice(b"\r\n");
            Ok(())
        }
    }
}

/// The line before a chunk.
fn size(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
}
