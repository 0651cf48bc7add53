//! A text of rules as document trees: JSON where it is JSON, YAML otherwise.
//!
//! Knows no schema. Invariant: what a text can unfold into is bounded in bytes, values, depth and
//! alias copies before anything looks at it.

use serde_saphyr::budget;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::model::limits::{DOCUMENT_ALIASED, DOCUMENT_DEPTH, DOCUMENT_NODES, RULE_TEXT_BYTES};
use crate::wire::rule_problems::{ProblemCode, Problems};
use crate::wire::tree::Tree;

/// The documents of a text: at least one.
pub(super) fn parse_text(text: &str) -> Result<Vec<Tree>, Problems> {
    if text.len() > RULE_TEXT_BYTES {
        let detail = format!("a text of rules has at most {RULE_TEXT_BYTES} bytes");
        return Err(Problems::whole(ProblemCode::TooLarge, detail));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(json) = text.trim_start().starts_with(['{', '[']).then(|| parse_json(text)) else {
        return parse_yaml(text);
    };
    match json {
        Ok(document) => Ok(vec![document]),
        // A flow mapping of YAML begins in the same way; what opens with a quoted key meant JSON.
        Err(fault) => parse_yaml(text).map_err(|yaml_fault| {
            let first = text.trim_start_matches(|c: char| c.is_whitespace() || "[{".contains(c));
            if first.starts_with('"') { fault } else { yaml_fault }
        }),
    }
}

fn parse_json(text: &str) -> Result<Tree, Problems> {
    serde_json::from_str(text).map_err(|error| {
        let shown = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let why = shown.strip_suffix(&place).unwrap_or(&shown);
        syntax("JSON", error.line() as u64, error.column() as u64, why)
    })
}

fn parse_yaml(text: &str) -> Result<Vec<Tree>, Problems> {
    let options = serde_saphyr::options! {
        budget: budget! {
            max_events: DOCUMENT_NODES * 2,
            max_nodes: DOCUMENT_NODES,
            max_documents: DOCUMENT_NODES,
            max_depth: DOCUMENT_DEPTH,
            flow_nesting_limit: DOCUMENT_DEPTH,
            max_anchors: DOCUMENT_ALIASED,
            max_aliases: DOCUMENT_ALIASED,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: DOCUMENT_ALIASED,
            max_replay_stack_depth: DOCUMENT_DEPTH,
        },
        // The reader of the schema reports repeated keys with their pointers.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    };
    let documents: Vec<Tree> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let place = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            let shown = error.without_snippet().to_string();
            let suffix = format!(" at line {}, column {}", place.0, place.1);
            syntax("YAML", place.0, place.1, shown.strip_suffix(&suffix).unwrap_or(&shown))
        })?;
    if documents.is_empty() {
        return Err(Problems::whole(ProblemCode::Missing, "there is no rule in this text"));
    }
    Ok(documents)
}

fn syntax(form: &str, line: u64, column: u64, why: &str) -> Problems {
    let why: String = why.split_whitespace().collect::<Vec<&str>>().join(" ");
    let detail = format!("not {form}: line {line}, column {column}: {why}");
    Problems::whole(ProblemCode::Syntax, detail)
}
