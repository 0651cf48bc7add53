//! Claims about what an orchestrator knows of its nodes.

use super::*;
use crate::model::follow::{FeedState, Path};
use crate::model::ids::{Epoch, Revision};
use crate::model::key::PublicKey;

fn hello(node: &str) -> Hello {
    Hello {
        node: NodeId::parse(node).unwrap(),
        region: String::new(),
        labels: BTreeMap::new(),
        traffic_addresses: Vec::new(),
        peer_address: None,
        head: None,
        key: PublicKey([1; 32]),
        program_version: String::new(),
        link_serial: 0,
    }
}

fn at(revision: u64) -> Position {
    Position { epoch: Epoch(1), revision: Revision(revision) }
}

fn report(revision: u64) -> Report {
    Report {
        accepted: Some(at(revision)),
        active: Some(at(revision)),
        path: Path::Stream,
        rejected: Vec::new(),
        feed: FeedState::Live,
        overrides: 0,
        draining: false,
        requests: 0,
        alarm: String::new(),
    }
}

fn s(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

#[test]
fn two_nodes_of_one_name_are_noticed_and_one_that_came_back_is_not_two() {
    let mut followers = Followers::default();
    let node = NodeId::parse("a").unwrap();
    let twin = || Hello { key: PublicKey([2; 32]), ..hello("a") };
    let (old, _) = followers.hello(hello("a"), s(0)).unwrap();
    followers.hello(hello("a"), s(1)).unwrap();
    assert!(!followers.is_contested(&node, s(1)), "the same node on a new stream");
    followers.hello(twin(), s(2)).unwrap();
    assert!(followers.is_contested(&node, s(3)));
    assert!(!followers.is_contested(&node, s(100)), "the other one has gone");
    let (other, _) = followers.hello(twin(), s(101)).unwrap();
    followers.gone(&node, old, s(102));
    followers.gone(&node, other, s(102));
    followers.hello(hello("a"), s(103)).unwrap();
    assert!(!followers.is_contested(&node, s(104)), "with a new key after its stream had ended");
}

#[test]
fn a_replaced_stream_does_not_speak_for_its_node() {
    let mut followers = Followers::default();
    let node = NodeId::parse("a").unwrap();
    let (old, is_new) = followers.hello(hello("a"), s(0)).unwrap();
    assert!(is_new);
    let (new, is_new) = followers.hello(hello("a"), s(1)).unwrap();
    assert!(!is_new);
    followers.report(&node, old, report(5), at(9), s(2));
    followers.gone(&node, old, s(2));
    assert_eq!(followers.connected(), 1);
    assert!(followers.iter().next().unwrap().report.is_none());
    followers.gone(&node, new, s(3));
    assert_eq!((followers.connected(), followers.len()), (0, 1));
}

#[test]
fn a_node_is_behind_from_the_first_report_that_says_so() {
    let mut followers = Followers::default();
    let node = NodeId::parse("a").unwrap();
    let (stream, _) = followers.hello(hello("a"), s(0)).unwrap();
    for (revision, now, behind) in [(1, 1, 0), (1, 2, 1), (2, 5, 0)] {
        followers.report(&node, stream, report(revision), at(2), s(now));
        let follower = followers.iter().next().unwrap();
        assert_eq!(follower.behind(at(2), s(now)), Duration::from_secs(behind));
    }
}

#[test]
fn the_gate_waits_for_three_known_nodes_or_five_seconds() {
    let mut followers = Followers::default();
    for node in ["a", "b", "c", "d"] {
        followers.remember(hello(node));
    }
    let mut gate = Gate::after_start(7, &followers, s(0));
    assert!(!gate.is_open(s(4)));
    assert!(gate.is_open(s(5)));
    for node in ["a", "b", "a", "stranger"] {
        gate.greeted(&NodeId::parse(node).unwrap());
    }
    assert!(!gate.is_open(s(1)));
    gate.greeted(&NodeId::parse("d").unwrap());
    assert!(gate.is_open(s(1)));
    assert!(Gate::after_start(0, &followers, s(0)).is_open(s(0)));
    assert!(Gate::after_start(5, &Followers::default(), s(0)).is_open(s(0)));
}
