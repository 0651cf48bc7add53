//! The control service: mends a fenced orchestrator.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::status;
use crate::orchestrator::driver::Otherwise;
use crate::orchestrator::mend::{self, MendError, Mended};
use crate::orchestrator::shared::Shared;
use crate::wire::proto::control_service_server::ControlService;
use crate::wire::proto::{RecoverFailure, RecoverRequest, RecoverResponse};

/// Mends the orchestrator.
pub(in crate::orchestrator) struct Control {
    pub(in crate::orchestrator) shared: Arc<Shared>,
    /// For the nodes that are asked.
    pub(in crate::orchestrator) token: Option<Arc<str>>,
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        let RecoverRequest { from, new_fleet } = request.into_inner();
        let otherwise = if new_fleet { Otherwise::BeginAnew } else { Otherwise::Wait };
        let token = self.token.as_deref();
        let mended = mend::recover(&self.shared, &from, token, otherwise).await;
        let Mended { outcome, failures } = mended.map_err(|error| match error {
            MendError::Recover(error) => status::not_recovered(&error),
            MendError::Driver(error) => status::failed(&error),
            MendError::UnderWay => Status::aborted("a recovery is under way"),
            MendError::TooManyNodes => Status::invalid_argument("too many nodes are named"),
        })?;
        let failure = |(from, why): (String, String)| RecoverFailure { from, why };
        Ok(Response::new(RecoverResponse {
            position: Some((&outcome.position).into()),
            branch: Some((&outcome.recovered.branch).into()),
            rules: outcome.rules as u64,
            orphaned: outcome.recovered.orphaned.len() as u64,
            failures: failures.into_iter().map(failure).collect(),
        }))
    }
}
