//! `rule get | list | delete | history`.

use http::Method;
use serde_json::{Value, json};

use super::arguments::{RuleArguments, RuleCommand};
use super::client::{Stored, Write};
use super::failure::Failure;
use super::output;
use crate::model::ids::RuleId;
use crate::wire::rule_document::{rule_data_to_json, rule_to_yaml};

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
    if let Some(node) = arguments.client.node()? {
        let answer = node.json(Method::DELETE, &format!("/v1/configuration/{id}"), None).await?;
        println!("{id}   v{}   retired", answer["results"][id.as_str()]["version"]);
        return Ok(());
    }
    let write = Write { id: id.clone(), data: None, expected: if_version };
    let applied = arguments.client.connect().await?.apply(&[write], false).await?;
    let revision = applied.position.map_or(0, |at| at.revision.0);
    for rule in &applied.rules {
        let (from, to) = (rule.previous, rule.version);
        println!("{id}   v{from} -> v{to}   revision {revision}   retired");
    }
    Ok(())
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
