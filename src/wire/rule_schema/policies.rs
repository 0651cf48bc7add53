//! `balance`, `timeouts`, `retry`, `health`, `limits` and `nodes`: how a rule is carried out.
//!
//! Reads only; what is not given keeps the default of its model type.

use std::time::Duration;

use crate::model::limits::{CONDITIONS, LABEL_BYTES, RETRY_ATTEMPTS, SELECTORS, TIMEOUT_SECONDS};
use crate::model::rule::{
    ActiveHealth, Balance, HashKey, Health, Limits, NodeSelector, Outlier, Probe, Retry,
    RetryBudget, RetryOn, Timeouts,
};
use crate::wire::proto;
use crate::wire::quantity::{Percent, parse_duration, parse_size, show_duration, show_size};
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, did_you_mean, quoted};
use crate::wire::rule_schema::section::Section;
use crate::wire::rule_schema::{text, unless_empty};
use crate::wire::rule_support::Feature;

/// Reads `balance`.
pub(super) fn balance(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Balance {
    let Some(section) = data.section("balance", &["policy", "hash"], findings) else {
        return Balance::default();
    };
    let policy = section.read("policy", policy, findings);
    let hash = hash_key(&section, findings);
    match policy {
        Some("first") => findings.needs(Feature::BalanceFirst, &section.place("policy")),
        Some("hash") => {
            section.require("hash", findings);
            findings.needs(Feature::BalanceHash, &section.place("policy"));
        }
        _ => {}
    }
    if section.has("hash") && policy != Some("hash") {
        let flaw = Flaw::new("needs policy: hash").code(ProblemCode::Conflict);
        findings.add(&section.place("hash"), flaw);
        findings.needs(Feature::BalanceHash, &section.place("hash"));
    }
    given.balance = unless_empty(proto::Balance {
        policy: policy.unwrap_or_default().to_owned(),
        hash: hash.as_ref().map(give_hash_key),
    });
    match (policy, hash) {
        (Some("least_requests"), _) => Balance::LeastRequests,
        (Some("round_robin"), _) => Balance::RoundRobin,
        (Some("first"), _) => Balance::First,
        (Some("hash"), Some(key)) => Balance::Hash(key),
        _ => Balance::Latency,
    }
}

/// Reads `timeouts`.
pub(super) fn timeouts(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Timeouts {
    let defaults = Timeouts::default();
    let keys = ["connect", "perTry", "request", "idle", "total"];
    let Some(section) = data.section("timeouts", &keys, findings) else { return defaults };
    let [connect, per_try, request, idle, total] =
        keys.map(|key| section.read(key, deadline, findings));
    if section.has("total") {
        findings.needs(Feature::TotalTimeout, &section.place("total"));
    }
    let mut within = |inner: (&str, Option<Duration>), outer: (&str, Option<Duration>)| {
        if let (Some(shorter), Some(longer)) = (inner.1, outer.1)
            && shorter > longer
        {
            let (shorter, longer) = (show_duration(shorter), show_duration(longer));
            let detail = format!("{shorter} is longer than {} ({longer})", outer.0);
            findings.note(&section.place(inner.0), ProblemCode::Conflict, detail);
        }
    };
    within(("connect", connect), ("perTry", per_try.or(Some(defaults.per_try))));
    within(("connect", connect), ("request", request));
    within(("perTry", per_try), ("request", request.or(Some(defaults.request))));
    within(("request", request), ("total", total));
    let show = |given: Option<Duration>| given.map(show_duration).unwrap_or_default();
    given.timeouts = unless_empty(proto::Timeouts {
        connect: show(connect),
        per_try: show(per_try),
        request: show(request),
        idle: show(idle),
        total: show(total),
    });
    Timeouts {
        connect: connect.unwrap_or(defaults.connect),
        per_try: per_try.unwrap_or(defaults.per_try),
        request: request.unwrap_or(defaults.request),
        idle: idle.unwrap_or(defaults.idle),
        total,
    }
}

/// Reads `retry`.
pub(super) fn retry(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Retry {
    let defaults = Retry::default();
    let Some(section) = data.section("retry", &["attempts", "on", "budget"], findings) else {
        return defaults;
    };
    let attempts = section.whole("attempts", 1..=RETRY_ATTEMPTS, findings);
    let on = section.read_list("on", CONDITIONS, retry_on, findings);
    if section.has("on") && on.is_empty() {
        let flaw = Flaw::new("names no failure").hint("attempts: 1 says that nothing is repeated");
        findings.add(&section.place("on"), flaw);
    }
    let mut message = proto::Retry {
        attempts,
        on: on.iter().map(|on| show_retry_on(*on)).collect(),
        budget: None,
    };
    let budget = retry_budget(&section, &mut message, findings);
    findings.needs(Feature::Retry, &section.at);
    given.retry = unless_empty(message);
    Retry {
        attempts: attempts.unwrap_or(defaults.attempts),
        on: if on.is_empty() { defaults.on } else { on },
        budget,
    }
}

/// Reads `health`.
pub(super) fn health(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Health {
    let Some(section) = data.section("health", &["active", "outlier"], findings) else {
        return Health::default();
    };
    let mut message = proto::Health::default();
    let active = active_health(&section, &mut message, findings);
    let outlier = outlier(&section, &mut message, findings);
    given.health = unless_empty(message);
    Health { active, outlier }
}

/// Reads `limits`.
pub(super) fn limits(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Limits {
    let keys = ["maxInFlight", "maxRequestBody"];
    let Some(section) = data.section("limits", &keys, findings) else { return Limits::default() };
    let max_in_flight = section.whole("maxInFlight", 1..=u32::MAX, findings);
    let max_request_body = section.read("maxRequestBody", parse_size, findings);
    findings.needs(Feature::Limits, &section.at);
    given.limits = unless_empty(proto::Limits {
        max_in_flight,
        max_request_body: max_request_body.map(show_size).unwrap_or_default(),
    });
    Limits { max_in_flight, max_request_body }
}

/// Reads `nodes`.
pub(super) fn nodes(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> NodeSelector {
    let Some(section) = data.section("nodes", &["regions", "labels"], findings) else {
        return NodeSelector::default();
    };
    let mut selector = NodeSelector {
        regions: section.read_list("regions", SELECTORS, text::label, findings),
        ..NodeSelector::default()
    };
    for (at, name, value) in section.pairs("labels", SELECTORS, findings) {
        let name = findings.take(&at, text::label(name));
        let value = findings.take(&at, label_value(value));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if selector.labels.insert(name, value).is_some() {
            findings.note(&at, ProblemCode::Duplicate, "this label stands here twice");
        }
    }
    given.nodes = unless_empty(proto::NodeSelector {
        regions: selector.regions.clone(),
        labels: selector.labels.clone(),
    });
    selector
}

fn policy(text: &str) -> Result<&'static str, Flaw> {
    const POLICIES: [&str; 5] = ["latency", "least_requests", "round_robin", "first", "hash"];
    POLICIES.into_iter().find(|policy| *policy == text).ok_or_else(|| {
        let mut flaw = Flaw::new(format!("{} is not one of {}", quoted(text), POLICIES.join(", ")));
        flaw.hint = did_you_mean(text, &POLICIES);
        flaw
    })
}

fn hash_key(balance: &Section<'_>, findings: &mut Findings) -> Option<HashKey> {
    let keys = ["header", "cookie", "clientIp"];
    let at = balance.place("hash");
    let (section, key) = Section::open_choice(balance.tree("hash")?, at, &keys, findings)?;
    match key {
        "header" => section.read(key, text::header_name, findings).map(HashKey::Header),
        "cookie" => section.read(key, cookie_name, findings).map(HashKey::Cookie),
        _ => section.only_true(key, findings).map(|()| HashKey::ClientIp),
    }
}

fn give_hash_key(key: &HashKey) -> proto::HashKey {
    let mut given = proto::HashKey::default();
    match key {
        HashKey::Header(name) => given.header = Some(name.clone()),
        HashKey::Cookie(name) => given.cookie = Some(name.clone()),
        HashKey::ClientIp => given.client_ip = Some(true),
    }
    given
}

fn cookie_name(text: &str) -> Result<String, Flaw> {
    if text::is_token(text) && text.len() <= LABEL_BYTES {
        Ok(text.to_owned())
    } else {
        Err(Flaw::new(format!("{} is not a cookie name", quoted(text))))
    }
}

/// A duration that something may take: more than nothing, at most a day.
fn deadline(text: &str) -> Result<Duration, Flaw> {
    let deadline = parse_duration(text)?;
    if deadline.is_zero() {
        Err(Flaw::new("has to be more than 0s"))
    } else if deadline > Duration::from_secs(TIMEOUT_SECONDS) {
        Err(Flaw::new(format!("{} is more than a day", quoted(text))))
    } else {
        Ok(deadline)
    }
}

fn retry_on(text: &str) -> Result<RetryOn, Flaw> {
    let status = || text.parse().ok().filter(|code| text.len() == 3 && (400..600).contains(code));
    match text {
        "connect_failure" => Ok(RetryOn::ConnectFailure),
        "refused_stream" => Ok(RetryOn::RefusedStream),
        _ => status().map(RetryOn::Status).ok_or_else(|| {
            let kinds = "connect_failure, refused_stream or a status from 400 to 599";
            let mut flaw = Flaw::new(format!("{} is not {kinds}", quoted(text)));
            flaw.hint = did_you_mean(text, &["connect_failure", "refused_stream"]);
            flaw
        }),
    }
}

fn show_retry_on(on: RetryOn) -> String {
    match on {
        RetryOn::ConnectFailure => String::from("connect_failure"),
        RetryOn::RefusedStream => String::from("refused_stream"),
        RetryOn::Status(code) => code.to_string(),
    }
}

fn retry_budget(
    retry: &Section<'_>,
    given: &mut proto::Retry,
    findings: &mut Findings,
) -> RetryBudget {
    let defaults = RetryBudget::default();
    let keys = ["percent", "minPerSecond", "window"];
    let Some(section) = retry.section("budget", &keys, findings) else { return defaults };
    let percent = section.read("percent", Percent::parse, findings);
    let min_per_second = section.whole("minPerSecond", 0..=1_000_000, findings);
    let window = section.read("window", deadline, findings);
    given.budget = unless_empty(proto::RetryBudget {
        percent: percent.map(Percent::show).unwrap_or_default(),
        min_per_second,
        window: window.map(show_duration).unwrap_or_default(),
    });
    RetryBudget {
        ratio: percent.map_or(defaults.ratio, Percent::ratio),
        min_per_second: min_per_second.unwrap_or(defaults.min_per_second),
        window: window.unwrap_or(defaults.window),
    }
}

fn active_health(
    health: &Section<'_>,
    given: &mut proto::Health,
    findings: &mut Findings,
) -> Option<ActiveHealth> {
    let keys = ["path", "grpc", "tcp", "interval", "timeout"];
    let section = health.section("active", &keys, findings)?;
    findings.needs(Feature::ActiveHealth, &section.at);
    let probe = section.choice(&keys[..3], findings).and_then(|key| match key {
        "path" => section.read(key, text::target_path, findings).map(Probe::Http),
        "grpc" => grpc_service(&section, findings).map(Probe::Grpc),
        _ => section.only_true(key, findings).map(|()| Probe::Tcp),
    });
    let interval = section.read("interval", deadline, findings);
    let timeout = section.read("timeout", deadline, findings);
    let mut message = proto::ActiveHealth::default();
    match &probe {
        Some(Probe::Http(path)) => message.path.clone_from(path),
        Some(Probe::Grpc(service)) => {
            message.grpc = Some(proto::GrpcHealth { service: service.clone() });
        }
        Some(Probe::Tcp) => message.tcp = Some(true),
        None => {}
    }
    given.active = Some(proto::ActiveHealth {
        interval: interval.map(show_duration).unwrap_or_default(),
        timeout: timeout.map(show_duration).unwrap_or_default(),
        ..message
    });
    let interval = interval.unwrap_or(PROBE_INTERVAL);
    let timeout_given = timeout.is_some();
    let timeout = timeout.unwrap_or(PROBE_TIMEOUT.min(interval));
    if timeout_given && timeout > interval {
        let detail = format!("is longer than interval ({})", show_duration(interval));
        findings.note(&section.place("timeout"), ProblemCode::Conflict, detail);
    }
    Some(ActiveHealth { probe: probe?, interval, timeout })
}

fn grpc_service(active: &Section<'_>, findings: &mut Findings) -> Option<String> {
    let section = active.section("grpc", &["service"], findings)?;
    if section.has("service") {
        section.read("service", service_name, findings)
    } else {
        Some(String::new())
    }
}

/// A full name of protobuf: identifiers with dots between them.
fn service_name(text: &str) -> Result<String, Flaw> {
    let is_identifier = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if text.len() <= LABEL_BYTES && text.split('.').all(is_identifier) {
        Ok(text.to_owned())
    } else {
        let flaw = Flaw::new(format!("{} is not a service name", quoted(text)));
        Err(flaw.hint("package and service, such as shop.v1.Cart; leave it out for the server"))
    }
}

fn outlier(health: &Section<'_>, given: &mut proto::Health, findings: &mut Findings) -> Outlier {
    let defaults = Outlier::default();
    let keys = ["consecutive", "ejectFor", "maxEjected"];
    let Some(section) = health.section("outlier", &keys, findings) else { return defaults };
    let consecutive = section.whole("consecutive", 1..=1_000, findings);
    let eject_for = section.read("ejectFor", deadline, findings);
    let max_ejected = section.read("maxEjected", Percent::parse, findings);
    given.outlier = unless_empty(proto::Outlier {
        consecutive,
        eject_for: eject_for.map(show_duration).unwrap_or_default(),
        max_ejected: max_ejected.map(Percent::show).unwrap_or_default(),
    });
    Outlier {
        consecutive: consecutive.unwrap_or(defaults.consecutive),
        eject_for: eject_for.unwrap_or(defaults.eject_for),
        max_ejected: max_ejected.map_or(defaults.max_ejected, Percent::ratio),
    }
}

fn label_value(text: &str) -> Result<String, Flaw> {
    if text.is_empty() { Ok(String::new()) } else { text::label(text) }
}

const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
