//! RuleService.

use bytes::Bytes;
use tonic::Streaming;

use super::Client;
use crate::cli::failure::Failure;
use crate::model::head::Position;
use crate::model::ids::RuleId;
use crate::wire::proto::rule_service_client::RuleServiceClient;
use crate::wire::proto::{self, rule_write};
use crate::wire::rule_document::{
    ParsedRule, rule_from_proto, rule_to_proto, rules_from_yaml_or_json,
};

/// One write.
pub(crate) struct Write {
    pub(crate) id: RuleId,
    /// None retires the rule.
    pub(crate) data: Option<Bytes>,
    pub(crate) expected: Option<u64>,
}

impl Write {
    /// Puts all rules of a text, whatever stands there now.
    pub(crate) fn all_of(text: &str) -> Result<Vec<Write>, Failure> {
        let rules = rules_from_yaml_or_json(text)
            .map_err(|problems| Failure::failed(problems.to_string()))?;
        let put = |rule: ParsedRule| Write { id: rule.id, data: Some(rule.data), expected: None };
        Ok(rules.into_iter().map(put).collect())
    }
}

/// A commit, or what it would be.
pub(crate) struct Applied {
    pub(crate) position: Option<Position>,
    pub(crate) rules: Vec<AppliedRule>,
}

/// What became of one rule.
pub(crate) struct AppliedRule {
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) previous: u64,
    pub(crate) outcome: String,
}

/// A rule as the ledger, or its history, holds it.
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) data: Option<Bytes>,
    pub(crate) version: u64,
    pub(crate) revision: u64,
    pub(crate) changed_ms: u64,
    pub(crate) retired: bool,
    /// In a history: how the version came to be, and who wrote it by hand.
    pub(crate) kind: String,
    pub(crate) node: String,
}

impl Client {
    fn rules(&self) -> RuleServiceClient<tonic::transport::Channel> {
        RuleServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// One commit of all these writes.
    pub(crate) async fn apply(&self, writes: &[Write], dry_run: bool) -> Result<Applied, Failure> {
        let write_id = format!("{:032x}", rand::random::<u128>());
        let mut messages = Vec::new();
        for write in writes {
            let kind = match &write.data {
                Some(data) => rule_write::Kind::Put(
                    rule_to_proto(&write.id, data)
                        .map_err(|problems| Failure::configuration(problems.to_string()))?,
                ),
                None => rule_write::Kind::Delete(write.id.to_string()),
            };
            let expected_version = write.expected;
            messages.push(proto::RuleWrite { kind: Some(kind), expected_version, version: None });
        }
        let request = proto::ApplyRulesRequest { writes: messages, write_id, dry_run };
        let answer = self
            .rules()
            .apply_rules(self.request(request))
            .await
            .map_err(|status| self.failed("the rules were not applied", &status))?
            .into_inner();
        let position = answer.position.as_ref().and_then(|at| Position::try_from(at).ok());
        let rules = answer
            .results
            .into_iter()
            .map(|one| AppliedRule {
                id: one.id,
                version: one.version,
                previous: one.previous_version,
                outcome: one.outcome,
            })
            .collect();
        Ok(Applied { position, rules })
    }

    /// One rule.
    pub(crate) async fn get(&self, id: &str) -> Result<Stored, Failure> {
        let request = proto::GetRuleRequest { id: id.to_string() };
        let answer = self
            .rules()
            .get_rule(self.request(request))
            .await
            .map_err(|status| self.failed(&format!("rule {id}"), &status))?;
        let rule = answer.into_inner().rule;
        rule.map(stored).ok_or_else(|| Failure::failed("the answer has no rule in it"))
    }

    /// All live rules.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Stored>, Failure> {
        let mut rules = Vec::new();
        let mut page_token = String::new();
        loop {
            let prefix = prefix.to_string();
            let request = proto::ListRulesRequest { page_size: 0, page_token, prefix };
            let page = self
                .rules()
                .list_rules(self.request(request))
                .await
                .map_err(|status| self.failed("the rules cannot be listed", &status))?
                .into_inner();
            rules.extend(page.rules.into_iter().map(stored));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(rules);
            }
        }
    }

    /// Follows the changes from now on.
    pub(crate) async fn watch(&self) -> Result<Changes, Failure> {
        let mut request = self.request(proto::WatchRulesRequest { after: None });
        request.metadata_mut().remove("grpc-timeout");
        let answer = self
            .rules()
            .watch_rules(request)
            .await
            .map_err(|status| self.failed("the rules cannot be watched", &status))?;
        Ok(Changes { client: self.clone(), stream: answer.into_inner() })
    }

    /// The remembered versions of a rule, newest first.
    pub(crate) async fn history(&self, id: &str) -> Result<Vec<Stored>, Failure> {
        let request = proto::GetRuleHistoryRequest { id: id.to_string() };
        let answer = self
            .rules()
            .get_rule_history(self.request(request))
            .await
            .map_err(|status| self.failed(&format!("the history of rule {id}"), &status))?;
        let versions = answer.into_inner().versions.into_iter();
        Ok(versions
            .filter_map(|one| {
                let (kind, node) = (one.kind, one.node);
                one.rule.map(|rule| Stored { kind, node, ..stored(rule) })
            })
            .collect())
    }
}

/// Changes as they are committed.
pub(crate) struct Changes {
    client: Client,
    stream: Streaming<proto::WatchRulesResponse>,
}

impl Changes {
    /// The rules of the next commit; `None` when the orchestrator ended the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Stored>>, Failure> {
        let message = self.stream.message().await;
        let message =
            message.map_err(|status| self.client.failed("the watch has ended", &status))?;
        Ok(message.map(|message| message.rules.into_iter().map(stored).collect()))
    }
}

fn stored(rule: proto::StoredRule) -> Stored {
    let (id, data) = match rule.rule {
        Some(inner) => {
            let id = inner.id.clone();
            let data = rule_from_proto(inner).ok().map(|parsed| parsed.data);
            (id, data)
        }
        None => (String::new(), None),
    };
    Stored {
        id,
        data: data.filter(|_| !rule.retired),
        version: rule.version,
        revision: rule.revision,
        changed_ms: rule.changed_ms,
        retired: rule.retired,
        kind: String::new(),
        node: String::new(),
    }
}

/// A whole configuration in one message.
const MESSAGE_BYTES: usize = 256 << 20;
