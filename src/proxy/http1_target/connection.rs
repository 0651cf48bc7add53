//! A connection to a target, one exchange after the other, driven by whoever waits for the answer.
//!
//! No task, no channel and no buffer of its own while nothing goes on: bytes are read into space
//! that all connections of a thread share, and copied out by the length they have. Invariant: what
//! is not ready for another exchange never says that it is.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::super::body::RequestBody;
use super::super::broken::Broken;
use super::super::noted::Noted;
use super::decoder::{Decoder, Step};
use super::request::{Announced, Outgoing};
use super::response::{self, Parsed};

/// What carries the bytes.
pub(in crate::proxy) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Once it is dropped the other side shall see no end, but a reset (RFC 9293, section 3.5.2).
    fn break_off(&mut self) {}
}

impl Stream for TcpStream {
    fn break_off(&mut self) {
        // Where it cannot be, it ends as ever.
        let _ = self.set_zero_linger();
    }
}

impl Stream for Box<dyn Stream> {
    fn break_off(&mut self) {
        (**self).break_off();
    }
}

/// A connection to a target.
pub(in crate::proxy) struct Connection<B = RequestBody> {
    stream: Box<dyn Stream>,
    outgoing: Outgoing<B>,
    coming: Decoder,
    /// Read, and not understood yet.
    unread: Bytes,
    /// Bytes of it that are known to be less than a head.
    scanned: usize,
    /// Interim answers so far.
    interim: u8,
    /// Whether the request's method is HEAD, whose answer ends with its head.
    to_head: bool,
    /// Whether another exchange may follow this one.
    keeps: bool,
    /// Bytes of a body to be read at once.
    piece: usize,
    /// Why nothing more comes: the other direction has failed.
    broken: Option<Broken>,
    /// Whoever waits for what comes, while somebody else sends.
    reader: Option<Waker>,
}

impl<B: Body<Data = Bytes> + Unpin> Connection<B> {
    /// One that nothing was said over.
    pub(in crate::proxy) fn new(stream: Box<dyn Stream>) -> Connection<B> {
        Connection {
            stream,
            outgoing: Outgoing::new(),
            coming: Decoder::NOTHING,
            unread: Bytes::new(),
            scanned: 0,
            interim: 0,
            to_head: false,
            keeps: true,
            piece: LEAST_PIECE,
            broken: None,
            reader: None,
        }
    }

    /// Whether the last exchange left nothing behind.
    pub(in crate::proxy) fn is_clean(&self) -> bool {
        self.keeps && self.coming.is_over() && self.outgoing.is_over() && self.unread.is_empty()
    }

    /// Whether another exchange may begin, as far as is known by now: a target that closes, or
    /// says something unasked, is not spoken to again.
    pub(in crate::proxy) fn is_ready(&mut self) -> bool {
        if !self.is_clean() {
            return false;
        }
        let mut space = [0; 1];
        let mut buffer = ReadBuf::new(&mut space);
        let read = poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        // That this task has done enough for now says nothing about the connection.
        let read = pin!(unconstrained(read));
        read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Begins an exchange; the head is written without framing and without its last line.
    pub(in crate::proxy) fn begin(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        to_head: bool,
        announced: Announced,
        body: B,
    ) {
        self.outgoing.begin(head, announced, body);
        // Until the answer says otherwise nothing may follow.
        (self.to_head, self.keeps, self.coming) = (to_head, false, Decoder::UntilClose);
        self.interim = 0;
    }

    /// The body of a request of which nothing was sent.
    pub(in crate::proxy) fn take_unsent(&mut self) -> Option<B> {
        self.outgoing.take_unsent()
    }

    /// Whether all of the request was sent.
    pub(in crate::proxy) fn is_sent(&self) -> bool {
        self.outgoing.is_over()
    }

    /// How often anything of the request went on.
    pub(super) fn moves(&self) -> u64 {
        self.outgoing.moves()
    }

    /// Sends, and waits for the head of the answer.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Noted>, Broken>> {
        let sent = self.outgoing.poll(&mut self.stream, cx);
        if let Poll::Ready(Err(Broken::Request)) = sent {
            return Poll::Ready(Err(Broken::Request));
        }
        // What takes nothing in any more may have said why before, though it is heard only later: a
        // dead connection always has something to read, be it its end.
        match (self.poll_answer(cx), sent) {
            (Poll::Pending, Poll::Ready(Err(broken))) if !self.outgoing.is_cut_off() => {
                Poll::Ready(Err(broken))
            }
            (answer, _) => answer,
        }
    }

    /// Sends what is left of the request; ready once there is nothing left.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Err(broken) = ready!(self.outgoing.poll(&mut self.stream, cx)) else {
            return Poll::Ready(());
        };
        if matches!(broken, Broken::Request) {
            // The target learns that no more comes, and whoever waits for its answer, too.
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
            self.broken = Some(broken);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Noted>, Broken>> {
        loop {
            if let Some(response) = self.understand()? {
                return Poll::Ready(Ok(response));
            }
            let space = &mut self.unread;
            let came = ready!(SPACE.with_borrow_mut(|room| {
                let mut buffer = ReadBuf::new(room);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                let came = buffer.filled();
                *space = if space.is_empty() {
                    Bytes::copy_from_slice(came)
                } else {
                    let mut both = BytesMut::from(std::mem::take(space));
                    both.extend_from_slice(came);
                    both.freeze()
                };
                Poll::Ready(std::io::Result::Ok(came.len()))
            }))
            .map_err(|_| Broken::Ended)?;
            if came == 0 {
                return Poll::Ready(Err(Broken::Ended));
            }
        }
    }

    /// The head of the answer, if it is there.
    fn understand(&mut self) -> Result<Option<Response<Noted>>, Broken> {
        while !self.unread.is_empty() {
            let seen = self.scanned.saturating_sub(HEAD_END);
            if self.scanned > 0 && !has_end(&self.unread[seen..]) {
                break;
            }
            let before = self.unread.len();
            let parsed = response::head(&mut self.unread, self.to_head);
            if before - self.unread.len() > HEAD_BYTES {
                return Err(Broken::Malformed);
            }
            match parsed.ok_or(Broken::Malformed)? {
                Parsed::Partial => break,
                Parsed::Interim => {
                    self.scanned = 0;
                    self.interim = self.interim.checked_add(1).ok_or(Broken::Malformed)?;
                }
                Parsed::Head(head) => {
                    (self.keeps, self.coming, self.scanned) = (head.keeps, head.body, 0);
                    return Ok(Some(head.response));
                }
            }
        }
        self.scanned = self.unread.len();
        if self.scanned >= HEAD_BYTES { Err(Broken::Malformed) } else { Ok(None) }
    }

    /// Bytes of the answer's body still to come, where that is known.
    pub(in crate::proxy) fn left(&self) -> Option<u64> {
        self.coming.left()
    }

    /// The next frame of the answer's body.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(broken) = self.broken.take() {
                return Poll::Ready(Some(Err(broken)));
            }
            match self.coming.step(&mut self.unread) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(_) => return Poll::Ready(Some(Err(Broken::Malformed))),
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if self.coming.close() => return Poll::Ready(None),
                Poll::Ready(_) => return Poll::Ready(Some(Err(Broken::Ended))),
                Poll::Pending => {
                    if !self.outgoing.is_over() {
                        self.reader = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads more of the body, all before being understood; false at the end of the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let left = self.coming.left().and_then(|left| usize::try_from(left).ok());
        let piece = left.map_or(self.piece, |left| left.min(self.piece));
        let mut bytes = BytesMut::with_capacity(piece);
        let came = ready!(pin!(self.stream.read_buf(&mut bytes)).poll(cx))?;
        if came == bytes.capacity() {
            self.piece = (self.piece * 2).min(MOST_PIECE);
        } else if came < self.piece / 2 {
            self.piece = (self.piece / 2).max(LEAST_PIECE);
        }
        // What waits for a slow reader shall not hold more than it is.
        let sparse = came < bytes.capacity() / 2;
        self.unread = if sparse { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() };
        Poll::Ready(Ok(came > 0))
    }

    /// What is left when the connection stops being HTTP, and what came of it already.
    pub(in crate::proxy) fn into_parts(self) -> (Box<dyn Stream>, Bytes) {
        (self.stream, self.unread)
    }
}

/// Whether a head may end here.
fn has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

thread_local! {
    /// Where heads, and what comes with them, are read.
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SPACE_BYTES].into_boxed_slice());
}

/// The largest response head.
pub(in crate::proxy) const HEAD_BYTES: usize = 128 << 10;
/// Bytes that end a head, but for the last.
const HEAD_END: usize = 3;
/// What comes with a head.
const SPACE_BYTES: usize = 16 << 10;
/// Bytes of a body to be read at once, at first; more where there always are as many.
const LEAST_PIECE: usize = 8 << 10;
/// See `LEAST_PIECE`.
const MOST_PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::combinators::BoxBody;
    use http_body_util::{Empty, Full, StreamBody};
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    impl Stream for DuplexStream {}

    type Tested = Connection<BoxBody<Bytes, Infallible>>;
    type Giving = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

    fn connected(room: usize) -> (Tested, DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (Connection::new(Box::new(near)), far)
    }

    /// A body that is given frame by frame.
    fn given() -> (Giving, BoxBody<Bytes, Infallible>) {
        let (give, frames) = mpsc::channel(4);
        (give, BoxBody::new(StreamBody::new(ReceiverStream::new(frames))))
    }

    fn ask(connection: &mut Tested) {
        let head = |out: &mut Vec<u8>| out.extend_from_slice(b"GET / HTTP/1.1\r\n");
        connection.begin(head, false, Announced::Nothing, BoxBody::new(Empty::new()));
    }

    async fn body(connection: &mut Tested) -> Result<Vec<u8>, Broken> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
            whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok(whole)
    }

    #[tokio::test]
    async fn an_answer_is_the_same_however_it_is_cut() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx: 1\r\n\
                     transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for cut in 1..text.len() {
            let (mut connection, mut far) = connected(1 << 16);
            ask(&mut connection);
            let (first, second) = text.split_at(cut);
            far.write_all(first).await.unwrap();
            let early = poll_fn(|cx| Poll::Ready(connection.poll_head(cx))).await;
            far.write_all(second).await.unwrap();
            let response = match early {
                Poll::Ready(response) => response.unwrap(),
                Poll::Pending => poll_fn(|cx| connection.poll_head(cx)).await.unwrap(),
            };
            assert_eq!(response.headers()["x"], "1");
            assert!(!connection.is_ready(), "the answer is not whole");
            assert_eq!(body(&mut connection).await.unwrap(), b"abc");
            assert!(connection.is_ready(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_or_speaks_unasked_is_not_used_again() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
        for (unasked, with) in [(&b""[..], true), (b"x", false), (b"HTTP/1.1 408 Late\r\n", false)]
        {
            let (mut connection, mut far) = connected(1 << 16);
            ask(&mut connection);
            far.write_all(answer).await.unwrap();
            poll_fn(|cx| connection.poll_head(cx)).await.unwrap();
            body(&mut connection).await.unwrap();
            assert!(connection.is_ready());
            far.write_all(unasked).await.unwrap();
            if with {
                far.shutdown().await.unwrap();
            }
            assert!(!connection.is_ready(), "{unasked:?}");
        }
        // What comes in one piece with the answer is unasked, too.
        let (mut connection, mut far) = connected(1 << 16);
        ask(&mut connection);
        far.write_all(&[&answer[..], b"x"].concat()).await.unwrap();
        poll_fn(|cx| connection.poll_head(cx)).await.unwrap();
        assert_eq!(body(&mut connection).await.unwrap(), b"a");
        assert!(!connection.is_ready());
    }

    #[tokio::test]
    async fn a_head_is_no_longer_than_allowed() {
        for (length, good) in [(HEAD_BYTES - 40, true), (HEAD_BYTES + 1, false)] {
            let (mut connection, mut far) = connected(1 << 20);
            ask(&mut connection);
            let text = format!("HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n", "y".repeat(length));
            far.write_all(text.as_bytes()).await.unwrap();
            let answered = poll_fn(|cx| connection.poll_head(cx)).await;
            assert_eq!(answered.is_ok(), good, "{length}");
        }
        let (mut connection, mut far) = connected(1 << 20);
        ask(&mut connection);
        far.write_all(b"H").await.unwrap();
        far.write_all("TTP/1.1 200 OK\r\n".as_bytes()).await.unwrap();
        far.write_all("x: 1\r\n".repeat(HEAD_BYTES / 6 + 1).as_bytes()).await.unwrap();
        let endless = poll_fn(|cx| connection.poll_head(cx)).await;
        assert!(matches!(endless, Err(Broken::Malformed)), "{endless:?}");
    }

    #[tokio::test]
    async fn interim_answers_come_to_an_end() {
        for (many, good) in [(200, true), (300, false)] {
            let (mut connection, mut far) = connected(1 << 20);
            ask(&mut connection);
            far.write_all("HTTP/1.1 102 Wait\r\n\r\n".repeat(many).as_bytes()).await.unwrap();
            far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            let answered = poll_fn(|cx| connection.poll_head(cx)).await;
            assert_eq!(answered.is_ok(), good, "{answered:?}");
        }
    }

    #[tokio::test]
    async fn a_body_goes_out_as_announced_also_through_a_narrow_way() {
        let (mut connection, far) = connected(7);
        let (give, source) = given();
        let head = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
        let announced = Announced::Chunks(vec![http::HeaderName::from_static("x-sum")]);
        connection.begin(head, false, announced, source);
        give.send(Ok(Frame::data(Bytes::from_static(b"hello")))).await.unwrap();
        give.send(Ok(Frame::data(Bytes::from_static(b" there, world")))).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        trailers.insert("x-other", "2".parse().unwrap());
        give.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(give);
        let (mut read, mut write) = tokio::io::split(far);
        let target = async {
            let mut got = Vec::new();
            let mut space = [0; 64];
            while !got.ends_with(b"\r\nx-sum: 1\r\n\r\n") {
                let some = read.read(&mut space).await.unwrap();
                assert!(some > 0);
                got.extend_from_slice(&space[..some]);
            }
            write.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            got
        };
        let (answer, got) = tokio::join!(poll_fn(|cx| connection.poll_head(cx)), target);
        assert_eq!(answer.unwrap().status(), 204);
        let text = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                    5\r\nhello\r\nd\r\n there, world\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(String::from_utf8(got).unwrap(), text);
        assert!(connection.is_ready());
    }

    #[tokio::test]
    async fn a_body_is_handed_back_where_nothing_was_sent_and_only_there() {
        let post = |connection: &mut Tested, body| {
            let head = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
            connection.begin(head, false, Announced::Length(5), body);
        };
        let (mut connection, far) = connected(1 << 10);
        drop(far);
        let (give, source) = given();
        post(&mut connection, source);
        let failed = poll_fn(|cx| connection.poll_head(cx)).await;
        assert!(matches!(failed, Err(Broken::Ended)), "{failed:?}");
        assert!(connection.take_unsent().is_some(), "nothing was sent");
        drop(give);
        let (mut connection, mut far) = connected(1 << 10);
        post(&mut connection, BoxBody::new(Full::new(Bytes::from_static(b"money"))));
        let early = poll_fn(|cx| Poll::Ready(connection.poll_head(cx))).await;
        assert!(early.is_pending());
        let mut got = vec![0; 20];
        far.read_exact(&mut got).await.unwrap();
        drop(far);
        assert!(poll_fn(|cx| connection.poll_head(cx)).await.is_err());
        assert!(connection.take_unsent().is_none(), "it was sent");
    }
}
