//! The schema of a rule: from a document tree to the typed rule and its canonical message.
//!
//! The only reader of rules, whichever door they come through. Parts: `section` (typed reading of
//! mappings), `text` and `target_url` (small grammars), then the schema from top to bottom.
//! Invariant: the message holds what was given, in normal form, and reads back as the same rule.

pub(super) mod section;
pub(crate) mod target_url;
mod text;

mod action;
mod filters;
mod matching;
mod policies;

use crate::model::rule::{Action, Health, Probe, Rule, Scheme, Target};
use crate::wire::proto;
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode};
use crate::wire::rule_schema::section::{Section, place};
use crate::wire::tree::Tree;

/// Reads the data of a rule; what is returned counts only where nothing was found.
pub(super) fn read_data(
    tree: &Tree,
    at: String,
    findings: &mut Findings,
) -> Option<(Rule, proto::RuleData)> {
    let data = Section::open(tree, at, &DATA_KEYS, findings)?;
    // Each reader puts what was given, in normal form, beside what it gives back.
    let mut given = proto::RuleData::default();
    let matching = matching::read(&data, &mut given, findings);
    let filters = filters::read(&data, matching.only_prefixes, &mut given, findings);
    let action = action::read(&data, &mut given, findings);
    if let Some(action @ (Action::Redirect(_) | Action::Respond(_))) = &action {
        refuse_without_targets(&data, action, findings);
    }
    let balance = policies::balance(&data, &mut given, findings);
    let timeouts = policies::timeouts(&data, &mut given, findings);
    let retry = policies::retry(&data, &mut given, findings);
    let health = policies::health(&data, &mut given, findings);
    let limits = policies::limits(&data, &mut given, findings);
    let nodes = policies::nodes(&data, &mut given, findings);
    if let Some(Action::Forward(targets)) = &action {
        refuse_grpc_over_http1(&data, &health, targets, findings);
    }
    let rule = Rule {
        hosts: matching.hosts,
        alternatives: matching.alternatives,
        filters,
        action: action?,
        balance,
        timeouts,
        retry,
        health,
        limits,
        nodes,
    };
    Some((rule, given))
}

/// A rule that answers by itself has nothing to choose, to wait for, to try again, to count or to
/// rewrite for.
fn refuse_without_targets(data: &Section<'_>, action: &Action, findings: &mut Findings) {
    let answer = if matches!(action, Action::Redirect(_)) { "redirect" } else { "respond" };
    let detail = format!("says nothing in a rule with {answer}, only in one with targets");
    for key in ["balance", "timeouts", "retry", "health", "limits"] {
        if data.has(key) {
            findings.note(&data.place(key), ProblemCode::Conflict, detail.as_str());
        }
    }
    let Some(Tree::List(filters)) = data.tree("filters") else { return };
    for (index, filter) in filters.iter().enumerate() {
        let Tree::Map(entries) = filter else { continue };
        let needless = ["requestHeaders", "rewrite"];
        for (key, _) in entries.iter().filter(|(key, _)| needless.contains(&key.as_str())) {
            let at = place(&format!("{}/{index}", data.place("filters")), key);
            findings.note(&at, ProblemCode::Conflict, detail.as_str());
        }
    }
}

/// gRPC needs HTTP/2, which a target named http does not speak.
fn refuse_grpc_over_http1(
    data: &Section<'_>,
    health: &Health,
    targets: &[Target],
    findings: &mut Findings,
) {
    let asks = health.active.as_ref().is_some_and(|it| matches!(it.probe, Probe::Grpc(_)));
    let plain = targets.iter().find(|target| target.address.scheme == Scheme::Http);
    if let Some(target) = plain.filter(|_| asks) {
        let flaw = Flaw::new(format!("{} does not speak HTTP/2", target.address));
        let flaw = flaw.code(ProblemCode::Conflict).hint("name it h2c:// or https://");
        findings.add(&format!("{}/active/grpc", data.place("health")), flaw);
    }
}

/// Drops a message in which nothing is given, so that equal meaning gives equal bytes.
fn unless_empty<M: Default + PartialEq>(message: M) -> Option<M> {
    (message != M::default()).then_some(message)
}

const DATA_KEYS: [&str; 11] = [
    "match", "filters", "targets", "redirect", "respond", "balance", "timeouts", "retry", "health",
    "limits", "nodes",
];
