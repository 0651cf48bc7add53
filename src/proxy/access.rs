//! What the access log says of a request, gathered on its way and said when its last holder ends.
//!
//! Whoever works on a request holds the same entry: the answer's body until its last byte is
//! gone, a tunnel until it closes. Copies nothing that a shared reference tells as well.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Method, Response, Uri, Version, request};
use tokio::time::Instant;

use super::body::ProxyBody;
use super::forward::Client;
use super::headers::REQUEST_ID;
use super::routes::RunningRoute;
use crate::telemetry::access_log::{AccessLine, AccessLog, rfc3339};
use crate::telemetry::clock::Clock;

/// One request.
pub(super) struct Entry {
    log: Arc<AccessLog>,
    clock: Clock,
    begun: Instant,
    client: Rc<Client>,
    version: Version,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    request_id: RefCell<Option<HeaderValue>>,
    route: RefCell<Option<Arc<RunningRoute>>>,
    /// Index of the target tried last.
    pub(super) target: Cell<Option<usize>>,
    pub(super) attempts: Cell<u32>,
    pub(super) overhead: Cell<Option<Duration>>,
    status: Cell<u16>,
    pub(super) bytes: Cell<u64>,
    /// Whether a body that was begun came to its end.
    pub(super) complete: Cell<bool>,
}

impl Entry {
    pub(super) fn begin(
        log: &Arc<AccessLog>,
        clock: Clock,
        begun: Instant,
        client: &Rc<Client>,
        parts: &request::Parts,
    ) -> Rc<Entry> {
        Rc::new(Entry {
            log: log.clone(),
            clock,
            begun,
            client: client.clone(),
            version: parts.version,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            host: parts.headers.get(HOST).cloned(),
            request_id: RefCell::new(parts.headers.get(REQUEST_ID).cloned()),
            route: RefCell::default(),
            target: Cell::default(),
            attempts: Cell::default(),
            overhead: Cell::default(),
            status: Cell::default(),
            bytes: Cell::default(),
            complete: Cell::new(true),
        })
    }

    /// It goes on to a target, with an id that was made here when the client sent none.
    pub(super) fn goes_on(&self, route: &Arc<RunningRoute>, made: Option<&HeaderValue>) {
        self.route.replace(Some(route.clone()));
        if made.is_some() {
            self.request_id.replace(made.cloned());
        }
    }

    /// The head of the answer is there.
    pub(super) fn answered(
        &self,
        route: Option<&Arc<RunningRoute>>,
        response: &Response<ProxyBody>,
    ) {
        self.status.set(response.status().as_u16());
        self.route.replace(route.cloned());
        if let ProxyBody::Full(Some(bytes)) = response.body() {
            self.bytes.set(bytes.len() as u64);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let route = self.route.borrow();
        let upstreams = route.as_ref().map_or(&[][..], |route| &route.payload.upstreams);
        let target = self.target.get().and_then(|index| upstreams.get(index));
        let begun = self.clock.wall();
        let began = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let request_id = self.request_id.borrow();
        self.log.say(&AccessLine {
            time: rfc3339(crate::model::moment::WallTime(begun.0.saturating_sub(began))),
            client: text(Some(self.client.text())),
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            method: self.method.as_str(),
            host: self.uri.authority().map_or(text(self.host.as_ref()), |named| named.as_str()),
            path: cut(self.uri.path()),
            status: self.status.get(),
            bytes: self.bytes.get(),
            rule: route.as_ref().map(|route| route.id.as_str()),
            rule_version: route
                .as_ref()
                .and_then(|route| route.payload.version)
                .map(|version| version.get()),
            target: target.map(|upstream| upstream.address.to_string()),
            attempts: self.attempts.get(),
            duration_ms: millis(took),
            overhead_ms: self.overhead.get().map(millis),
            complete: self.status.get() != 0 && self.complete.get(),
            request_id: request_id.as_ref().map(|id| cut(text(Some(id)))),
        });
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A line shall not be longer than anybody reads.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Bytes of a path, or of an id, in the log.
const LONGEST: usize = 1_024;
