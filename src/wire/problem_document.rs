//! Problem documents (RFC 9457): what HTTP ports answer where they cannot do what was asked.
//!
//! The document only; which status fits what is decided where the error is known.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::WireError;
use super::rule_problems::Problems;
use crate::model::limits;

/// The media type of a problem document.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document, built up and then written; or read from somebody's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProblemDocument {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ProblemError>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// One of several things that are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProblemError {
    /// Where it is: a JSON pointer into what was sent; empty for the whole.
    #[serde(default)]
    pub(crate) pointer: String,
    /// A stable word for it.
    #[serde(default)]
    pub(crate) code: String,
    /// A sentence for people.
    #[serde(default)]
    pub(crate) detail: String,
    /// What may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl ProblemDocument {
    /// A problem with an HTTP status, a stable word and a short title for people.
    pub(crate) fn new(status: u16, code: &str, title: impl Into<String>) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:tradewind:problem:{code}"),
            title: title.into(),
            status,
            code: code.to_owned(),
            detail: String::new(),
            errors: Vec::new(),
            more: Map::new(),
        }
    }

    /// What happened this time, and what to do about it.
    pub(crate) fn detail(self, detail: impl Into<String>) -> ProblemDocument {
        ProblemDocument { detail: detail.into(), ..self }
    }

    /// One more thing that is wrong; beyond `limits::PROBLEM_ERRORS` it is left out.
    pub(crate) fn error(
        mut self,
        pointer: impl Into<String>,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> ProblemDocument {
        if self.errors.len() < limits::PROBLEM_ERRORS {
            let (pointer, code, detail) = (pointer.into(), code.into(), detail.into());
            self.errors.push(ProblemError { pointer, code, detail, hint: None });
        }
        self
    }

    /// All that is wrong with a rule document.
    pub(crate) fn findings(mut self, problems: &Problems) -> ProblemDocument {
        for problem in problems.list() {
            self = self.error(&*problem.pointer, problem.code.as_str(), &*problem.detail);
            if let Some(last) = self.errors.last_mut() {
                last.hint.clone_from(&problem.hint);
            }
        }
        if problems.more() > 0 {
            return self.with("more", problems.more());
        }
        self
    }

    /// One more member, such as the current version.
    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> ProblemDocument {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The stable word for what is wrong.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// The short title.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// What happened this time; may be empty.
    pub(crate) fn detail_text(&self) -> &str {
        &self.detail
    }

    /// All that is wrong.
    pub(crate) fn errors(&self) -> &[ProblemError] {
        &self.errors
    }

    /// A further member.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        self.more.get(name)
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and JSON values always serialise")
    }

    /// Reads somebody's document; whatever it lacks is empty.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<ProblemDocument, WireError> {
        let problem: ProblemDocument =
            serde_json::from_slice(bytes).map_err(|_| WireError::Undecodable("problem"))?;
        if problem.errors.len() > limits::PROBLEM_ERRORS {
            return Err(WireError::TooLarge("errors"));
        }
        Ok(problem)
    }
}
