//! Claims about the stream's messages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::model::follow::{FeedState, Path, RejectedRule, Report, SettledOutcome};
use crate::wire::samples;

fn hello() -> Hello {
    Hello {
        node: samples::node(),
        region: "fra".into(),
        labels: BTreeMap::from([("tier".into(), "edge".into())]),
        traffic_addresses: vec!["127.0.0.1:8080".into()],
        peer_address: PeerAddr::parse("http://10.0.0.2:7500"),
        head: Some(samples::signed_head()),
        key: samples::key(3).public(),
        program_version: "0.1.0".into(),
        link_serial: 2,
    }
}

fn report() -> Report {
    let rejected =
        RejectedRule { id: samples::id("bad"), version: samples::version(4), why: "no".into() };
    Report {
        accepted: Some(samples::head().position()),
        active: None,
        path: Path::Peer,
        rejected: vec![rejected],
        feed: FeedState::Lagging,
        overrides: 3,
        draining: true,
        requests: 12,
        alarm: "fork".into(),
    }
}

fn settled(outcome: SettledOutcome) -> Settled {
    Settled { mark: samples::by_hand(None).mark(), outcome, why: "since".into() }
}

fn large() -> crate::model::delta::Delta {
    let records =
        (0..4).map(|at| samples::record(&format!("r{at}"), 40_001 + at, Some(vec![0; 700_000])));
    samples::delta(records.collect())
}

#[test]
fn what_a_node_says_arrives() {
    let bare = Hello { peer_address: None, head: None, labels: BTreeMap::new(), ..hello() };
    let said = [
        FromNode::Hello(Box::new(hello())),
        FromNode::Hello(Box::new(bare)),
        FromNode::Report(Box::new(report())),
        FromNode::HandIn(vec![samples::by_hand(None), samples::by_hand(Some(b"x"))]),
        FromNode::HandIn(Vec::new()),
        FromNode::Ledger(large()),
    ];
    let mut reader = NodeReader::default();
    for one in said {
        let heard: Vec<FromNode> = follow_requests(&one)
            .iter()
            .filter_map(|message| reader.push(message).unwrap())
            .collect();
        assert_eq!(heard, [one]);
    }
}

#[test]
fn what_the_orchestrator_says_arrives() {
    use SettledOutcome::{Adopted, Conflict, Refused, Void};
    let welcome = Welcome {
        cluster: samples::cluster(),
        key: samples::key(1).public(),
        certificate: Some(samples::certificate()),
        fenced: true,
        beacon_interval: Duration::from_secs(1),
    };
    let said = [
        FromOrchestrator::Welcome(Box::new(welcome)),
        FromOrchestrator::Delta(large()),
        FromOrchestrator::Beacon(samples::beacon()),
        FromOrchestrator::Link(samples::link()),
        FromOrchestrator::Settled([Adopted, Void, Conflict, Refused].map(settled).to_vec()),
        FromOrchestrator::LedgerRequest,
    ];
    let mut reader = OrchestratorReader::default();
    for one in said {
        let heard: Vec<FromOrchestrator> = follow_responses(&one)
            .iter()
            .filter_map(|message| reader.push(message).unwrap())
            .collect();
        assert_eq!(heard, [one]);
    }
}

#[test]
fn long_lists_travel_in_pieces() {
    let overrides: Vec<Override> = [700_000, 700_000, 10, 20, 1 << 20, 1]
        .map(|size| samples::by_hand(Some(&vec![0; size])))
        .into();
    let messages = follow_requests(&FromNode::HandIn(overrides.clone()));
    assert_eq!(messages.len(), 4);
    let mut reader = NodeReader::default();
    let mut heard = Vec::new();
    for message in &messages {
        assert!(message.encoded_len() <= limits::FRAME_BYTES + limits::FRAME_SLACK);
        match reader.push(message) {
            Ok(Some(FromNode::HandIn(some))) => heard.extend(some),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, overrides);
    let many = vec![settled(SettledOutcome::Void); 2000];
    assert_eq!(follow_responses(&FromOrchestrator::Settled(many)).len(), 4);
}

#[test]
fn a_stream_goes_on_between_the_parts_of_a_delta() {
    let parts = follow_responses(&FromOrchestrator::Delta(large()));
    let beacon = follow_responses(&FromOrchestrator::Beacon(samples::beacon()));
    let mut reader = OrchestratorReader::default();
    assert_eq!(reader.push(&parts[0]), Ok(None));
    assert!(matches!(reader.push(&beacon[0]), Ok(Some(FromOrchestrator::Beacon(_)))));
    let rest: Vec<_> = parts[1..].iter().filter_map(|part| reader.push(part).unwrap()).collect();
    assert_eq!(rest, [FromOrchestrator::Delta(large())]);
}

#[test]
fn wrong_and_oversized_fields_are_named() {
    let mut reader = NodeReader::default();
    let mut refused = |hello: proto::Hello| {
        reader.push(&proto::FollowRequest { kind: Some(follow_request::Kind::Hello(hello)) })
    };
    let good = hello_message(&hello());
    let cases = [
        (proto::Hello { node: "Fra".into(), ..good.clone() }, WireError::Invalid("node")),
        (proto::Hello { region: "x".repeat(300), ..good.clone() }, WireError::TooLarge("region")),
        (
            proto::Hello { peer_address: "http://name:1".into(), ..good.clone() },
            WireError::Invalid("peer_address"),
        ),
        (
            proto::Hello { traffic_addresses: vec![String::new(); 65], ..good.clone() },
            WireError::TooLarge("traffic_addresses"),
        ),
        (
            proto::Hello {
                labels: (0..65).map(|at| (at.to_string(), String::new())).collect(),
                ..good.clone()
            },
            WireError::TooLarge("labels"),
        ),
        (proto::Hello { key: vec![].into(), ..good }, WireError::Invalid("key")),
    ];
    for (hello, error) in cases {
        assert_eq!(refused(hello), Err(error));
    }
    let mut message = follow_words::report_message(&report());
    message.feed = "fine".into();
    assert_eq!(follow_words::read_report(&message), Err(WireError::Invalid("feed")));
}

#[test]
fn a_long_report_is_cut_to_what_is_read() {
    let mut long = report();
    long.rejected = vec![long.rejected[0].clone(); limits::REJECTED_RULES + 1];
    long.alarm = "ü".repeat(limits::REASON_BYTES);
    let read = follow_words::read_report(&follow_words::report_message(&long)).unwrap();
    assert_eq!(read.rejected.len(), limits::REJECTED_RULES);
    assert_eq!(read.alarm.len(), limits::REASON_BYTES);
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = proto::FollowRequest::decode(&bytes[..]) {
            let _ = NodeReader::default().push(&message);
        }
        if let Ok(message) = proto::FollowResponse::decode(&bytes[..]) {
            let _ = OrchestratorReader::default().push(&message);
        }
    }
}
