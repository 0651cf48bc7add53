//! A rule as decided on: parsed, complete, with every default filled in.
//!
//! Not its text and not its bytes: `wire` turns YAML, JSON and protobuf into these types and back,
//! and nothing past `wire` checks them again. Invariants are stated beside the fields.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What a rule decides: which requests, what is changed about them, and who answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Lower-case patterns without port; empty means any host.
    pub hosts: Vec<HostPattern>,
    /// Any one is enough. Invariant: never empty; "everything" is one empty alternative.
    pub alternatives: Vec<Alternative>,
    /// In the order they are applied. Invariant: no kind twice.
    pub filters: Vec<Filter>,
    /// Who answers.
    pub action: Action,
    /// How a target is chosen.
    pub balance: Balance,
    /// Deadlines of a request under this rule.
    pub timeouts: Timeouts,
    /// When a failed attempt is made again.
    pub retry: Retry,
    /// How targets are judged.
    pub health: Health,
    /// What is refused before it costs anything.
    pub limits: Limits,
    /// Where the rule is in force.
    pub nodes: NodeSelector,
}

/// A host condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name only. Invariant: lower case, no trailing dot, no port; IPv6 keeps its brackets.
    Exact(String),
    /// One or more labels before this suffix. Invariant: as above, without the leading `*.`.
    Suffix(String),
}

/// One way to match: everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternative {
    /// Condition on the path; none means any.
    pub path: Option<PathMatch>,
    /// Upper-case methods; empty means any.
    pub methods: Vec<String>,
    /// Lower-case name and exact value of headers that must be present.
    pub headers: Vec<(String, String)>,
    /// Name and exact value of query parameters that must be present (first occurrence counts).
    pub query: Vec<(String, String)>,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments. Invariant: starts with `/`; ends with `/` only when it is `/`.
    Prefix(String),
    /// Matches the whole path; compiled where the route table is built.
    Regex(String),
}

/// A change to the request or the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Edits to the headers that the target sees.
    RequestHeaders(HeaderEdits),
    /// Edits to the headers that the client sees.
    ResponseHeaders(HeaderEdits),
    /// Another host or path for the target.
    Rewrite(Rewrite),
}

/// Header edits: removed first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces every value of the name.
    pub set: Vec<(String, String)>,
    /// Adds a value beside those there are.
    pub add: Vec<(String, String)>,
    /// Takes every value of the name away.
    pub remove: Vec<String>,
}

/// What the target sees in place of the received host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New Host, with optional port.
    pub host: Option<String>,
    /// New path; the query stays.
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// In place of the whole path.
    Whole(String),
    /// In place of the matched prefix. Invariant: every alternative has a prefix path.
    Prefix(String),
}

/// Who answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// One of these targets. Invariant: never empty, no address twice.
    Forward(Vec<Target>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The proxy answers by itself.
    Respond(Respond),
}

/// An upstream address that a rule forwards to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where it listens; also its identity.
    pub address: TargetAddress,
    /// Share of the traffic; 0 means none.
    pub weight: u32,
    /// Where it stands; empty when not said.
    pub region: String,
    /// Expected network round trip before anything was measured.
    pub latency_hint: Option<Duration>,
}

/// Scheme and authority of a target: its identity across rules and nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetAddress {
    /// The protocol spoken to it.
    pub scheme: Scheme,
    /// Lower-case name or literal address (IPv6 without brackets).
    pub host: String,
    /// Always explicit; the scheme's default is filled in by `wire`.
    pub port: u16,
}

/// The protocol spoken to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS.
    Https,
    /// HTTP/2 in clear text with prior knowledge.
    H2c,
}

/// Sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; none keeps the request's.
    pub scheme: Option<String>,
    /// With optional port; none keeps the request's.
    pub host: Option<String>,
    /// None keeps the request's path and query.
    pub path: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<(String, String)>,
    /// Its body, text.
    pub body: String,
}

/// How a target is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one that answers fastest from here.
    #[default]
    Latency,
    /// The one with the fewest requests in flight per weight, of two drawn.
    LeastRequests,
    /// In turn, by weight.
    RoundRobin,
    /// The first one that is ready, in the order written.
    First,
    /// The same one for the same key.
    Hash(HashKey),
}

/// What the hash policy hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's address.
    ClientIp,
}

/// Deadlines of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Opening a connection to a target.
    pub connect: Duration,
    /// One attempt, to its response head.
    pub per_try: Duration,
    /// All attempts, to the response head.
    pub request: Duration,
    /// Between two reads or writes afterwards.
    pub idle: Duration,
    /// The whole exchange, when given.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(3),
            per_try: Duration::from_secs(10),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            total: None,
        }
    }
}

/// When a failed attempt is made again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in all; 1 means none is repeated.
    pub attempts: u32,
    /// Which failures count.
    pub on: Vec<RetryOn>,
    /// How much of the load may be repeats.
    pub budget: RetryBudget,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 2, on: vec![RetryOn::ConnectFailure], budget: RetryBudget::default() }
    }
}

/// A failure that may be answered by another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection, so nothing was sent.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM: nothing was processed.
    RefusedStream,
    /// This status code.
    Status(u16),
}

/// Bounds the repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// Of the requests in the window, 0.0 to 1.0.
    pub ratio: f64,
    /// Always allowed.
    pub min_per_second: u32,
    /// Over which the share is counted.
    pub window: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { ratio: 0.2, min_per_second: 10, window: Duration::from_secs(10) }
    }
}

/// How targets are judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Probes of our own.
    pub active: Option<ActiveHealth>,
    /// Failures of real requests.
    pub outlier: Outlier,
}

/// Probes of a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveHealth {
    /// How it is asked.
    pub probe: Probe,
    /// From one probe to the next.
    pub interval: Duration,
    /// After which a probe has failed.
    pub timeout: Duration,
}

/// How a target is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// A GET of this path, answered with a status from 200 to 399.
    Http(String),
    /// Check of grpc.health.v1 for this service (empty: the server as a whole), answered with
    /// SERVING.
    Grpc(String),
    /// A connection, accepted.
    Tcp,
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Probe::Http(path) => f.write_str(path),
            Probe::Grpc(service) => write!(f, "grpc:{service}"),
            Probe::Tcp => f.write_str("tcp"),
        }
    }
}

/// Ejection by failures of real requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// This many failures in a row eject.
    pub consecutive: u32,
    /// Cap of the back-off; the first ejection is a second long.
    pub eject_for: Duration,
    /// Of the targets, 0.0 to 1.0, that may be ejected at once.
    pub max_ejected: f64,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier { consecutive: 5, eject_for: Duration::from_secs(30), max_ejected: 0.5 }
    }
}

/// What is refused before it costs anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests of this rule at once, per node.
    pub max_in_flight: Option<u32>,
    /// Bytes of a request body.
    pub max_request_body: Option<u64>,
}

/// Where a rule is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSelector {
    /// Any of these; empty means every region.
    pub regions: Vec<String>,
    /// All of these must be the node's.
    pub labels: BTreeMap<String, String>,
}

impl NodeSelector {
    /// Whether a node of this region with these labels is meant.
    pub fn selects(&self, region: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.regions.is_empty() || self.regions.iter().any(|wanted| wanted == region))
            && self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

impl Rule {
    /// The targets, or none for a rule that answers by itself.
    pub fn targets(&self) -> &[Target] {
        match &self.action {
            Action::Forward(targets) => targets,
            Action::Redirect(_) | Action::Respond(_) => &[],
        }
    }
}

impl TargetAddress {
    /// The address, when the host is a literal.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as they stand in a URL or a Host header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        }
    }
}
