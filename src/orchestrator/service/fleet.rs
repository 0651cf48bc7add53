//! The fleet service: who has what, as the orchestrator heard it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::status;
use crate::model::head::Position;
use crate::model::ids::Revision;
use crate::orchestrator::shared::Shared;
use crate::wire::fleet_proto as words;
use crate::wire::proto::fleet_service_server::FleetService;
use crate::wire::proto::{
    GetPropagationRequest, GetPropagationResponse, ListNodesRequest, ListNodesResponse,
};

/// Shows the fleet.
pub(in crate::orchestrator) struct Fleet {
    pub(in crate::orchestrator) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        Ok(Response::new(nodes(&self.shared)))
    }

    async fn get_propagation(
        &self,
        request: Request<GetPropagationRequest>,
    ) -> Result<Response<GetPropagationResponse>, Status> {
        let GetPropagationRequest { revision, rule } = request.into_inner();
        propagation(&self.shared, revision, &rule).map(Response::new)
    }
}

/// The fleet table.
pub(in crate::orchestrator) fn nodes(shared: &Shared) -> ListNodesResponse {
    let view = shared.published.load();
    let fenced = view.fence.as_ref().map_or_else(String::new, ToString::to_string);
    let now = shared.clock.now();
    words::nodes_response(&shared.followers(), view.ledger.signed(), fenced, now)
}

/// How far a revision, or the newest version of a rule, has come.
pub(in crate::orchestrator) fn propagation(
    shared: &Shared,
    revision: u64,
    rule: &str,
) -> Result<GetPropagationResponse, Status> {
    let view = shared.published.load();
    let head = view.ledger.position();
    let revision = match (revision, rule) {
        (0, "") => head.revision,
        (0, rule) => {
            let id = crate::wire::admin_proto::read_rule_id(rule);
            let id = id.map_err(|problems| status::invalid(&problems))?;
            view.ledger.record(&id).ok_or_else(|| status::no_rule(&id))?.revision
        }
        (revision, _) => Revision(revision),
    };
    if revision > head.revision {
        return Err(Status::out_of_range(format!("the ledger is at revision {}", head.revision)));
    }
    // Revisions go on across epochs: one below the newest branch point is of an earlier one.
    let branches = view.ledger.branches().iter();
    let left = branches.rev().take_while(|branch| revision <= branch.revision).last();
    let epoch = left.map_or(head.epoch, |branch| branch.parent);
    let (position, now) = (Position { epoch, revision }, shared.clock.now());
    Ok(words::propagation_response(&shared.followers(), &view.ledger, position, now))
}
