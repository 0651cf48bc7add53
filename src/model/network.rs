//! A range of addresses, as in `10.0.0.0/8`.

use std::net::IpAddr;

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    // Invariant: at most 32 for IPv4, at most 128 for IPv6.
    bits: u8,
}

impl Network {
    /// `10.0.0.0/8`, or a single address.
    pub fn parse(text: &str) -> Option<Network> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let base: IpAddr = base.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Network { base, bits })
    }

    /// Whether an address is in it; an IPv4 address is the same in its IPv6 form.
    pub fn contains(self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= bits
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differs = base.to_bits() ^ address.to_bits();
                differs.leading_zeros() >= bits
            }
            _ => false,
        }
    }

    /// Whether it reaches this machine's own addresses.
    pub fn covers_loopback(self) -> bool {
        // Only 127.0.0.0/8 and ::1 are decided on; other ranges are allowed anyway.
        self.base.is_loopback() || self.bits == 0
    }
}

/// Whether an address is none of the Internet's: private (RFC 1918, RFC 4193), of a link, or of
/// this machine.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(it) => it.is_private() || it.is_loopback() || it.is_link_local(),
        IpAddr::V6(it) => it.is_unique_local() || it.is_loopback() || it.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_those_of_the_internet() {
        let private = |text: &str| is_private(text.parse().unwrap());
        for text in ["10.1.2.3", "192.168.0.1", "127.0.0.1", "169.254.1.1", "::ffff:172.16.0.1"] {
            assert!(private(text), "{text}");
        }
        for text in ["::1", "fd00::1", "fe80::1"] {
            assert!(private(text), "{text}");
        }
        for text in ["192.0.2.1", "172.32.0.1", "::ffff:8.8.8.8", "2001:db8::1"] {
            assert!(!private(text), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_the_networks_that_begin_like_it() {
        let within = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ] {
            assert!(within(network, inside), "{inside} in {network}");
            assert!(!within(network, outside), "{outside} in {network}");
        }
        for odd in ["10.0.0.0/33", "10.0.0/8", "::/129", "", "/8", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(odd), None, "{odd}");
        }
    }
}
