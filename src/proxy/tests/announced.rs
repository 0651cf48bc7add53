//! The PROXY protocol: believed of whom it was agreed with, and demanded of them.

use std::io::Write;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::bed::{Bed, Origin, Setup, field, forward, ok, read_all, read_until, status};
use super::secure::Wardrobe;
use crate::model::network::Network;
use crate::proxy::listener::Bounds;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 127.0.0.1 5555 80\r\n";

fn behind_a_balancer() -> Setup {
    Setup { announcers: vec![Network::parse("127.0.0.0/8").unwrap()], ..Setup::default() }
}

/// Version 2 with an IPv6 client and an extension.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x21, 0, 40]);
    let client: std::net::Ipv6Addr = "2001:db8::9".parse().unwrap();
    header.extend(client.octets());
    header.extend([0; 20]);
    header.extend([4, 0, 1, 7]);
    header
}

#[test]
fn the_client_is_who_the_balancer_says() {
    let origin = Origin::start(ok);
    let bed = Bed::set_up(forward(&[origin.address]), behind_a_balancer());
    let local = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20, 0, 0, 0]].concat();
    for (header, client) in [
        (LINE.to_vec(), "203.0.113.9"),
        (binary(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (local, "127.0.0.1"),
    ] {
        let mut stream = bed.client();
        stream.write_all(&[&header[..], GET].concat()).unwrap();
        assert_eq!(status(&read_all(&mut stream)), 200);
        assert_eq!(field(&origin.next().1, "x-forwarded-for"), Some(client));
        // The same, a byte at a time.
        let mut stream = bed.client();
        stream.set_nodelay(true).unwrap();
        for byte in [&header[..], GET].concat() {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(status(&read_all(&mut stream)), 200);
        assert_eq!(field(&origin.next().1, "x-forwarded-for"), Some(client));
    }
}

#[test]
fn a_balancer_that_says_nothing_or_nonsense_is_not_served() {
    let origin = Origin::start(ok);
    let bounds = Bounds { handshake: Duration::from_millis(200), ..Bounds::default() };
    let bed = Bed::set_up(forward(&[origin.address]), Setup { bounds, ..behind_a_balancer() });
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat();
    let oversized = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    let twice = [LINE, LINE].concat();
    let cases: [&[u8]; 6] = [b"", b"PROXY TCP4 203.0.113.9 127", &long, &oversized, b"", &twice];
    for header in cases {
        let mut stream = bed.client();
        let _ = stream.write_all(&[header, GET].concat());
        let answer = read_all(&mut stream);
        assert!(!answer.contains(" 200 "), "{header:?}: {answer}");
    }
    let mut silent = bed.client();
    assert_eq!(read_all(&mut silent), "");
    assert!(origin.is_left_alone());
}

#[test]
fn nobody_else_is_believed() {
    let origin = Origin::start(ok);
    let announcers = vec![Network::parse("192.0.2.0/24").unwrap()];
    let bed = Bed::set_up(forward(&[origin.address]), Setup { announcers, ..Setup::default() });
    let mut stream = bed.client();
    stream.write_all(&[LINE, GET].concat()).unwrap();
    assert_eq!(status(&read_all(&mut stream)), 400);
    assert!(origin.is_left_alone());
    assert_eq!(status(&bed.get()), 200);
    assert_eq!(field(&origin.next().1, "x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn the_header_comes_before_tls() {
    let origin = Origin::start(ok);
    let wardrobe = Wardrobe::new();
    let certificates = Some(wardrobe.certificates.clone());
    let setup = Setup { certificates, ..behind_a_balancer() };
    let bed = Bed::set_up(forward(&[origin.address]), setup);
    let mut plain = bed.client();
    plain.write_all(LINE).unwrap();
    let name = ServerName::try_from("shop.example").unwrap();
    let connection = ClientConnection::new(wardrobe.client(&[]), name).unwrap();
    let mut stream = StreamOwned::new(connection, plain);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "\r\n\r\nok").is_some());
    assert_eq!(field(&origin.next().1, "x-forwarded-for"), Some("203.0.113.9"));
}
