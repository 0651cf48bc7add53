//! WebSockets over one stream of HTTP/2 (RFC 8441), and how they come to their end.

use super::{begun, head, request, statuses};
use crate::wire::case::{Case, Play, Step, must, say};
use crate::wire::frames::{DATA, END_STREAM, RESET, frame, read};
use crate::wire::seen::{End, Seen, demand, same};

pub fn cases() -> Vec<Case> {
    vec![
        tunnel("h2-tunnel-both-ways", "RFC 8441 5")
            .send(data(0, b"hello"))
            .then(Step::Until(b"HELLO"))
            .send(data(END_STREAM, b" you"))
            .then(Step::Streams(1))
            .plays([Play::Agree, say("there"), Play::Shout])
            .check(|seen| {
                same("statuses", statuses(seen), vec![200])?;
                same("how it ends for the origin", seen.far().end, Some(End::Closed))?;
                let said: Vec<u8> = read(&seen.near().bytes)
                    .iter()
                    .filter(|it| it.kind == DATA)
                    .flat_map(|it| it.payload.to_vec())
                    .collect();
                same("what came", &said[..], b"thereHELLO YOUbye")?;
                same("resets", resets(seen), vec![])
            }),
        given_up("h2-tunnel-that-the-client-resets", "RFC 9113 8.5", reset(8)),
        given_up("h2-tunnel-that-the-client-resets-for-no-reason", "RFC 9113 8.5", reset(0)),
        given_up("h2-tunnel-with-trailers", "RFC 9113 8.5", head(END_STREAM, 1, &[("x", "y")])),
        tunnel("h2-tunnel-that-the-client-leaves", "RFC 9113 8.5")
            .then(Step::Hangup)
            .then(Step::Left)
            .plays(listening())
            .check(is_reset),
        tunnel("h2-tunnel-that-the-origin-resets", "RFC 9113 8.5")
            .then(Step::Mark("on"))
            .then(Step::Streams(1))
            .plays([Play::Agree, say("there"), Play::Await("on"), Play::Reset])
            .check(|seen| {
                same("statuses", statuses(seen), vec![200])?;
                // CONNECT_ERROR, or CANCEL as RFC 8441, section 5, has it.
                demand(resets(seen).iter().any(|code| [8, 10].contains(code)), || {
                    format!("the client is told of {:?}", resets(seen))
                })
            }),
    ]
}

/// A WebSocket whose origin has something to say first.
fn tunnel(name: &'static str, rfc: &'static str) -> Case {
    let more = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let asked = request(name, "CONNECT", 0, 1, &more);
    begun(must, name, rfc).extended().send(asked).then(Step::Until(b"there"))
}

fn listening() -> [Play; 3] {
    [Play::Agree, say("there"), Play::Listen]
}

/// It ends with this frame, which is no end.
fn given_up(name: &'static str, rfc: &'static str, frame: Vec<u8>) -> Case {
    tunnel(name, rfc).send(frame).then(Step::Left).plays(listening()).check(is_reset)
}

fn is_reset(seen: &Seen) -> Result<(), String> {
    same("statuses", statuses(seen), vec![200])?;
    same("how it ends for the origin", seen.far().end, Some(End::Reset))
}

fn resets(seen: &Seen) -> Vec<u32> {
    let frames = read(&seen.near().bytes);
    frames.iter().filter(|it| it.kind == RESET).filter_map(|it| it.error()).collect()
}

fn reset(reason: u8) -> Vec<u8> {
    frame(RESET, 0, 1, &[0, 0, 0, reason])
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}
