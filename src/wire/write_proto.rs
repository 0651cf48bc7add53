//! A write that a node forwards to an orchestrator, as protobuf and back.

use super::error::WireError;
use super::proto::{self, rule_write};
use super::rule_document::rule_to_proto;
use super::{field, rule_problems::Problems};
use crate::model::head::Position;
use crate::model::ids::{RuleId, Version, WriteId};
use crate::model::record::Body;

/// One rule to be written through an orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedWrite {
    /// Which rule.
    pub(crate) id: RuleId,
    /// What it shall say.
    pub(crate) body: Body,
    /// The version that must be current; 0 for none.
    pub(crate) expected: Option<u64>,
    /// A higher version than the next one.
    pub(crate) version: Option<Version>,
}

/// What a write made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedResult {
    /// The commit it went into.
    pub(crate) position: Position,
    /// Each rule's version now, and whether it changed.
    pub(crate) rules: Vec<(RuleId, Version, bool)>,
}

/// The request that stands for these writes.
pub(crate) fn apply_request(
    writes: &[ForwardedWrite],
    write_id: &WriteId,
) -> Result<proto::ApplyRulesRequest, Problems> {
    let writes = writes
        .iter()
        .map(|write| {
            let kind = match &write.body {
                Body::Live(data) => rule_write::Kind::Put(rule_to_proto(&write.id, data)?),
                Body::Retired => rule_write::Kind::Delete(write.id.to_string()),
            };
            Ok(proto::RuleWrite {
                kind: Some(kind),
                expected_version: write.expected,
                version: write.version.map(Version::get),
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(proto::ApplyRulesRequest { writes, write_id: write_id.as_str().to_owned(), dry_run: false })
}

/// What the orchestrator answered.
pub(crate) fn read_apply(answer: &proto::ApplyRulesResponse) -> Result<ForwardedResult, WireError> {
    let position = field::required(answer.position.as_ref(), "position")?;
    let rules = answer
        .results
        .iter()
        .map(|one| {
            let changed = one.outcome != "unchanged";
            Ok((field::rule_id(&one.id)?, field::version(one.version)?, changed))
        })
        .collect::<Result<_, _>>()?;
    Ok(ForwardedResult { position: Position::try_from(position)?, rules })
}
