//! The line that the access log says of a request.
//!
//! While a request waits for its target, nothing is written: what it asked for stands in its head.
//! The line is begun when the answer's head is there, and goes with the answer, whose end says it:
//! when a body's last byte is gone, when a tunnel closes. A request under way then holds some 400
//! bytes for its line and nothing of its head.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Method, Response, StatusCode, Uri, Version, request};

use super::body::ProxyBody;
use super::forward::{Asking, Client};
use super::headers::REQUEST_ID;
use super::running::RunningRoute;
use super::underway::Underway;
use crate::model::ids::{self, RuleId};
use crate::model::moment::Moment;
use crate::telemetry::access_log::Pen;
use crate::telemetry::json_text;
use crate::telemetry::prefetch::prefetch_text;

/// A line that lacks how the answer ended; its own end is taken for that.
pub(super) struct Line {
    pen: Rc<Pen>,
    /// The line up to the bytes.
    text: Vec<u8>,
    /// Bytes of the answer's body that were passed on.
    pub(super) bytes: u64,
    /// Until the last byte was passed on, of the answer or of an upload that outlived it.
    pub(super) took: Duration,
    /// Until the head of the answer, without the waiting for targets.
    overhead: Option<Duration>,
    /// Whether there was an answer, and a body that was begun came to its end.
    pub(super) complete: bool,
}

/// What a request asked for, who was asked, and what came of it.
pub(super) struct Known<'a> {
    pub(super) begun: Moment,
    pub(super) client: &'a Client,
    pub(super) version: Version,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) host: Option<&'a HeaderValue>,
    /// What the client sent.
    pub(super) request_id: Option<&'a HeaderValue>,
    /// What it was given otherwise.
    pub(super) made_id: Option<&'a HeaderValue>,
    /// None: no rule takes it.
    pub(super) rule: Option<(&'a RuleId, Option<ids::Version>)>,
    /// The last that was tried, in quotes.
    pub(super) target: Option<&'a str>,
    pub(super) attempts: u32,
    /// 0: the request ended before there was an answer.
    pub(super) status: u16,
    pub(super) overhead: Option<Duration>,
}

/// A request that goes to targets. Where the log has heard of no answer when this ends, there was
/// none.
pub(super) struct Exchange<'a> {
    pub(super) asking: &'a Asking,
    pub(super) route: &'a RunningRoute,
    /// As the client sent it.
    method: &'a Method,
    at: Moment,
    /// None: there is no log, or its line is begun.
    pen: Cell<Option<&'a Rc<Pen>>>,
    attempts: Cell<u32>,
    /// Which of the rule's targets was tried last.
    tried: Cell<usize>,
    /// Until the head of the answer, without the waiting for targets.
    pub(super) overhead: Cell<Option<Duration>>,
}

impl<'a> Exchange<'a> {
    pub(super) fn begin(
        pen: Option<&'a Rc<Pen>>,
        at: Moment,
        method: &'a Method,
        asking: &'a Asking,
        route: &'a RunningRoute,
    ) -> Exchange<'a> {
        let pen = Cell::new(pen);
        let (attempts, tried, overhead) = Default::default();
        Exchange { asking, route, method, at, pen, attempts, tried, overhead }
    }

    /// A target of the rule is tried, the first or the next.
    pub(super) fn tries(&self, target: usize) {
        self.attempts.set(self.attempts.get() + 1);
        self.tried.set(target);
    }

    /// An answer is there: what its line will read and write is asked for.
    pub(super) fn prefetch(&self) {
        if let Some(pen) = self.pen.get() {
            pen.prefetch();
            let Asking { parts, onward, client, request_id, .. } = self.asking;
            prefetch_text(parts.uri.path().as_bytes());
            let fields = [onward.received_host.as_ref(), Some(client.text()), request_id.as_ref()];
            fields.into_iter().flatten().for_each(|field| prefetch_text(field.as_bytes()));
        }
    }

    /// The answer has this status, and its body, or what it opens, is what is under way.
    pub(super) fn answered(&self, status: StatusCode, underway: &mut Underway) {
        underway.line = self.line(status.as_u16()).map(Box::new);
    }

    /// There is no answer but this.
    pub(super) fn failed(&self, response: &Response<ProxyBody>) {
        if let Some(mut line) = self.line(response.status().as_u16()) {
            line.bytes = length(response);
            line.took = self.asking.begun.elapsed();
        }
    }

    fn line(&self, status: u16) -> Option<Line> {
        let pen = self.pen.take()?;
        let Asking { parts, noted, onward, client, request_id: made_id, .. } = self.asking;
        let tried = self.route.payload.upstreams.get(self.tried.get());
        let attempts = self.attempts.get();
        let known = Known {
            begun: self.at,
            client,
            version: parts.version,
            method: self.method,
            uri: &parts.uri,
            host: onward.received_host.as_ref(),
            request_id: if noted.request_id { parts.headers.get(REQUEST_ID) } else { None },
            made_id: made_id.as_ref(),
            rule: Some((&self.route.id, self.route.payload.version)),
            target: tried.filter(|_| attempts > 0).map(|tried| &*tried.known.quoted),
            attempts,
            status,
            overhead: self.overhead.get(),
        };
        Some(Line::begin(pen, &known))
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(mut line) = self.line(0) {
            line.took = self.asking.begun.elapsed();
        }
    }
}

impl Line {
    /// Of a request that is answered without a target.
    pub(super) fn of_own(
        pen: &Rc<Pen>,
        underway: &Underway,
        method: &Method,
        parts: &request::Parts,
        route: Option<&RunningRoute>,
        response: &Response<ProxyBody>,
    ) -> Line {
        let known = Known {
            begun: underway.at,
            client: &underway.client,
            version: parts.version,
            method,
            uri: &parts.uri,
            host: parts.headers.get(HOST),
            request_id: parts.headers.get(REQUEST_ID),
            made_id: None,
            rule: route.map(|route| (&route.id, route.payload.version)),
            target: None,
            attempts: 0,
            status: response.status().as_u16(),
            overhead: None,
        };
        let mut line = Line::begin(pen, &known);
        line.bytes = length(response);
        line
    }

    /// Without the query, which may hold secrets.
    pub(super) fn begin(pen: &Rc<Pen>, known: &Known<'_>) -> Line {
        let mut text = pen.sheet();
        let mut begin = *b"{\"time\":\"2000-01-01T00:00:00.000Z\",\"client\":\"";
        begin[9..33].copy_from_slice(&pen.time(known.begun));
        text.extend_from_slice(&begin);
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
        match known.target {
            // Neither a name nor an address has anything to escape.
            Some(quoted) => text.extend_from_slice(quoted.as_bytes()),
            None => text.extend_from_slice(b"null"),
        }
        counts(known.attempts, known.status, &mut text);
        Line {
            pen: pen.clone(),
            text,
            bytes: 0,
            took: Duration::ZERO,
            overhead: known.overhead,
            complete: known.status != 0,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.pen.say(text, |text| {
            json_text::number(self.bytes, text);
            text.extend_from_slice(b",\"duration_ms\":");
            json_text::millis(self.took, text);
            text.extend_from_slice(b",\"overhead_ms\":");
            match self.overhead {
                Some(overhead) => json_text::millis(overhead, text),
                None => text.extend_from_slice(b"null"),
            }
            text.extend_from_slice(match self.complete {
                true => b",\"complete\":true}\n".as_slice(),
                false => b",\"complete\":false}\n",
            });
        });
    }
}

/// Of a body that is whole from the beginning.
fn length(response: &Response<ProxyBody>) -> u64 {
    match response.body() {
        ProxyBody::Full(Some(bytes)) => bytes.len() as u64,
        _ => 0,
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
