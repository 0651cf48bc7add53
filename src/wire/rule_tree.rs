//! A rule's message as a document: only what was given, in the order of the schema.
//!
//! The way out; the way in is `rule_schema`. Nothing is checked here. Invariant: what
//! `rule_schema` made of a document comes out as a document that it reads to the same message.

use std::collections::BTreeMap;

use crate::wire::proto;
use crate::wire::tree::Tree;

/// The data of a rule as a document.
pub(super) fn data_tree(data: &proto::RuleData) -> Tree {
    Entries::new()
        .put("match", data.r#match.as_ref().map(match_tree))
        .put("filters", each(&data.filters, filter_tree))
        .put("targets", each(&data.targets, target_tree))
        .put("redirect", data.redirect.as_ref().map(redirect_tree))
        .put("respond", data.respond.as_ref().map(respond_tree))
        .put("balance", data.balance.as_ref().map(balance_tree))
        .put("timeouts", data.timeouts.as_ref().map(timeouts_tree))
        .put("retry", data.retry.as_ref().map(retry_tree))
        .put("health", data.health.as_ref().map(health_tree))
        .put("limits", data.limits.as_ref().map(limits_tree))
        .put("nodes", data.nodes.as_ref().map(nodes_tree))
        .end()
}

fn match_tree(matching: &proto::Match) -> Tree {
    Entries::new()
        .put("hosts", texts(&matching.hosts))
        .put("any", each(&matching.any, alternative_tree))
        .end()
}

fn alternative_tree(alternative: &proto::Alternative) -> Tree {
    let path = |path: &proto::PathMatch| {
        Entries::new()
            .put("prefix", optional(&path.prefix))
            .put("exact", optional(&path.exact))
            .put("regex", optional(&path.regex))
            .end()
    };
    Entries::new()
        .put("path", alternative.path.as_ref().map(path))
        .put("methods", texts(&alternative.methods))
        .put("headers", pairs(&alternative.headers))
        .put("query", pairs(&alternative.query))
        .end()
}

fn filter_tree(filter: &proto::Filter) -> Tree {
    let rewrite = |rewrite: &proto::Rewrite| {
        Entries::new()
            .put("host", optional(&rewrite.host))
            .put("path", optional(&rewrite.path))
            .put("prefix", optional(&rewrite.prefix))
            .end()
    };
    Entries::new()
        .put("requestHeaders", filter.request_headers.as_ref().map(edits_tree))
        .put("responseHeaders", filter.response_headers.as_ref().map(edits_tree))
        .put("rewrite", filter.rewrite.as_ref().map(rewrite))
        .end()
}

fn edits_tree(edits: &proto::HeaderEdits) -> Tree {
    Entries::new()
        .put("set", each(&edits.set, header_tree))
        .put("add", each(&edits.add, header_tree))
        .put("remove", texts(&edits.remove))
        .end()
}

fn header_tree(header: &proto::Header) -> Tree {
    let value = Some(Tree::text(&header.value));
    Entries::new().put("name", text(&header.name)).put("value", value).end()
}

fn target_tree(target: &proto::Target) -> Tree {
    Entries::new()
        .put("url", text(&target.url))
        .put("weight", target.weight.map(Tree::number))
        .put("region", text(&target.region))
        .put("latencyHint", text(&target.latency_hint))
        .end()
}

fn redirect_tree(redirect: &proto::Redirect) -> Tree {
    Entries::new()
        .put("scheme", optional(&redirect.scheme))
        .put("host", optional(&redirect.host))
        .put("path", optional(&redirect.path))
        .put("status", redirect.status.map(Tree::number))
        .end()
}

fn respond_tree(respond: &proto::Respond) -> Tree {
    Entries::new()
        .put("status", respond.status.map(Tree::number))
        .put("headers", each(&respond.headers, header_tree))
        .put("body", text(&respond.body))
        .end()
}

fn balance_tree(balance: &proto::Balance) -> Tree {
    let hash = |key: &proto::HashKey| {
        Entries::new()
            .put("header", optional(&key.header))
            .put("cookie", optional(&key.cookie))
            .put("clientIp", key.client_ip.map(Tree::Flag))
            .end()
    };
    Entries::new()
        .put("policy", text(&balance.policy))
        .put("hash", balance.hash.as_ref().map(hash))
        .end()
}

fn timeouts_tree(timeouts: &proto::Timeouts) -> Tree {
    Entries::new()
        .put("connect", text(&timeouts.connect))
        .put("perTry", text(&timeouts.per_try))
        .put("request", text(&timeouts.request))
        .put("idle", text(&timeouts.idle))
        .put("total", text(&timeouts.total))
        .end()
}

fn retry_tree(retry: &proto::Retry) -> Tree {
    let budget = |budget: &proto::RetryBudget| {
        Entries::new()
            .put("percent", text(&budget.percent))
            .put("minPerSecond", budget.min_per_second.map(Tree::number))
            .put("window", text(&budget.window))
            .end()
    };
    Entries::new()
        .put("attempts", retry.attempts.map(Tree::number))
        .put("on", texts(&retry.on))
        .put("budget", retry.budget.as_ref().map(budget))
        .end()
}

fn health_tree(health: &proto::Health) -> Tree {
    let active = |active: &proto::ActiveHealth| {
        let grpc =
            |grpc: &proto::GrpcHealth| Entries::new().put("service", text(&grpc.service)).end();
        Entries::new()
            .put("path", text(&active.path))
            .put("grpc", active.grpc.as_ref().map(grpc))
            .put("tcp", active.tcp.map(Tree::Flag))
            .put("interval", text(&active.interval))
            .put("timeout", text(&active.timeout))
            .end()
    };
    let outlier = |outlier: &proto::Outlier| {
        Entries::new()
            .put("consecutive", outlier.consecutive.map(Tree::number))
            .put("ejectFor", text(&outlier.eject_for))
            .put("maxEjected", text(&outlier.max_ejected))
            .end()
    };
    Entries::new()
        .put("active", health.active.as_ref().map(active))
        .put("outlier", health.outlier.as_ref().map(outlier))
        .end()
}

fn limits_tree(limits: &proto::Limits) -> Tree {
    Entries::new()
        .put("maxInFlight", limits.max_in_flight.map(Tree::number))
        .put("maxRequestBody", text(&limits.max_request_body))
        .end()
}

fn nodes_tree(nodes: &proto::NodeSelector) -> Tree {
    Entries::new().put("regions", texts(&nodes.regions)).put("labels", pairs(&nodes.labels)).end()
}

/// A mapping under construction.
struct Entries(Vec<(String, Tree)>);

impl Entries {
    fn new() -> Entries {
        Entries(Vec::new())
    }

    fn put(mut self, key: &str, value: Option<Tree>) -> Entries {
        self.0.extend(value.map(|value| (key.to_owned(), value)));
        self
    }

    fn end(self) -> Tree {
        Tree::Map(self.0)
    }
}

// An empty text, list or map is how protobuf says "not given".
fn text(text: &str) -> Option<Tree> {
    (!text.is_empty()).then(|| Tree::text(text))
}

fn optional(text: &Option<String>) -> Option<Tree> {
    text.as_deref().map(Tree::text)
}

fn texts(texts: &[String]) -> Option<Tree> {
    (!texts.is_empty()).then(|| Tree::texts(texts))
}

fn each<T>(items: &[T], tree: impl Fn(&T) -> Tree) -> Option<Tree> {
    (!items.is_empty()).then(|| Tree::List(items.iter().map(tree).collect()))
}

fn pairs(pairs: &BTreeMap<String, String>) -> Option<Tree> {
    let entry = |(name, value): (&String, &String)| (name.clone(), Tree::text(value));
    (!pairs.is_empty()).then(|| Tree::Map(pairs.iter().map(entry).collect()))
}
