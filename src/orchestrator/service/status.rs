//! Refusals as gRPC statuses with `google.rpc` details, so that programs need not read prose.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::engine::commits::WriteError;
use crate::engine::recovery::RecoverError;
use crate::orchestrator::driver::DriverError;
use crate::wire::error::WireError;
use crate::wire::rule_problems::Problems;

/// Every problem of a request, by JSON pointer.
pub(super) fn invalid(problems: &Problems) -> Status {
    let violations: Vec<FieldViolation> = problems
        .list()
        .iter()
        .map(|problem| {
            let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
            let description = format!("{}: {}{hint}", problem.code.as_str(), problem.detail);
            FieldViolation::new(problem.pointer.clone(), description)
        })
        .collect();
    // Details travel in a trailer: a client takes 16 KiB of headers at most by default.
    let shown = violations.iter().scan(0, |bytes, violation| {
        *bytes += violation.field.len() + violation.description.len() + 16;
        (*bytes < DETAIL_BYTES).then_some(violation.clone())
    });
    let shown: Vec<FieldViolation> = shown.collect();
    let all = violations.len() + problems.more();
    let first = problems.list().first().map_or_else(String::new, ToString::to_string);
    let message = match all {
        1 => first,
        _ => format!("{all} problems; the first: {first}"),
    };
    let message: String = message.chars().take(MESSAGE_CHARS).collect();
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(shown),
    )
}

/// A field that is not what it should be.
pub(super) fn malformed(error: WireError) -> Status {
    let violation = vec![FieldViolation::new(error.field(), error.to_string())];
    let details = ErrorDetails::with_bad_request(violation);
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// Why the driver did not do as asked.
pub(super) fn refused(error: &DriverError) -> Status {
    match error {
        DriverError::Write(write) => refused_write(write),
        DriverError::Unknown(_) => with_reason(Code::Unknown, "OUTCOME_UNKNOWN", error, []),
        DriverError::Busy => with_reason(Code::ResourceExhausted, "BUSY", error, []),
        DriverError::Stopped => with_reason(Code::Unavailable, "STOPPED", error, []),
    }
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

fn refused_write(error: &WriteError) -> Status {
    let number = |name: &'static str, number: u64| (name, number.to_string());
    let rule = |id: &crate::model::ids::RuleId| ("rule", id.to_string());
    match error {
        WriteError::Fenced(_) => with_reason(Code::FailedPrecondition, "FENCED", error, []),
        WriteError::Mismatch { id, expected, current } => with_reason(
            Code::Aborted,
            "VERSION_MISMATCH",
            error,
            [rule(id), number("expected_version", *expected), number("current_version", *current)],
        ),
        WriteError::NotFound(id) => {
            with_reason(Code::NotFound, "RULE_NOT_FOUND", error, [rule(id)])
        }
        WriteError::VersionRange { id, named, lowest, highest } => with_reason(
            Code::OutOfRange,
            "VERSION_RANGE",
            error,
            [
                rule(id),
                number("version", *named),
                number("lowest_version", *lowest),
                number("highest_version", *highest),
            ],
        ),
        WriteError::Exhausted(id) => {
            with_reason(Code::ResourceExhausted, "VERSIONS_EXHAUSTED", error, [rule(id)])
        }
        WriteError::Duplicate(id) => {
            with_reason(Code::InvalidArgument, "DUPLICATE_RULE", error, [rule(id)])
        }
        WriteError::Empty => with_reason(Code::InvalidArgument, "EMPTY_WRITE", error, []),
        WriteError::TooMany => with_reason(Code::ResourceExhausted, "TOO_MANY_RULES", error, []),
    }
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
