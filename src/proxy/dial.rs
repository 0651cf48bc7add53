//! Opening a connection to a target: address, distance, TLS, and the protocol spoken over it.
//!
//! Keeps nothing: that is `pool`'s. Which of several addresses it is `racing` decides.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::net::TcpStream;

use super::distance::Delayed;
use super::http1_target::connection::{Connection, Stream};
use super::http2_target::connection::Multiplexed;
use super::pool::Endpoint;
use super::racing;
use super::reply::Failure;
use super::resolve::Resolver;
use super::target_tls::{Farewell, TargetTls};
use crate::model::rule::{Scheme, TargetAddress};

/// One-way distance to a target, for demonstrations.
pub(crate) type Distance = Arc<dyn Fn(&TargetAddress) -> Duration + Send + Sync>;

/// Opens connections.
pub(crate) struct Dialer {
    pub(crate) resolver: Resolver,
    pub(crate) distance: Option<Distance>,
    pub(crate) tls: Arc<TargetTls>,
}

/// A connection just opened, and what it can carry.
pub(super) enum Opened {
    /// One exchange at a time.
    Http1(Box<Connection>),
    /// As many as the target allows.
    Http2(Multiplexed),
}

impl Dialer {
    /// A new connection, and the round trip that opening it took (finding the address and
    /// coming to terms apart).
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        http1_only: bool,
    ) -> Result<(Opened, Duration), Failure> {
        let mut addresses = self.resolver.resolve(&endpoint.address).await?;
        let distance = self.distance_of(endpoint);
        loop {
            // Its failure is that of all who were left.
            let connect = |address| connect(address, distance);
            let (stream, rtt) = racing::first(&mut addresses, connect).await?;
            if self.resolver.refuses(&stream, endpoint.address.port) {
                return Err(Failure::AddressRefused);
            }
            match self.agree(endpoint, stream, distance, http1_only).await {
                Ok(opened) => return Ok((opened, rtt)),
                Err(failure) if addresses.is_empty() => return Err(failure),
                Err(_) => {}
            }
        }
    }

    /// The round trip of a connection to the target; nothing is said over it.
    pub(super) async fn reach(&self, endpoint: &Endpoint) -> Result<Duration, Failure> {
        let mut addresses = self.resolver.resolve(&endpoint.address).await?;
        let distance = self.distance_of(endpoint);
        let connected = racing::first(&mut addresses, |address| connect(address, distance));
        connected.await.map(|(_, rtt)| rtt)
    }

    fn distance_of(&self, endpoint: &Endpoint) -> Option<Duration> {
        let distance = self.distance.as_ref().map(|distance| distance(&endpoint.address));
        distance.filter(|delay| !delay.is_zero())
    }

    /// Comes to terms with who is at the other end, and on the protocol.
    async fn agree(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
        distance: Option<Duration>,
        http1_only: bool,
    ) -> Result<Opened, Failure> {
        // A lost option costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = match distance {
            None => Box::new(stream),
            Some(delay) => Box::new(Delayed::new(stream, delay)),
        };
        match endpoint.address.scheme {
            Scheme::Http => Ok(Opened::Http1(Box::new(Connection::new(stream)))),
            Scheme::H2c => speak_http2(stream).await,
            Scheme::Https => {
                // The state of TLS is large, and plain targets shall not pay for it.
                let agreed = self.tls.connect(stream, endpoint.name(), http1_only);
                let (stream, http2) = Box::pin(agreed).await?;
                let stream: Box<dyn Stream> = Box::new(Farewell::new(stream));
                if http2 {
                    speak_http2(stream).await
                } else {
                    Ok(Opened::Http1(Box::new(Connection::new(stream))))
                }
            }
        }
    }
}

/// A connection, and the round trip that it took.
async fn connect(
    address: SocketAddr,
    distance: Option<Duration>,
) -> Result<(TcpStream, Duration), Failure> {
    let begun = Instant::now();
    if let Some(delay) = distance {
        // The hand-shake takes a round trip.
        tokio::time::sleep(delay * 2).await;
    }
    let stream = TcpStream::connect(address).await.map_err(|error| not_connected(&error))?;
    Ok((stream, begun.elapsed()))
}

/// Why there is no connection: what this machine has too little of says nothing of the target.
fn not_connected(error: &io::Error) -> Failure {
    const OURS: [Errno; 5] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let ours = Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno));
    if ours { Failure::Overloaded } else { Failure::ConnectRefused }
}

async fn speak_http2(stream: Box<dyn Stream>) -> Result<Opened, Failure> {
    Multiplexed::open(stream).await.map(Opened::Http2)
}
