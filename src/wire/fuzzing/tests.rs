//! The fuzz targets of this floor over their seeds, so that neither rots.
//!
//! Seeds that no text says are written by `UPDATE_EXPECT=1 cargo test --lib wire::fuzzing`.

use std::path::{Path, PathBuf};

use super::*;
use crate::wire::samples;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Files of a folder with one of these endings.
fn files(name: &str, endings: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| endings.iter().any(|end| path.to_str().unwrap().ends_with(end));
    let mut paths: Vec<PathBuf> = entries.filter(named).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has seeds");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A seed leads deep: it is understood, unless its name says that it is not.
fn run(target: fn(&[u8]) -> bool, seeds: Vec<(PathBuf, Vec<u8>)>) {
    for (path, bytes) in seeds {
        let name = path.file_name().unwrap().to_str().unwrap();
        let odd = ["bad", "later"].iter().any(|word| name.starts_with(word));
        assert_eq!(target(&bytes), !odd, "{}", path.display());
        // Broken off anywhere it is understood or not, but harms nobody.
        for end in 0..bytes.len().min(600) {
            target(&bytes[..end]);
        }
    }
}

fn golden(target: &str, name: &str, bytes: &[u8]) {
    let path = folder("fuzz/seeds").join(target).join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let stored = std::fs::read(&path).unwrap_or_default();
    assert!(stored == bytes, "{}; UPDATE_EXPECT=1 rewrites it", path.display());
}

#[test]
fn the_binary_seeds_are_messages_of_today() {
    let text = std::fs::read_to_string(folder("tests/data/rules/shop-api.yaml")).unwrap();
    let parsed = rules_from_yaml_or_json(&text).unwrap().remove(0);
    golden("rule", "data.bin", &parsed.data);
    let message = rule_to_proto(&parsed.id, &parsed.data).unwrap();
    golden("rule", "rule.bin", &message.encode_to_vec());

    let kind = |kind: u8, message: Vec<u8>| [vec![kind], message].concat();
    let record = samples::record("a", 40_001, Some(b"x".to_vec()));
    let messages = [
        ("head.bin", 0, proto::SignedHead::from(&samples::signed_head()).encode_to_vec()),
        ("beacon.bin", 1, proto::Beacon::from(&samples::beacon()).encode_to_vec()),
        ("branch.bin", 2, proto::Branch::from(&samples::branch()).encode_to_vec()),
        ("link.bin", 3, proto::KeyLink::from(&samples::link()).encode_to_vec()),
        ("override.bin", 4, proto::Override::from(&samples::by_hand(Some(b"x"))).encode_to_vec()),
        ("record.bin", 5, proto::Record::from(&record).encode_to_vec()),
    ];
    for (name, first, message) in messages {
        golden("peer", name, &kind(first, message));
    }
    let delta = samples::delta(vec![record, samples::record("b", 40_002, None)]);
    let mut parts: Vec<proto::DeltaPart> = delta_to_parts(&delta).collect();
    let mut second = parts[0].clone();
    (second.index, second.branches) = (1, Vec::new());
    parts[0].last = false;
    parts[0].records.truncate(1);
    second.records.remove(0);
    let parts: Vec<u8> = [parts.remove(0), second]
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect();
    golden("peer", "parts.bin", &kind(6, parts));
    let frames = [
        PullFrame::Link(samples::link()),
        PullFrame::Delta(delta),
        PullFrame::Beacon(samples::beacon()),
        PullFrame::Override(samples::by_hand(None)),
        PullFrame::Current,
    ];
    let body: Vec<u8> = frames.iter().flat_map(pull_frame_chunks).flatten().collect();
    golden("peer", "pull.bin", &kind(7, body));
}

#[test]
fn rules_from_the_seeds_come_back() {
    run(rule, files("fuzz/seeds/rule", &[".bin", ".yaml", ".json"]));
    run(rule, files("tests/data/rules", &[".yaml", ".json"]));
}

#[test]
fn what_peers_say_in_the_seeds_comes_back() {
    run(peer, files("fuzz/seeds/peer", &[".bin", ".json"]));
    let known = ["digest.json", "info.json", "neighbours.json", "reply.json"];
    run(peer, files("tests/data/peer", &known));
}
