//! A node's report as a protobuf message, and the words that stand for states on the stream.
//!
//! An unknown word is an error: a state that cannot be told must not be shown as another.

use super::error::WireError;
use super::{field, proto};
use crate::model::follow::{FeedState, Path, RejectedRule, Report, SettledOutcome};
use crate::model::head::Position;
use crate::model::limits;

/// A report as a message; long lists and texts are cut.
pub(crate) fn report_message(report: &Report) -> proto::Report {
    let rejected = report.rejected.iter().take(limits::REJECTED_RULES);
    proto::Report {
        accepted: report.accepted.as_ref().map(proto::Position::from),
        active: report.active.as_ref().map(proto::Position::from),
        path: report.path.as_str().to_owned(),
        rejected: rejected.map(rejected_message).collect(),
        feed: report.feed.as_str().to_owned(),
        overrides: report.overrides,
        draining: report.draining,
        requests: report.requests,
        alarm: field::reason(report.alarm.clone()),
    }
}

/// A report from its message.
pub(crate) fn read_report(message: &proto::Report) -> Result<Report, WireError> {
    field::at_most(message.rejected.len(), limits::REJECTED_RULES, "rejected")?;
    let rejected = message.rejected.iter().map(read_rejected);
    Ok(Report {
        accepted: message.accepted.as_ref().map(Position::try_from).transpose()?,
        active: message.active.as_ref().map(Position::try_from).transpose()?,
        path: path(&message.path)?,
        rejected: rejected.collect::<Result<_, _>>()?,
        feed: feed(&message.feed)?,
        overrides: message.overrides,
        draining: message.draining,
        requests: message.requests,
        alarm: field::reason(message.alarm.clone()),
    })
}

/// What became of an override, from its word.
pub(crate) fn outcome(word: &str) -> Result<SettledOutcome, WireError> {
    use SettledOutcome::{Adopted, Conflict, Refused, Void};
    find(&[Adopted, Void, Conflict, Refused], SettledOutcome::as_str, word, "outcome")
}

/// How a ledger came, from its word.
pub(crate) fn path(word: &str) -> Result<Path, WireError> {
    find(&[Path::Stream, Path::Peer, Path::Disk], Path::as_str, word, "path")
}

/// The state of a feed, from its word.
pub(crate) fn feed(word: &str) -> Result<FeedState, WireError> {
    let states = [FeedState::Live, FeedState::Lagging, FeedState::Lost];
    find(&states, FeedState::as_str, word, "feed")
}

fn find<T: Copy>(
    all: &[T],
    shown: impl Fn(T) -> &'static str,
    word: &str,
    field: &'static str,
) -> Result<T, WireError> {
    all.iter().copied().find(|one| shown(*one) == word).ok_or(WireError::Invalid(field))
}

/// One rejected rule as a message.
pub(crate) fn rejected_message(rejected: &RejectedRule) -> proto::RejectedRule {
    proto::RejectedRule {
        id: rejected.id.as_str().to_owned(),
        version: rejected.version.get(),
        why: field::reason(rejected.why.clone()),
    }
}

fn read_rejected(message: &proto::RejectedRule) -> Result<RejectedRule, WireError> {
    Ok(RejectedRule {
        id: field::rule_id(&message.id)?,
        version: field::version(message.version)?,
        why: field::reason(message.why.clone()),
    })
}
