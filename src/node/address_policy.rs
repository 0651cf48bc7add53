//! Which learned peer addresses are believed to be peers at all.
//!
//! A peer can name any address; without this a digest could make every node of a fleet knock at
//! whatever door an attacker likes. Addresses given by the operator are not asked.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::ids::PeerAddr;

/// Which learned peer addresses are acceptable.
#[derive(Debug)]
pub(crate) struct PeerPolicy {
    /// Whether this node's own peer port is on the loopback.
    own_loopback: bool,
    given: ArcSwap<Vec<PeerAddr>>,
}

impl PeerPolicy {
    /// For a node that listens at `own` and was told of `given`.
    pub(crate) fn new(own: PeerAddr, given: Vec<PeerAddr>) -> PeerPolicy {
        let given = ArcSwap::from_pointee(given);
        PeerPolicy { own_loopback: own.0.ip().is_loopback(), given }
    }

    /// These are the ones that the operator gave now.
    pub(crate) fn give(&self, given: Vec<PeerAddr>) {
        self.given.store(Arc::new(given));
    }

    /// Whether this address may be asked.
    pub(crate) fn allows(&self, address: PeerAddr) -> bool {
        if self.given.load().contains(&address) {
            return true;
        }
        // An IPv4 address is the same door in its IPv6 clothes.
        let ip = address.0.ip().to_canonical();
        let odd = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let unusable = ip.is_unspecified() || ip.is_multicast() || odd;
        !unusable && address.0.port() >= 1024 && ip.is_loopback() == self.own_loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plausible_peers_are_asked() {
        let at = |url: &str| PeerAddr::parse(url).unwrap();
        let policy = PeerPolicy::new(at("http://10.0.0.1:7500"), vec![at("http://127.0.0.1:1")]);
        assert!(policy.allows(at("http://10.9.9.9:7500")));
        assert!(policy.allows(at("http://127.0.0.1:1")), "given by the operator");
        for bad in [
            "http://127.0.0.1:7500",
            "http://169.254.169.254:8080",
            "http://10.0.0.2:80",
            "http://0.0.0.0:7500",
            "http://224.0.0.1:7500",
            "http://[fe80::1]:7500",
            "http://[::ffff:127.0.0.1]:7500",
            "http://[::ffff:169.254.169.254]:7500",
        ] {
            assert!(!policy.allows(at(bad)), "{bad}");
        }
    }
}
