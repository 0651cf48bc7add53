//! Roles and commands: the roof.
//!
//! `arguments` says what can be asked, the other modules do it. Every failure says its cause,
//! what shows it and what to do next; exit codes are 0, 1, 2, 3 and 78.

mod apply;
mod arguments;
mod bench;
mod client;
mod demo;
mod failure;
mod fleet;
mod http;
mod keep;
mod look;
mod output;
mod propagation;
mod roles;
mod rules;
mod settings_file;
mod traffic;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Arguments, ClientArguments, Command};
use client::Client;
use failure::Failure;
use http::Http;
use output::say;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let is_set = |name: &str| std::env::var_os(name);
    let words =
        settings_file::expand(std::env::args_os().collect(), &Arguments::command(), &is_set);
    match words.map(Arguments::parse_from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Orchestrator(arguments) => roles::orchestrator(arguments),
        Command::Node(arguments) => roles::node(*arguments),
        Command::Apply(arguments) => wait_for(apply::apply(&arguments)),
        Command::Diff(arguments) => wait_for(apply::diff(&arguments)),
        Command::Validate { file } => apply::validate(&file),
        Command::Explain(arguments) => wait_for(look::explain(&arguments)),
        Command::Rule(command) => wait_for(rules::run(&command)),
        Command::Get(arguments) => wait_for(rules::get(&arguments)),
        Command::Status(client) => wait_for(fleet::status(&client)),
        Command::Propagation { rule, client } => {
            wait_for(fleet::propagation(rule.as_deref(), &client))
        }
        Command::Latency(client) => wait_for(look::latency(&client)),
        Command::Neighbours { name, client } => {
            wait_for(look::neighbours(name.as_deref(), &client))
        }
        Command::Check(client) => wait_for(fleet::check(&client)),
        Command::Bench(command) => bench::run(command),
        Command::Token { out } => roles::token(&out),
        Command::Healthcheck { node, orchestrator } => {
            wait_for(look::healthcheck(node.as_deref(), orchestrator.as_deref()))
        }
        Command::Completion { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "tradewind", &mut script);
            say!("{}", String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Version => {
            say!("tradewind {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Runs a short command on a runtime of its own.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime could be made: {error}")))?
        .block_on(command)
}

/// The token in a file, if one is named.
fn read_token(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::configuration(format!("the token file {} cannot be read", path.display()))
            .evidence(error.to_string())
            .next(format!("make one: tradewind token --out {}", path.display()))
    })?;
    let token = text.trim();
    if token.len() < 16 {
        let cause = format!("the token in {} is shorter than 16 characters", path.display());
        return Err(Failure::configuration(cause));
    }
    Ok(Some(token.to_string()))
}

impl ClientArguments {
    async fn connect(&self) -> Result<Client, Failure> {
        let token = read_token(self.token_file.as_deref())?;
        Client::connect(&self.orchestrator, token.as_deref()).await
    }

    /// The node to ask, where one is named.
    fn node(&self) -> Result<Option<Http>, Failure> {
        let token = read_token(self.token_file.as_deref())?;
        Ok(self.node.as_ref().map(|url| Http::new(url, token.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wait_takes_an_optional_share() {
        for (text, expected) in [("--wait", "all"), ("--wait=90%", "90%")] {
            let parsed = Arguments::parse_from(["tradewind", "apply", "-f", "x", text]);
            let Command::Apply(arguments) = parsed.command else { panic!("not apply") };
            assert_eq!(arguments.wait.as_deref(), Some(expected));
        }
    }
}
