//! From a target's name to addresses that may be connected to.
//!
//! Every address is judged after resolution, so a name cannot lead where a literal may not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::reply::Failure;
use crate::model::rule::TargetAddress;
use crate::wire::rule_schema::target_url::never_a_target;

/// Which addresses a node may connect to.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressPolicy {
    /// Whether targets on this machine are allowed.
    pub(crate) loopback: bool,
    /// The node's own control ports: never a target.
    pub(crate) own: Vec<SocketAddr>,
}

/// One thread's names, for a short while each. Each is looked up once at a time, whoever waits: a
/// name whose servers are silent takes one of the threads that look up, not all of them.
pub(crate) struct Resolver {
    policy: Arc<AddressPolicy>,
    names: Rc<RefCell<HashMap<String, Name>>>,
    look_up: LookUp,
}

/// What is known of a name.
#[derive(Default)]
struct Name {
    /// The last good answer, and when it came.
    found: Option<(Instant, Vec<IpAddr>)>,
    /// None while nobody looks.
    looking: Option<Looking>,
}

/// A look-up under way.
#[derive(Clone)]
struct Looking {
    since: Instant,
    over: Rc<Notify>,
}

/// Asks for a name's addresses.
type LookUp = fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>>>>;

impl AddressPolicy {
    /// Whether this address may be connected to.
    pub(crate) fn allows(&self, address: SocketAddr) -> bool {
        // An IPv4 address is the same door in its IPv6 clothes.
        let ip = address.ip().to_canonical();
        never_a_target(ip).is_none()
            && (self.loopback || !ip.is_loopback())
            && !self.own.iter().any(|own| {
                let at = own.ip().to_canonical();
                let here = at == ip || at.is_unspecified() && ip.is_loopback();
                here && own.port() == address.port()
            })
    }

    /// Whether this connection leads to a control port that listens at every address, which shows
    /// only now: both ends are at one.
    pub(crate) fn is_own(&self, stream: &TcpStream, port: u16) -> bool {
        let everywhere = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == port;
        self.own.iter().any(everywhere)
            && stream
                .local_addr()
                .is_ok_and(|here| stream.peer_addr().is_ok_and(|there| there.ip() == here.ip()))
    }
}

impl Resolver {
    pub(crate) fn new(policy: Arc<AddressPolicy>) -> Resolver {
        Resolver { policy, names: Rc::default(), look_up: |name| Box::pin(system(name)) }
    }

    /// As if `name` had just been looked up.
    #[cfg(test)]
    pub(super) fn knowing(self, name: &str, addresses: &[IpAddr]) -> Resolver {
        let found = Some((Instant::now(), addresses.to_vec()));
        self.names.borrow_mut().insert(name.to_string(), Name { found, looking: None });
        self
    }

    /// Whether a connection to such a port leads where none may lead.
    pub(crate) fn refuses(&self, stream: &TcpStream, port: u16) -> bool {
        self.policy.is_own(stream, port)
    }

    /// The addresses of a target, those that are allowed.
    pub(crate) async fn resolve(&self, target: &TargetAddress) -> Result<Vec<SocketAddr>, Failure> {
        let addresses = match target.literal() {
            Some(ip) => vec![ip],
            None => self.look_up(&target.host).await?,
        };
        let allowed: Vec<SocketAddr> = addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, target.port))
            .filter(|address| self.policy.allows(*address))
            .collect();
        if allowed.is_empty() { Err(Failure::AddressRefused) } else { Ok(allowed) }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let younger = |than: Duration| {
            let names = self.names.borrow();
            let (at, addresses) = names.get(name)?.found.as_ref()?;
            (at.elapsed() < than).then(|| addresses.clone())
        };
        if let Some(addresses) = younger(FRESH) {
            return Ok(addresses);
        }
        let looking = self.looking(name);
        let over = looking.over.notified();
        if younger(STALE).is_some() {
            // What was known is better than to wait; that there is no answer in time is no matter.
            let _ = timeout_at(looking.since + PATIENCE, over).await;
        } else {
            over.await;
        }
        younger(STALE).ok_or(Failure::NameUnknown)
    }

    /// Somebody looks for this name from now on, at the latest.
    fn looking(&self, name: &str) -> Looking {
        let mut names = self.names.borrow_mut();
        if names.len() >= NAMES && !names.contains_key(name) {
            names.retain(|_, known| known.looking.is_some());
        }
        let known = names.entry(name.to_string()).or_default();
        if let Some(looking) = &known.looking {
            return looking.clone();
        }
        let looking = Looking { since: Instant::now(), over: Rc::default() };
        known.looking = Some(looking.clone());
        let (asked, names, over) = (name.to_string(), self.names.clone(), looking.over.clone());
        let answer = (self.look_up)(asked.clone());
        // On its own: it goes on when nobody waits any more, and the next one has its answer.
        tokio::task::spawn_local(async move {
            let answer = answer.await;
            let mut names = names.borrow_mut();
            let known = names.entry(asked.clone()).or_default();
            known.looking = None;
            match answer {
                Ok(addresses) => known.found = Some((Instant::now(), addresses)),
                // A name that resolved before is better than none while the resolver is away.
                Err(_) if known.found.is_some() => {}
                Err(_) => drop(names.remove(&asked)),
            }
            over.notify_waiters();
        });
        looking
    }
}

async fn system(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).take(ADDRESSES).collect())
}

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(10);
/// How long it is used when no new one can be had.
const STALE: Duration = Duration::from_secs(600);
/// How long a new answer is waited for where there is an old one.
const PATIENCE: Duration = Duration::from_millis(250);
/// Names remembered per thread.
const NAMES: usize = 10_000;
/// Addresses tried per name.
const ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::Scheme;

    fn target(host: &str, port: u16) -> TargetAddress {
        TargetAddress { scheme: Scheme::Http, host: host.to_string(), port }
    }

    async fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
        tokio::task::LocalSet::new().run_until(future).await
    }

    #[tokio::test]
    async fn a_name_leads_nowhere_that_a_literal_may_not() {
        let strict = Resolver::new(Arc::default());
        for host in ["127.0.0.1", "::1", "localhost", "169.254.169.254", "::ffff:127.0.0.1"] {
            let found = on_one_thread(strict.resolve(&target(host, 80))).await;
            assert_eq!(found, Err(Failure::AddressRefused), "{host}");
        }
        assert!(strict.resolve(&target("192.0.2.1", 80)).await.is_ok());
    }

    thread_local! {
        static ASKED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// A resolver whose answers take as many seconds as the name says.
    fn slow() -> Resolver {
        let look_up: LookUp = |name| {
            ASKED.with_borrow_mut(|asked| asked.push(name.clone()));
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(name.parse().unwrap())).await;
                Ok(vec![IpAddr::from([192, 0, 2, 2])])
            })
        };
        Resolver { look_up, ..Resolver::new(Arc::default()) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_address_is_used_while_the_resolver_is_away() {
        let old = [IpAddr::from([192, 0, 2, 1])];
        let resolver = slow().knowing("3600", &old);
        let took = async || {
            let begun = Instant::now();
            let found = resolver.look_up("3600").await;
            assert_eq!(found, Ok(old.to_vec()));
            begun.elapsed()
        };
        on_one_thread(async {
            assert_eq!(took().await, Duration::ZERO, "it is fresh");
            tokio::time::advance(FRESH).await;
            assert_eq!(took().await, PATIENCE);
            assert_eq!(took().await, Duration::ZERO, "the resolver was given its time");
            assert_eq!(ASKED.take(), ["3600"], "once for all");
            tokio::time::advance(STALE).await;
            let waiting = tokio::time::timeout(Duration::from_secs(60), resolver.look_up("3600"));
            assert!(waiting.await.is_err(), "too old for anything");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_for_one_request_is_there_for_the_next() {
        let resolver = slow();
        on_one_thread(async {
            let begun = Instant::now();
            for _ in 0..3 {
                let impatient = tokio::time::timeout(Duration::from_secs(1), resolver.look_up("4"));
                assert!(impatient.await.is_err());
            }
            assert_eq!(resolver.look_up("4").await, Ok(vec![IpAddr::from([192, 0, 2, 2])]));
            assert_eq!(begun.elapsed(), Duration::from_secs(4));
            assert_eq!(ASKED.take(), ["4"]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_port_at_every_address_is_known_by_both_ends_of_a_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stream = TcpStream::connect(at).await.unwrap();
        let policy = |ip: [u8; 4], port| AddressPolicy {
            loopback: true,
            own: vec![SocketAddr::from((ip, port))],
        };
        assert!(policy([0; 4], at.port()).is_own(&stream, at.port()));
        assert!(!policy([0; 4], 1).is_own(&stream, at.port()));
        assert!(!policy([192, 0, 2, 1], at.port()).is_own(&stream, at.port()));
    }

    #[tokio::test]
    async fn the_nodes_own_control_ports_are_no_targets_where_the_loopback_is_one() {
        let own = vec![SocketAddr::from(([127, 0, 0, 1], 7500))];
        let here = Resolver::new(Arc::new(AddressPolicy { loopback: true, own }));
        assert!(here.resolve(&target("127.0.0.1", 7500)).await.is_err());
        assert!(here.resolve(&target("::ffff:127.0.0.1", 7500)).await.is_err());
        assert!(here.resolve(&target("127.0.0.1", 9001)).await.is_ok());
        let own = vec![SocketAddr::from(([0, 0, 0, 0], 7500))];
        let wide = Resolver::new(Arc::new(AddressPolicy { loopback: true, own }));
        assert!(wide.resolve(&target("127.0.0.1", 7500)).await.is_err());
    }
}
