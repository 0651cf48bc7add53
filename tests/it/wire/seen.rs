//! What was seen on the wire during a case, and the judgements that many cases share.

use std::fmt::Write;

use super::case::Verdict;
use super::message::{self, Message};

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

/// One connection: what came from the proxy, and how it ended if it did.
#[derive(Clone, Debug, Default)]
pub struct Side {
    pub bytes: Vec<u8>,
    pub end: Option<End>,
}

/// Everything that a case saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub bodiless: bool,
    /// The client's connections.
    pub client: Vec<Side>,
    /// The origin's connections.
    pub origin: Vec<Side>,
}

impl Side {
    pub fn has(&self, text: &str) -> bool {
        !text.is_empty() && self.bytes.windows(text.len()).any(|it| it == text.as_bytes())
    }

    /// All messages, and whether bytes are left that are no whole message.
    fn requests(&self) -> Result<(Vec<Message>, bool), String> {
        all(&self.bytes, message::request)
    }

    fn answers(&self, bodiless: bool) -> Result<(Vec<Message>, bool), String> {
        let ended = self.end == Some(End::Closed);
        all(&self.bytes, |bytes| message::response(bytes, bodiless, ended))
    }
}

fn all(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<Message>, String>,
) -> Result<(Vec<Message>, bool), String> {
    let mut messages = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some(message) = read(&bytes[at..])? else { return Ok((messages, true)) };
        at += message.length;
        messages.push(message);
    }
    Ok((messages, false))
}

impl Seen {
    /// The whole requests that reached the origin, connection by connection.
    pub fn requests(&self) -> Result<Vec<Message>, String> {
        let mut requests = Vec::new();
        for side in &self.origin {
            requests.extend(side.requests()?.0);
        }
        Ok(requests)
    }

    /// Whether the origin was told of a request that did not become whole.
    pub fn has_partial_request(&self) -> bool {
        self.origin.iter().any(|side| side.requests().is_ok_and(|(_, rest)| rest))
    }

    /// The whole answers that the client got, interim ones too.
    pub fn all_answers(&self) -> Result<Vec<Message>, String> {
        let mut answers = Vec::new();
        for side in &self.client {
            answers.extend(side.answers(self.bodiless)?.0);
        }
        Ok(answers)
    }

    /// The whole final answers that the client got.
    pub fn answers(&self) -> Result<Vec<Message>, String> {
        Ok(self.all_answers()?.into_iter().filter(|answer| !answer.is_interim()).collect())
    }

    /// Whether the client was given the beginning of an answer and not its end.
    pub fn has_partial_answer(&self) -> bool {
        let partial = |side: &Side| side.answers(self.bodiless).is_ok_and(|(_, rest)| rest);
        self.client.iter().any(partial)
    }

    /// The one request that reached the origin, whole.
    pub fn request(&self) -> Result<Message, String> {
        let mut requests = self.requests()?;
        match (requests.len(), self.has_partial_request()) {
            (1, false) => Ok(requests.remove(0)),
            (count, partial) => Err(format!(
                "one request must reach the origin; there are {count}{}",
                if partial { " and a part of one" } else { "" }
            )),
        }
    }

    /// The one final answer that the client got, whole.
    pub fn answer(&self) -> Result<Message, String> {
        let mut answers = self.answers()?;
        match (answers.len(), self.has_partial_answer()) {
            (1, false) => Ok(answers.remove(0)),
            (count, partial) => Err(format!(
                "one answer must reach the client; there are {count}{}",
                if partial { " and a part of one" } else { "" }
            )),
        }
    }

    /// The one request and its answer, which is a 200.
    pub fn exchange(&self) -> Result<(Message, Message), String> {
        let (request, answer) = (self.request()?, self.answer()?);
        demand(answer.status() == 200, || format!("200 is expected, not {}", answer.status()))?;
        Ok((request, answer))
    }

    /// The client's first connection.
    pub fn near(&self) -> &Side {
        self.client.first().unwrap_or(&NOTHING)
    }

    /// The first connection to the origin.
    pub fn far(&self) -> &Side {
        self.origin.first().unwrap_or(&NOTHING)
    }

    /// Whether the proxy closed the client's first connection.
    pub fn has_ended(&self) -> bool {
        self.near().end.is_some()
    }

    /// What holds in every case: each side is given messages that leave nothing to be guessed, and
    /// none that was hidden in another.
    pub fn is_sound(&self, free_form: bool) -> Verdict {
        for side in &self.origin {
            demand(!side.has("/smuggled"), || "a hidden request reached the origin".into())?;
            let read = side.requests();
            if let Err(why) = read.as_ref().map(|_| ()).map_err(|why| why.clone()) {
                demand(free_form, || format!("the origin was sent {why}"))?;
            }
        }
        for side in &self.client {
            if let Err(why) = side.answers(self.bodiless) {
                demand(free_form, || format!("the client was sent {why}"))?;
            }
        }
        Ok(())
    }

    /// Both sides in full, for people.
    pub fn transcript(&self) -> String {
        let mut text = String::new();
        for (who, sides) in [("client", &self.client), ("origin", &self.origin)] {
            for (index, side) in sides.iter().enumerate() {
                let shown = &side.bytes[..side.bytes.len().min(SHOWN)];
                let shown = shown.escape_ascii().to_string().replace("\\r\\n", "\\r\\n\n    ");
                let _ = writeln!(
                    text,
                    "  what the {who} got, connection {index}, {} bytes, {}:\n    {shown}",
                    side.bytes.len(),
                    side.end.map_or("open".into(), |end| format!("{end:?}"))
                );
            }
        }
        text
    }
}

pub fn demand(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Verdict {
    demand(found == expected, || format!("{what}: {expected:?} is expected, not {found:?}"))
}

/// One of these answers and nothing at the origin.
pub fn refused(codes: &'static [u16]) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        let answers = seen.answers()?;
        let code = answers.first().map_or(0, Message::status);
        demand(codes.contains(&code), || format!("one of {codes:?} is expected, not {code}"))?;
        untouched(seen)
    }
}

/// One of these answers, or the connection closed without any, and nothing at the origin.
pub fn turned_away(codes: &'static [u16]) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        let silent = seen.client.iter().all(|side| side.bytes.is_empty());
        if silent && seen.has_ended() { untouched(seen) } else { refused(codes)(seen) }
    }
}

/// Nothing reached the origin.
pub fn untouched(seen: &Seen) -> Verdict {
    let touched = seen.origin.iter().any(|side| !side.bytes.is_empty());
    demand(!touched, || "the origin must not be told of it".into())
}

/// Refused, or else the origin got one request of which this holds.
pub fn refused_or(
    codes: &'static [u16],
    holds: impl Fn(&Message) -> Verdict + Send + Sync,
) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| {
        if turned_away(codes)(seen).is_ok() {
            return Ok(());
        }
        holds(&seen.exchange().map_err(|why| format!("refused or passed on cleanly: {why}"))?.0)
    }
}

/// Passed on and answered, and this holds of the request.
pub fn passed(
    holds: impl Fn(&Message) -> Verdict + Send + Sync,
) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| holds(&seen.exchange()?.0)
}

/// Passed on and answered, and this holds of the answer.
pub fn answered(
    holds: impl Fn(&Message) -> Verdict + Send + Sync,
) -> impl Fn(&Seen) -> Verdict + Send + Sync {
    move |seen| holds(&seen.exchange()?.1)
}

/// The client is told that the origin cannot be understood.
pub fn bad_gateway(seen: &Seen) -> Verdict {
    let code = seen.answer()?.status();
    demand(code == 502, || format!("502 is expected, not {code}"))
}

/// The client is not led to believe that it has all of an answer.
pub fn visibly_cut(seen: &Seen) -> Verdict {
    let answers = seen.answers()?;
    let failed = answers.len() == 1 && matches!(answers[0].status(), 500..600);
    let cut = answers.is_empty() && seen.has_ended();
    demand(failed || cut, || "the client takes a part for the whole".into())
}

/// A connection that never was.
static NOTHING: Side = Side { bytes: Vec::new(), end: None };
/// Bytes of a connection that are worth showing.
const SHOWN: usize = 1_500;
