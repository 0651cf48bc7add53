//! `match`: which requests a rule takes.
//!
//! Reads only; the order of precedence belongs to the route table. Invariant: there is always an
//! alternative, and conditions stand in the order of their names.

use std::collections::BTreeMap;

use regex_automata::nfa::thompson;

use crate::model::limits::{
    ALTERNATIVES_PER_RULE, CONDITIONS, HOSTS_PER_RULE, REGEX_BYTES, REGEX_NFA_BYTES,
};
use crate::model::rule::{Alternative, HostPattern, PathMatch};
use crate::wire::proto;
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, quoted};
use crate::wire::rule_schema::section::Section;
use crate::wire::rule_schema::{text, unless_empty};
use crate::wire::rule_support::Feature;
use crate::wire::tree::Tree;

/// What `match` says.
pub(super) struct Matching {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) alternatives: Vec<Alternative>,
    /// Whether every alternative asks for a prefix, well-formed or not.
    pub(super) only_prefixes: bool,
}

/// Reads `match`.
pub(super) fn read(
    data: &Section<'_>,
    given: &mut proto::RuleData,
    findings: &mut Findings,
) -> Matching {
    let nothing = Matching {
        hosts: Vec::new(),
        alternatives: vec![Alternative::default()],
        only_prefixes: false,
    };
    let Some(section) = data.section("match", &["hosts", "any"], findings) else { return nothing };
    let hosts = section.read_list("hosts", HOSTS_PER_RULE, text::host_pattern, findings);
    let mut message = proto::Match {
        hosts: hosts.iter().map(text::show_host_pattern).collect(),
        any: Vec::new(),
    };
    let mut alternatives = Vec::new();
    let mut only_prefixes = true;
    for (at, tree) in section.list("any", ALTERNATIVES_PER_RULE, findings) {
        let keys = ["path", "methods", "headers", "query"];
        let Some(section) = Section::open(tree, at, &keys, findings) else { continue };
        only_prefixes &= asks_for_prefix(&section);
        let (alternative, given) = alternative(&section, findings);
        alternatives.push(alternative);
        message.any.push(given);
    }
    given.r#match = unless_empty(message);
    if alternatives.is_empty() {
        return Matching { hosts, ..nothing };
    }
    Matching { hosts, alternatives, only_prefixes }
}

fn alternative(
    section: &Section<'_>,
    findings: &mut Findings,
) -> (Alternative, proto::Alternative) {
    let path = path(section, findings);
    let methods = section.read_list("methods", CONDITIONS, text::method, findings);
    for (at, method) in section.list("methods", CONDITIONS, &mut Findings::default()) {
        if matches!(method, Tree::Text(name) if name == "CONNECT" || name == "TRACE") {
            findings.needs(Feature::RefusedMethods, &at);
        }
    }
    let headers = headers(section, findings);
    let query = query(section, findings);
    let given = proto::Alternative {
        path: path.as_ref().map(give_path),
        methods: methods.clone(),
        headers: headers.clone(),
        query: query.clone(),
    };
    let headers = headers.into_iter().collect();
    let query = query.into_iter().collect();
    (Alternative { path, methods, headers, query }, given)
}

fn path(section: &Section<'_>, findings: &mut Findings) -> Option<PathMatch> {
    let at = section.place("path");
    let keys = ["prefix", "exact", "regex"];
    let (path, kind) = Section::open_choice(section.tree("path")?, at, &keys, findings)?;
    match kind {
        "prefix" => path.read(kind, text::prefix, findings).map(PathMatch::Prefix),
        "exact" => path.read(kind, text::path, findings).map(PathMatch::Exact),
        _ => path.read(kind, regex, findings).map(PathMatch::Regex),
    }
}

fn give_path(path: &PathMatch) -> proto::PathMatch {
    let mut given = proto::PathMatch::default();
    match path {
        PathMatch::Prefix(prefix) => given.prefix = Some(prefix.clone()),
        PathMatch::Exact(exact) => given.exact = Some(exact.clone()),
        PathMatch::Regex(regex) => given.regex = Some(regex.clone()),
    }
    given
}

/// Compiles to see whether it can be; the route table compiles for use.
fn regex(text: &str) -> Result<String, Flaw> {
    if text.len() > REGEX_BYTES {
        let flaw = Flaw::new(format!("an expression has at most {REGEX_BYTES} bytes"));
        return Err(flaw.code(ProblemCode::TooLarge));
    }
    if text.is_empty() {
        return Err(Flaw::new("an empty expression matches no path"));
    }
    // By itself first: ")(" would be well-formed once it stands in a group.
    for pattern in [text, &format!("^(?:{text})$")] {
        let limits = thompson::Config::new().nfa_size_limit(Some(REGEX_NFA_BYTES));
        if let Err(error) = thompson::Compiler::new().configure(limits).build(pattern) {
            return Err(regex_flaw(text, &error));
        }
    }
    Ok(text.to_owned())
}

fn regex_flaw(text: &str, error: &thompson::BuildError) -> Flaw {
    if error.size_limit().is_some() {
        let detail = format!("{} is too large once compiled", quoted(text));
        return Flaw::new(detail).code(ProblemCode::TooLarge);
    }
    // The source is the parser's error, drawn over several lines; its last one says why.
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let why = source.lines().last().unwrap_or_default();
    let why = why.strip_prefix("error: ").unwrap_or(why);
    Flaw::new(format!("{} is not an expression: {why}", quoted(text)))
}

fn headers(section: &Section<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (at, name, value) in section.pairs("headers", CONDITIONS, findings) {
        let name = findings.take(&at, text::header_name(name));
        let value = findings.take(&at, text::header_value(value));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if name == "host" {
            let flaw = Flaw::new("the Host header is matched by match.hosts");
            findings.add(&at, flaw);
        } else if headers.insert(name, value).is_some() {
            findings.note(&at, ProblemCode::Duplicate, "this header stands here twice");
        }
    }
    headers
}

fn query(section: &Section<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut query = BTreeMap::new();
    for (at, name, value) in section.pairs("query", CONDITIONS, findings) {
        if name.is_empty() {
            findings.note(&at, ProblemCode::Invalid, "a query parameter has a name");
        }
        let name = findings.take(&at, text::query_part(name));
        let value = findings.take(&at, text::query_part(value));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if query.insert(name, value).is_some() {
            findings.note(&at, ProblemCode::Duplicate, "this parameter stands here twice");
        }
    }
    query
}

fn asks_for_prefix(alternative: &Section<'_>) -> bool {
    match alternative.tree("path") {
        Some(Tree::Map(entries)) => entries.iter().any(|(key, _)| key == "prefix"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_linear_and_small() {
        assert!(regex("^/v[0-9]+/items$").is_ok());
        assert!(regex(r"/\w{8}/.*").is_ok());
        for bad in ["", "(", ")(", "[", r"(a)\1", "(?=a)", "(?x)a #", &"a".repeat(5000)] {
            assert!(regex(bad).is_err(), "{bad}");
        }
        let bomb = regex("((((a{50}){50}){50}){50})").unwrap_err();
        assert_eq!(bomb.code, ProblemCode::TooLarge);
        let flaw = regex("a(b").unwrap_err();
        assert_eq!(flaw.detail, "\"a(b\" is not an expression: unclosed group");
    }
}
