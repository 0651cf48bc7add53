//! The PROXY protocol: who a client is, said by the balancer in front of this node.
//!
//! Versions 1 and 2 as HAProxy's `proxy-protocol.txt` says. Only networks that were named are
//! believed, and they must begin every connection with a header: a receiver never guesses. Nothing
//! behind the header is read here.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The client's address; none where the balancer speaks for itself, does not know, or names what
/// is no address of TCP.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut start = [0u8; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut head = [0u8; 4];
        stream.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if length > MOST_V2 {
            return Err(malformed());
        }
        let mut rest = vec![0u8; length];
        stream.read_exact(&mut rest).await?;
        return version_2(head[0], head[1], &rest).ok_or_else(malformed);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        let room = MOST_V1 - line.len();
        let mut ahead = [0u8; MOST_V1];
        if room == 0 || !line.starts_with(b"PROXY ") {
            return Err(malformed());
        }
        // Looked at first: what follows the line is the client's.
        let there = stream.peek(&mut ahead[..room]).await?;
        let end = ahead[..there].iter().position(|byte| *byte == b'\n');
        let mine = end.map_or(there, |end| end + 1);
        if mine == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        stream.read_exact(&mut ahead[..mine]).await?;
        line.extend_from_slice(&ahead[..mine]);
    }
    std::str::from_utf8(&line).ok().and_then(version_1).ok_or_else(malformed)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443` and a line end; None where it is anything else.
fn version_1(line: &str) -> Option<Option<IpAddr>> {
    let words: Vec<&str> = line.strip_suffix("\r\n")?.split(' ').collect();
    if words.get(..2) == Some(&["PROXY", "UNKNOWN"]) {
        return Some(None);
    }
    let ["PROXY", family, source, destination, from, to] = words[..] else { return None };
    from.parse::<u16>().ok()?;
    to.parse::<u16>().ok()?;
    let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    fits.then_some(Some(source))
}

/// None where it is malformed. What stands behind the addresses is extensions.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Option<Option<IpAddr>> {
    match (command, family) {
        // The balancer's own connection, or a client that it does not name.
        (0x20, _) | (0x21, 0x00) => Some(None),
        // Datagrams and sockets of UNIX: what is not understood counts as not named.
        (0x21, 0x12 | 0x22 | 0x31 | 0x32) => Some(None),
        (0x21, 0x11) => {
            let octets: [u8; 4] = rest.get(..12)?.first_chunk().copied()?;
            Some(Some(IpAddr::V4(Ipv4Addr::from(octets))))
        }
        (0x21, 0x21) => {
            let octets: [u8; 16] = rest.get(..36)?.first_chunk().copied()?;
            Some(Some(IpAddr::V6(Ipv6Addr::from(octets))))
        }
        _ => None,
    }
}

fn malformed() -> io::Error {
    ErrorKind::InvalidData.into()
}

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const MOST_V1: usize = 107;
/// Addresses and extensions of version 2; common balancers send far less.
const MOST_V2: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_strictly() {
        let good = |line: &str| version_1(line).unwrap_or_else(|| panic!("{line:?} is refused"));
        assert_eq!(good("PROXY TCP4 192.0.2.1 198.51.100.1 5 443\r\n"), "192.0.2.1".parse().ok());
        assert_eq!(
            good("PROXY TCP6 2001:db8::1 2001:db8::2 65535 1\r\n"),
            "2001:db8::1".parse().ok()
        );
        assert_eq!(good("PROXY UNKNOWN\r\n"), None);
        assert_eq!(good("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        for odd in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 443 6\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 5 443\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.1 5 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 -5 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 5 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 5 443\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(version_1(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn binary_headers_are_read_strictly() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0, 5, 1, 187];
        assert_eq!(version_2(0x21, 0x11, &v4), Some("192.0.2.1".parse().ok()));
        let extended = [&v4[..], &[4, 0, 1, 9]].concat();
        assert_eq!(version_2(0x21, 0x11, &extended), Some("192.0.2.1".parse().ok()));
        assert_eq!(version_2(0x21, 0x11, &v4[..11]), None, "cut short");
        assert_eq!(version_2(0x20, 0x00, &[]), Some(None), "the balancer itself");
        assert_eq!(version_2(0x21, 0x00, &[]), Some(None));
        assert_eq!(version_2(0x21, 0x21, &[0; 35]), None);
        for family in [0x12, 0x22, 0x31, 0x32] {
            assert_eq!(version_2(0x21, family, &[7; 216]), Some(None), "{family:x}: not TCP");
        }
        for (command, family) in [
            (0x21, 0x01),
            (0x21, 0x10),
            (0x21, 0x13),
            (0x21, 0x33),
            (0x21, 0x41),
            (0x22, 0x11),
            (0x11, 0x11),
        ] {
            assert_eq!(version_2(command, family, &[0; 216]), None, "{command:x} {family:x}");
        }
    }
}
