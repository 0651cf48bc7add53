//! The doors for rules: YAML, JSON and protobuf in, typed rules and canonical bytes out, and back.
//!
//! All doors lead through one reader (`rule_schema`), so that they agree. Invariants: `data` is
//! canonical (equal rules have equal bytes, whichever form they came in), and `decode_rule_data`
//! of it gives `rule` again. Nothing here panics on what somebody sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use serde_json::Value;

use crate::model::ids::{RuleId, Version};
use crate::model::limits::RULE_BYTES;
use crate::model::rule::Rule;
use crate::wire::proto;
use crate::wire::rule_problems::{Findings, Flaw, ProblemCode, Problems, quoted};
use crate::wire::rule_schema::read_data;
use crate::wire::rule_schema::section::{Section, place};
use crate::wire::rule_text::parse_text;
use crate::wire::rule_tree::data_tree;
use crate::wire::tree::Tree;

/// A rule that somebody wrote and that has nothing wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParsedRule {
    /// Its id.
    pub(crate) id: RuleId,
    /// What it decides.
    pub(crate) rule: Rule,
    /// The canonical encoding of `proto::RuleData`.
    pub(crate) data: Bytes,
    /// Where the configuration form named one.
    pub(crate) version: Option<Version>,
}

/// Reads every rule of a text: one document, several, a list, or what `GET /v1/configuration`
/// answers.
pub(crate) fn rules_from_yaml_or_json(text: &str) -> Result<Vec<ParsedRule>, Problems> {
    let documents = parse_text(text)?;
    let mut findings = Findings::default();
    let mut rules = Vec::new();
    let mut ids = BTreeSet::new();
    for entry in places(&documents) {
        let Some(parsed) = read_entry(&entry, &mut findings) else { continue };
        if !ids.insert(parsed.id.clone()) {
            let detail = format!("there is a rule {} in this text already", parsed.id);
            findings.note(&entry.id_pointer(), ProblemCode::Duplicate, detail);
        }
        rules.push(parsed);
    }
    findings.finish(Some(rules))
}

/// Reads the `data` of a rule from the body of a request; pointers begin with `/data`.
pub(crate) fn rule_data_from_json(id: &str, data: &Value) -> Result<ParsedRule, Problems> {
    read_rule(id, &Tree::from(data))
}

/// Reads a rule from its message; pointers are those of the JSON form.
pub(crate) fn rule_from_proto(rule: proto::Rule) -> Result<ParsedRule, Problems> {
    let Some(data) = rule.data else {
        let mut findings = Findings::default();
        findings.take("/id", read_id(&rule.id));
        findings.note("/data", ProblemCode::Missing, "has to be given");
        return findings.finish(None);
    };
    read_rule(&rule.id, &data_tree(&data))
}

/// Reads the bytes of a rule as the ledger holds them. Fields of later releases are passed over;
/// what this release does not do is a problem.
pub(crate) fn decode_rule_data(bytes: &[u8]) -> Result<Rule, Problems> {
    let data = decode(bytes)?;
    let mut findings = Findings::default();
    let read = read_data(&data_tree(&data), String::from("/data"), &mut findings);
    findings.finish(read.map(|(rule, _)| rule))
}

/// The bytes of a rule in the JSON form: only what was given.
pub(crate) fn rule_data_to_json(bytes: &[u8]) -> Result<Value, Problems> {
    Ok(Value::from(data_tree(&decode(bytes)?)))
}

/// The bytes of a rule as a message.
pub(crate) fn rule_to_proto(id: &RuleId, bytes: &[u8]) -> Result<proto::Rule, Problems> {
    Ok(proto::Rule { id: id.to_string(), data: Some(decode(bytes)?) })
}

/// The bytes of a rule as a YAML document that can be applied again.
pub(crate) fn rule_to_yaml(id: &RuleId, bytes: &[u8]) -> Result<String, Problems> {
    let document = Tree::Map(vec![
        (String::from("id"), Tree::text(id.as_str())),
        (String::from("data"), data_tree(&decode(bytes)?)),
    ]);
    serde_saphyr::to_string(&document).map_err(|error| {
        Problems::whole(ProblemCode::Invalid, format!("cannot be shown as YAML: {error}"))
    })
}

/// A rule in a text, and where it stands.
struct Entry<'a> {
    at: String,
    /// The key it stands under in the configuration form.
    id: Option<&'a str>,
    tree: &'a Tree,
}

impl Entry<'_> {
    fn id_pointer(&self) -> String {
        if self.id.is_some() { self.at.clone() } else { place(&self.at, "id") }
    }
}

/// The rules of the documents; a lone rule stands at the root, others below their index.
fn places(documents: &[Tree]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut index = 0;
    for document in documents {
        match document {
            Tree::List(items) => {
                for tree in items {
                    entries.push(Entry { at: format!("/{index}"), id: None, tree });
                    index += 1;
                }
            }
            Tree::Map(rules) if is_configuration(rules) => {
                for (id, tree) in rules {
                    entries.push(Entry { at: place("", id), id: Some(id), tree });
                }
            }
            tree => {
                let lone = documents.len() == 1;
                let at = if lone { String::new() } else { format!("/{index}") };
                entries.push(Entry { at, id: None, tree });
                index += 1;
            }
        }
    }
    entries
}

/// Whether these are rules under their ids, as `GET /v1/configuration` shows them.
fn is_configuration(entries: &[(String, Tree)]) -> bool {
    let has_data =
        |tree: &Tree| matches!(tree, Tree::Map(keys) if keys.iter().any(|(key, _)| key == "data"));
    // A lone rule has an id, which is a text; the data of one holds nothing of that name.
    entries.iter().all(|(_, tree)| matches!(tree, Tree::Map(_)))
        && entries.iter().any(|(_, tree)| has_data(tree))
}

fn read_entry(entry: &Entry<'_>, findings: &mut Findings) -> Option<ParsedRule> {
    let at = entry.at.clone();
    let (id, version, section) = match entry.id {
        Some(id) => {
            // The origin and an overlay say how the rule came about, not what it is.
            let keys = ["version", "origin", "overlay", "data"];
            let section = Section::open(entry.tree, at, &keys, findings)?;
            let id = findings.take(&section.at, read_id(id));
            let version = section
                .tree("version")
                .and_then(|tree| findings.take(&section.place("version"), read_version(tree)));
            (id, version, section)
        }
        None => {
            let section = Section::open(entry.tree, at, &["id", "data"], findings)?;
            section.require("id", findings);
            (section.read("id", read_id, findings), None, section)
        }
    };
    section.require("data", findings);
    let read = read_data(section.tree("data")?, section.place("data"), findings);
    finish_rule(id, read, &section.place("data"), findings)
        .map(|parsed| ParsedRule { version, ..parsed })
}

fn read_rule(id: &str, data: &Tree) -> Result<ParsedRule, Problems> {
    let mut findings = Findings::default();
    let id = findings.take("/id", read_id(id));
    let read = read_data(data, String::from("/data"), &mut findings);
    let parsed = finish_rule(id, read, "/data", &mut findings);
    findings.finish(parsed)
}

fn finish_rule(
    id: Option<RuleId>,
    read: Option<(Rule, proto::RuleData)>,
    at: &str,
    findings: &mut Findings,
) -> Option<ParsedRule> {
    let (rule, given) = read?;
    let data = Bytes::from(given.encode_to_vec());
    if data.len() > RULE_BYTES {
        let detail = format!("a rule has at most {RULE_BYTES} bytes, not {}", data.len());
        findings.note(at, ProblemCode::TooLarge, detail);
    }
    Some(ParsedRule { id: id?, rule, data, version: None })
}

fn read_id(text: &str) -> Result<RuleId, Flaw> {
    RuleId::parse(text).ok_or_else(|| {
        let flaw = Flaw::new(format!("{} is not a rule id", quoted(text)));
        let lower = text.to_ascii_lowercase().replace(' ', "-");
        match RuleId::parse(&lower) {
            Some(id) => flaw.hint(format!("did you mean \"{id}\"?")),
            None => flaw.hint("1 to 128 of a-z, 0-9 and, inside, any of \"-._\""),
        }
    })
}

fn read_version(tree: &Tree) -> Result<Version, Flaw> {
    let number = match tree {
        Tree::Number(number) => number.as_u64(),
        _ => None,
    };
    number
        .and_then(Version::new)
        .ok_or_else(|| Flaw::new(format!("{} is not a version: 1, 2, 3 …", tree.describe())))
}

fn decode(bytes: &[u8]) -> Result<proto::RuleData, Problems> {
    if bytes.len() > RULE_BYTES {
        let detail = format!("a rule has at most {RULE_BYTES} bytes, not {}", bytes.len());
        return Err(Problems::whole(ProblemCode::TooLarge, detail));
    }
    proto::RuleData::decode(bytes).map_err(|error| {
        Problems::whole(ProblemCode::Syntax, format!("no rule in these bytes: {error}"))
    })
}

#[cfg(test)]
#[path = "tests/rules.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/rule_properties.rs"]
mod properties;
