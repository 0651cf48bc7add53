//! The names and numbers that everything else is said with.
//!
//! Newtypes with checked constructors; no parsing of larger things and no IO.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The immutable id of a rule: `[a-z0-9]([-a-z0-9._]{0,126}[a-z0-9])?`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Checks and takes an id; `None` when it is not one.
    pub fn parse(text: &str) -> Option<RuleId> {
        let bytes = text.as_bytes();
        let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: &u8| edge(b) || matches!(b, b'-' | b'.' | b'_');
        let fits = (1..=128).contains(&bytes.len())
            && bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(inner);
        fits.then(|| RuleId(Arc::from(text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a node: `[a-z0-9-]{1,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Checks and takes a name; `None` when it is not one.
    pub fn parse(text: &str) -> Option<NodeId> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| NodeId(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of one rule: 1, 2, 3 …, below 2^53, so that JSON numbers hold it exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The first version of a rule.
    pub const FIRST: Version = Version(1);
    /// The highest version there can be.
    pub const MAX: Version = Version((1 << 53) - 1);

    /// Checks and takes a number.
    pub fn new(number: u64) -> Option<Version> {
        (1..=Version::MAX.0).contains(&number).then_some(Version(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The next version; `None` at the end of the numbers.
    pub fn next(self) -> Option<Version> {
        Version::new(self.0 + 1)
    }
}

/// Position in the orchestrator's history: contiguous from 1; 0 is "before the first commit".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// One life of the orchestrator's history, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A fleet: the hash of its first key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 32]);

/// The id of one write, made by the writer or at the first door; 1 to 128 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(Arc<str>);

impl WriteId {
    /// Checks and takes an id; `None` when it is not one.
    pub fn parse(text: &str) -> Option<WriteId> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| WriteId(Arc::from(text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The peer port of a node: an address literal, spoken to over plain HTTP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl PeerAddr {
    /// Takes `http://ADDRESS:PORT` (a literal; names never travel between peers).
    pub fn parse(url: &str) -> Option<PeerAddr> {
        let rest = url.strip_prefix("http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        rest.parse().ok().filter(|at: &SocketAddr| at.port() != 0).map(PeerAddr)
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl ClusterId {
    /// The first eight bytes in hexadecimal: enough for people.
    pub fn short(&self) -> String {
        self.0[..8].iter().map(|b| format!("{b:02x}")).collect()
    }
}

macro_rules! plain_text {
    ($($name:ident => $show:expr),* $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(&$name, &mut fmt::Formatter<'_>) -> fmt::Result = $show;
                show(self, f)
            }
        }
    )*};
}

macro_rules! debug_as_display {
    ($($name:ident),* $(,)?) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

plain_text! {
    RuleId => |id, f| f.write_str(&id.0),
    NodeId => |id, f| f.write_str(&id.0),
    WriteId => |id, f| f.write_str(&id.0),
    Version => |version, f| write!(f, "v{}", version.0),
    Revision => |revision, f| write!(f, "{}", revision.0),
    Epoch => |epoch, f| write!(f, "{}", epoch.0),
    ClusterId => |id, f| id.0.iter().try_for_each(|b| write!(f, "{b:02x}")),
}

debug_as_display!(RuleId, NodeId, WriteId, Version, Revision, Epoch, ClusterId, PeerAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_ids_follow_the_grammar() {
        for good in ["a", "shop-api", "a.b_c-d", "0", &"x".repeat(128)] {
            assert!(RuleId::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(RuleId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn versions_are_exact_json_numbers() {
        assert!(Version::new(0).is_none());
        assert!(Version::new(1 << 53).is_none());
        assert_eq!(Version::MAX.next(), None);
    }

    #[test]
    fn peer_addresses_are_literals() {
        assert!(PeerAddr::parse("http://10.0.0.2:7500").is_some());
        assert!(PeerAddr::parse("http://[::1]:7500/").is_some());
        for bad in ["http://peer:7500", "https://10.0.0.2:7500", "http://10.0.0.2", "10.0.0.2:1"] {
            assert!(PeerAddr::parse(bad).is_none(), "{bad}");
        }
    }
}
