//! `filters`: what a rule changes about a request and its response.
//!
//! Reads only; the proxy applies them. Invariant: no kind twice, and no edit touches a header
//! that frames a message, belongs to one connection, or breaks forwarding loops.

use std::mem::{Discriminant, discriminant};

use crate::model::limits::HEADER_EDITS;
use crate::model::rule::{Filter, HeaderEdits, PathRewrite, Rewrite};
use crate::wire::proto;
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, quoted};
use crate::wire::rule_schema::section::{Section, text as text_of};
use crate::wire::rule_schema::text;

/// Reads `filters`.
pub(super) fn read(
    data: &Section<'_>,
    only_prefixes: bool,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Vec<Filter> {
    let mut filters: Vec<Filter> = Vec::new();
    let mut kinds: Vec<Discriminant<Filter>> = Vec::new();
    // More than one of each kind is a fault anyway; the margin lets it be called by its name.
    for (at, tree) in data.list("filters", 16, findings) {
        let Some((section, kind)) = Section::open_choice(tree, at, &FILTER_KEYS, findings) else {
            continue;
        };
        let filter = match kind {
            "requestHeaders" => edits(&section, kind, findings).map(Filter::RequestHeaders),
            "responseHeaders" => edits(&section, kind, findings).map(Filter::ResponseHeaders),
            _ => rewrite(&section, only_prefixes, findings).map(Filter::Rewrite),
        };
        let Some(filter) = filter else { continue };
        if kinds.contains(&discriminant(&filter)) {
            let detail = format!("there is a {kind} filter already; put both into one");
            findings.note(&section.at, ProblemCode::Duplicate, detail);
            continue;
        }
        kinds.push(discriminant(&filter));
        given.filters.push(give(&filter));
        filters.push(filter);
    }
    filters
}

/// Reads a list of headers with their values.
pub(super) fn headers(
    section: &Section<'_>,
    key: &str,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (at, tree) in section.list(key, HEADER_EDITS, findings) {
        let Some(header) = Section::open(tree, at, &["name", "value"], findings) else { continue };
        header.require("name", findings);
        header.require("value", findings);
        let name = header.read("name", editable_name, findings);
        let value = header.read("value", text::header_value, findings);
        headers.extend(name.zip(value));
    }
    headers
}

/// Headers as their messages.
pub(super) fn give_headers(headers: &[(String, String)]) -> Vec<proto::Header> {
    headers
        .iter()
        .map(|(name, value)| proto::Header { name: name.clone(), value: value.clone() })
        .collect()
}

fn edits(outer: &Section<'_>, kind: &str, findings: &mut Findings) -> Option<HeaderEdits> {
    let section = outer.section(kind, &["set", "add", "remove"], findings)?;
    let set = headers(&section, "set", findings);
    let add = headers(&section, "add", findings);
    let remove = section.read_list("remove", HEADER_EDITS, editable_name, findings);
    for (index, (name, _)) in set.iter().enumerate() {
        if set[..index].iter().any(|(earlier, _)| earlier == name) {
            let detail = format!("{} is set twice", quoted(name));
            findings.note(&section.place("set"), ProblemCode::Duplicate, detail);
        }
    }
    if kind == "requestHeaders" {
        refuse_loop_marks(&section, findings);
    }
    Some(HeaderEdits { set, add, remove })
}

/// Without `via` and `cdn-loop` on requests, a forwarding loop would not be noticed.
fn refuse_loop_marks(section: &Section<'_>, findings: &mut Findings) {
    let mut silent = Findings::default();
    let mut refuse = |name: Option<&str>, at: &str| {
        if let Some(name) = name
            && ["via", "cdn-loop"].contains(&name.to_ascii_lowercase().as_str())
        {
            let detail = format!("{} on requests belongs to the proxy", quoted(name));
            findings.note(at, ProblemCode::Invalid, detail);
        }
    };
    for key in ["set", "add"] {
        for (at, tree) in section.list(key, HEADER_EDITS, &mut silent) {
            if let Some(header) = Section::open(tree, at, &["name", "value"], &mut silent) {
                refuse(header.text("name", &mut silent), &header.place("name"));
            }
        }
    }
    for (at, tree) in section.list("remove", HEADER_EDITS, &mut silent) {
        refuse(text_of(tree, &at, &mut silent), &at);
    }
}

fn editable_name(name: &str) -> Result<String, Flaw> {
    let name = text::header_name(name)?;
    if name == "host" {
        let flaw = Flaw::new("\"host\" is no header to edit");
        return Err(flaw.hint("a rewrite filter changes the host"));
    }
    if NOT_EDITABLE.contains(&name.as_str()) {
        return Err(Flaw::new(format!("{} belongs to the proxy", quoted(&name))));
    }
    Ok(name)
}

fn rewrite(outer: &Section<'_>, only_prefixes: bool, findings: &mut Findings) -> Option<Rewrite> {
    let section = outer.section("rewrite", &["host", "path", "prefix"], findings)?;
    if !["host", "path", "prefix"].into_iter().any(|key| section.has(key)) {
        let detail = "needs one of host, path, prefix";
        findings.note(&section.at, ProblemCode::Missing, detail);
    }
    if section.has("path") && section.has("prefix") {
        let detail = "only one of path, prefix may be given";
        findings.note(&section.at, ProblemCode::Conflict, detail);
    }
    if section.has("prefix") && !only_prefixes {
        let detail = "needs a prefix path in every alternative of the match";
        findings.note(&section.place("prefix"), ProblemCode::Conflict, detail);
    }
    let host = section.read("host", text::authority, findings);
    let whole = section.read("path", text::path, findings).map(PathRewrite::Whole);
    let prefix = section.read("prefix", text::prefix, findings).map(PathRewrite::Prefix);
    Some(Rewrite { host, path: whole.or(prefix) })
}

fn give(filter: &Filter) -> proto::Filter {
    let edits = |edits: &HeaderEdits| proto::HeaderEdits {
        set: give_headers(&edits.set),
        add: give_headers(&edits.add),
        remove: edits.remove.clone(),
    };
    let mut given = proto::Filter::default();
    match filter {
        Filter::RequestHeaders(request) => given.request_headers = Some(edits(request)),
        Filter::ResponseHeaders(response) => given.response_headers = Some(edits(response)),
        Filter::Rewrite(rewrite) => {
            let mut message = proto::Rewrite { host: rewrite.host.clone(), ..Default::default() };
            match &rewrite.path {
                Some(PathRewrite::Whole(path)) => message.path = Some(path.clone()),
                Some(PathRewrite::Prefix(prefix)) => message.prefix = Some(prefix.clone()),
                None => {}
            }
            given.rewrite = Some(message);
        }
    }
    given
}

const FILTER_KEYS: [&str; 3] = ["requestHeaders", "responseHeaders", "rewrite"];

// RFC 9110 §7.6.1 and the fields that frame a message: forwarding sets them anew.
const NOT_EDITABLE: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];
