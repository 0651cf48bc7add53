//! Claims about cutting and assembling.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::wire::samples;

fn assemble(parts: &[proto::DeltaPart]) -> Result<Option<Delta>, WireError> {
    let mut assembly = DeltaAssembly::default();
    let mut last = None;
    for part in parts {
        last = assembly.push(part)?;
    }
    Ok(last)
}

fn large() -> Delta {
    let sizes = [1 << 20, 10, 600_000, 600_000, 0, (1 << 20) - 300, 5];
    let records = sizes.iter().enumerate().map(|(at, size)| {
        samples::record(&format!("rule-{at}"), 40_001 + at as u64, Some(vec![at as u8; *size]))
    });
    samples::delta(records.collect())
}

#[test]
fn an_empty_delta_is_one_part() {
    let delta = samples::delta(Vec::new());
    let parts: Vec<_> = delta_to_parts(&delta).collect();
    assert_eq!(parts.len(), 1);
    assert_eq!(assemble(&parts), Ok(Some(delta)));
}

#[test]
fn a_large_delta_travels_in_frames_and_arrives_whole() {
    let delta = large();
    let parts: Vec<_> = delta_to_parts(&delta).collect();
    assert!(parts.len() > 3);
    for part in &parts {
        let slack = if part.records.len() == 1 { limits::FRAME_SLACK } else { 0 };
        assert!(part.encoded_len() <= limits::FRAME_BYTES + slack, "{}", part.encoded_len());
    }
    assert_eq!(assemble(&parts), Ok(Some(delta)));
}

#[test]
fn many_branch_points_come_before_the_records() {
    let mut delta = samples::delta(vec![samples::record("a", 40_001, Some(vec![0; 1 << 20]))]);
    delta.branches = vec![samples::branch(); limits::BRANCHES];
    let parts: Vec<_> = delta_to_parts(&delta).collect();
    assert!(
        parts
            .iter()
            .all(|part| { part.encoded_len() <= limits::FRAME_BYTES + limits::FRAME_SLACK })
    );
    assert_eq!(assemble(&parts), Ok(Some(delta)));
}

#[test]
fn every_missing_repeated_or_swapped_part_is_an_error_and_resets() {
    let delta = large();
    let parts: Vec<_> = delta_to_parts(&delta).collect();
    for at in 0..parts.len() {
        let mut missing = parts.clone();
        missing.remove(at);
        // Without its last part a delta is not an error yet, but it never completes.
        assert!(!matches!(assemble(&missing), Ok(Some(_))), "part {at} is not missed");
        let mut repeated = parts.clone();
        repeated.insert(at, parts[at].clone());
        assert_eq!(assemble(&repeated), Err(WireError::OutOfOrder));
    }
    for at in 1..parts.len() {
        let mut swapped = parts.clone();
        swapped.swap(at - 1, at);
        assert_eq!(assemble(&swapped), Err(WireError::OutOfOrder));
    }
    let mut assembly = DeltaAssembly::default();
    assembly.push(&parts[0]).unwrap();
    assert_eq!(assembly.push(&parts[2]), Err(WireError::OutOfOrder));
    assert!(assembly.is_empty());
    assert_eq!(assembly.push(&parts[0]), Ok(None));
}

#[test]
fn parts_of_different_deltas_do_not_mix() {
    let delta = large();
    let parts: Vec<_> = delta_to_parts(&delta).collect();
    let other = Delta { basis: Basis::Nothing, ..delta.clone() };
    let others: Vec<_> = delta_to_parts(&other).collect();
    let mut assembly = DeltaAssembly::default();
    assembly.push(&parts[0]).unwrap();
    assert_eq!(assembly.push(&others[1]), Err(WireError::OutOfOrder));
    let again = Delta { to: samples::head().sign(&samples::key(9)), ..delta };
    let again: Vec<_> = delta_to_parts(&again).collect();
    assembly.push(&parts[0]).unwrap();
    assert_eq!(assembly.push(&again[1]), Err(WireError::OutOfOrder));
}

#[test]
fn branch_points_after_records_are_refused() {
    let delta = large();
    let mut parts: Vec<_> = delta_to_parts(&delta).collect();
    parts.last_mut().unwrap().branches = vec![(&samples::branch()).into()];
    assert_eq!(assemble(&parts), Err(WireError::OutOfOrder));
}

#[test]
fn a_body_does_not_keep_its_frame_alive() {
    let delta = samples::delta(vec![samples::record("a", 40_001, Some(b"small".to_vec()))]);
    let part = delta_to_parts(&delta).next().unwrap();
    let frame = bytes::Bytes::from(part.encode_to_vec());
    let part = proto::DeltaPart::decode(frame.clone()).unwrap();
    let read = assemble(std::slice::from_ref(&part)).unwrap().unwrap();
    drop(part);
    assert!(frame.is_unique());
    assert_eq!(read, delta);
}

proptest! {
    #[test]
    fn any_delta_arrives_as_it_was(sizes in proptest::collection::vec(0usize..400_000, 0..12)) {
        let records = sizes.iter().enumerate().map(|(at, size)| {
            let data = (size % 7 != 0).then(|| vec![1; *size]);
            samples::record(&format!("r{at}"), 40_001 + at as u64, data)
        });
        let delta = samples::delta(records.collect());
        let parts: Vec<_> = delta_to_parts(&delta).collect();
        prop_assert_eq!(assemble(&parts), Ok(Some(delta)));
    }
}
