//! How a command fails: cause, evidence, what to do next; and with which exit code.

use std::fmt;
use std::process::ExitCode;

/// A command that came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    cause: String,
    evidence: Option<String>,
    next: Option<String>,
}

/// The exit codes scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed = 1,
    Usage = 2,
    NotMet = 3,
    Configuration = 78,
}

impl Failure {
    /// Something went wrong: exit code 1.
    pub(crate) fn failed(cause: impl Into<String>) -> Failure {
        Failure { kind: Kind::Failed, cause: cause.into(), evidence: None, next: None }
    }

    /// The command line does not say what to do: exit code 2.
    pub(crate) fn usage(cause: impl Into<String>) -> Failure {
        Failure { kind: Kind::Usage, ..Failure::failed(cause) }
    }

    /// A condition that was asked about does not hold: exit code 3.
    pub(crate) fn not_met(cause: impl Into<String>) -> Failure {
        Failure { kind: Kind::NotMet, ..Failure::failed(cause) }
    }

    /// Settings or rules that are not valid: exit code 78.
    pub(crate) fn configuration(cause: impl Into<String>) -> Failure {
        Failure { kind: Kind::Configuration, ..Failure::failed(cause) }
    }

    /// What shows it.
    pub(crate) fn evidence(self, evidence: impl Into<String>) -> Failure {
        Failure { evidence: Some(evidence.into()), ..self }
    }

    /// What to do about it.
    pub(crate) fn next(self, next: impl Into<String>) -> Failure {
        Failure { next: Some(next.into()), ..self }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.cause)?;
        if let Some(evidence) = &self.evidence {
            write!(f, "\n{evidence}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\nnext: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
