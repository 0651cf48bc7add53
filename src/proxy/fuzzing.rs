//! What arbitrary bytes of a client must not become on the way to a target: the body of the fuzz
//! target `request`.
//!
//! Compiled for fuzzing and for tests only. The way is the real one without sockets: hyper's
//! server reads the bytes, the proxy's own code decides, writes anew and sends.
//! What comes out is judged by `judge`, which shares no parser with either.

mod judge;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::judge::{Seen, judge, judge_http2};
use self::wire::{Received, Recorded, Sent, until_quiet};
use super::attempt::Trying;
use super::body::{Progress, ProxyBody, RequestBody};
use super::forward::{Asking, Client, Decided, Worker};
use super::http1_target::connection::Connection;
use super::http1_target::request::Announced;
use super::listener::{Bounds, ProxyConfig, worker};
use super::noted::Noted;
use super::resolve::AddressPolicy;
use super::routes::{RouteChange, RoutesState};
use super::running::RunningRoute;
use super::shedding::Shedding;
use super::sockets::Sockets;
use super::target_tls::TargetTls;
use super::tunnel::Wanted;
use crate::model::moment::WallTime;
use crate::model::rule::Scheme;
use crate::telemetry::clock::Clock;
use crate::telemetry::request_metrics::RequestMetrics;
use crate::wire::rule_document::rules_from_yaml_or_json;

/// Serves bytes as what a client sends; whether a request of it went on to a target.
///
/// # Panics
/// When what goes on is not one well-framed request that says what the client said.
pub fn request(bytes: &[u8]) -> bool {
    BENCH.with(|bench| bench.pass_on(bytes).went.get())
}

thread_local! {
    static BENCH: Bench = Bench::new();
}

/// A traffic thread's worker, without a thread and without sockets.
struct Bench {
    runtime: Runtime,
    worker: Rc<Worker>,
}

/// The one request of a connection that goes on.
#[derive(Default)]
struct Onward {
    went: Cell<bool>,
    /// What the client asked for, where it is sent as bytes.
    seen: RefCell<Option<Seen>>,
    recorded: Rc<Recorded>,
    sent: Sent,
}

impl Bench {
    fn new() -> Bench {
        let metrics = Arc::new(RequestMetrics::default());
        let mut state = RoutesState::new(metrics.clone());
        let rules = rules_from_yaml_or_json(RULES).unwrap_or_else(|problems| panic!("{problems}"));
        let change = |parsed: crate::wire::rule_document::ParsedRule| RouteChange {
            id: parsed.id,
            version: None,
            rule: Some(Arc::new(parsed.rule)),
            created: WallTime(1),
        };
        assert!(state.apply(rules.into_iter().map(change).collect()).is_empty());
        state.publish();
        let tls = TargetTls::new(&[], None).expect("the roots of the web are there");
        let config = ProxyConfig {
            node: "edge".to_string(),
            sockets: Sockets { addresses: Vec::new(), rows: Vec::new() },
            policy: Arc::new(AddressPolicy { loopback: true, own: Vec::new() }),
            distance: None,
            routes: state.published(),
            metrics,
            access_log: None,
            clock: Clock::new(),
            bounds: Bounds::default(),
            shedding: Arc::new(Shedding::default()),
            tls: None,
            target_tls: Arc::new(tls),
            announcers: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without sockets needs nothing");
        Bench { runtime, worker: worker(&config, Arc::new(Semaphore::new(1))) }
    }

    /// A request that goes on is never answered, so it is the last one that is read.
    fn pass_on(&self, bytes: &[u8]) -> Rc<Onward> {
        let _inside = self.runtime.enter();
        let peer = Rc::new(Client::new(IpAddr::V4(Ipv4Addr::LOCALHOST), None, false));
        let onward = Rc::new(Onward::default());
        let received = Received::new(bytes);
        let ends = received.ends.clone();
        let answers = service_fn(|request| self.answer(peer.clone(), onward.clone(), request));
        let mut builder = server::Builder::new();
        builder.header_read_timeout(None).half_close(false);
        let mut serving = Box::pin(builder.serve_connection(TokioIo::new(received), answers));
        let ended = until_quiet(serving.as_mut());
        onward.judged();
        if !ended {
            // The client goes away: what was not whole before stays so.
            ends.set(true);
            until_quiet(serving.as_mut());
            onward.judged();
        }
        drop(serving);
        onward
    }

    async fn answer(
        &self,
        client: Rc<Client>,
        onward: Rc<Onward>,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, hyper::Error> {
        let (mut parts, body) = request.into_parts();
        let noted = Noted::of(&parts.headers);
        let tunnel = Wanted::by(&mut parts, noted, &body);
        let (route, went_on) = match self.worker.decide(&client, &parts, noted) {
            Err(_) => return Ok(Response::new(ProxyBody::empty())),
            Ok(Decided::Answered(_, response)) => {
                judge::answered(&response);
                return Ok(response);
            }
            Ok(Decided::Onward(route, went_on)) => (route, went_on),
        };
        let begun = Instant::now();
        let progress = Progress::new(self.worker.clock, begun);
        let body = (body, parts.version, Vec::new());
        let Ok(body) = RequestBody::new(body, &route.payload.terms, None, progress) else {
            return Ok(Response::new(ProxyBody::empty()));
        };
        let seen = Seen::new(&parts, &route, tunnel.is_tunnel());
        let request_id = self.worker.request_id(noted);
        let asking = Asking {
            parts,
            noted,
            onward: went_on,
            client,
            request_id,
            begun,
            patience: route.payload.terms.timeouts.request,
            until: None,
            tunnel,
            key: None,
        };
        let trying = Trying::begin(self.worker.clone(), route.clone(), 0, self.worker.clock.now());
        self.leads_to_the_same(&seen, &asking, trying.fields(&asking), &route);
        onward.went.set(true);
        if route.rule.targets()[0].address.scheme == Scheme::H2c {
            judge_http2(&seen, &trying.http2_request(&asking, body));
        } else {
            onward.seen.replace(Some(seen));
            onward.send(&trying, &asking, body).await;
        }
        std::future::pending().await
    }

    /// A target that had these very rules would take the same one: what is matched is what is
    /// sent. Only where the rule itself changes neither host nor path.
    fn leads_to_the_same(
        &self,
        seen: &Seen,
        asking: &Asking,
        fields: HeaderMap,
        route: &Arc<RunningRoute>,
    ) {
        if seen.rewritten_host.is_some() || seen.rewrites_path || seen.host.is_none() {
            return;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = asking.parts.method.clone();
        parts.uri = asking.onward.uri.clone();
        parts.headers = fields;
        for own in ["via", "cdn-loop", "max-forwards"] {
            parts.headers.remove(own);
        }
        let client = Client::new(IpAddr::V4(Ipv4Addr::LOCALHOST), None, false);
        match self.worker.decide(&client, &parts, Noted::of(&parts.headers)) {
            Ok(Decided::Onward(again, _)) => assert_eq!(again.id, route.id),
            Ok(Decided::Answered(..)) => panic!("a target would answer by itself"),
            Err(failure) => panic!("a target would refuse: {failure:?}"),
        }
    }
}

impl Onward {
    /// Writes a request as it goes to a target; the target never answers.
    async fn send(&self, trying: &Trying, asking: &Asking, body: RequestBody) {
        let announced = Announced::of(&body, &asking.parts.headers, asking.noted);
        let mut connection = Connection::new(Box::new(self.sent.clone()));
        let head = |out: &mut Vec<u8>| trying.write_head(asking, out);
        connection.begin(head, false, announced, self.recorded.of(body));
        // An error is a body that broke off: what was sent until then is judged.
        let _ = poll_fn(|cx| connection.poll_head(cx)).await;
    }

    fn judged(&self) {
        if let Some(seen) = &*self.seen.borrow() {
            judge(seen, &self.sent.bytes(), &self.recorded);
        }
    }
}

/// Rules of every kind that changes something about a request.
const RULES: &str = r#"
- id: plain
  data:
    match: { hosts: [plain.example, "[::1]", 127.0.0.1] }
    targets: [{ url: "http://10.0.0.1:81" }]
- id: whole
  data:
    match: { hosts: [whole.example] }
    filters: [{ rewrite: { path: /w, host: "inside.example:8080" } }]
    targets: [{ url: "http://10.0.0.1:81" }]
- id: prefix
  data:
    match: { hosts: ["*.wild.example"], any: [{ path: { prefix: /a } }] }
    filters: [{ rewrite: { prefix: /b/c } }]
    targets: [{ url: "http://10.0.0.1:81" }]
- id: root
  data:
    match: { hosts: [root.example], any: [{ path: { prefix: /a } }] }
    filters: [{ rewrite: { prefix: / } }]
    targets: [{ url: "http://10.0.0.1:81" }]
- id: edited
  data:
    match: { hosts: [edited.example], any: [{ path: { regex: "/[0-9]+" }, methods: [GET, PUT] }] }
    filters:
      - requestHeaders:
          set: [{ name: x-set, value: one }]
          add: [{ name: x-add, value: two }]
          remove: [cookie]
    targets: [{ url: "http://10.0.0.1:81" }]
- id: small
  data:
    match: { hosts: [small.example] }
    limits: { maxRequestBody: 16B }
    targets: [{ url: "http://10.0.0.1:81" }]
- id: two
  data:
    match: { hosts: [two.example] }
    targets: [{ url: "h2c://10.0.0.1:81" }]
- id: moved
  data:
    match: { hosts: [moved.example] }
    redirect: { scheme: https, status: 308 }
- id: said
  data:
    match: { hosts: [said.example] }
    respond: { status: 200, body: hello }
- id: rest
  data:
    match: { any: [{ path: { prefix: /rest }, query: { q: "1" } }] }
    targets: [{ url: "http://10.0.0.1:81" }]
"#;

#[cfg(test)]
mod tests;
