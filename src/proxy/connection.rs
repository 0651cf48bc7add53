//! One client's connection, from its first byte to its last.
//!
//! HTTP is hyper's; what is here is how a connection begins, rests without a buffer while nothing
//! goes on, leaves when its node drains, becomes a tunnel or HTTP/2, and outlives the panic of one
//! of its requests.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::announced;
use super::body::ProxyBody;
use super::certificates::{Certificates, Identity};
use super::first_line;
use super::forward::{Client, Worker};
use super::http2;
use super::lingering::linger;
use super::listener::{LAST_CALL, Phase};
use super::reply::{self, Failure};
use super::rewound::Rewound;
use super::stall::Watched;
use crate::telemetry::request_metrics::RequestMetrics;

/// Serves a client until one of the two has had enough.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    worker: Rc<Worker>,
    phase: watch::Receiver<Phase>,
) {
    let _counted = Counted::begin(&worker.metrics, |metrics| &metrics.connections);
    let mut address = peer.ip();
    let announced = worker.announcers.iter().any(|network| network.contains(address));
    if announced {
        let said = Box::pin(announced::read(&mut stream));
        match timeout(worker.bounds.handshake, said).await {
            Ok(Ok(said)) => address = said.unwrap_or(address),
            _ => return,
        }
    }
    let stream = Watched::new(stream, worker.bounds.stalled);
    match certificates {
        // What TLS and HTTP/2 need stands apart, so that plain connections are small.
        Some(certificates) => {
            Box::pin(secure(stream, address, &certificates, worker, phase)).await;
        }
        None => {
            let client = Rc::new(Client::new(address, None, announced));
            converse(stream, Asks { worker, client }, phase).await;
        }
    }
}

/// The same behind TLS; a client that does not come to terms in time is let go.
async fn secure(
    stream: Watched<TcpStream>,
    address: IpAddr,
    certificates: &Certificates,
    worker: Rc<Worker>,
    phase: watch::Receiver<Phase>,
) {
    let agreed = timeout(worker.bounds.handshake, agree(stream, certificates)).await;
    let Ok(Ok((stream, identity))) = agreed else { return };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let client = Rc::new(Client::new(address, Some(identity), false));
    let asking = Asks { worker, client };
    if speaks_http2 {
        let leaving = pin!(Farewell::new(phase));
        let stream = Rewound::new(stream, asking.client.activity.clone());
        http2::serve(stream, asking, leaving).await;
    } else {
        converse(stream, asking, phase).await;
    }
}

async fn agree(
    stream: Watched<TcpStream>,
    certificates: &Certificates,
) -> std::io::Result<(TlsStream<Watched<TcpStream>>, Identity)> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let identity = certificates.choose(begun.client_hello().server_name());
    let stream = begun.into_stream(identity.config()).await?;
    Ok((stream, identity))
}

async fn converse<T>(stream: T, asking: Asks, phase: watch::Receiver<Phase>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut leaving = pin!(Farewell::new(phase));
    let bounds = asking.worker.bounds;
    let mut look = pin!(tokio::time::sleep(bounds.rest.min(bounds.head)));
    let mut stream = Rewound::new(stream, asking.client.activity.clone());
    loop {
        let after = Box::pin(http1(stream, &asking, leaving.as_mut(), look.as_mut())).await;
        stream = match after {
            After::Http2(stream) => return Box::pin(http2::serve(stream, asking, leaving)).await,
            After::Rest(stream) => stream,
            After::Overdue(stream) => return take_leave(stream).await,
            After::Answered(mut stream) => {
                stream.says_its_end(true);
                return Box::pin(linger(stream, bounds.lingering)).await;
            }
            After::End => return,
        };
        let Some(woken) = rest(stream, &asking, leaving.as_mut(), look.as_mut()).await else {
            return;
        };
        look.as_mut().reset(Instant::now() + bounds.rest.min(bounds.head));
        stream = woken;
    }
}

/// What becomes of a connection that speaks HTTP/1.1.
enum After<T> {
    /// It began with the preface of HTTP/2 (RFC 9113, section 3.4); nobody else pays for looking.
    Http2(Rewound<T>),
    /// Nothing goes on there.
    Rest(Rewound<T>),
    /// Nothing has gone on there for too long.
    Overdue(Rewound<T>),
    /// It is over, but the client may not know.
    Answered(Rewound<T>),
    End,
}

/// Serves HTTP/1.1 and what it may turn into. `look` is when to look at how the connection does.
async fn http1<T>(
    mut stream: Rewound<T>,
    asking: &Asks,
    mut leaving: Pin<&mut impl Future<Output = bool>>,
    mut look: Pin<&mut Sleep>,
) -> After<T>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = &asking.client;
    let mut builder = http1::Builder::new();
    // What hyper would need a timer a request for, a look now and then does.
    builder.header_read_timeout(None).half_close(false);
    builder.max_header_size(REQUEST_HEAD_BYTES as usize);
    builder.max_buf_size(REQUEST_HEAD_BYTES as usize);
    let requests = service_fn(|request| asking.answer(request));
    stream.looks_for_lines(true);
    stream.says_its_end(client.is_secured());
    let mut serving = builder.serve_connection(TokioIo::new(stream), requests);
    let mut left = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| serving.poll_without_shutdown(cx)) => break ended,
            told = leaving.as_mut(), if !left => {
                if !told {
                    return After::End;
                }
                left = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
            () = look.as_mut() => match asking.look() {
                Look::Late => return After::End,
                Look::Overdue => return After::Overdue(taken_back(serving.into_parts())),
                Look::Again(at) => look.as_mut().reset(at),
                Look::AtRest { until } => {
                    if !left && client.activity.may_rest() {
                        look.as_mut().reset(until);
                        return After::Rest(taken_back(serving.into_parts()));
                    }
                    let again = Instant::now() + asking.worker.bounds.rest;
                    look.as_mut().reset(again.min(until));
                }
            }
        }
    };
    // Taken in any case: what waits there holds its client.
    let tunnel = client.take_tunnel();
    // How a client's connection ends is the client's business; one that broke is never asked for
    // more, lest it finish a body that is not whole.
    if let Err(error) = ended {
        // Behind TLS it is agreed on by ALPN, or not at all (RFC 9113, section 3.3).
        let may = !client.is_secured() && !client.has_asked() && !left;
        let speaks_http2 = may && error.is_parse_version_h2();
        let mut stream = taken_back(serving.into_parts());
        if speaks_http2 {
            return After::Http2(stream);
        }
        if first_line::is_too_long(&error) {
            let node = &asking.worker.node;
            // A client that is gone need not know.
            let _ = stream.write_all(&reply::farewell(Failure::TargetTooLong, node)).await;
        } else if !error.is_parse() {
            return After::End;
        }
        return After::Answered(stream);
    }
    if let Some(tunnel) = tunnel {
        let parts = serving.into_parts();
        let mut stream = parts.io.into_inner();
        stream.looks_for_lines(false);
        stream.says_its_end(true);
        Box::pin(tunnel.carry(stream, &parts.read_buf)).await;
        return After::End;
    }
    let whole = Pin::new(&mut serving).await.is_ok();
    let stream = taken_back(serving.into_parts());
    if whole && (stream.has_early() || client.activity.may_send_on()) {
        return After::Answered(stream);
    }
    After::End
}

/// Waits for the client without a buffer; none when it has left, or has not come back in time.
async fn rest<T>(
    mut stream: Rewound<T>,
    asking: &Asks,
    mut leaving: Pin<&mut impl Future<Output = bool>>,
    mut look: Pin<&mut Sleep>,
) -> Option<Rewound<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let _counted = Counted::begin(&asking.worker.metrics, |metrics| &metrics.resting);
    asking.client.alarm.clear();
    loop {
        tokio::select! {
            biased;
            more = stream.has_more() => return matches!(more, Ok(true)).then_some(stream),
            _ = leaving.as_mut() => break,
            () = look.as_mut() => match asking.look() {
                Look::Overdue | Look::Late => break,
                Look::Again(until) | Look::AtRest { until } => look.as_mut().reset(until),
            }
        }
    }
    take_leave(stream).await;
    None
}

/// Behind TLS this says that nothing is missing (RFC 9112, section 9.8).
async fn take_leave<T: AsyncWrite + Unpin>(mut stream: Rewound<T>) {
    let _ = timeout(FAREWELL, stream.shutdown()).await;
}

/// The connection with all that was read of it and not yet understood.
fn taken_back<T, S>(parts: http1::Parts<TokioIo<Rewound<T>>, S>) -> Rewound<T> {
    let mut stream = parts.io.into_inner();
    stream.looks_for_lines(false);
    stream.put_back(parts.read_buf);
    stream
}

/// The same, looked at only when there may be news: a connection is woken a few times a request,
/// always as the same task, and once is enough to be told.
struct Farewell<F> {
    waiting: Pin<Box<F>>,
    phase: watch::Receiver<Phase>,
    waits: bool,
}

impl Farewell<()> {
    fn new(phase: watch::Receiver<Phase>) -> Farewell<impl Future<Output = bool>> {
        Farewell { waiting: Box::pin(leaving(phase.clone())), phase, waits: false }
    }
}

impl<F: Future<Output = bool>> Future for Farewell<F> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.waits && matches!(self.phase.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        self.waits = true;
        self.waiting.as_mut().poll(cx)
    }
}

/// Waits until this connection shall come to its end; false when there is nothing to wait for.
async fn leaving(mut phase: watch::Receiver<Phase>) -> bool {
    let told = phase.wait_for(|phase| *phase != Phase::Serving).await.is_ok();
    if told {
        // A request may be on its way already; its answer will say that the connection closes.
        tokio::time::sleep(LAST_CALL).await;
    }
    told
}

/// Who asks on a connection, and who answers.
pub(super) struct Asks {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
}

/// How a connection does.
enum Look {
    /// It was idle for too long, or sends a head too slowly.
    Overdue,
    /// It has an answer that should be over.
    Late,
    /// It has something to do, or had until shortly before: look again then.
    Again(Instant),
    /// It has had nothing to do for a while, and may for as long as that.
    AtRest { until: Instant },
}

impl Asks {
    fn look(&self) -> Look {
        let (bounds, now) = (self.worker.bounds, Instant::now());
        if self.client.activity.is_late(now) {
            return Look::Late;
        }
        let Some(since) = self.client.activity.idle_since() else {
            return Look::Again(now + bounds.rest.min(bounds.head));
        };
        if since + bounds.head <= now {
            Look::Overdue
        } else if since + bounds.rest > now {
            Look::Again((since + bounds.rest).min(since + bounds.head))
        } else {
            Look::AtRest { until: since + bounds.head }
        }
    }

    /// An answer, whatever happens.
    pub(super) fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Answering<impl Future<Output = Response<ProxyBody>> + use<>> {
        let serving = self.worker.clone().serve(self.client.clone(), request);
        Answering { serving: Guarded(Box::pin(serving)), worker: self.worker.clone() }
    }
}

/// One answer under way; always one comes.
pub(super) struct Answering<F> {
    serving: Guarded<F>,
    worker: Rc<Worker>,
}

impl<F: Future<Output = Response<ProxyBody>>> Future for Answering<F> {
    type Output = Result<Response<ProxyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let served = ready!(Pin::new(&mut self.serving).poll(cx));
        Poll::Ready(Ok(served.unwrap_or_else(|()| {
            tracing::error!("a request made the proxy panic");
            reply::failed(Failure::Internal, &self.worker.node, None)
        })))
    }
}

/// Counts a connection for as long as it is in a state.
struct Counted(Arc<RequestMetrics>, fn(&RequestMetrics) -> &AtomicI64);

impl Counted {
    fn begin(metrics: &Arc<RequestMetrics>, gauge: fn(&RequestMetrics) -> &AtomicI64) -> Counted {
        gauge(metrics).fetch_add(1, Relaxed);
        Counted(metrics.clone(), gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

/// A future whose panic is an error: one request's defect stays that request's.
struct Guarded<F>(Pin<Box<F>>);

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, ()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_) => Poll::Ready(Err(())),
        }
    }
}

/// How long the last word of a connection may take.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
/// The largest request head.
pub(super) const REQUEST_HEAD_BYTES: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_one_request_is_an_error_and_nothing_more() {
        async fn defect(when: u32) -> u32 {
            for _ in 0..when {
                tokio::task::yield_now().await;
            }
            assert!(when != 2, "a defect");
            when
        }
        assert_eq!(Guarded(Box::pin(defect(1))).await, Ok(1));
        assert_eq!(Guarded(Box::pin(defect(2))).await, Err(()));
        assert_eq!(Guarded(Box::pin(defect(3))).await, Ok(3));
    }
}
