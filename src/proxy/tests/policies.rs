//! Which target has a request, by policies that say it outright.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::bed::{Bed, Origin, field, forward, status};
use crate::model::rule::{Balance, HashKey, Rule};

/// Says which of the origins it is, by its port.
fn named(_: &str, stream: &mut TcpStream) -> bool {
    let port = stream.local_addr().unwrap().port();
    let answer = format!("HTTP/1.1 200 OK\r\nx-port: {port}\r\ncontent-length: 2\r\n\r\nok");
    stream.write_all(answer.as_bytes()).is_ok()
}

fn balanced(origins: &[SocketAddr], balance: Balance) -> Rule {
    let mut rule = forward(origins);
    rule.balance = balance;
    rule
}

/// The port of the target that had a request with these fields.
fn port(bed: &Bed, fields: &str) -> u16 {
    let answer =
        bed.raw(&format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n"));
    assert_eq!(status(&answer), 200, "{answer}");
    field(&answer, "x-port").unwrap().parse().unwrap()
}

#[test]
fn the_same_key_has_the_same_target_at_every_node() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::start(named)).collect();
    let mut addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let by_header = Balance::Hash(HashKey::Header("x-user".to_string()));
    let one = Bed::start(balanced(&addresses, by_header.clone()));
    addresses.reverse();
    let other = Bed::start(balanced(&addresses, by_header));
    let mut used = BTreeSet::new();
    for user in 0..40 {
        let fields = format!("x-user: {user}\r\n");
        let had = port(&one, &fields);
        assert_eq!([port(&one, &fields), port(&other, &fields)], [had; 2], "user {user}");
        used.insert(had);
    }
    assert!(used.len() >= 3, "users are spread: {used:?}");
}

#[test]
fn a_cookie_among_others_and_an_address_are_keys_too() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::start(named)).collect();
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let by_cookie = Balance::Hash(HashKey::Cookie("session".to_string()));
    let bed = Bed::start(balanced(&addresses, by_cookie));
    for session in 0..20 {
        let alone = port(&bed, &format!("cookie: session={session}\r\n"));
        let among = format!("cookie: xsession=9; theme=dark;session={session} ; a=b\r\n");
        assert_eq!(port(&bed, &among), alone, "session {session}");
    }
    let bed = Bed::start(balanced(&addresses, Balance::Hash(HashKey::ClientIp)));
    let had = port(&bed, "");
    assert!((0..10).all(|_| port(&bed, "") == had), "one client, one target");
}

#[test]
fn requests_without_the_key_are_spread() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start(named)).collect();
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let bed =
        Bed::start(balanced(&addresses, Balance::Hash(HashKey::Header("x-user".to_string()))));
    let used: BTreeSet<u16> = (0..60).map(|_| port(&bed, "")).collect();
    assert_eq!(used.len(), 3, "{used:?}");
}

#[test]
fn the_first_target_has_everything_while_it_is_ready() {
    let (first, second) = (Origin::start(named), Origin::start(named));
    let bed = Bed::start(balanced(&[first.address, second.address], Balance::First));
    for _ in 0..10 {
        assert_eq!(port(&bed, ""), first.address.port());
    }
    assert!(second.is_left_alone());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bed = Bed::start(balanced(&[nobody, second.address], Balance::First));
    for _ in 0..20 {
        assert_eq!(port(&bed, ""), second.address.port(), "the next one has it");
    }
    let attempts = format!("target=\"http://{nobody}\",outcome=\"connect_error\"}} ");
    let shown = bed.shown();
    let tried: u32 =
        shown.split_once(&attempts).unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!((5..20).contains(&tried), "ejected after five failures in a row: {tried}");
}

#[test]
fn what_is_failing_is_the_rules_to_say() {
    fn broken(_: &str, stream: &mut TcpStream) -> bool {
        stream.write_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\noh").is_ok()
    }
    let (first, second) = (Origin::start(broken), Origin::start(named));
    let mut rule = balanced(&[first.address, second.address], Balance::First);
    rule.health.outlier.consecutive = 2;
    rule.health.outlier.eject_for = std::time::Duration::from_secs(60);
    let bed = Bed::start(rule);
    let answers: Vec<u16> = (0..3).map(|_| status(&bed.get())).collect();
    assert_eq!(answers, [500, 500, 200], "two failures, not five");
}
