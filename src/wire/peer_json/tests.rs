//! Claims about the JSON of the peer port, with golden files under `tests/data/peer/`.
//!
//! `UPDATE_EXPECT=1 cargo test --lib peer_json` rewrites the golden files.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::digest::{Digest, DigestReply};
use crate::model::ids::{NodeId, PeerAddr};
use crate::model::latency::{LatencyInfoRow, LatencySource};
use crate::model::limits;
use crate::model::manual::OverrideSummary;
use crate::model::moment::WallTime;
use crate::model::peer::{NeighbourKind, PeerCard};
use crate::wire::error::WireError;
use crate::wire::problem_document::ProblemDocument;
use crate::wire::samples;

fn card() -> PeerCard {
    let address = PeerAddr::parse("http://10.0.0.2:7500").unwrap();
    PeerCard { address, node: NodeId::parse("fra2"), region: "fra".into() }
}

fn digest() -> Digest {
    Digest {
        from: card(),
        cluster: Some(samples::cluster()),
        head: Some(samples::signed_head()),
        beacon: Some(samples::beacon()),
        overrides: Some(OverrideSummary { count: 1, hash: [7; 32] }),
        versions: vec![
            (samples::id("blog"), samples::version((1 << 53) - 1)),
            (samples::id("shop-api"), samples::version(7)),
        ],
        marks: vec![samples::by_hand(None).mark()],
    }
}

fn reply() -> DigestReply {
    DigestReply {
        head: Some(samples::signed_head()),
        beacon: Some(samples::beacon()),
        overrides: Some(OverrideSummary::default()),
        want: vec![samples::id("shop-api")],
        newer: vec![(samples::id("blog"), samples::version(9))],
        marks: vec![samples::by_hand(None).mark()],
    }
}

fn neighbours() -> Vec<ListedNeighbour> {
    let other = PeerCard::unknown(PeerAddr::parse("http://[fd00::1]:7500").unwrap());
    vec![
        ListedNeighbour {
            card: card(),
            kind: Some(NeighbourKind::Near),
            rtt_ms: Some(0.8),
            since: Some(WallTime(1_790_000_000_000)),
        },
        ListedNeighbour { card: other, kind: Some(NeighbourKind::Far), rtt_ms: None, since: None },
    ]
}

fn rows() -> Vec<LatencyInfoRow> {
    let row = LatencyInfoRow {
        target: "https://fra.shop.internal:8443".into(),
        latency_ms: 4.1,
        net_ms: 3.2,
        svc_ms: 0.9,
        err: 0.0,
        confidence: 0.97,
        samples: 1_200_000,
        age_ms: 210,
        source: LatencySource::Measured,
    };
    let other = LatencyInfoRow {
        target: "https://iad.shop.internal:8443".into(),
        source: LatencySource::Peer,
        ..row.clone()
    };
    vec![row, other]
}

fn problem() -> ProblemDocument {
    ProblemDocument::new(409, "version_conflict", "the version does not rise")
        .detail("rule shop-api is at version 8; version 7 was sent")
        .error("/shop-api/version", "too_low", "must be above 8")
        .with("version", 8)
        .with("retired", true)
}

fn golden(name: &str, bytes: &[u8]) {
    let path = format!("{}/tests/data/peer/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let shown = format!("{}\n", serde_json::to_string_pretty(&value).unwrap());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn the_golden_files_hold() {
    golden("digest", &digest_to_json(&digest()));
    golden("reply", &reply_to_json(&reply()));
    golden("neighbours", &neighbour_list_to_json(&neighbours()));
    golden("latency-info", &latency_info_to_json(&rows()));
    golden("problem", &problem().to_json());
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(digest_from_json(&digest_to_json(&digest())), Ok(digest()));
    assert_eq!(reply_from_json(&reply_to_json(&reply())), Ok(reply()));
    assert_eq!(neighbour_list_from_json(&neighbour_list_to_json(&neighbours())), Ok(neighbours()));
    assert_eq!(latency_info_from_json(&latency_info_to_json(&rows())), Ok(rows()));
    let read = ProblemDocument::from_json(&problem().to_json()).unwrap();
    assert_eq!(read, problem());
    assert_eq!((read.status(), read.code()), (409, "version_conflict"));
    assert_eq!(read.member("version"), Some(&json!(8)));
    assert_eq!(read.errors()[0].pointer, "/shop-api/version");
    assert!(!read.title().is_empty() && !read.detail_text().is_empty());
}

#[test]
fn findings_about_a_rule_become_a_problem_document() {
    use crate::wire::rule_problems::{ProblemCode, Problems};
    let problems = Problems::whole(ProblemCode::Syntax, "not YAML").under("/0");
    let document = ProblemDocument::new(422, "invalid_rule", "not a rule").findings(&problems);
    assert_eq!(document.errors()[0].pointer, "/0");
    assert_eq!(document.errors()[0].code, "syntax");
    assert_eq!(document.member("more"), None);
}

#[test]
fn a_plain_peer_is_understood() {
    let text = br#"{"from": "http://10.0.0.9:1", "versions": {"shop-api": 7}, "later": [1]}"#;
    let digest = digest_from_json(text).unwrap();
    assert_eq!(digest.from, PeerCard::unknown(PeerAddr::parse("http://10.0.0.9:1").unwrap()));
    assert_eq!(digest.versions, [(samples::id("shop-api"), samples::version(7))]);
    assert_eq!((digest.head, digest.beacon, digest.overrides), (None, None, None));
    assert_eq!(reply_from_json(b"{}"), Ok(DigestReply::default()));
    let sparse = neighbour_list_from_json(br#"[{"address": "http://10.0.0.9:1", "kind": "odd"}]"#);
    assert_eq!(sparse.unwrap()[0].kind, None);
}

#[test]
fn versions_are_strict_integers() {
    for bad in
        ["0", "-1", "7.0", "1e3", "\"7\"", "null", "9007199254740992", "99999999999999999999"]
    {
        let text = format!(r#"{{"from": "http://10.0.0.9:1", "versions": {{"a": {bad}}}}}"#);
        assert!(digest_from_json(text.as_bytes()).is_err(), "{bad}");
        let text = format!(r#"{{"newer": {{"a": {bad}}}}}"#);
        assert!(reply_from_json(text.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn wrong_fields_are_named() {
    let good: Value = serde_json::from_slice(&digest_to_json(&digest())).unwrap();
    let long = "A".repeat(100);
    let cases = [
        ("/from", json!("http://peer:7500"), WireError::Invalid("from")),
        ("/node", json!("Fra"), WireError::Invalid("node")),
        ("/region", json!("x".repeat(300)), WireError::TooLarge("region")),
        ("/cluster", json!("AAAA"), WireError::Invalid("cluster")),
        ("/head/signature", json!(long), WireError::Invalid("signature")),
        ("/head/key", json!("not base64!"), WireError::Invalid("key")),
        ("/head/epoch", json!(0), WireError::Invalid("epoch")),
        ("/head/revision", json!(u64::MAX), WireError::Invalid("revision")),
        ("/head/floor", json!(48_212), WireError::Invalid("floor")),
        ("/beacon/tick", Value::Null, WireError::Missing("tick")),
        ("/overrides/hash", json!(""), WireError::Invalid("hash")),
        ("/marks/0/id", json!("/"), WireError::Invalid("id")),
        ("/versions", json!({"A": 1}), WireError::Invalid("id")),
        ("/versions", json!([]), WireError::Undecodable("digest")),
    ];
    for (pointer, value, error) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert_eq!(digest_from_json(bad.to_string().as_bytes()), Err(error), "{pointer}");
    }
}

#[test]
fn lists_are_bounded() {
    let versions: serde_json::Map<String, Value> =
        (0..=limits::DIGEST_VERSIONS).map(|at| (format!("r{at}"), json!(1))).collect();
    let text = json!({"from": "http://10.0.0.9:1", "versions": versions}).to_string();
    assert_eq!(digest_from_json(text.as_bytes()), Err(WireError::TooLarge("versions")));
    let want = vec!["a"; limits::DIGEST_VERSIONS + 1];
    let text = json!({ "want": want }).to_string();
    assert_eq!(reply_from_json(text.as_bytes()), Err(WireError::TooLarge("want")));
    let list = vec![json!({"address": "http://10.0.0.9:1"}); limits::NEIGHBOUR_LIST + 1];
    let text = Value::from(list).to_string();
    let read = neighbour_list_from_json(text.as_bytes());
    assert_eq!(read, Err(WireError::TooLarge("neighbours")));
    let rows: serde_json::Map<String, Value> =
        (0..=limits::LATENCY_ROWS).map(|at| (format!("http://t:{at}"), json!({}))).collect();
    let text = json!({ "targets": rows }).to_string();
    assert_eq!(latency_info_from_json(text.as_bytes()), Err(WireError::TooLarge("targets")));
    // The same lists, written by us, are cut and so are read.
    let mut long = digest();
    long.versions =
        (0..2000).map(|at| (samples::id(&format!("r{at}")), samples::version(1))).collect();
    long.marks = vec![long.marks[0].clone(); limits::OVERRIDE_MARKS + 1];
    let read = digest_from_json(&digest_to_json(&long)).unwrap();
    assert_eq!(read.versions.len(), limits::DIGEST_VERSIONS);
    assert_eq!(read.marks.len(), limits::OVERRIDE_MARKS);
}

#[test]
fn absurd_latencies_come_through_for_the_reader_to_clamp() {
    let text = br#"{"targets": {"x": {"latencyMs": -1e300, "netMs": null, "source": "dream"}}}"#;
    let rows = latency_info_from_json(text).unwrap();
    assert_eq!(rows[0].latency_ms, -1e300);
    assert!(rows[0].net_ms.is_nan() && rows[0].err.is_nan());
    assert_eq!(rows[0].source, LatencySource::Default);
    let wild = LatencyInfoRow { latency_ms: f64::INFINITY, net_ms: f64::NAN, ..rows[0].clone() };
    let read = latency_info_from_json(&latency_info_to_json(&[wild])).unwrap();
    assert!(read[0].latency_ms.is_nan() && read[0].net_ms.is_nan());
}

#[test]
fn deep_json_is_refused() {
    let text = format!(r#"{{"from": {}"#, "[".repeat(100_000));
    assert!(digest_from_json(text.as_bytes()).is_err());
    let text = format!(r#"{{"later": {}"#, "[".repeat(100_000));
    assert!(ProblemDocument::from_json(text.as_bytes()).is_err());
}

/// Any JSON that is not too large.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9+/=:.]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn read_as_everything(bytes: &[u8]) {
    let _ = digest_from_json(bytes);
    let _ = reply_from_json(bytes);
    let _ = neighbour_list_from_json(bytes);
    let _ = latency_info_from_json(bytes);
    let _ = ProblemDocument::from_json(bytes);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn arbitrary_json_never_panics(value in any_json()) {
        read_as_everything(value.to_string().as_bytes());
    }

    #[test]
    fn documents_with_one_member_replaced_never_panic(
        which in any::<proptest::sample::Index>(),
        value in any_json(),
    ) {
        for text in [digest_to_json(&digest()), reply_to_json(&reply()), problem().to_json()] {
            let mut document: Value = serde_json::from_slice(&text).unwrap();
            let members = document.as_object_mut().unwrap();
            let name = members.keys().nth(which.index(members.len())).unwrap().clone();
            members.insert(name, value.clone());
            read_as_everything(document.to_string().as_bytes());
        }
    }
}
