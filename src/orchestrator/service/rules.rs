//! The rule service: writes go to the driver, reads come from the published view.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::status::{self, Door};
use crate::engine::commits::{Answer, Write};
use crate::model::delta::Changes;
use crate::model::head::Position;
use crate::model::ids::RuleId;
use crate::orchestrator::driver::Command;
use crate::orchestrator::shared::Shared;
use crate::wire::admin_proto as words;
use crate::wire::proto::rule_service_server::RuleService;
use crate::wire::proto::{
    ApplyRulesRequest, ApplyRulesResponse, DeleteRuleRequest, DeleteRuleResponse,
    GetRuleHistoryRequest, GetRuleHistoryResponse, GetRuleRequest, GetRuleResponse,
    ListRulesRequest, ListRulesResponse, PutRuleRequest, PutRuleResponse, ValidateRulesRequest,
    ValidateRulesResponse, WatchRulesRequest, WatchRulesResponse,
};
use crate::wire::rule_problems::Problems;

/// Reads and writes the fleet's rules.
pub(in crate::orchestrator) struct Rules {
    pub(in crate::orchestrator) shared: Arc<Shared>,
}

impl Rules {
    async fn write(&self, write: Result<Write, Problems>, door: Door) -> Result<Answer, Status> {
        let write = write.map_err(|problems| status::invalid(&problems))?;
        let asked = self.shared.ask(|reply| Command::Write(write, reply)).await;
        asked.and_then(|answer| answer).map_err(|error| status::refused(&error, door))
    }
}

#[tonic::async_trait]
impl RuleService for Rules {
    async fn put_rule(
        &self,
        request: Request<PutRuleRequest>,
    ) -> Result<Response<PutRuleResponse>, Status> {
        let write = words::write_from_put(request.into_inner());
        let answer = self.write(write, Door::Put).await?;
        Ok(Response::new(words::put_response(&answer)))
    }

    async fn apply_rules(
        &self,
        request: Request<ApplyRulesRequest>,
    ) -> Result<Response<ApplyRulesResponse>, Status> {
        // A whole configuration takes a while to read: not on a thread that serves streams.
        let write = tokio::task::spawn_blocking(|| words::write_from_apply(request.into_inner()));
        let write = write.await.map_err(|_| Status::internal("reading the rules failed"))?;
        let answer = self.write(write, Door::Apply).await?;
        Ok(Response::new(words::apply_response(&answer)))
    }

    async fn delete_rule(
        &self,
        request: Request<DeleteRuleRequest>,
    ) -> Result<Response<DeleteRuleResponse>, Status> {
        let write = words::write_from_delete(request.into_inner());
        let answer = self.write(write, Door::Delete).await?;
        Ok(Response::new(words::delete_response(&answer)))
    }

    async fn get_rule(
        &self,
        request: Request<GetRuleRequest>,
    ) -> Result<Response<GetRuleResponse>, Status> {
        let id = read_id(&request.into_inner().id)?;
        let view = self.shared.published.load();
        match view.ledger.record(&id) {
            Some(record) if !record.body.is_retired() => {
                Ok(Response::new(GetRuleResponse { rule: Some(words::stored_rule(record)) }))
            }
            _ => Err(status::no_rule(&id)),
        }
    }

    async fn list_rules(
        &self,
        request: Request<ListRulesRequest>,
    ) -> Result<Response<ListRulesResponse>, Status> {
        let request = request.into_inner();
        let size = match request.page_size as usize {
            0 => PAGE,
            size => size.min(PAGE),
        };
        let view = self.shared.published.load();
        let live = view.ledger.records_from(&request.page_token, &request.prefix);
        let mut live = live.filter(|record| !record.body.is_retired()).peekable();
        let (mut rules, mut bytes, mut next_page_token) = (Vec::new(), 0, String::new());
        while let Some(record) = live.next() {
            bytes += record.size();
            rules.push(words::stored_rule(record));
            if rules.len() >= size || bytes >= PAGE_BYTES {
                // The token is the last id of this page; the next one begins after it.
                if live.peek().is_some() {
                    next_page_token = record.id.to_string();
                }
                break;
            }
        }
        let position = Some((&view.ledger.position()).into());
        Ok(Response::new(ListRulesResponse { rules, next_page_token, position }))
    }

    type WatchRulesStream = Pin<Box<dyn Stream<Item = Watched> + Send>>;

    async fn watch_rules(
        &self,
        request: Request<WatchRulesRequest>,
    ) -> Result<Response<Self::WatchRulesStream>, Status> {
        let after = words::read_position(request.into_inner().after.as_ref());
        let after = after.map_err(status::malformed)?;
        let permit = self.shared.watchers.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many watch the rules"))?;
        let begin = after.unwrap_or_else(|| self.shared.published.load().ledger.position());
        let (tx, rx) = mpsc::channel(1);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = watch(&shared, begin, &tx) => {}
                () = tx.closed() => {}
                () = shared.stopping.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn validate_rules(
        &self,
        request: Request<ValidateRulesRequest>,
    ) -> Result<Response<ValidateRulesResponse>, Status> {
        let checked = tokio::task::spawn_blocking(|| words::validate(request.into_inner())).await;
        checked.map(Response::new).map_err(|_| Status::internal("reading the rules failed"))
    }

    async fn get_rule_history(
        &self,
        request: Request<GetRuleHistoryRequest>,
    ) -> Result<Response<GetRuleHistoryResponse>, Status> {
        let id = read_id(&request.into_inner().id)?;
        let store = self.shared.store.clone();
        let wanted = id.clone();
        let read = tokio::task::spawn_blocking(move || store.history(&wanted)).await;
        let read = read.map_err(|_| Status::internal("reading the history failed"))?;
        let filed = read.map_err(|error| {
            tracing::error!(%error, "reading a rule's history failed");
            Status::internal("reading the history failed")
        })?;
        if filed.is_empty() {
            return Err(status::no_rule(&id));
        }
        Ok(Response::new(words::history_response(&filed)))
    }
}

type Watched = Result<WatchRulesResponse, Status>;

/// Sends every change after `begin`, joined where the watcher is slow.
async fn watch(shared: &Shared, begin: Position, tx: &mpsc::Sender<Watched>) {
    let mut cursor = begin;
    let mut changed = shared.published.subscribe();
    loop {
        changed.borrow_and_update();
        let view = shared.published.load();
        if let Changes::Delta(delta) = view.ledger.changes_since(Some(cursor)) {
            for message in words::watch_responses(&delta) {
                if tx.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            cursor = delta.to.position();
        }
        drop(view);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn read_id(text: &str) -> Result<RuleId, Status> {
    words::read_rule_id(text).map_err(|problems| status::invalid(&problems))
}

/// Rules on one page.
const PAGE: usize = 1_000;
/// Bytes on one page: well below what gRPC clients take in one message by default.
const PAGE_BYTES: usize = 1 << 20;
