//! From a target's name to addresses that may be connected to.
//!
//! Every address is judged after resolution, so a name cannot lead where a literal may not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// One thread's names, for a short while each.
pub(crate) struct Resolver {
    policy: Arc<AddressPolicy>,
    known: RefCell<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

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
}

impl Resolver {
    pub(crate) fn new(policy: Arc<AddressPolicy>) -> Resolver {
        Resolver { policy, known: RefCell::default() }
    }

    /// As if `name` had just been looked up.
    #[cfg(test)]
    pub(super) fn knowing(self, name: &str, addresses: &[IpAddr]) -> Resolver {
        let found = (Instant::now(), addresses.to_vec());
        self.known.borrow_mut().insert(name.to_string(), found);
        self
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
        if let Some((at, addresses)) = self.known.borrow().get(name)
            && at.elapsed() < FRESH
        {
            return Ok(addresses.clone());
        }
        let found = tokio::net::lookup_host((name, 0)).await;
        let mut known = self.known.borrow_mut();
        match found {
            Ok(found) => {
                let addresses: Vec<IpAddr> =
                    found.map(|address| address.ip()).take(ADDRESSES).collect();
                if known.len() >= NAMES {
                    known.clear();
                }
                known.insert(name.to_string(), (Instant::now(), addresses.clone()));
                Ok(addresses)
            }
            // A name that resolved before is better than none while the resolver is away.
            Err(_) => known
                .get(name)
                .filter(|(at, _)| at.elapsed() < STALE)
                .map(|(_, addresses)| addresses.clone())
                .ok_or(Failure::NameUnknown),
        }
    }
}

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(10);
/// How long it is used when no new one can be had.
const STALE: Duration = Duration::from_secs(600);
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

    #[tokio::test]
    async fn a_name_leads_nowhere_that_a_literal_may_not() {
        let strict = Resolver::new(Arc::default());
        for host in ["127.0.0.1", "::1", "localhost", "169.254.169.254", "::ffff:127.0.0.1"] {
            let found = strict.resolve(&target(host, 80)).await;
            assert_eq!(found, Err(Failure::AddressRefused), "{host}");
        }
        assert!(strict.resolve(&target("192.0.2.1", 80)).await.is_ok());
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
