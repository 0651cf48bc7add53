//! Whether one alternative of a rule takes a request, and how specific it is.
//!
//! Pure comparisons on borrowed text; which of several takes it is `table`'s business.

use std::cmp::Reverse;

use regex_automata::meta::Regex;

use crate::model::ids::RuleId;
use crate::model::limits;
use crate::model::moment::WallTime;
use crate::model::rule::Alternative;

/// What matching looks at. Host in lower case, without port and trailing dot.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The one authority of the request.
    pub host: &'a str,
    /// As sent; methods are case-sensitive.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
}

/// Order among alternatives of one host and one path: the least comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: WallTime,
    id: RuleId,
    alternative: usize,
}

/// A rule's regular expression could not be made into a matcher.
#[derive(Debug)]
pub struct RegexRefused {
    /// The expression.
    pub pattern: String,
    /// What the engine said.
    pub reason: String,
}

impl Rank {
    /// The rank of one alternative of a rule.
    pub fn of(alternative: &Alternative, index: usize, created: WallTime, id: &RuleId) -> Rank {
        Rank {
            method: Reverse(!alternative.methods.is_empty()),
            headers: Reverse(alternative.headers.len()),
            query: Reverse(alternative.query.len()),
            created,
            id: id.clone(),
            alternative: index,
        }
    }

    /// Which alternative of the rule it is.
    pub fn alternative(&self) -> usize {
        self.alternative
    }

    /// Whether only age and id tell two alternatives apart.
    pub fn ties_with(&self, other: &Rank) -> bool {
        self.method == other.method && self.headers == other.headers && self.query == other.query
    }
}

/// Compiles a path expression; it must match the whole path. Whatever `wire` accepts compiles: its
/// cap is on one automaton, the engine here makes several from the same text.
pub fn compile(pattern: &str) -> Result<Regex, RegexRefused> {
    let config = Regex::config().nfa_size_limit(Some(limits::REGEX_NFA_BYTES * 4));
    Regex::builder()
        .configure(config)
        .build(&format!("^(?:{pattern})$"))
        .map_err(|error| RegexRefused { pattern: pattern.to_string(), reason: error.to_string() })
}

/// Whether method, headers and query of an alternative allow the request.
pub fn allows<'h>(
    alternative: &Alternative,
    asked: &Asked<'_>,
    header: &impl Fn(&str) -> Option<&'h str>,
) -> bool {
    let method = alternative.methods.is_empty()
        || alternative.methods.iter().any(|method| method == asked.method);
    method
        && alternative.headers.iter().all(|(name, value)| header(name) == Some(value.as_str()))
        && alternative.query.iter().all(|(name, value)| {
            asked.query.and_then(|query| parameter(query, name)).is_some_and(|at| at == *value)
        })
}

/// Whether `prefix` covers `path` by whole segments.
pub fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/"
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first value of a query parameter, as it stands (no decoding).
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_as_deep_and_as_large_as_a_rule_may_hold_compile() {
        let deep = format!("/{}a{}", "(?:".repeat(200), ")".repeat(200));
        assert!(compile(&deep).is_ok_and(|regex| regex.is_match("/a") && !regex.is_match("/aa")));
        let large = "/[a-z0-9]{1,500}/(?:x|y|z){0,100}";
        assert!(compile(large).is_ok_and(|regex| regex.is_match("/abc/xyz")));
    }

    #[test]
    fn expressions_that_are_none_are_refused_and_never_panic() {
        for bad in ["(", "a{1,99999}{1,99999}", "[", "\\", "(?P<", "*"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_branch_of_an_expression_is_bound_at_both_ends() {
        assert!(compile("/a|/b").is_ok_and(|regex| {
            regex.is_match("/a")
                && regex.is_match("/b")
                && !regex.is_match("/ax")
                && !regex.is_match("x/b")
                && !regex.is_match("/a\n")
        }));
    }
}
