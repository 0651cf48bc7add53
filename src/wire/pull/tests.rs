//! Claims about pull bodies.

use proptest::prelude::*;

use super::*;
use crate::wire::samples;

fn frames() -> Vec<PullFrame> {
    let records = (0..5).map(|at| {
        samples::record(&format!("rule-{at}"), 40_001 + at, Some(vec![at as u8; 500_000]))
    });
    vec![
        PullFrame::Link(samples::link()),
        PullFrame::Delta(samples::delta(records.collect())),
        PullFrame::Beacon(samples::beacon()),
        PullFrame::Override(samples::by_hand(Some(b"body"))),
        PullFrame::Override(samples::by_hand(None)),
        PullFrame::Current,
    ]
}

fn body(frames: &[PullFrame]) -> BytesMut {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| encode_pull_frame(frame, &mut out));
    out
}

fn read(body: &[u8], chunk: usize) -> Result<Vec<PullFrame>, WireError> {
    let mut decoder = PullDecoder::new();
    let mut frames = Vec::new();
    for bytes in body.chunks(chunk) {
        decoder.feed(bytes);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    decoder.finish()?;
    Ok(frames)
}

#[test]
fn a_body_is_read_whatever_chunks_it_arrives_in() {
    let frames = frames();
    let body = body(&frames);
    for chunk in [1000, 65_536, body.len()] {
        assert_eq!(read(&body, chunk).as_ref(), Ok(&frames), "chunks of {chunk}");
    }
    let small = [PullFrame::Current, PullFrame::Beacon(samples::beacon())];
    let mut bytes = BytesMut::new();
    small.iter().for_each(|frame| encode_pull_frame(frame, &mut bytes));
    assert_eq!(read(&bytes, 1).as_deref(), Ok(&small[..]));
}

#[test]
fn a_truncated_body_is_noticed() {
    let small = [PullFrame::Link(samples::link()), PullFrame::Current];
    let bytes = body(&small);
    let first = body(&small[..1]).len();
    for end in (1..bytes.len()).filter(|end| *end != first) {
        assert_eq!(read(&bytes[..end], 16), Err(WireError::Truncated), "cut at {end}");
    }
    let delta = &frames()[1..2];
    let first_part = pull_frame_chunks(&delta[0]).next().unwrap().len();
    assert_eq!(read(&body(delta)[..first_part], 65_536), Err(WireError::Truncated));
}

#[test]
fn a_frame_beyond_the_cap_is_refused_before_it_arrives() {
    let mut decoder = PullDecoder::new();
    decoder.feed(&[0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(decoder.next(), Err(WireError::TooLarge("frame")));
    decoder.feed(&body(&[PullFrame::Current]));
    assert_eq!(decoder.next(), Err(WireError::TooLarge("frame")));
    let mut decoder = PullDecoder::new();
    decoder.feed(&[0xff; 10]);
    assert_eq!(decoder.next(), Err(WireError::TooLarge("frame")));
}

#[test]
fn nothing_comes_between_the_parts_of_a_delta() {
    let delta = frames().remove(1);
    let mut bytes = pull_frame_chunks(&delta).next().unwrap();
    encode_pull_frame(&PullFrame::Current, &mut bytes);
    assert_eq!(read(&bytes, 65_536), Err(WireError::OutOfOrder));
}

#[test]
fn kinds_from_a_later_release_are_skipped() {
    // Field 15 with one byte of content, then a known frame.
    let mut bytes = BytesMut::from(&[3u8, 0x7a, 1, 0][..]);
    encode_pull_frame(&PullFrame::Current, &mut bytes);
    assert_eq!(read(&bytes, 2), Ok(vec![PullFrame::Current]));
}

#[test]
fn no_more_of_a_kind_than_an_honest_answer_has() {
    let times = |frame: PullFrame, count: usize| read(&body(&vec![frame; count]), 65_536);
    let by_hand = PullFrame::Override(samples::by_hand(None));
    assert!(times(by_hand.clone(), limits::PULL_RULES).is_ok());
    let refused = times(by_hand, limits::PULL_RULES + 1);
    assert_eq!(refused, Err(WireError::TooLarge("overrides")));
    let delta = PullFrame::Delta(samples::delta(Vec::new()));
    assert_eq!(times(delta, 2), Err(WireError::TooLarge("deltas")));
    let beacon = PullFrame::Beacon(samples::beacon());
    assert_eq!(times(beacon, 2), Err(WireError::TooLarge("beacons")));
}

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes, 7);
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0usize..2000, with in any::<u8>()) {
        let mut bytes = body(&[
            PullFrame::Link(samples::link()),
            PullFrame::Delta(samples::delta(vec![samples::record("a", 40_001, None)])),
            PullFrame::Override(samples::by_hand(Some(b"x"))),
        ]);
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = read(&bytes, 100);
    }
}
