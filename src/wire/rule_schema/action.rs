//! `targets`, `redirect` and `respond`: who answers.
//!
//! Reads only. Invariant: exactly one of the three, and no target address twice.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::limits::{
    LATENCY_HINT_SECONDS, RESPOND_BODY_BYTES, TARGET_WEIGHT, TARGETS_PER_RULE,
};
use crate::model::rule::{Action, Redirect, Respond, Target, TargetAddress};
use crate::wire::proto;
use crate::wire::quantity::{parse_duration, show_duration};
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, did_you_mean, quoted};
use crate::wire::rule_schema::section::Section;
use crate::wire::rule_schema::target_url::target_address;
use crate::wire::rule_schema::{filters, text};
use crate::wire::tree::Tree;

/// Reads whichever of the three is given; nothing where that cannot be told.
pub(super) fn read(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Option<Action> {
    let kinds = ["targets", "redirect", "respond"];
    let kinds: Vec<&str> = kinds.into_iter().filter(|kind| data.has(kind)).collect();
    // All that is given is read, so that the faults inside are found, too.
    let mut actions = Vec::new();
    for kind in &kinds {
        actions.extend(match *kind {
            "targets" => targets(data, given, findings),
            "redirect" => redirect(data, given, findings),
            _ => respond(data, given, findings),
        });
    }
    match kinds.len() {
        1 => actions.pop(),
        0 => {
            let detail = "needs one of targets, redirect, respond";
            findings.note(&data.at, ProblemCode::Missing, detail);
            None
        }
        _ => {
            let detail = format!("only one of {} may be given", kinds.join(", "));
            findings.note(&data.at, ProblemCode::Conflict, detail);
            None
        }
    }
}

fn targets(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Option<Action> {
    if matches!(data.tree("targets"), Some(Tree::List(items)) if items.is_empty()) {
        let flaw = Flaw::new("empty target list");
        let hint = "a target with weight 0 stays known and gets no traffic";
        findings.add(&data.place("targets"), flaw.hint(hint));
        return None;
    }
    let mut targets = Vec::new();
    let mut seen: BTreeSet<TargetAddress> = BTreeSet::new();
    for (at, tree) in data.list("targets", TARGETS_PER_RULE, findings) {
        let keys = ["url", "weight", "region", "latencyHint"];
        let Some(section) = Section::open(tree, at, &keys, findings) else { continue };
        let Some(target) = target(&section, given, findings) else { continue };
        if seen.insert(target.address.clone()) {
            targets.push(target);
        } else {
            let detail = format!("there is a target {} already", target.address);
            findings.note(&section.place("url"), ProblemCode::Duplicate, detail);
        }
    }
    (!targets.is_empty()).then_some(Action::Forward(targets))
}

fn target(
    section: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Option<Target> {
    section.require("url", findings);
    let address = section.read("url", target_address, findings);
    let weight = section.whole("weight", 0..=TARGET_WEIGHT, findings);
    let region = section.read("region", optional_region, findings).unwrap_or_default();
    let latency_hint = section.read("latencyHint", latency_hint, findings);
    let address = address?;
    given.targets.push(proto::Target {
        url: address.to_string(),
        weight,
        region: region.clone(),
        latency_hint: latency_hint.map(show_duration).unwrap_or_default(),
    });
    Some(Target { address, weight: weight.unwrap_or(1), region, latency_hint })
}

fn optional_region(text: &str) -> Result<String, Flaw> {
    if text.is_empty() { Ok(String::new()) } else { text::label(text) }
}

fn latency_hint(text: &str) -> Result<Duration, Flaw> {
    let hint = parse_duration(text)?;
    if hint.is_zero() || hint > Duration::from_secs(LATENCY_HINT_SECONDS) {
        let most = LATENCY_HINT_SECONDS;
        return Err(Flaw::new(format!("{} is not from 1ms to {most}s", quoted(text))));
    }
    Ok(hint)
}

fn redirect(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Option<Action> {
    let keys = ["scheme", "host", "path", "status"];
    let section = data.section("redirect", &keys, findings)?;
    if !["scheme", "host", "path"].into_iter().any(|key| section.has(key)) {
        let detail = "needs one of scheme, host, path";
        findings.note(&section.at, ProblemCode::Missing, detail);
    }
    let scheme = section.read("scheme", redirect_scheme, findings);
    let host = section.read("host", text::authority, findings);
    let path = section.read("path", redirect_path, findings);
    let status = section.whole("status", 0..=u32::MAX, findings);
    if let Some(status) = status
        && !REDIRECT_STATUSES.contains(&status)
    {
        let detail = format!("{status} is not one of 301, 302, 303, 307, 308");
        findings.note(&section.place("status"), ProblemCode::Invalid, detail);
    }
    given.redirect = Some(proto::Redirect {
        scheme: scheme.clone(),
        host: host.clone(),
        path: path.clone(),
        status,
    });
    Some(Action::Redirect(Redirect { scheme, host, path, status: status_or(status, 302) }))
}

fn redirect_scheme(text: &str) -> Result<String, Flaw> {
    let scheme = text.to_ascii_lowercase();
    if scheme == "http" || scheme == "https" {
        return Ok(scheme);
    }
    let mut flaw = Flaw::new(format!("{} is neither http nor https", quoted(text)));
    flaw.hint = did_you_mean(text, &["http", "https"]);
    Err(flaw)
}

fn redirect_path(text: &str) -> Result<String, Flaw> {
    let path = text::target_path(text)?;
    if path.starts_with("//") {
        return Err(Flaw::new(format!("{} would be read as another host", quoted(text))));
    }
    Ok(path)
}

fn respond(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Option<Action> {
    let section = data.section("respond", &["status", "headers", "body"], findings)?;
    let status = section.whole("status", 200..=599, findings);
    let headers = filters::headers(&section, "headers", findings);
    let body = section.text("body", findings).unwrap_or_default();
    if body.len() > RESPOND_BODY_BYTES {
        let detail = format!("a body has at most {RESPOND_BODY_BYTES} bytes");
        findings.note(&section.place("body"), ProblemCode::TooLarge, detail);
    }
    if let Some(status @ (204 | 205 | 304)) = status
        && !body.is_empty()
    {
        let detail = format!("an answer with status {status} has no body");
        findings.note(&section.place("body"), ProblemCode::Conflict, detail);
    }
    let headers_given = filters::give_headers(&headers);
    given.respond = Some(proto::Respond { status, headers: headers_given, body: body.to_owned() });
    let status = status_or(status, 200);
    Some(Action::Respond(Respond { status, headers, body: body.to_owned() }))
}

fn status_or(status: Option<u32>, default: u16) -> u16 {
    status.and_then(|status| u16::try_from(status).ok()).unwrap_or(default)
}

const REDIRECT_STATUSES: [u32; 5] = [301, 302, 303, 307, 308];
