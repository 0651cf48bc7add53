//! Names with several addresses: one that is good for nothing does not hide the others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::bed::{Bed, PATIENCE, block_on, forward};
use crate::model::rule::{Scheme, TargetAddress};
use crate::proxy::dial::{Dialer, Opened};
use crate::proxy::pool::{Endpoint, Pool};
use crate::proxy::prober::visit;
use crate::proxy::racing::STAGGER;
use crate::proxy::resolve::{AddressPolicy, Resolver};
use crate::proxy::target_tls::TargetTls;
use crate::routing::prior::Prior;

/// Where an address leads that nobody answers at: its queue is full, so that SYNs are dropped.
struct BlackHole {
    _socket: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// None where something else is there.
    fn at(address: SocketAddr) -> Option<BlackHole> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address.into()).ok()?;
        socket.listen(0).ok()?;
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        let queued: Vec<TcpStream> = std::iter::from_fn(connect).take(QUEUE).collect();
        assert!(queued.len() < QUEUE, "the queue never fills");
        Some(BlackHole { _socket: socket, _queued: queued })
    }
}

/// Of two addresses with one port: the second has a listener, the first is what `make` makes.
fn two<T>(make: impl Fn(SocketAddr) -> Option<T>) -> (T, TcpListener, [IpAddr; 2]) {
    let [first, second] = [2, 1].map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    let listening = || TcpListener::bind((second, 0)).unwrap();
    // Somebody else may have the port at the other address.
    let found = std::iter::repeat_with(listening).take(100).find_map(|listener| {
        let port = listener.local_addr().unwrap().port();
        Some((make(SocketAddr::new(first, port))?, listener))
    });
    let (made, listener) = found.expect("a port that is free at both addresses");
    (made, listener, [first, second])
}

#[test]
fn a_target_that_nobody_goes_to_is_visited_before_it_is_forgotten() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = Bed::start(forward(&[listener.local_addr().unwrap()]));
    let now = bed.clock.now();
    let prior = Prior { net_ms: 90.0, svc_ms: 5.0, err: 0.0, age: Duration::ZERO };
    let target = bed.state.unknown_targets(now).remove(0);
    assert_eq!(bed.state.import(&[(target, prior)].into(), now), 1);
    let state = Mutex::new(bed.state);
    let (_, dialer) = named(Scheme::Http, 1, &[]);
    let pool = Pool::new(dialer);
    let net_at = |now| {
        block_on(LocalSet::new().run_until(visit(&state, &pool, now)));
        state.lock().unwrap().latency_rows(now)[0].net_ms
    };
    assert_eq!(net_at(now + Duration::from_secs(299)), 90.0, "not long enough ago");
    let near = net_at(now + Duration::from_secs(301));
    assert!(near < 80.0, "{near} ms");
    listener.accept().expect("that was a connection");
    listener.set_nonblocking(true).unwrap();
    net_at(now + Duration::from_secs(302));
    assert!(listener.accept().is_err(), "once is enough");
}

/// A target named `both`, and who finds these addresses for it.
fn named(scheme: Scheme, port: u16, addresses: &[IpAddr]) -> (Endpoint, Dialer) {
    let policy = Arc::new(AddressPolicy { loopback: true, own: Vec::new() });
    let dialer = Dialer {
        resolver: Resolver::new(policy).knowing("both", addresses),
        distance: None,
        tls: Arc::new(TargetTls::new(&[], None).unwrap()),
    };
    let address = TargetAddress { scheme, host: "both".to_string(), port };
    (Endpoint::new(Arc::new(address), None), dialer)
}

#[test]
fn an_address_where_nobody_answers_does_not_hide_the_next() {
    if !HAS_MANY_LOOPBACKS {
        return;
    }
    let (_hole, listener, addresses) = two(BlackHole::at);
    let port = listener.local_addr().unwrap().port();
    let (endpoint, dialer) = named(Scheme::Http, port, &addresses);
    block_on(async {
        let opened = timeout(PATIENCE, dialer.open(&endpoint, false)).await;
        let (opened, rtt) = opened.expect("the second address is tried").unwrap();
        assert!(matches!(opened, Opened::Http1(_)));
        assert!(rtt < STAGGER, "{rtt:?} is not the winner's alone");
        let reached = timeout(PATIENCE, dialer.reach(&endpoint)).await;
        assert!(reached.expect("the second address is tried").is_ok());
    });
}

#[test]
fn an_address_that_comes_to_no_terms_does_not_hide_the_next() {
    if !HAS_MANY_LOOPBACKS {
        return;
    }
    let (first, second, addresses) = two(|address| TcpListener::bind(address).ok());
    let port = second.local_addr().unwrap().port();
    let (endpoint, dialer) = named(Scheme::Https, port, &addresses);
    let (said, asked) = channel();
    for (number, listener) in [first, second].into_iter().enumerate() {
        let said = said.clone();
        std::thread::spawn(move || {
            // Takes the connection, and speaks no TLS over it.
            drop(listener.accept().unwrap());
            said.send(number).unwrap();
        });
    }
    block_on(async {
        let opened = timeout(PATIENCE, dialer.open(&endpoint, false)).await;
        assert!(opened.expect("both close at once").is_err());
    });
    let asked = [(); 2].map(|()| asked.recv_timeout(PATIENCE).expect("both are asked"));
    assert_eq!(asked, [0, 1]);
}

/// More than a queue without places holds.
const QUEUE: usize = 8;
/// Elsewhere 127.0.0.1 alone is there without being set up.
const HAS_MANY_LOOPBACKS: bool = cfg!(target_os = "linux");
