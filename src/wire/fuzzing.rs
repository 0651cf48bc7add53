//! What arbitrary bytes must not do to the readers of this floor: the bodies of the fuzz targets
//! `rule` and `peer`.
//!
//! Compiled for fuzzing and for tests only; `fuzz/` calls it, and a test runs it over the seeds.
//! Every claim is an assertion here, so that a target is one line.

use std::sync::Arc;

use bytes::BytesMut;
use prost::Message;

use super::delta_parts::{DeltaAssembly, delta_to_parts};
use super::error::WireError;
use super::peer_json::{
    digest_from_json, digest_to_json, latency_info_from_json, latency_info_to_json,
    neighbour_list_from_json, neighbour_list_to_json, reply_from_json, reply_to_json,
};
use super::proto;
use super::pull::{PullDecoder, pull_frame_chunks};
use super::rule_document::{
    ParsedRule, decode_rule_data, rule_data_from_json, rule_data_to_json, rule_from_proto,
    rule_to_proto, rule_to_yaml, rules_from_yaml_or_json,
};
use crate::model::delta::Delta;
use crate::model::exchange::PullFrame;
use crate::model::head::{Beacon, Branch, SignedHead};
use crate::model::ids::RuleId;
use crate::model::key::KeyLink;
use crate::model::latency::LatencyInfoRow;
use crate::model::limits;
use crate::model::manual::Override;
use crate::model::moment::WallTime;
use crate::model::record::Record;
use crate::model::rule::Rule;
use crate::routing::matcher::Asked;
use crate::routing::table::{Route, Table};

/// Reads bytes as rules, in each form that they could be in; whether there was one.
///
/// # Panics
/// When a rule that was read does not come back as it was from every form, or does not compile.
pub fn rule(bytes: &[u8]) -> bool {
    let mut found = false;
    if let Ok(text) = std::str::from_utf8(bytes) {
        match rules_from_yaml_or_json(text) {
            Ok(rules) => {
                found |= !rules.is_empty();
                rules.iter().for_each(comes_back);
            }
            Err(problems) => assert!(!problems.to_string().is_empty()),
        }
    }
    if let Ok(message) = proto::Rule::decode(bytes)
        && let Ok(parsed) = rule_from_proto(message)
    {
        found = true;
        comes_back(&parsed);
    }
    if let Ok(rule) = decode_rule_data(bytes) {
        found = true;
        // Not canonical bytes, but the same rule as the document that shows them.
        let shown = rule_data_to_json(bytes).expect("what can be read can be shown");
        let parsed =
            rule_data_from_json("a", &shown).unwrap_or_else(|why| panic!("{why}: {shown}"));
        assert_eq!(parsed.rule, rule);
        comes_back(&parsed);
    }
    found
}

/// In every form the same rule with the same bytes.
fn comes_back(parsed: &ParsedRule) {
    let ParsedRule { id, rule, data, .. } = parsed;
    assert!(data.len() <= limits::RULE_BYTES);
    assert_eq!(decode_rule_data(data).as_ref(), Ok(rule), "the ledger's bytes");
    let yaml = rule_to_yaml(id, data).expect("a rule can be shown");
    let again = rules_from_yaml_or_json(&yaml).unwrap_or_else(|why| panic!("{why}: {yaml}"));
    assert_eq!(again, [ParsedRule { version: None, ..parsed.clone() }], "{yaml}");
    let json = rule_data_to_json(data).expect("a rule can be shown");
    let again = rule_data_from_json(id.as_str(), &json).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((&again.rule, &again.data), (rule, data), "{json}");
    let message = rule_to_proto(id, data).expect("a rule can be shown");
    let again = rule_from_proto(message).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((&again.rule, &again.data), (rule, data));
    serves(id, rule);
}

/// It compiles, can be asked, and leaves nothing behind.
fn serves(id: &RuleId, rule: &Rule) {
    let route = Route::compile(id.clone(), Arc::new(rule.clone()), WallTime(1), |_| ())
        .unwrap_or_else(|refused| panic!("{refused:?}"));
    let mut table = Table::new(7);
    table.insert(Arc::new(route));
    for (host, path) in [("shop.example.com", "/api/items"), ("", "/"), ("[::1]", "/v1/items")] {
        let asked = Asked { host, method: "GET", path, query: Some("v=2") };
        let _ = table.find(&asked, &|_: &str| Some("1"));
    }
    assert!(table.remove(id).is_some());
    let asked = Asked { host: "shop.example.com", method: "GET", path: "/api/items", query: None };
    assert!(table.find(&asked, &|_: &str| Some("1")).is_none());
}

/// Reads bytes as what peers send: JSON where it looks like it; otherwise the first byte says
/// which message the rest may be. Whether it was one.
///
/// # Panics
/// When something that was read does not come back as it was, or is beyond its limit.
pub fn peer(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return false };
    match first % 9 {
        _ if b"{[ \n".contains(first) => json(bytes),
        0 => message::<proto::SignedHead, SignedHead>(rest),
        1 => message::<proto::Beacon, Beacon>(rest),
        2 => message::<proto::Branch, Branch>(rest),
        3 => message::<proto::KeyLink, KeyLink>(rest),
        4 => message::<proto::Override, Override>(rest),
        5 => message::<proto::Record, Record>(rest),
        6 => delta_parts(rest),
        _ => pull_body(rest),
    }
}

fn json(bytes: &[u8]) -> bool {
    let mut found = false;
    if let Ok(digest) = digest_from_json(bytes) {
        found = true;
        assert!(digest.versions.len() <= limits::DIGEST_VERSIONS);
        assert!(digest.marks.len() <= limits::OVERRIDE_MARKS);
        assert!(digest.from.region.len() <= limits::WORD_BYTES);
        assert_eq!(digest_from_json(&digest_to_json(&digest)), Ok(digest));
    }
    if let Ok(reply) = reply_from_json(bytes) {
        found = true;
        assert!(reply.want.len() <= limits::DIGEST_VERSIONS);
        assert!(reply.newer.len() <= limits::DIGEST_VERSIONS);
        assert!(reply.marks.len() <= limits::OVERRIDE_MARKS);
        assert_eq!(reply_from_json(&reply_to_json(&reply)), Ok(reply));
    }
    if let Ok(list) = neighbour_list_from_json(bytes) {
        found = true;
        assert!(list.len() <= limits::NEIGHBOUR_LIST);
        let again = neighbour_list_from_json(&neighbour_list_to_json(&list)).expect("a list");
        assert_eq!(again.len(), list.len());
        for (again, one) in again.iter().zip(&list) {
            assert_eq!((&again.card, again.kind), (&one.card, one.kind));
            assert_eq!(again.since, one.since);
            assert!(near(again.rtt_ms.unwrap_or(f64::NAN), one.rtt_ms.unwrap_or(f64::NAN)));
        }
    }
    if let Ok(rows) = latency_info_from_json(bytes) {
        found = true;
        assert!(rows.len() <= limits::LATENCY_ROWS);
        let again = latency_info_from_json(&latency_info_to_json(&rows)).expect("rows");
        assert_eq!(again.len(), rows.len());
        again.iter().zip(&rows).for_each(|(again, row)| same_row(again, row));
    }
    found
}

fn same_row(again: &LatencyInfoRow, row: &LatencyInfoRow) {
    assert_eq!((&again.target, again.source), (&row.target, row.source));
    assert_eq!((again.samples, again.age_ms), (row.samples, row.age_ms));
    let numbers =
        |row: &LatencyInfoRow| [row.latency_ms, row.net_ms, row.svc_ms, row.err, row.confidence];
    for (again, number) in numbers(again).into_iter().zip(numbers(row)) {
        assert!(near(again, number), "{again} was {number}");
    }
}

/// The same number, but for the last digit: reading decimals is quick, not exact.
fn near(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan()) || ((one - other) / other).abs() < 1e-12
}

/// One message by itself.
fn message<M, T>(bytes: &[u8]) -> bool
where
    M: Message + Default + for<'t> From<&'t T>,
    T: for<'m> TryFrom<&'m M, Error = WireError> + PartialEq + std::fmt::Debug,
{
    let Ok(message) = M::decode(bytes) else { return false };
    let Ok(read) = T::try_from(&message) else { return false };
    let again = M::decode(&M::from(&read).encode_to_vec()[..]).expect("our own message");
    assert_eq!(T::try_from(&again), Ok(read));
    true
}

/// Parts behind their lengths: what they give together is cut and put together again.
fn delta_parts(mut bytes: &[u8]) -> bool {
    let mut assembly = DeltaAssembly::default();
    let mut found = false;
    while !bytes.is_empty() {
        let Ok(part) = proto::DeltaPart::decode_length_delimited(&mut bytes) else { break };
        match assembly.push(&part) {
            Ok(Some(delta)) => {
                found = true;
                assert!(assembly.is_empty());
                arrives(&delta);
            }
            Ok(None) => assert!(!assembly.is_empty()),
            Err(_) => assert!(assembly.is_empty(), "an error keeps nothing"),
        }
    }
    found
}

fn arrives(delta: &Delta) {
    assert!(delta.branches.len() <= limits::BRANCHES);
    let mut assembly = DeltaAssembly::default();
    let mut whole = None;
    for part in delta_to_parts(delta) {
        assert!(part.encoded_len() <= limits::FRAME_BYTES + limits::FRAME_SLACK);
        assert_eq!(whole, None, "nothing follows the last part");
        whole = assembly.push(&part).expect("our own part");
    }
    assert_eq!(whole.as_ref(), Some(delta));
}

/// The body of an answer to a pull: the same frames whatever chunks it comes in, and the same
/// again when they are sent on.
fn pull_body(bytes: &[u8]) -> bool {
    let (frames, outcome) = frames_of(bytes, bytes.len().max(1));
    assert_eq!(frames_of(bytes, 7), (frames.clone(), outcome));
    let mut body = BytesMut::new();
    for chunk in frames.iter().flat_map(pull_frame_chunks) {
        assert!(chunk.len() <= limits::FRAME_BYTES + limits::FRAME_SLACK);
        body.extend_from_slice(&chunk);
    }
    let again = frames_of(&body, body.len().max(1));
    let found = outcome.is_ok() && !frames.is_empty();
    assert_eq!(again, (frames, Ok(())));
    found
}

/// The whole frames of a body, and how it ended.
fn frames_of(bytes: &[u8], chunk: usize) -> (Vec<PullFrame>, Result<(), WireError>) {
    let mut decoder = PullDecoder::new();
    let mut frames = Vec::new();
    for bytes in bytes.chunks(chunk) {
        decoder.feed(bytes);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

#[cfg(test)]
mod tests;
