//! Connections to targets over a stream that is made up: it does what real ones do, too, but at a
//! time that the test chooses.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::proxy::broken::Broken;
use crate::proxy::http1_target::connection::{Connection, Stream};
use crate::proxy::http1_target::request::Announced;

type Tested = Connection<BoxBody<Bytes, Infallible>>;
type Giving = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// What a made-up stream does.
#[derive(Default)]
struct Line {
    /// Taken, and not on its way before it is flushed.
    held: Vec<u8>,
    gone: Vec<u8>,
    /// Takes nothing any more.
    cut: bool,
    /// What is to be read; the end behind it once `cut`, and if it is not `quiet`.
    coming: Vec<u8>,
    quiet: bool,
}

#[derive(Clone, Default)]
struct MadeUp(Rc<RefCell<Line>>);

impl Stream for MadeUp {}

impl AsyncRead for MadeUp {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        if line.quiet || (line.coming.is_empty() && !line.cut) {
            return Poll::Pending;
        }
        buffer.put_slice(&std::mem::take(&mut line.coming));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MadeUp {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut line = self.0.borrow_mut();
        if line.cut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        line.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self.0.borrow_mut();
        line.gone.append(&mut line.held);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An upload of unknown length over this stream.
fn upload(stream: &MadeUp) -> (Tested, Giving) {
    let mut connection: Tested = Connection::new(Box::new(stream.clone()));
    let (give, source) = mpsc::channel(4);
    let body = BoxBody::new(StreamBody::new(ReceiverStream::new(source)));
    let head = |out: &mut Vec<u8>| out.extend_from_slice(b"POST / HTTP/1.1\r\n");
    connection.begin(head, false, Announced::Chunks(Vec::new()), body);
    (connection, give)
}

/// The same with its head sent.
async fn uploading() -> (Tested, MadeUp, Giving) {
    let stream = MadeUp::default();
    let (mut connection, give) = upload(&stream);
    assert!(once(&mut connection).await.is_none());
    (connection, stream, give)
}

/// The status of the answer, if there is one or none can come.
async fn once(connection: &mut Tested) -> Option<Result<u16, Broken>> {
    match poll_fn(|cx| Poll::Ready(connection.poll_head(cx))).await {
        Poll::Ready(answer) => Some(answer.map(|answer| answer.status().as_u16())),
        Poll::Pending => None,
    }
}

async fn send(give: &Giving, text: &'static str) {
    give.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).await.unwrap();
}

#[tokio::test]
async fn what_a_layer_holds_back_goes_out_before_the_client_is_waited_for() {
    let (mut connection, stream, give) = uploading().await;
    for text in ["hello", "there"] {
        send(&give, text).await;
        assert!(once(&mut connection).await.is_none());
        let line = stream.0.borrow();
        let gone = String::from_utf8_lossy(&line.gone);
        assert!(gone.ends_with(&format!("\r\n5\r\n{text}\r\n")), "as TLS holds it: {gone:?}");
        assert_eq!(line.held, b"");
    }
}

#[tokio::test]
async fn an_early_answer_is_heard_though_what_is_sent_is_refused_before() {
    let (mut connection, stream, give) = uploading().await;
    // The target has answered and left; that nothing more goes out shows first.
    (stream.0.borrow_mut().cut, stream.0.borrow_mut().quiet) = (true, true);
    send(&give, "hello").await;
    assert!(once(&mut connection).await.is_none(), "it may have said why");
    stream.0.borrow_mut().quiet = false;
    stream.0.borrow_mut().coming = b"HTTP/1.1 413 Too Much\r\ncontent-length: 0\r\n\r\n".into();
    assert!(matches!(once(&mut connection).await, Some(Ok(413))));
}

#[tokio::test]
async fn what_is_refused_without_a_word_has_ended() {
    let (mut connection, stream, give) = uploading().await;
    stream.0.borrow_mut().cut = true;
    send(&give, "hello").await;
    assert!(matches!(once(&mut connection).await, Some(Err(Broken::Ended))));
    assert!(connection.take_unsent().is_none(), "something was sent");

    // Nothing was sent over a stale connection: there is nothing to wait for.
    let stream = MadeUp::default();
    (stream.0.borrow_mut().cut, stream.0.borrow_mut().quiet) = (true, true);
    let (mut connection, _give) = upload(&stream);
    assert!(matches!(once(&mut connection).await, Some(Err(Broken::Ended))));
    assert!(connection.take_unsent().is_some(), "the body is as it was");
}
