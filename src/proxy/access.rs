//! The line that the access log says of a request: begun when it is decided what becomes of it,
//! said when its last holder ends.
//!
//! Whoever works on a request holds the same entry: the answer's body until its last byte is gone,
//! a tunnel until it closes. What is known early is written out at once, so that a request under
//! way holds some 400 bytes for its line and nothing of its head.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, Response, Uri, Version};

use super::body::ProxyBody;
use super::forward::Client;
use crate::model::ids::{self, RuleId};
use crate::model::moment::Moment;
use crate::telemetry::access_log::Pen;
use crate::telemetry::json_text;

/// One request's line.
pub(super) struct Entry {
    pen: Rc<Pen>,
    /// The line up to the target tried last.
    text: RefCell<Vec<u8>>,
    /// Where the target stands. Invariant: at most `text.len()`.
    target_at: usize,
    attempts: Cell<u32>,
    /// 0: the request ended before there was an answer.
    status: Cell<u16>,
    /// Bytes of the answer's body that were passed on.
    pub(super) bytes: Cell<u64>,
    /// Until the head of the answer, without the waiting for targets.
    pub(super) overhead: Cell<Option<Duration>>,
    /// Until the last byte of the answer was passed on.
    pub(super) took: Cell<Duration>,
    /// Whether a body that was begun came to its end.
    pub(super) complete: Cell<bool>,
}

/// What is known of a request once it is decided what becomes of it.
pub(super) struct Known<'a> {
    pub(super) begun: Moment,
    pub(super) client: &'a Client,
    pub(super) version: Version,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) host: Option<&'a HeaderValue>,
    /// None: no rule takes it.
    pub(super) rule: Option<(&'a RuleId, Option<ids::Version>)>,
    /// What the client sent.
    pub(super) request_id: Option<&'a HeaderValue>,
    /// What it was given otherwise.
    pub(super) made_id: Option<&'a HeaderValue>,
}

impl Entry {
    /// Without the query, which may hold secrets.
    pub(super) fn begin(pen: &Rc<Pen>, known: &Known<'_>) -> Rc<Entry> {
        let mut text = pen.sheet();
        text.extend_from_slice(b"{\"time\":\"");
        pen.time(known.begun, &mut text);
        text.extend_from_slice(b"\",\"client\":\"");
        // An address never has anything to escape.
        text.extend_from_slice(known.client.text().as_bytes());
        text.extend_from_slice(match known.version {
            Version::HTTP_10 => b"\",\"protocol\":\"HTTP/1.0\",\"method\":\"",
            Version::HTTP_2 => b"\",\"protocol\":\"HTTP/2\",\"method\":\"",
            _ => b"\",\"protocol\":\"HTTP/1.1\",\"method\":\"".as_slice(),
        });
        // The grammar of methods has nothing to escape either.
        text.extend_from_slice(cut(known.method.as_str()).as_bytes());
        text.extend_from_slice(b"\",\"host\":\"");
        match (known.uri.authority(), known.host) {
            (Some(named), _) => json_text::text(cut(named.as_str()), &mut text),
            (None, Some(host)) => visible(host, &mut text),
            (None, None) => {}
        }
        text.extend_from_slice(b"\",\"path\":\"");
        json_text::text(cut(known.uri.path()), &mut text);
        match (known.made_id, known.request_id) {
            (Some(made), _) => {
                text.extend_from_slice(b"\",\"request_id\":\"");
                text.extend_from_slice(made.as_bytes());
                text.push(b'"');
            }
            (None, Some(sent)) => {
                text.extend_from_slice(b"\",\"request_id\":\"");
                visible(sent, &mut text);
                text.push(b'"');
            }
            (None, None) => text.extend_from_slice(b"\",\"request_id\":null"),
        }
        write_rule(known.rule, &mut text);
        Rc::new(Entry {
            pen: pen.clone(),
            target_at: text.len(),
            text: RefCell::new(text),
            attempts: Cell::default(),
            status: Cell::default(),
            bytes: Cell::default(),
            overhead: Cell::default(),
            took: Cell::default(),
            complete: Cell::new(true),
        })
    }

    /// A target is tried, the first or the next.
    pub(super) fn tries(&self, target: &str) {
        self.attempts.set(self.attempts.get() + 1);
        let text = &mut *self.text.borrow_mut();
        text.truncate(self.target_at);
        text.push(b'"');
        // Neither a name nor an address has anything to escape.
        text.extend_from_slice(target.as_bytes());
        text.push(b'"');
    }

    /// The head of the answer is there.
    pub(super) fn answered(&self, response: &Response<ProxyBody>) {
        self.status.set(response.status().as_u16());
        if let ProxyBody::Full(Some(bytes)) = response.body() {
            self.bytes.set(bytes.len() as u64);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut line = self.text.take();
        if self.attempts.get() == 0 {
            line.extend_from_slice(b"null");
        }
        counts(self.attempts.get(), self.status.get(), &mut line);
        json_text::number(self.bytes.get(), &mut line);
        line.extend_from_slice(b",\"duration_ms\":");
        json_text::millis(self.took.get(), &mut line);
        line.extend_from_slice(b",\"overhead_ms\":");
        match self.overhead.get() {
            Some(overhead) => json_text::millis(overhead, &mut line),
            None => line.extend_from_slice(b"null"),
        }
        line.extend_from_slice(match self.status.get() != 0 && self.complete.get() {
            true => b",\"complete\":true}\n".as_slice(),
            false => b",\"complete\":false}\n",
        });
        self.pen.say(line);
    }
}

/// What stands between the target and the bytes.
fn counts(attempts: u32, status: u16, line: &mut Vec<u8>) {
    if attempts < 10 && (100..1_000).contains(&status) {
        // Nearly always, and one piece is less work than four.
        let mut text = *b",\"attempts\":0,\"status\":000,\"bytes\":";
        text[12] = json_text::digit(attempts.into());
        text[23..26].copy_from_slice(&json_text::three_digits(status.into()));
        line.extend_from_slice(&text);
        return;
    }
    line.extend_from_slice(b",\"attempts\":");
    json_text::number(attempts.into(), line);
    line.extend_from_slice(b",\"status\":");
    json_text::number(status.into(), line);
    line.extend_from_slice(b",\"bytes\":");
}

/// What stands between the request's id and the target.
fn write_rule(rule: Option<(&RuleId, Option<ids::Version>)>, text: &mut Vec<u8>) {
    let Some((id, version)) = rule else {
        text.extend_from_slice(b",\"rule\":null,\"rule_version\":null,\"target\":");
        return;
    };
    text.extend_from_slice(b",\"rule\":\"");
    // The grammar of ids has nothing to escape.
    text.extend_from_slice(id.as_str().as_bytes());
    text.extend_from_slice(b"\",\"rule_version\":");
    match version {
        Some(version) => json_text::number(version.get(), text),
        None => text.extend_from_slice(b"null"),
    }
    text.extend_from_slice(b",\"target\":");
}

/// A field of the head, for between two quotes.
fn visible(value: &HeaderValue, text: &mut Vec<u8>) {
    let bytes = value.as_bytes();
    json_text::visible(bytes.get(..LONGEST).unwrap_or(bytes), text);
}

/// A line shall not be longer than anybody reads.
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Bytes of a path, or of anything else that a client chooses, in the log.
const LONGEST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        for before in 0..4 {
            let text = format!("{}{}", "a".repeat(before), "\u{1f4a9}".repeat(300));
            let cut = cut(&text);
            assert!(text.starts_with(cut) && (LONGEST - 3..=LONGEST).contains(&cut.len()));
        }
        assert_eq!(cut("short"), "short");
    }
}
