//! Listening sockets: opened, or taken over from whoever had them before.
//!
//! Each traffic thread has its own socket of an address, and the kernel spreads connections over
//! them. A socket that is taken over is never closed while its address is served: connections
//! that wait in it are somebody's. Accepts nothing itself.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::listener::ListenError;

/// Sockets that listen already; the ones nobody takes close with this.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<TcpListener>);

/// The sockets of all traffic threads, listening: who connects from now on waits.
pub(crate) struct Sockets {
    /// Where they listen, in the order asked for.
    pub(crate) addresses: Vec<SocketAddr>,
    /// A row for each thread.
    pub(super) rows: Vec<Vec<TcpListener>>,
}

impl Inherited {
    /// These, from wherever.
    pub(crate) fn new(sockets: Vec<TcpListener>) -> Inherited {
        Inherited(sockets)
    }

    /// Also these.
    pub(crate) fn extend(&mut self, more: Vec<TcpListener>) {
        self.0.extend(more);
    }

    /// All sockets of an address, ready for an event loop.
    pub(crate) fn take(&mut self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let here = |socket: &TcpListener| socket.local_addr().ok() == Some(address);
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(here);
        self.0 = left;
        let taken: Vec<TcpListener> = taken;
        taken.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(taken)
    }

    /// Where the ones listen that nobody has taken.
    pub(crate) fn left(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

impl Sockets {
    /// Opens them. Port 0 takes a free port, the same for all threads.
    pub(crate) fn open(
        listen: &[SocketAddr],
        threads: usize,
        inherited: &mut Inherited,
    ) -> Result<Sockets, ListenError> {
        let threads = threads.max(1);
        let mut addresses = Vec::new();
        let mut rows: Vec<Vec<TcpListener>> = (0..threads).map(|_| Vec::new()).collect();
        for wanted in listen {
            let fail = |reason| ListenError { address: *wanted, reason };
            let taken = inherited.take(*wanted).map_err(fail)?;
            if taken.is_empty() {
                let mut at = *wanted;
                for row in &mut rows {
                    let socket = open(at).map_err(fail)?;
                    at = socket.local_addr().map_err(fail)?;
                    row.push(socket);
                }
                addresses.push(at);
            } else {
                share(taken, &mut rows).map_err(fail)?;
                addresses.push(*wanted);
            }
        }
        for socket in rows.iter().flatten() {
            // Each connection has it from its listener (Linux), which saves a call for each. A lost
            // option costs latency, not correctness.
            let _ = SockRef::from(socket).set_tcp_nodelay(true);
        }
        Ok(Sockets { addresses, rows })
    }

    /// Further handles of the same sockets.
    pub(super) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        self.rows.iter().flatten().map(TcpListener::try_clone).collect()
    }
}

/// Each socket to a thread, and each thread a socket: with fewer sockets threads share one, with
/// fewer threads one has several.
fn share(sockets: Vec<TcpListener>, rows: &mut [Vec<TcpListener>]) -> io::Result<()> {
    let count = sockets.len();
    for at in count..rows.len() {
        rows[at].push(sockets[at % count].try_clone()?);
    }
    let threads = rows.len();
    for (at, socket) in sockets.into_iter().enumerate() {
        rows[at % threads].push(socket);
    }
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn every_socket_that_is_taken_over_is_served_by_some_thread() {
        for (before, after) in [(1, 3), (3, 1), (2, 2), (3, 2)] {
            let old = Sockets::open(&[any()], before, &mut Inherited::default()).unwrap();
            let address = old.addresses[0];
            let mut inherited = Inherited::new(old.duplicates().unwrap());
            drop(old);
            let other = Sockets::open(&[any()], 1, &mut Inherited::default()).unwrap();
            inherited.extend(other.duplicates().unwrap());
            let new = Sockets::open(&[address], after, &mut inherited).unwrap();
            assert_eq!(new.addresses, [address]);
            assert_eq!(new.rows.len(), after);
            assert!(new.rows.iter().all(|row| !row.is_empty()), "{before} -> {after}");
            assert_eq!(new.rows.iter().flatten().count(), before.max(after));
            assert_eq!(inherited.left(), other.addresses, "what nobody asked for is left");
        }
    }

    #[test]
    fn what_is_accepted_does_not_gather_small_writes() {
        let sockets = Sockets::open(&[any()], 1, &mut Inherited::default()).unwrap();
        let _client = std::net::TcpStream::connect(sockets.addresses[0]).unwrap();
        sockets.rows[0][0].set_nonblocking(false).unwrap();
        let (accepted, _) = sockets.rows[0][0].accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "TCP_NODELAY, from the listener");
    }

    #[test]
    fn a_free_port_is_the_same_for_all_threads() {
        let sockets = Sockets::open(&[any()], 3, &mut Inherited::default()).unwrap();
        let ports: Vec<u16> =
            sockets.rows.iter().flatten().map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports, [sockets.addresses[0].port(); 3]);
    }
}
