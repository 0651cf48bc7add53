//! What is found in frames and field blocks, however they are cut, and what is left alone.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::coming::{ACKNOWLEDGED, Coming, END_HEADERS, LOUD, PADDED, PRIORITY, PROMISE, PUSHES};
use super::going::Going;
use super::streams::Streams;
use super::tunnels::Tunnels;
use super::*;
use crate::telemetry::chance::seeded;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(payload: &[u8]) -> Vec<u8> {
    frame(SETTINGS, 0, 0, payload)
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

/// A field that enters the table, or not; its name a place in the table, or a text.
fn field(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let name = if name.is_empty() { Vec::new() } else { text(name) };
    [&[first], &name[..], &text(value)].concat()
}

fn huffman(symbols: &[(u32, u32)]) -> Vec<u8> {
    let bits: String = symbols
        .iter()
        .map(|(code, bits)| format!("{code:0width$b}", width = *bits as usize))
        .collect();
    let padded = format!("{bits:1<width$}", width = bits.len().next_multiple_of(8));
    let byte = |at: usize| u8::from_str_radix(&padded[at..at + 8], 2).unwrap();
    (0..padded.len()).step_by(8).map(byte).collect()
}

fn of_client() -> Coming {
    Coming::of_client(Rc::default())
}

/// What a target sends that was asked on some streams.
fn of_target() -> Coming {
    let streams = Rc::<RefCell<Streams>>::default();
    (1..8).step_by(2).for_each(|stream| streams.borrow_mut().asked(stream));
    Coming::of_target(streams)
}

/// What becomes of a client's frames.
fn seen(frames: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    seen_from(of_client, &[&[b'#'; PREFACE as usize], &settings(&[])[..]], frames)
}

/// What becomes of a target's.
fn seen_of_target(frames: &[Vec<u8>]) -> Result<(), String> {
    seen_from(of_target, &[&settings(&[])], frames).map(|same| {
        assert_eq!(same, frames);
    })
}

/// What becomes of these frames behind a beginning, be they read at once or byte by byte.
fn seen_from(
    begin: fn() -> Coming,
    first: &[&[u8]],
    frames: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, String> {
    let first = first.concat();
    let sent = [&first[..], &frames.concat()].concat();
    let (mut whole, mut pieces) = (sent.clone(), sent);
    let at_once = begin().take_in(&mut whole).map_err(|error| error.to_string());
    let mut blocks = begin();
    let bytewise: io::Result<()> = pieces.chunks_mut(1).try_for_each(|piece| blocks.take_in(piece));
    assert_eq!(at_once, bytewise.map_err(|error| error.to_string()));
    at_once?;
    assert_eq!(whole, pieces);
    assert_eq!(whole[..first.len()], first);
    let mut rest = &whole[first.len()..];
    let cut = |frame: &Vec<u8>| rest.split_off(..frame.len()).unwrap().to_vec();
    Ok(frames.iter().map(cut).collect())
}

#[test]
fn a_fragment_becomes_what_no_path_may_hold_and_nothing_else_is_touched() {
    let get = [0x82, 0x86];
    let named = |first: u8, name: &[u8], value: &[u8]| {
        [&get[..], &field(first, name, value), &field(0, b"x-y", b"#:path")].concat()
    };
    let data = frame(0, END_STREAM, 1, b"#\x04\x02/#");
    for (first, name) in
        [(0x04, &b""[..]), (0x44, b""), (0x15, b""), (0, b":path"), (0x40, b":path")]
    {
        let asked = |path: &[u8]| headers(1, &named(first, name, path));
        let frames = [asked(b"/a?b#c#"), data.clone()];
        assert_eq!(seen(&frames).unwrap(), [asked(b"/a?b>c>"), data.clone()], "{first:#x}");
        let frames = [asked(b"/a?b"), data.clone()];
        assert_eq!(seen(&frames).unwrap(), frames);
    }
    let frames =
        [headers(1, &[&get[..], &field(0, b":pat", b"#"), &field(0, b":paths", b"#")].concat())];
    assert_eq!(seen(&frames).unwrap(), frames);
}

#[test]
fn a_fragment_in_the_huffman_code_is_found() {
    // `/x`, a symbol of every length, then the one in question, twice.
    let lengths: [(u32, u32); 6] =
        [(0x3, 5), (0x7fa, 11), (0x7fff0, 19), (0xfffe6, 20), (0x3ff_ffe0, 26), (0xfff_fffe, 28)];
    let path = |asked: (u32, u32)| {
        let text =
            huffman(&[&[(0x18, 6), (0x79, 7)], &lengths[..], &[asked, (0x7a, 7), asked]].concat());
        let length = 0x80 | u8::try_from(text.len()).unwrap();
        headers(1, &[&[0x82, 0x86, 0x44, length], &text[..]].concat())
    };
    assert_eq!(seen(&[path((0xffa, 12))]).unwrap(), [path((0xffb, 12))]);
    for other in [(0xffb, 12), (0x3f8, 10), (0x1ff8, 13), (0x7ffc, 15), (0x1f, 6)] {
        assert_eq!(seen(&[path(other)]).unwrap(), [path(other)]);
    }
    let name = [0x82, 0x86, 0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x02];
    let named = |path: &[u8]| headers(1, &[&name[..], path].concat());
    assert_eq!(seen(&[named(b"/#")]).unwrap(), [named(b"/>")]);
}

#[test]
fn the_table_of_the_connection_is_followed() {
    // A field whose name stands at a place, in two bytes behind the four bits of the first.
    let at = |place: u8, value: &[u8]| {
        let (low, high) = ((place - 15) % 128, (place - 15) / 128);
        let text = field(0, b"", value);
        [&[0x0f, 0x80 | low, high], &text[1..]].concat()
    };
    let first = [field(0x40, b":path", b"/"), field(0x40, b"x", b"1"), vec![0xbf, 0xbe]].concat();
    let asked = |path: &[u8]| headers(3, &at(63, path));
    assert_eq!(seen(&[headers(1, &first), asked(b"/#")]).unwrap()[1], asked(b"/>"));
    // After as many as there may be it is found at the last place, and at no other.
    let more = headers(3, &field(0x40, b"y", b"2").repeat(126));
    for (place, read) in [(188, b"#"), (189, b">"), (190, b"#")] {
        let frames = [headers(1, &first), more.clone(), headers(5, &at(place, b"#"))];
        assert_eq!(seen(&frames).unwrap()[2], headers(5, &at(place, read)), "{place}");
    }
}

#[test]
fn a_pseudo_field_in_trailers_is_refused_however_it_is_said() {
    let begun = headers(
        1,
        &[&[0x82, 0x86, 0x84][..], &field(0x40, b":own", b"1"), &field(0x40, b"x", b"1")].concat(),
    );
    let ended = |block: &[u8]| {
        let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
        seen(&[begun.clone(), frame(0, 0, 1, b"body"), trailers]).map(|_| ())
    };
    let refused = Err("a pseudo-field in trailers".to_string());
    let after = |block: &[u8]| [&field(0, b"x-sum", b"1"), block].concat();
    for block in [
        &[0x84][..],
        &[0x8e],
        &[0xbf],
        &field(0x04, b"", b"/"),
        &field(0x41, b"", b"a"),
        &field(0x00, b":path", b"/"),
        &field(0x10, b":", b""),
        &field(0x40, b":odd", b"1"),
        &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x00],
        &[0x0f, 63 - 15, 0x00],
    ] {
        assert_eq!(ended(block), refused, "{block:x?}");
        assert_eq!(ended(&after(block)), refused, "{block:x?}");
    }
    for block in [&[][..], &[0xbe], &[0x8f], &field(0x40, b"x-path", b":path"), &[0x3f, 0x21, 0xbe]]
    {
        assert_eq!(ended(block), Ok(()), "{block:x?}");
        assert_eq!(ended(&after(block)), Ok(()), "{block:x?}");
    }
}

#[test]
fn padding_priorities_and_blocks_in_many_frames_are_passed_over() {
    let block = |path: &[u8]| [&[0x82, 0x86][..], &field(0x04, b"", path)].concat();
    let frames = |path: &[u8]| {
        let whole = block(path);
        let padded = [&[3], &b"#####"[..], &whole[..2], b"###"].concat();
        let parts = whole[2..].chunks(1).map(|part| frame(CONTINUATION, 0, 1, part));
        let settings = frame(4, 0, 0, b"\0\x04#\x04\x02#");
        let again = headers(3, &whole);
        let first = frame(HEADERS, PADDED | PRIORITY, 1, &padded);
        [vec![settings, first], parts.collect(), vec![again]].concat()
    };
    assert_eq!(seen(&frames(b"/#a")).unwrap(), frames(b"/>a"));
}

#[test]
fn what_makes_no_sense_is_passed_on_as_it_is() {
    let long =
        [0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, b'#'];
    for frames in [
        vec![headers(1, &long), headers(3, &[0xff; 40])],
        vec![frame(HEADERS, PADDED, 1, &[200, 1]), frame(HEADERS, PADDED | PRIORITY, 3, &[])],
        vec![frame(CONTINUATION, 0, 9, b"#"), frame(0xff, 0xff, u32::MAX, b"#")],
    ] {
        assert_eq!(seen(&frames).unwrap(), frames);
    }
}

#[test]
fn nothing_comes_before_the_settings() {
    let refused = Err("no settings at the beginning".to_string());
    let head = headers(1, &[0x88]);
    let acknowledged = frame(SETTINGS, ACKNOWLEDGED, 0, &[]);
    let pinged = frame(6, 0, 0, b"12345678");
    for first in [&head, &acknowledged, &pinged, &b"HTTP/1.1 200 OK\r\n\r\n".to_vec()] {
        for rest in [&[][..], &settings(&[])] {
            let sent = [[&first[..], rest].concat()];
            assert_eq!(seen_from(of_target, &[], &sent), refused);
            let preface = &[b'#'; PREFACE as usize];
            assert_eq!(seen_from(of_client, &[preface], &sent), refused);
        }
    }
}

#[test]
fn a_target_does_not_push() {
    let push = &PUSHES.to_be_bytes()[2..];
    let one = [0, 3, 0, 0, 0, 2];
    let pushes = |payload: &[&[u8]]| seen_of_target(&[settings(&payload.concat())]);
    let refused = Err("a target that pushes".to_string());
    for payload in [&[push][..], &[&one, push], &[&one, &one, push, &one]] {
        assert_eq!(pushes(payload), refused);
    }
    let never = [0, 2, 0, 0, 0, 0];
    for payload in [&[&never[..]][..], &[&one, &never], &[&one[..3], push, &one[..3]]] {
        assert_eq!(pushes(payload), Ok(()), "{payload:?}");
    }
    let frames = [settings(push), headers(1, &[0x82])];
    assert!(seen(&frames).is_ok(), "a client may say that it takes pushes");
}

#[test]
fn a_targets_heads_hold_a_status_and_no_other_pseudo_field() {
    let refused = Err("a pseudo-field of requests".to_string());
    for block in [
        &[0x88, 0x84][..],
        &[0x82, 0x88],
        &[0x81],
        &[0x87],
        &field(0x00, b":path", b"/"),
        &field(0x40, b":protocol", b"x"),
        &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x00],
    ] {
        assert_eq!(seen_of_target(&[headers(1, block)]), refused, "{block:x?}");
    }
    for block in [&[0x88][..], &[0x8e], &field(0x08, b"", b"200"), &field(0x00, b"x", b"1"), &[]] {
        assert_eq!(seen_of_target(&[headers(1, block)]), Ok(()), "{block:x?}");
    }
}

/// A status, however it is said: by its place, by its name's place, by its name.
fn statuses(three: &[u8; 3], in_huffman: [u8; 2]) -> Vec<Vec<u8>> {
    let coded = [0x82, in_huffman[0], in_huffman[1]];
    vec![
        field(0x08, b"", three),
        field(0x48, b"", three),
        field(0x00, b":status", three),
        [&[0x0e][..], &coded].concat(),
        [&[0x00, 0x85, 0xb8, 0x84, 0x8d, 0x36, 0xa3], &coded[..]].concat(),
        [&field(0x48, b"", three)[..], &[0xbe]].concat(),
        // Behind another one, whose name it takes.
        [&field(0x48, b"", b"103")[..], &field(0x7e, b"", three)].concat(),
        [&field(0x48, b"", b"200")[..], &field(0x7e, b"", three)].concat(),
    ]
}

#[test]
fn trailers_of_a_target_are_what_comes_behind_a_final_head() {
    let refused = Err("a pseudo-field in trailers".to_string());
    let last = |stream, block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, stream, block);
    // `200`, `103`: 00010 00000 00000 and 00001 00000 011001, in the Huffman code.
    let (finals, interims) = (statuses(b"200", [0x10, 0x01]), statuses(b"103", [0x08, 0x19]));
    for (at, head) in finals.iter().enumerate() {
        let frames = [headers(1, head), last(1, &[0x88])];
        assert_eq!(seen_of_target(&frames), refused, "{at}");
        let frames = [headers(1, head), frame(DATA, 0, 1, b"body"), last(1, &[0x88])];
        assert_eq!(seen_of_target(&frames), refused, "{at}");
        let with_more = [&field(0x00, b"x", b"1"), &field(0x00, b":path", b"/")[..]].concat();
        assert_eq!(seen_of_target(&[headers(1, head), last(1, &with_more)]), refused, "{at}");
        let frames = [headers(1, head), last(1, &field(0x00, b"x", b"1"))];
        assert_eq!(seen_of_target(&frames), Ok(()), "{at}");
        let frames = [headers(1, head), headers(3, &[0x88]), last(5, &[0x88])];
        assert_eq!(seen_of_target(&frames), Ok(()), "others have streams of their own: {at}");
        let frames = [headers(1, head), frame(RESET, 0, 1, &[0; 4]), last(1, &[0x88])];
        assert_eq!(seen_of_target(&frames), Ok(()), "whatever comes then is h2's: {at}");
    }
    let without_a_final_one = interims.len() - 1;
    for (at, head) in interims[..without_a_final_one].iter().enumerate() {
        let frames = [headers(1, head), headers(1, head), last(1, &[0x88])];
        assert_eq!(seen_of_target(&frames), Ok(()), "{at}");
        let frames = [headers(1, head), headers(1, &[0x88]), last(1, &[0x88])];
        assert_eq!(seen_of_target(&frames), refused, "{at}");
    }
}

#[test]
fn what_makes_h2_lose_track_of_the_table_is_the_end() {
    let depends = |on: u32| {
        let block = [&on.to_be_bytes()[..], &[15], &field(0x40, b"x", b"y")].concat();
        [headers(1, &[0x88]), frame(HEADERS, PRIORITY | END_HEADERS, 3, &block)]
    };
    let refused = |why: &str| Err(why.to_string());
    // The first bit says that it depends on that stream alone.
    for on in [3, 3 | 1 << 31] {
        let itself = "a stream that depends on itself";
        assert_eq!(seen(&depends(on)).map(|_| ()), refused(itself));
        assert_eq!(seen_of_target(&depends(on)), refused(itself));
    }
    assert_eq!(seen(&depends(1)).unwrap(), depends(1));
    let promise = [frame(PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])];
    assert_eq!(seen_of_target(&promise), refused("a promise"));
    assert_eq!(seen(&promise).map(|_| ()), refused("a promise"));
}

#[test]
fn what_h2_forgets_of_a_block_in_pieces_is_refused() {
    let in_two = |stream, block: &[u8]| {
        vec![frame(HEADERS, 0, stream, block), frame(CONTINUATION, END_HEADERS, stream, &[0x90])]
    };
    let get = [0x82, 0x86, 0x84];
    for block in [
        field(0x00, b"connection", b"close"),
        field(0x00, b"keep-alive", b"5"),
        field(0x00, b"proxy-connection", b"x"),
        [&[0x0f, 57 - 15][..], &field(0x00, b"", b"chunked")[1..]].concat(),
        field(0x40, b"transfer-encoding", b"chunked"),
        field(0x00, b"upgrade", b"x"),
        field(0x00, b"te", b"gzip"),
        [&field(0x40, b"te", b"trailers")[..], &field(0x7e, b"", b"trailer")].concat(),
        vec![0x82],
        vec![0x85],
        vec![0x86],
        [&field(0x01, b"", b"a")[..], &field(0x01, b"", b"b")].concat(),
        [&field(0x00, b"x", b"1")[..], &field(0x01, b"", b"b")].concat(),
        vec![0x00, 0x87, 0x21, 0xea, 0xa8, 0xa4, 0x49, 0x8f, 0x57, 0x00],
    ] {
        let whole = [&get[..], &block].concat();
        assert!(seen(&in_two(1, &whole)).is_err(), "{block:x?}");
        assert!(seen(&[headers(1, &whole)]).is_ok(), "h2 sees to it: {block:x?}");
    }
    let fine =
        [&get[..], &field(0x01, b"", b"a"), &field(0x00, b"te", b"trailers"), &[0x00, 1, b'x', 0]];
    assert!(seen(&in_two(1, &fine.concat())).is_ok());
    assert!(seen(&[in_two(1, &get), in_two(3, &get)].concat()).is_ok());
    let twice = [&[0x88][..], &field(0x08, b"", b"204")].concat();
    assert!(seen_of_target(&in_two(1, &twice)).is_err());
    assert!(seen_of_target(&[in_two(1, &[0x88]), in_two(3, &[0x88])].concat()).is_ok());
}

#[test]
fn fields_without_a_name_are_refused_and_so_are_blocks_where_there_can_be_none() {
    for block in [vec![0x00, 0x00, 0x01, b'a'], vec![0x40, 0x00, 0x00], vec![0x06, 0x00]] {
        assert!(seen(&[headers(1, &block)]).is_err(), "{block:x?}");
        assert!(seen_of_target(&[headers(1, &block)]).is_err(), "{block:x?}");
    }
    assert!(seen(&[headers(2, &[0x82])]).is_err());
    assert!(seen_of_target(&[headers(2, &[0x88])]).is_err());
    assert!(seen_of_target(&[headers(9, &[0x88])]).is_err());
    let alone = |stream: u32| frame(2, 0, stream, &[&3_u32.to_be_bytes()[..], &[1]].concat());
    assert!(seen(&[alone(3)]).is_err());
    assert!(seen(&[alone(5), alone(1)]).is_ok());
}

#[test]
fn trailers_in_a_tunnel_are_refused_for_as_long_as_it_is_one() {
    // A request for one (RFC 8441), by its name and by its place in the table.
    let named = [&[0x82][..], &field(0x40, b":protocol", b"websocket")].concat();
    let ask = |stream, block: &[u8]| headers(stream, block);
    let end = |stream| frame(DATA, END_STREAM, stream, b"");
    let more = |stream| frame(DATA, 0, stream, b"more");
    let reset = |stream| frame(RESET, 0, stream, &[0, 0, 0, LOUD]);
    let trailers = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[]);
    for asked in [vec![ask(1, &named)], vec![ask(1, &named), reset(1), ask(3, &[0x82, 0xbe])]] {
        let tunnel = 2 * u32::try_from(asked.len()).unwrap().div_ceil(2) - 1;
        let then = |frames: &[Vec<u8>]| seen(&[&asked[..], &[more(tunnel)], frames].concat());
        let refused = then(&[trailers(tunnel)]);
        assert_eq!(refused.unwrap_err(), "trailers in a tunnel");
        // Where it is none any more, h2 knows what to do.
        assert!(then(&[end(tunnel), trailers(tunnel)]).is_ok());
        assert!(then(&[reset(tunnel), trailers(tunnel)]).is_ok());
    }
    assert!(seen(&[ask(1, &[0x82]), more(1), trailers(1)]).is_ok(), "no tunnel");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &named);
    assert!(seen(&[whole, trailers(1)]).is_ok(), "it ended with its head");

    let many = |count: u32| -> Vec<Vec<u8>> {
        (0..count).map(|at| ask(2 * at + 1, &[0x82, 0xbe])).collect()
    };
    let after = |frames: &[Vec<u8>]| seen(&[&[ask(1, &named), reset(1)], &frames[1..]].concat());
    assert!(after(&many(257)).is_ok());
    assert_eq!(after(&many(258)).unwrap_err(), "more tunnels than there can be");

    let tunnels = Rc::<Tunnels>::default();
    let mut coming = Coming::of_client(tunnels.clone());
    let mut going = Going::to_client(tunnels);
    let first = [&[b'#'; PREFACE as usize], &settings(&[])[..], &ask(1, &named)].concat();
    coming.take_in(&mut first.clone()).unwrap();
    let sent = [settings(&[]), headers(1, &[0x88]), reset(1)].concat();
    sent.chunks(1).for_each(|byte| going.take_in(byte));
    assert!(coming.take_in(&mut trailers(1)).is_ok(), "it was reset from here");
}

#[test]
fn a_reset_is_never_an_end() {
    let reset = |reason: u8| frame(RESET, 0, 1, &[0, 0, 0, reason]);
    for reason in 0..=14 {
        let told = if matches!(reason, 0 | 8) { LOUD } else { reason };
        assert_eq!(seen(&[reset(reason)]).unwrap(), [reset(told)], "{reason}");
        assert_eq!(seen_of_target(&[reset(reason)]), Ok(()), "{reason}");
    }
    let odd = [frame(RESET, 0, 1, &[0; 5]), frame(DATA, 0, 1, b"\0")];
    assert_eq!(seen(&odd).unwrap(), odd, "h2 refuses it");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_is_whole_is_owed_until_its_end_goes_out() {
    let streams = Rc::<RefCell<Streams>>::default();
    let mut coming = Coming::of_target(streams.clone());
    let mut going = Going::to_target(streams.clone());
    going.take_in(&[b'#'; PREFACE as usize]);
    // Byte by byte: where frames are cut makes no difference.
    let mut goes = |frames: &[Vec<u8>]| frames.concat().chunks(1).for_each(|it| going.take_in(it));
    let mut comes = |frames: &[Vec<u8>]| coming.take_in(&mut frames.concat()).unwrap();
    let owed = || streams.borrow().owed_since();
    let answer = |stream| [headers(stream, &[0x88]), frame(DATA, END_STREAM, stream, b"answer")];

    goes(&[settings(b"123456"), headers(1, b"head"), frame(DATA, 0, 1, b"some")]);
    comes(&[settings(&[]), headers(1, &[0x88])]);
    assert_eq!(owed(), None, "the answer is not whole");
    comes(&[frame(DATA, END_STREAM, 1, b"answer")]);
    let first = Instant::now();
    assert_eq!(owed(), Some(first));
    tokio::time::advance(Duration::from_secs(1)).await;
    goes(&[frame(DATA, 0, 1, b"more"), headers(3, b"head"), headers(5, b"head")]);
    comes(&answer(5));
    assert_eq!(owed(), Some(first), "the one that waits for longest");
    goes(&[frame(DATA, END_STREAM, 1, b"")]);
    assert_eq!(owed(), Some(first + Duration::from_secs(1)));
    goes(&[frame(RESET, 0, 5, &[0; 4])]);
    assert_eq!(owed(), None, "what is reset is owed by nobody");

    goes(&[frame(HEADERS, END_STREAM | END_HEADERS, 7, b"head")]);
    comes(&answer(7));
    goes(&[headers(9, b"head"), frame(HEADERS, END_STREAM | END_HEADERS, 9, b"trailers")]);
    comes(&answer(9));
    assert_eq!(owed(), None, "the request was whole");
    goes(&[headers(11, b"head")]);
    comes(&[headers(11, &[0x88]), frame(RESET, 0, 11, &[0; 4]), frame(RESET, 0, 3, &[0; 4])]);
    assert_eq!(owed(), None, "the target has given it up");
    goes(&[frame(HEADERS, END_STREAM | END_HEADERS, 11, b"trailers")]);
    assert!(streams.borrow().is_empty(), "{streams:?}");
}

/// Again with one seed: `SEED=... cargo test whatever_comes`.
#[test]
fn whatever_comes_only_marks_of_fragments_change() {
    let mut rng = seeded();
    let likely = b"#/:\x82\x84\x44\x04\x40\x00\xff\x8f\x3f\x0f\x01\x85\xbe";
    let mut changed = 0;
    for _ in 0..5_000 {
        let client = rng.random();
        let mut sent = if client { vec![0; PREFACE as usize] } else { Vec::new() };
        sent.extend(settings(b"#####"));
        for _ in 0..rng.random_range(1..5) {
            let byte = |rng: &mut SmallRng| match rng.random() {
                true => likely[rng.random_range(0..likely.len())],
                false => rng.random(),
            };
            let payload: Vec<u8> = (0..rng.random_range(0..60)).map(|_| byte(&mut rng)).collect();
            let kinds = [HEADERS, HEADERS, CONTINUATION, DATA, SETTINGS, RESET];
            let kind = kinds[rng.random_range(0..kinds.len())];
            let stream = rng.random_range(1..4) * 2 + 1;
            sent.extend(frame(kind, rng.random(), stream, &payload));
        }
        let mut read = sent.clone();
        let mut blocks = [of_target, of_client][usize::from(client)]();
        let mut rest = &mut read[..];
        while !rest.is_empty() {
            let some = rng.random_range(1..=rest.len().min(40));
            let (piece, more) = rest.split_at_mut(some);
            if blocks.take_in(piece).is_err() {
                break;
            }
            rest = more;
        }
        for (before, after) in sent.iter().zip(&read).filter(|(before, after)| before != after) {
            let bits = before ^ after;
            let reset = matches!(*before, 0 | 8) && *after == LOUD;
            assert!((*before, *after) == (b'#', b'>') || bits & before == 0 || reset);
            changed += 1;
        }
    }
    assert!(changed > 0);
}
