//! An exchange that stopped being HTTP: bytes both ways until one side is done or nothing moves.
//!
//! Only WebSocket gets here, and only where client and target both agreed on it (RFC 9110,
//! section 7.8; RFC 6455): any other protocol, and above all `h2c`, would let a client speak past
//! the rules. A tunnel that is silent holds no buffer.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::{Method, Response, StatusCode, Version, request, response};
use hyper::body::{Body, Incoming};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::access::Exchange;
use super::activity::{Activity, Sending};
use super::attempt::Trying;
use super::body::{OpenBody, Patience, ProxyBody};
use super::headers::{self, Framing};
use super::http1_target::connection::Stream;
use super::noted::Noted;
use super::pool::Lease;
use super::reply::Failure;
use super::running::Filters;
use super::stall::Watched;
use super::underway::Underway;
use crate::model::moment::Moment;
use crate::routing::cell::Outcome;

/// The target's side of a tunnel, before the client's side is there.
pub(crate) struct Tunnel {
    /// The target's connection, which has stopped being HTTP, and what came over it already.
    target: (Box<dyn Stream>, Bytes),
    patience: Patience,
    _open: OpenBody,
    _underway: Underway,
}

impl Tunnel {
    pub(super) fn new(
        target: (Box<dyn Stream>, Bytes),
        patience: Patience,
        open: OpenBody,
        underway: Underway,
    ) -> Tunnel {
        Tunnel { target, patience, _open: open, _underway: underway }
    }

    /// Carries bytes until the end; `early` came behind the client's request already.
    pub(crate) async fn carry<C>(mut self, client: C, early: &[u8])
    where
        C: AsyncRead + AsyncWrite,
    {
        // How a tunnel ends is its ends' business.
        self.run(client, early, None, || false).await;
    }

    /// Carries bytes over a stream, which `sending` sends to, of a connection with this activity.
    /// What is no end on one side is none on the other, but a reset (RFC 9113, section 8.5; RFC
    /// 8441, section 5).
    async fn carry_stream<C>(mut self, client: C, sending: Sending, over: Rc<Activity>)
    where
        C: AsyncRead + AsyncWrite,
    {
        if !self.run(client, &[], Some(sending), || over.was_lost()).await {
            self.break_off();
        }
    }

    /// Returns whether both sides have said their end.
    async fn run<C>(
        &mut self,
        client: C,
        early: &[u8],
        mut sending: Option<Sending>,
        was_lost: impl Fn() -> bool,
    ) -> bool
    where
        C: AsyncRead + AsyncWrite,
    {
        let (target, answered) = &mut self.target;
        let (moved, ended, broken) =
            (Cell::new(Instant::now()), Cell::new(false), Cell::new(false));
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_target, mut to_target) = tokio::io::split(target);
        let up = async {
            match copy(early, &mut from_client, &mut to_target, &moved).await {
                Ok(()) => {
                    // To hyper a stream has ended, too, whose connection is about to be lost.
                    yield_now().await;
                    if was_lost() {
                        return Err(());
                    }
                    broken.set(to_target.shutdown().await.is_err());
                }
                // What the target has said before may still come.
                Err(Failed::Writing) => broken.set(true),
                Err(Failed::Reading(_)) => return Err(()),
            }
            Ok(())
        };
        let down = async {
            match copy(answered, &mut from_target, &mut to_client, &moved).await {
                // Many a server closes TLS without a word.
                Err(Failed::Reading(error)) if error.kind() != ErrorKind::UnexpectedEof => Err(()),
                Err(Failed::Writing) => Err(()),
                _ if broken.get() => Err(()),
                _ => {
                    ended.set(true);
                    to_client.shutdown().await.map_err(|_| ())
                }
            }
        };
        let both = async { tokio::try_join!(up, down) };
        let given_up = async {
            match &mut sending {
                Some(sending) => sending.await,
                None => pending().await,
            }
            // It tells `down` how it ended by being dropped.
            sending = None;
            if ended.get() {
                pending().await
            }
        };
        tokio::select! {
            biased;
            both = both => both.is_ok() && !broken.get(),
            () = given_up => false,
            () = silence(&moved, &self.patience) => false,
        }
    }

    /// What goes on here was not to end.
    fn break_off(mut self) {
        self.target.0.break_off();
    }
}

/// What ended one direction early.
enum Failed {
    Reading(io::Error),
    Writing,
}

/// What a client wants of its connection.
pub(super) enum Wanted {
    /// An answer.
    Answer,
    /// That it becomes a WebSocket: HTTP/1.1, GET, no body. Everything else that stands in Upgrade
    /// is ignored, as RFC 9110 allows.
    OverConnection,
    /// That one stream of it does (RFC 8441).
    OverStream(OnUpgrade),
}

impl Wanted {
    /// What this request wants. One for a WebSocket over a stream becomes what it would be in
    /// HTTP/1.1, so that rules and targets need not know of the difference.
    pub(super) fn by(parts: &mut request::Parts, noted: Noted, body: &Incoming) -> Wanted {
        if parts.method == Method::CONNECT && parts.version == Version::HTTP_2 {
            let protocol = parts.extensions.get::<Protocol>();
            let websocket = protocol.is_some_and(|it| it.as_str().eq_ignore_ascii_case(WEBSOCKET));
            let stream = parts.extensions.get::<OnUpgrade>().filter(|_| websocket).cloned();
            if let Some(stream) = stream {
                parts.method = Method::GET;
                let key = BASE64.encode(rand::random::<[u8; 16]>());
                if let Ok(key) = HeaderValue::try_from(key) {
                    parts.headers.insert(SEC_WEBSOCKET_KEY, key);
                }
                return Wanted::OverStream(stream);
            }
        }
        let over_connection = parts.version == Version::HTTP_11
            && noted.upgrade
            && parts.method == Method::GET
            && body.is_end_stream()
            && names_websocket(&parts.headers)
            && headers::lists(&parts.headers, &CONNECTION, "upgrade");
        if over_connection { Wanted::OverConnection } else { Wanted::Answer }
    }

    /// Whether it is a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        !matches!(self, Wanted::Answer)
    }

    /// Whether it is a tunnel over one stream.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Wanted::OverStream(_))
    }

    /// Whether the target agreed to what was asked. A client that sent no key of its own cannot
    /// see whether the target has read it: that is this proxy's to see.
    fn is_agreed(&self, asked: &HeaderMap, parts: &response::Parts) -> bool {
        let agreed = parts.status == StatusCode::SWITCHING_PROTOCOLS
            && names_websocket(&parts.headers)
            && self.is_tunnel();
        agreed && (!self.is_stream() || proves(asked, &parts.headers))
    }
}

/// Whether an answer shows that its sender has read the key (RFC 6455, section 4.2.2).
fn proves(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    let key = asked.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, KEY_SUFFIX].concat());
    let proof = BASE64.encode(digest.as_ref());
    answered.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|said| said.as_bytes() == proof.as_bytes())
}

/// The target speaks another protocol from here on; good only where the client asked for it.
pub(super) fn switch(
    (mut parts, noted): (response::Parts, Noted),
    lease: Lease,
    mut trying: Trying,
    at: Moment,
    exchange: &Exchange<'_>,
    mut underway: Underway,
) -> Result<Response<ProxyBody>, Failure> {
    let Exchange { asking, route, .. } = *exchange;
    let agreed = asking.tunnel.is_agreed(&asking.parts.headers, &parts);
    let Some(target) = lease.into_stream().filter(|_| agreed) else {
        trying.fail(Failure::BadResponse);
        return Err(Failure::BadResponse);
    };
    trying.finish(Outcome::Success, at);
    headers::for_client(&mut parts.headers, noted, Framing::NONE);
    Filters::of(route).respond(&mut parts.headers);
    let open = OpenBody::begin(trying.target());
    let patience = Patience { idle: route.payload.terms.timeouts.idle, until: asking.until };
    if asking.tunnel.is_stream() {
        parts.status = StatusCode::OK;
        parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
    }
    exchange.answered(parts.status, &mut underway);
    let tunnel = Tunnel::new(target, patience, open, underway);
    if let Wanted::OverStream(client) = &asking.tunnel {
        let (client, over) = (client.clone(), asking.client.activity.clone());
        let sending = over.becomes_tunnel();
        let stalled = trying.stalled();
        tokio::task::spawn_local(async move {
            let (Ok(client), Some(sending)) = (client.await, sending.take()) else {
                return tunnel.break_off();
            };
            tunnel.carry_stream(Watched::new(TokioIo::new(client), stalled), sending, over).await;
        });
    } else {
        announce(|name, value| {
            parts.headers.insert(name, value);
        });
        asking.client.tunnel.replace(Some(tunnel));
    }
    Ok(Response::from_parts(parts, ProxyBody::empty()))
}

/// Says what this hop is about to become.
pub(super) fn announce(mut say: impl FnMut(HeaderName, HeaderValue)) {
    say(CONNECTION, HeaderValue::from_static("upgrade"));
    say(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Exactly one protocol, since a list leaves open which one is meant.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let first = protocols.next();
    let named = first.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    named && protocols.next().is_none()
}

/// One direction to its end, after what came of it early; the other direction may go on.
async fn copy<R, W>(
    early: &[u8],
    mut from: R,
    mut to: W,
    moved: &Cell<Instant>,
) -> Result<(), Failed>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    write(early, &mut to).await?;
    loop {
        let bytes = read(&mut from).await.map_err(Failed::Reading)?;
        moved.set(Instant::now());
        if bytes.is_empty() {
            return Ok(());
        }
        write(&bytes, &mut to).await?;
        moved.set(Instant::now());
    }
}

async fn write<W: AsyncWrite + Unpin>(bytes: &[u8], to: &mut W) -> Result<(), Failed> {
    to.write_all(bytes).await.map_err(|_| Failed::Writing)?;
    to.flush().await.map_err(|_| Failed::Writing)
}

/// What there is to read; the space for it is only taken when there is something.
async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); MOST_AT_ONCE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().to_vec()))
    })
    .await
}

/// Returns when nothing has moved for too long, or when all of it has taken too long.
async fn silence(moved: &Cell<Instant>, patience: &Patience) {
    let mut timer = pin!(tokio::time::sleep_until(patience.deadline(moved.get())));
    loop {
        timer.as_mut().await;
        let until = patience.deadline(moved.get());
        if until <= Instant::now() {
            return;
        }
        timer.as_mut().reset(until);
    }
}

/// What RFC 6455, section 1.3, puts behind a key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The one protocol that is passed on.
const WEBSOCKET: &str = "websocket";
/// Bytes carried in one step.
const MOST_AT_ONCE: usize = 16 << 10;
