//! Refusals as gRPC statuses with `google.rpc` details, so that programs need not read prose.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::engine::recovery::RecoverError;
use crate::engine::write_error::{Fault, FaultKind, Faults, WriteError};
use crate::model::ids::RuleId;
use crate::orchestrator::driver::DriverError;
use crate::wire::error::WireError;
use crate::wire::rule_problems::Problems;

/// The request that a write came in: it tells where its rules stand.
#[derive(Clone, Copy)]
pub(super) enum Door {
    Put,
    Apply,
    Delete,
}

impl Door {
    /// A JSON pointer into the request.
    fn pointer(self, fault: &Fault) -> String {
        let prefix = match self {
            Door::Apply => format!("/writes/{}", fault.at),
            Door::Put | Door::Delete => String::new(),
        };
        let place = match (&fault.kind, self) {
            (FaultKind::Mismatch { .. }, _) => "/expected_version",
            (FaultKind::VersionRange { .. }, _) => "/version",
            (_, Door::Put) => "/rule",
            (_, Door::Apply) => "",
            (_, Door::Delete) => "/id",
        };
        prefix + place
    }
}

/// Every problem of a request, by JSON pointer.
pub(super) fn invalid(problems: &Problems) -> Status {
    let violations = problems.list().iter().map(|problem| {
        let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
        let description = format!("{}: {}{hint}", problem.code.as_str(), problem.detail);
        FieldViolation::new(problem.pointer.clone(), description)
    });
    let details = ErrorDetails::with_bad_request(shown(violations));
    let all = problems.list().len() + problems.more();
    let first = problems.list().first().map_or_else(String::new, ToString::to_string);
    let message = match all {
        1 => first,
        _ => format!("{all} problems; the first: {first}"),
    };
    let message: String = message.chars().take(MESSAGE_CHARS).collect();
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Details travel in a trailer: a client takes 16 KiB of headers at most by default.
fn shown(violations: impl Iterator<Item = FieldViolation>) -> Vec<FieldViolation> {
    let shown = violations.scan(0, |bytes, violation| {
        *bytes += violation.field.len() + violation.description.len() + 16;
        (*bytes < DETAIL_BYTES).then_some(violation)
    });
    shown.collect()
}

/// A field that is not what it should be.
pub(super) fn malformed(error: WireError) -> Status {
    let violation = vec![FieldViolation::new(error.field(), error.to_string())];
    let details = ErrorDetails::with_bad_request(violation);
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// Why the driver did not do as asked of it through this door.
pub(super) fn refused(error: &DriverError, door: Door) -> Status {
    match error {
        DriverError::Write(write) => refused_write(write, door),
        error => failed(error),
    }
}

/// Why the driver did not do what was no write.
pub(super) fn failed(error: &DriverError) -> Status {
    let (code, reason) = match error {
        DriverError::Write(_) | DriverError::Unknown(_) => (Code::Unknown, "OUTCOME_UNKNOWN"),
        DriverError::Busy => (Code::ResourceExhausted, "BUSY"),
        DriverError::Stopped => (Code::Unavailable, "STOPPED"),
    };
    with_reason(code, reason, error, [])
}

/// There is no such rule to read.
pub(super) fn no_rule(id: &RuleId) -> Status {
    let text = format!("there is no rule {id}");
    with_reason(Code::NotFound, "RULE_NOT_FOUND", &text, [("rule", id.to_string())])
}

/// Why nothing was recovered.
pub(super) fn not_recovered(error: &RecoverError) -> Status {
    let reason = match error {
        RecoverError::NotFenced => "NOT_FENCED",
        RecoverError::NothingFound => "NOTHING_FOUND",
        RecoverError::Less { .. } => "LESS_THAN_THE_FLEET",
        RecoverError::Refused(_) => "REFUSED",
    };
    with_reason(Code::FailedPrecondition, reason, error, [])
}

fn refused_write(error: &WriteError, door: Door) -> Status {
    match error {
        WriteError::Fenced(_) => with_reason(Code::FailedPrecondition, "FENCED", error, []),
        WriteError::OtherWrite(id) => {
            let named = [("write_id", id.to_string())];
            with_reason(Code::InvalidArgument, "WRITE_ID_REUSED", error, named)
        }
        WriteError::Faults(faults) => faulty(error, faults, door),
        WriteError::Empty => with_reason(Code::InvalidArgument, "EMPTY_WRITE", error, []),
        WriteError::TooMany => with_reason(Code::ResourceExhausted, "TOO_MANY_RULES", error, []),
    }
}

/// The first one decides the code and is told in numbers; all of them are listed.
fn faulty(error: &WriteError, faults: &Faults, door: Door) -> Status {
    let number = |name: &str, number: u64| (name.to_owned(), number.to_string());
    let first = faults.first();
    let (code, numbers) = match first.kind {
        FaultKind::Mismatch { expected, current } => (
            Code::Aborted,
            vec![number("expected_version", expected), number("current_version", current)],
        ),
        FaultKind::NotFound => (Code::NotFound, Vec::new()),
        FaultKind::VersionRange { named, lowest, highest } => (
            Code::OutOfRange,
            vec![
                number("version", named),
                number("lowest_version", lowest),
                number("highest_version", highest),
            ],
        ),
        FaultKind::Exhausted => (Code::ResourceExhausted, Vec::new()),
        FaultKind::Duplicate => (Code::InvalidArgument, Vec::new()),
    };
    let reason = match first.kind {
        FaultKind::Duplicate => "DUPLICATE_RULE".to_owned(),
        ref kind => kind.as_str().to_uppercase(),
    };
    let rule = ("rule".to_owned(), first.id.to_string());
    let metadata: HashMap<String, String> = numbers.into_iter().chain([rule]).collect();
    let violations = faults.iter().map(|fault| {
        let description = format!("{}: {fault}", fault.kind.as_str());
        FieldViolation::new(door.pointer(fault), description)
    });
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    details.set_bad_request(shown(violations));
    Status::with_error_details(code, error.to_string(), details)
}

fn with_reason<const N: usize>(
    code: Code,
    reason: &str,
    error: &dyn std::fmt::Display,
    metadata: [(&str, String); N],
) -> Status {
    let metadata: HashMap<String, String> =
        metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, error.to_string(), details)
}

const DOMAIN: &str = "tradewind.v1";
/// In base64 and with the message beside it this stays below 16 KiB.
const DETAIL_BYTES: usize = 8 << 10;
const MESSAGE_CHARS: usize = 512;
