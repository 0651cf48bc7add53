//! `rule get | list | delete | history | conflicts | watch`.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::apply::{applied_json, condition, say_applied, written_text};
use super::arguments::{ClientArguments, RuleArguments, RuleCommand};
use super::client::{Stored, Write};
use super::failure::Failure;
use super::output::{self, Format, say};
use crate::model::ids::RuleId;
use crate::model::moment::WallTime;
use crate::routing::table::{Route, Table};
use crate::wire::rule_document::{decode_rule_data, rule_data_to_json, rule_to_yaml};

/// `tradewind rule …`.
pub(crate) async fn run(command: &RuleCommand) -> Result<(), Failure> {
    match command {
        RuleCommand::Get(arguments) => get(arguments).await,
        RuleCommand::List { prefix, client } => {
            if let Some(node) = client.node()? {
                let held = node.get("/v1/configuration").await?;
                return list_at(&held, prefix, client.output);
            }
            let rules = client.connect().await?.list(prefix).await?;
            let value: Vec<Value> = rules.iter().map(shown).collect();
            output::print(client.output, &Value::Array(value), || {
                let rows = rules.iter().map(|rule| {
                    vec![rule.id.clone(), format!("v{}", rule.version), rule.revision.to_string()]
                });
                output::table(&["RULE", "VERSION", "REVISION"], rows.collect())
            })
        }
        RuleCommand::Conflicts(client) => {
            let pairs = conflicts(&client.connect().await?.list("").await?);
            let rows: Vec<Vec<String>> =
                pairs.iter().map(|(one, other)| vec![one.to_string(), other.to_string()]).collect();
            output::print(client.output, &json!(rows), || {
                if rows.is_empty() {
                    return "no two rules match the same".to_string();
                }
                output::table(&["RULE", "MATCHES THE SAME"], rows.clone())
            })
        }
        RuleCommand::Watch { prefix, client } => watch(prefix, client).await,
        RuleCommand::Delete { rule, if_version } => delete(rule, *if_version).await,
        RuleCommand::History(arguments) => {
            let versions = arguments.client.connect().await?.history(&arguments.id).await?;
            let value: Vec<Value> = versions.iter().map(shown).collect();
            output::print(arguments.client.output, &Value::Array(value), || {
                let rows = versions.iter().map(|one| {
                    vec![
                        format!("v{}", one.version),
                        one.revision.to_string(),
                        one.kind.clone(),
                        one.node.clone(),
                    ]
                });
                output::table(&["VERSION", "REVISION", "KIND", "NODE"], rows.collect())
            })
        }
    }
}

/// `tradewind get RULE`.
pub(crate) async fn get(arguments: &RuleArguments) -> Result<(), Failure> {
    if let Some(node) = arguments.client.node()? {
        let mut entry = node.get(&format!("/v1/configuration/{}", arguments.id)).await?;
        entry["id"] = Value::from(arguments.id.clone());
        return output::print(arguments.client.output, &entry, || {
            serde_saphyr::to_string(&entry).unwrap_or_else(|_| entry.to_string())
        });
    }
    let rule = arguments.client.connect().await?.get(&arguments.id).await?;
    output::print(arguments.client.output, &shown(&rule), || {
        // What can be saved, changed and applied again.
        let id = RuleId::parse(&rule.id);
        let text = id.zip(rule.data.as_ref()).map(|(id, data)| rule_to_yaml(&id, data));
        let text = text.and_then(Result::ok).unwrap_or_else(|| "(retired)\n".to_string());
        format!("# v{}, revision {}\n{text}", rule.version, rule.revision)
    })
}

fn list_at(held: &Value, prefix: &str, format: output::Format) -> Result<(), Failure> {
    let entries = held.as_object().into_iter().flatten();
    let entries: Vec<_> = entries.filter(|(id, _)| id.starts_with(prefix)).collect();
    output::print(format, held, || {
        let rows = entries.iter().map(|(id, entry)| {
            let origin = entry["origin"].as_str().unwrap_or("overlay").to_string();
            vec![(*id).clone(), format!("v{}", entry["version"]), origin]
        });
        output::table(&["RULE", "VERSION", "ORIGIN"], rows.collect())
    })
}

async fn delete(arguments: &RuleArguments, if_version: Option<u64>) -> Result<(), Failure> {
    let id = RuleId::parse(&arguments.id)
        .ok_or_else(|| Failure::usage(format!("{} is not a rule id", arguments.id)))?;
    let format = arguments.client.output;
    if let Some(node) = arguments.client.node()? {
        let path = format!("/v1/configuration/{id}");
        let condition = if_version.map(condition);
        let answer = node.json_if(Method::DELETE, &path, None, condition).await?;
        return output::print(format, &answer, || written_text(&answer));
    }
    let write = Write { id, data: None, expected: if_version };
    let applied = arguments.client.connect().await?.apply(&[write], false).await?;
    if format == Format::Table {
        say_applied(&applied, false);
        return Ok(());
    }
    output::print(format, &applied_json(&applied, false), String::new)
}

/// What only age and id tell apart, in the order of their ids.
fn conflicts(rules: &[Stored]) -> Vec<(RuleId, RuleId)> {
    let mut table = Table::new(rand::random());
    for stored in rules {
        let rule = stored.data.as_ref().and_then(|data| decode_rule_data(data).ok());
        // When it was made is not said here, and matters to none of this.
        let made = WallTime(0);
        let route = RuleId::parse(&stored.id)
            .zip(rule)
            .and_then(|(id, rule)| Route::compile(id, Arc::new(rule), made, |_| ()).ok());
        if let Some(route) = route {
            table.insert(Arc::new(route));
        }
    }
    table.conflicts()
}

/// A line per change; JSON on one line each, YAML as a stream of documents.
async fn watch(prefix: &str, client: &ClientArguments) -> Result<(), Failure> {
    let mut changes = client.connect().await?.watch().await?;
    while let Some(changed) = changes.next().await? {
        for rule in changed.iter().filter(|rule| rule.id.starts_with(prefix)) {
            match client.output {
                Format::Json => say!("{}", shown(rule)),
                Format::Yaml => {
                    say!("---");
                    output::print(Format::Yaml, &shown(rule), String::new)?;
                }
                Format::Table => {
                    let what = if rule.retired { "retired" } else { "written" };
                    say!("{}   v{}   revision {}   {what}", rule.id, rule.version, rule.revision);
                }
            }
        }
    }
    Err(Failure::failed("the orchestrator ended the watch").next("tradewind rule watch"))
}

fn shown(rule: &Stored) -> Value {
    let data = rule.data.as_ref().and_then(|data| rule_data_to_json(data).ok());
    let mut value = json!({
        "id": rule.id,
        "version": rule.version,
        "revision": rule.revision,
        "changedMs": rule.changed_ms,
    });
    if rule.retired {
        value["retired"] = Value::Bool(true);
    }
    if !rule.kind.is_empty() {
        value["kind"] = Value::from(rule.kind.clone());
    }
    if !rule.node.is_empty() {
        value["node"] = Value::from(rule.node.clone());
    }
    if let Some(data) = data {
        value["data"] = data;
    }
    value
}
