//! What is wrong with a rule, all of it at once, in words for people and codes for programs.
//!
//! Not an error of ours: these are findings about somebody's document. Invariants: a `Problems`
//! holds at least one and at most `PROBLEMS` of them, and nothing quoted in them is longer
//! than a line.

use std::fmt;

use crate::model::limits::{PROBLEMS, QUOTED_CHARS};
use crate::wire::rule_support::Feature;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// JSON pointer to it; empty means the whole document.
    pub(crate) pointer: String,
    /// What kind of wrong.
    pub(crate) code: ProblemCode,
    /// One sentence without a full stop.
    pub(crate) detail: String,
    /// What may help, as a phrase of its own.
    pub(crate) hint: Option<String>,
}

/// What kind of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemCode {
    /// Neither YAML nor JSON nor protobuf.
    Syntax,
    /// A key or field that there is not.
    UnknownKey,
    /// Something that has to be given.
    Missing,
    /// Another type than the one wanted.
    WrongType,
    /// The right type, but not a value that can be.
    Invalid,
    /// Means something that this release does not do.
    Unsupported,
    /// Cannot go together with something else.
    Conflict,
    /// Beyond a limit.
    TooLarge,
    /// Given twice.
    Duplicate,
}

impl ProblemCode {
    /// As it stands in answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ProblemCode::Syntax => "syntax",
            ProblemCode::UnknownKey => "unknown_key",
            ProblemCode::Missing => "missing",
            ProblemCode::WrongType => "wrong_type",
            ProblemCode::Invalid => "invalid",
            ProblemCode::Unsupported => "unsupported",
            ProblemCode::Conflict => "conflict",
            ProblemCode::TooLarge => "too_large",
            ProblemCode::Duplicate => "duplicate",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "document" } else { &self.pointer };
        write!(f, "{place}: {}: {}", self.code.as_str(), self.detail)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a document; displayed one to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problems {
    // Invariant: never empty.
    listed: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// A single problem with the whole document.
    pub(crate) fn whole(code: ProblemCode, detail: impl Into<String>) -> Problems {
        let detail = detail.into();
        let problem = Problem { pointer: String::new(), code, detail, hint: None };
        Problems { listed: vec![problem], more: 0 }
    }

    /// Those that are listed: at least one.
    pub(crate) fn list(&self) -> &[Problem] {
        &self.listed
    }

    /// How many there were beyond the list.
    pub(crate) fn more(&self) -> usize {
        self.more
    }

    /// The same, with a JSON pointer put before each pointer (such as `/shop-api` or `/0`).
    pub(crate) fn under(mut self, prefix: &str) -> Problems {
        for problem in &mut self.listed {
            problem.pointer.insert_str(0, prefix);
        }
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.listed.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\n… and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why a single text is not what it should be; becomes a problem where the place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) code: ProblemCode,
    pub(crate) detail: String,
    pub(crate) hint: Option<String>,
}

impl Flaw {
    /// An invalid value.
    pub(crate) fn new(detail: impl Into<String>) -> Flaw {
        Flaw { code: ProblemCode::Invalid, detail: detail.into(), hint: None }
    }

    /// The same with other words on the kind of wrong.
    pub(crate) fn code(self, code: ProblemCode) -> Flaw {
        Flaw { code, ..self }
    }

    /// The same with a hint.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Flaw {
        Flaw { hint: Some(hint.into()), ..self }
    }
}

/// Collects problems while a document is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    listed: Vec<Problem>,
    more: usize,
}

impl Findings {
    /// Something is wrong at this place.
    pub(super) fn add(&mut self, at: &str, flaw: Flaw) {
        if self.listed.len() < PROBLEMS {
            let Flaw { code, detail, hint } = flaw;
            self.listed.push(Problem { pointer: at.to_owned(), code, detail, hint });
        } else {
            self.more += 1;
        }
    }

    /// Shorthand without a hint.
    pub(super) fn note(&mut self, at: &str, code: ProblemCode, detail: impl Into<String>) {
        self.add(at, Flaw::new(detail).code(code));
    }

    /// The value, or nothing and one finding more.
    pub(super) fn take<T>(&mut self, at: &str, read: Result<T, Flaw>) -> Option<T> {
        read.map_err(|flaw| self.add(at, flaw)).ok()
    }

    /// What stands here asks for this feature.
    pub(super) fn needs(&mut self, feature: Feature, at: &str) {
        if !feature.is_supported() {
            let detail = format!("this release does not do {} yet", feature.words());
            self.note(at, ProblemCode::Unsupported, detail);
        }
    }

    /// Takes over what was found elsewhere.
    pub(super) fn absorb(&mut self, problems: Problems) {
        for problem in problems.listed {
            let Problem { pointer, code, detail, hint } = problem;
            self.add(&pointer, Flaw { code, detail, hint });
        }
        self.more += problems.more;
    }

    /// The value, if nothing was found.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.listed.is_empty() => Ok(value),
            _ if self.listed.is_empty() => {
                Err(Problems::whole(ProblemCode::Invalid, "nothing could be read"))
            }
            _ => Err(Problems { listed: self.listed, more: self.more }),
        }
    }
}

/// The text in quotes, escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(QUOTED_CHARS).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{rest}")
}

/// "did you mean" for the candidate closest to what was written, where one is close.
pub(crate) fn did_you_mean(written: &str, candidates: &[&str]) -> Option<String> {
    // Long texts are no slips of the pen, and distances over them cost time.
    if written.len() > 32 {
        return None;
    }
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let (best, distance) = candidates
        .iter()
        .map(|candidate| (candidate, edit_distance(&plain(written), &plain(candidate))))
        .min_by_key(|(_, distance)| *distance)?;
    let close = distance <= 2 && distance * 2 < best.len().max(2);
    close.then(|| format!("did you mean \"{best}\"?"))
}

/// Insertions, deletions, replacements and swaps of neighbours from one text to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_close_and_keep_quiet_about_the_far() {
        let keys = ["match", "filters", "targets", "perTry", "on", "id"];
        for (written, hint) in [
            ("target", Some("targets")),
            ("tragets", Some("targets")),
            ("per_try", Some("perTry")),
            ("Match", Some("match")),
            ("backends", None),
            ("x", None),
            ("", None),
        ] {
            let expected = hint.map(|hint| format!("did you mean \"{hint}\"?"));
            assert_eq!(did_you_mean(written, &keys), expected, "{written}");
        }
    }

    #[test]
    fn the_list_is_capped_and_says_so() {
        let mut findings = Findings::default();
        for index in 0..PROBLEMS + 7 {
            findings.note(&format!("/{index}"), ProblemCode::Invalid, "bad");
        }
        let problems = findings.finish(Some(())).unwrap_err();
        assert_eq!(problems.list().len(), PROBLEMS);
        assert_eq!(problems.more(), 7);
        assert!(problems.to_string().ends_with("\n… and 7 more"));
    }

    #[test]
    fn quotes_are_cut_and_escaped() {
        assert_eq!(quoted("a\n\"b"), r#""a\n\"b""#);
        assert!(quoted(&"ü".repeat(5000)).chars().count() < QUOTED_CHARS + 4);
    }
}
