//! HTTP/2 from a client that minds no rules, and what becomes of it in HTTP/1.1.

mod bodies;
mod heads;
mod hostile;
mod malformed;
mod tunnels;

use crate::wire::case::{Case, Verdict};
use crate::wire::frames::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, block, frame, preface, read};
use crate::wire::message::Message;
use crate::wire::seen::{Seen, demand, same, untouched};

pub fn cases() -> Vec<Case> {
    [heads::cases(), malformed::cases(), bodies::cases(), hostile::cases(), tunnels::cases()]
        .into_iter()
        .flatten()
        .collect()
}

type Line = [(&'static str, String); 4];

fn line(name: &str, method: &'static str) -> Line {
    [
        (":method", method.into()),
        (":scheme", "http".into()),
        (":path", format!("/{name}/")),
        (":authority", format!("{name}.test")),
    ]
}

fn head(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// A request's head with more fields behind its line.
fn request(
    name: &str,
    method: &'static str,
    flags: u8,
    stream: u32,
    more: &[(&str, &str)],
) -> Vec<u8> {
    let line = line(name, method);
    let mut fields: Vec<(&str, &str)> =
        line.iter().map(|(key, value)| (*key, &value[..])).collect();
    fields.extend_from_slice(more);
    head(flags, stream, &fields)
}

pub(super) fn get(name: &str, stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    request(name, "GET", END_STREAM, stream, more)
}

/// A case that says the preface first.
fn begun(
    level: fn(&'static str, &'static str) -> Case,
    name: &'static str,
    rfc: &'static str,
) -> Case {
    level(name, rfc).http2().send(preface())
}

/// The statuses of all answers.
pub(super) fn statuses(seen: &Seen) -> Vec<u16> {
    seen.client.iter().flat_map(|side| read(&side.bytes)).filter_map(|it| it.status()).collect()
}

fn served(
    holds: impl Fn(&Message) -> Verdict + Send + Sync,
) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        same("statuses", statuses(seen), vec![200])?;
        holds(&seen.request()?)
    }
}

/// The stream or the connection ends with an error, or the answer is a 400; nobody hears of it.
fn refused(seen: &Seen) -> Verdict {
    untouched(seen)?;
    demand(is_refused(seen), || "it was not refused".into())
}

pub(super) fn is_refused(seen: &Seen) -> bool {
    let side = seen.near();
    let frames = read(&side.bytes);
    let error = frames.iter().any(|it| it.error().is_some_and(|code| code != 0));
    let told = frames
        .iter()
        .filter_map(|it| it.status())
        .any(|status| (400..500).contains(&status) && status != 404);
    error || told || side.end.is_some()
}

/// The connection ends with an error.
fn ended(seen: &Seen) -> Verdict {
    let side = seen.near();
    let said = read(&side.bytes).iter().any(|it| it.kind == GOAWAY && it.error() != Some(0));
    demand(said || side.end.is_some(), || "the connection goes on".into())
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const HOST: (&str, &str) = (":authority", "a");
