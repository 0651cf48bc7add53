//! `orchestrator recover | backup | keys`: what an operator does to an orchestrator's data.

use std::path::Path;

use super::arguments::{ClientArguments, OrchestratorCommand};
use super::failure::Failure;
use super::output::say;
use super::{read_token, wait_for};
use crate::orchestrator::keeping::{self, RecoverFailure, RecoverOptions};
use crate::telemetry::logs;

/// `tradewind orchestrator recover | backup | keys`.
pub(crate) fn run(command: OrchestratorCommand) -> Result<(), Failure> {
    match command {
        OrchestratorCommand::Recover { from, data: None, new_fleet, client } => {
            wait_for(async move {
                let recovered = client.connect().await?.recover(from, new_fleet).await?;
                say!("{recovered}");
                Ok(())
            })
        }
        OrchestratorCommand::Recover { from, data: Some(data), new_fleet, client } => {
            wait_for(recover_stopped(&data, from, new_fleet, &client))
        }
        OrchestratorCommand::Backup { to, data } => {
            keeping::back_up(&data, &to)
                .map_err(|error| Failure::failed(format!("there is no backup: {error}")))?;
            say!("{} holds the store; keep cluster.key as well", to.display());
            Ok(())
        }
        OrchestratorCommand::Keys { data } => {
            let key = keeping::show_key(&data)
                .map_err(|error| Failure::failed(format!("the key cannot be shown: {error}")))?;
            say!("{key}");
            Ok(())
        }
    }
}

async fn recover_stopped(
    data: &Path,
    from: Vec<String>,
    new_fleet: bool,
    client: &ClientArguments,
) -> Result<(), Failure> {
    if from.is_empty() && !new_fleet {
        let cause = "a stopped orchestrator has no followers: name nodes with --from URL";
        return Err(Failure::usage(cause));
    }
    logs::begin("error");
    let token = read_token(client.token_file.as_deref())?;
    let options = RecoverOptions { data: data.to_owned(), from, token, new_fleet };
    let report = keeping::recover(options).await.map_err(|failure| {
        let why = Failure::failed(format!("nothing was recovered: {failure}"));
        match failure {
            RecoverFailure::Start(_) => why.next("is it running? then leave --data away"),
            _ => why,
        }
    })?;
    let (at, left) = (report.position, report.branch);
    say!(
        "recovered {} rules: epoch {} goes on at revision {} (left epoch {} at revision {})",
        report.rules,
        at.epoch.0,
        at.revision.0,
        left.epoch.0,
        left.revision.0
    );
    if report.orphaned > 0 {
        say!("{} versions lay beyond and are filed", report.orphaned);
    }
    for (node, why) in report.failures {
        say!("{node} did not help: {why}");
    }
    Ok(())
}
