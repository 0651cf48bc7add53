//! The URL of a target: a scheme and an authority, and the addresses that none may have.
//!
//! Not the check after name resolution (the connecting side asks `never_a_target` again there),
//! and no word on loopback, which depends on where a node listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::rule::{Scheme, TargetAddress};
use crate::wire::rule_problems::{Flaw, did_you_mean, quoted};
use crate::wire::rule_schema::text::{Host, parse_port, split_port};

/// Reads `SCHEME://HOST[:PORT]` and fills the port in.
pub(super) fn target_address(text: &str) -> Result<TargetAddress, Flaw> {
    let wrong = |why: &str| Flaw::new(format!("{}: {why}", quoted(text)));
    let Some((scheme, rest)) = text.split_once("://") else {
        let hint = format!("did you mean {}?", quoted(&format!("http://{text}")));
        return Err(wrong("a target begins with http://, https:// or h2c://").hint(hint));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "h2c" => Scheme::H2c,
        other => {
            let mut flaw = wrong("the scheme is neither http nor https nor h2c");
            flaw.hint = did_you_mean(other, &["http", "https", "h2c"]);
            return Err(flaw);
        }
    };
    // A single slash after the authority is an empty path in every other URL, too.
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    for (mark, why) in [
        ('@', "a target carries no user name or password"),
        ('?', "a target carries no query"),
        ('#', "a target carries no fragment"),
        ('/', "a target carries no path"),
    ] {
        if authority.contains(mark) {
            let flaw = wrong(why);
            let rewrite = "a rewrite filter changes the path";
            return Err(if mark == '/' { flaw.hint(rewrite) } else { flaw });
        }
    }
    let (host, port) = match split_port(authority) {
        Some((host, port)) => (Host::parse(host)?, parse_port(port)?),
        None => (Host::parse(authority)?, default_port(scheme)),
    };
    if let Some(why) = refusal(&host) {
        return Err(wrong(why));
    }
    Ok(TargetAddress { scheme, host: host.plain(), port })
}

/// Why no target may have this address, wherever it was resolved from.
pub(crate) fn never_a_target(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => never_v4(address),
        IpAddr::V6(address) => never_v6(address),
    }
}

fn never_v4(address: Ipv4Addr) -> Option<&'static str> {
    // Besides link-local ones, the metadata address of one large cloud.
    if address == Ipv4Addr::new(100, 100, 100, 200) {
        Some("this is a metadata address")
    } else if address.is_link_local() {
        Some("link-local and metadata addresses are no targets")
    } else if address.octets()[0] == 0 {
        Some("an unspecified address is no target")
    } else if address.is_multicast() || address.is_broadcast() {
        Some("a multicast or broadcast address is no target")
    } else {
        None
    }
}

fn never_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    // Mapped, compatible and NAT64 forms reach the IPv4 address in their last 32 bits.
    let carries_v4 =
        matches!(segments, [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _]);
    if address.is_unspecified() {
        Some("an unspecified address is no target")
    } else if address.is_loopback() {
        None
    } else if carries_v4 {
        let [.., a, b, c, d] = address.octets();
        never_v4(Ipv4Addr::new(a, b, c, d))
    } else if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        Some("this is a metadata address")
    } else if address.is_unicast_link_local() {
        Some("link-local and metadata addresses are no targets")
    } else if address.is_multicast() {
        Some("a multicast or broadcast address is no target")
    } else {
        None
    }
}

fn refusal(host: &Host) -> Option<&'static str> {
    match host {
        Host::Name(name) => METADATA_NAMES
            .contains(&name.as_str())
            .then_some("link-local and metadata addresses are no targets"),
        Host::V4(address) => never_a_target(IpAddr::V4(*address)),
        Host::V6(address) => never_a_target(IpAddr::V6(*address)),
    }
}

fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http | Scheme::H2c => 80,
        Scheme::Https => 443,
    }
}

const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_scheme_host_and_port() {
        for (text, shown) in [
            ("http://A.example", "http://a.example:80"),
            ("https://a.example/", "https://a.example:443"),
            ("h2c://10.0.0.1:9000", "h2c://10.0.0.1:9000"),
            ("HTTP://[2001:db8::1]:81", "http://[2001:db8::1]:81"),
            ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
            ("http://[::1]:9001", "http://[::1]:9001"),
        ] {
            let address = target_address(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(target_address(shown).unwrap(), address);
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u:p@a",
            "http://a:0",
            "http://a:70000",
            "http://a//",
            "http://a b",
        ] {
            assert!(target_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_disguise() {
        for bad in [
            "169.254.169.254",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "0.0.0.0",
            "0.1.2.3",
            "[::]",
            "224.0.0.1",
            "255.255.255.255",
            "[ff02::1]",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "2852039166",
            "0xa9fea9fe",
            "169.254.43518",
            "metadata.google.internal.",
            "100.100.100.200",
        ] {
            assert!(target_address(&format!("http://{bad}:80")).is_err(), "{bad}");
        }
    }
}
