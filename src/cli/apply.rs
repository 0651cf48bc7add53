//! `apply`, `diff` and `validate`: rules from files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, Method};
use serde_json::{Map, Value, json};

use super::arguments::{ApplyArguments, FileArguments};
use super::client::{Applied, Client, Propagation, Write};
use super::failure::Failure;
use super::http::Http;
use super::output::{self, Format, say};
use super::propagation::{propagation_json, propagation_text};
use crate::model::ids::RuleId;
use crate::wire::quantity::parse_duration;
use crate::wire::rule_document::{
    ParsedRule, rule_data_from_json, rule_data_to_json, rules_from_yaml_or_json,
};

/// `tradewind validate FILE`.
pub(crate) fn validate(file: &str) -> Result<(), Failure> {
    let rules = read(file)?;
    say!("{} rules are valid", rules.len());
    Ok(())
}

/// `tradewind apply -f FILE`.
pub(crate) async fn apply(arguments: &ApplyArguments) -> Result<(), Failure> {
    let rules = read(&arguments.what.file)?;
    if rules.is_empty() {
        return Err(Failure::usage("there is no rule in what was given"));
    }
    if arguments.if_version.is_some() && rules.len() != 1 {
        return Err(Failure::usage("--if-version goes with exactly one rule"));
    }
    let share = arguments.wait.as_deref().map(read_share).transpose()?;
    let patience = parse_duration(&arguments.timeout)
        .map_err(|_| Failure::usage("--timeout is not a duration such as 30s"))?;
    if let Some(node) = arguments.what.client.node()? {
        if share.is_some() {
            let cause = "--wait needs an orchestrator: a node knows of its own rules only";
            return Err(Failure::usage(cause).next("leave --node or --wait away"));
        }
        return apply_at(&node, &rules, arguments).await;
    }
    let client = arguments.what.client.connect().await?;
    let writes: Vec<Write> = rules
        .iter()
        .map(|rule| Write {
            id: rule.id.clone(),
            data: Some(rule.data.clone()),
            expected: arguments.if_version,
        })
        .collect();
    let applied = client.apply(&writes, arguments.dry_run).await?;
    let format = arguments.what.client.output;
    if format == Format::Table {
        say_applied(&applied, arguments.dry_run);
    }
    let mut outcome = applied_json(&applied, arguments.dry_run);
    let mut result = Ok(());
    if let (Some(share), Some(position), false) = (share, applied.position, arguments.dry_run) {
        let state = wait(&client, position.revision.0, share, patience).await?;
        result = enough(&state, share, patience);
        outcome["propagation"] = propagation_json(&state);
        if format == Format::Table {
            say!("{}", propagation_text(&state));
        }
    }
    if format != Format::Table {
        output::print(format, &outcome, String::new)?;
    }
    result
}

/// What became of every rule, a line each.
pub(crate) fn say_applied(applied: &Applied, dry_run: bool) {
    let revision = applied.position.map_or(0, |at| at.revision.0);
    let longest = applied.rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    for rule in &applied.rules {
        let from =
            if rule.previous == 0 { "new".to_string() } else { format!("v{}", rule.previous) };
        let (id, to) = (&rule.id, rule.version);
        match rule.outcome.as_str() {
            "unchanged" => say!("{id:longest$}   v{to}   unchanged"),
            _ if dry_run => say!("{id:longest$}   {from} -> v{to}   would be accepted"),
            "retired" => say!("{id:longest$}   {from} -> v{to}   revision {revision}   retired"),
            _ => say!("{id:longest$}   {from} -> v{to}   revision {revision}   accepted"),
        }
    }
}

/// The same for programs.
pub(crate) fn applied_json(applied: &Applied, dry_run: bool) -> Value {
    json!({
        "dryRun": dry_run,
        "epoch": applied.position.map(|at| at.epoch.0),
        "revision": applied.position.map(|at| at.revision.0),
        "rules": applied.rules.iter().map(|rule| json!({
            "id": rule.id,
            "previousVersion": rule.previous,
            "version": rule.version,
            "outcome": rule.outcome,
        })).collect::<Vec<_>>(),
    })
}

/// Through a node's peer port; it answers once the rules are in force there.
async fn apply_at(
    node: &Http,
    rules: &[ParsedRule],
    arguments: &ApplyArguments,
) -> Result<(), Failure> {
    let mut body = Map::new();
    for rule in rules {
        let data = rule_data_to_json(&rule.data)
            .map(|data| json!({ "data": data }))
            .map_err(|problems| Failure::configuration(problems.to_string()))?;
        body.insert(rule.id.to_string(), data);
    }
    let query = if arguments.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/v1/configuration{query}");
    let body = Value::Object(body);
    let condition = arguments.if_version.map(condition);
    let answer = node.json_if(Method::POST, &path, Some(&body), condition).await?;
    let format = arguments.what.client.output;
    if format == Format::Table && arguments.dry_run {
        say!("{} rules are valid there", rules.len());
        return Ok(());
    }
    output::print(format, &answer, || written_text(&answer))
}

/// What a node answered to a write, a line per rule.
pub(crate) fn written_text(answer: &Value) -> String {
    let through = answer["through"].as_str().unwrap_or("?");
    let mut lines = Vec::new();
    for (id, one) in answer["results"].as_object().into_iter().flatten() {
        let state = one["state"].as_str().unwrap_or("?");
        let why = one["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
        lines.push(format!("{id}   v{}   {state} here (through {through}){why}", one["version"]));
    }
    lines.join("\n")
}

/// `--if-version` as a precondition of HTTP (RFC 9110, section 13.1).
pub(crate) fn condition(version: u64) -> (HeaderName, String) {
    match version {
        0 => (IF_NONE_MATCH, "*".to_string()),
        version => (IF_MATCH, format!("\"v{version}\"")),
    }
}

/// Polls until enough nodes have it in force, or patience ends; the last state seen.
async fn wait(
    client: &Client,
    revision: u64,
    share: f64,
    patience: Duration,
) -> Result<Propagation, Failure> {
    let begun = Instant::now();
    loop {
        let state = client.propagation(revision, "").await?;
        // Who rejects it will not have it in force however long one waits.
        let settled = state.connected > 0 && state.waiting.is_empty();
        if settled || has_reached(&state, share) || begun.elapsed() >= patience {
            return Ok(state);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn has_reached(state: &Propagation, share: f64) -> bool {
    state.connected > 0 && f64::from(state.reached) >= wanted(state, share)
}

fn wanted(state: &Propagation, share: f64) -> f64 {
    (f64::from(state.connected) * share).ceil()
}

/// A failure unless enough nodes have it in force: one that rejects a rule has not.
fn enough(state: &Propagation, share: f64, patience: Duration) -> Result<(), Failure> {
    if has_reached(state, share) {
        return Ok(());
    }
    let refusing: BTreeSet<&str> =
        state.rejections.iter().map(|(node, _, _)| node.as_str()).collect();
    if refusing.is_empty() || !state.waiting.is_empty() {
        let cause = format!("not enough nodes have it in force after {patience:?}");
        return Err(Failure::not_met(cause)
            .evidence(format!("waiting for: {}", state.waiting.join(", ")))
            .next("tradewind status"));
    }
    let names: Vec<&str> = refusing.into_iter().collect();
    Err(Failure::not_met(format!("{} of {} nodes reject it", names.len(), state.connected))
        .evidence(format!("rejected at: {}", names.join(", ")))
        .next("tradewind check"))
}

/// `tradewind diff -f FILE`.
pub(crate) async fn diff(arguments: &FileArguments) -> Result<(), Failure> {
    let rules = read(&arguments.file)?;
    let held: BTreeMap<RuleId, (u64, Bytes)> = match arguments.client.node()? {
        Some(node) => held_at(&node).await?,
        None => {
            let listed = arguments.client.connect().await?.list("").await?;
            listed
                .into_iter()
                .filter_map(|one| Some((RuleId::parse(&one.id)?, (one.version, one.data?))))
                .collect()
        }
    };
    let mut differing = 0;
    for rule in &rules {
        let shown = |data: &Bytes| rule_data_to_json(data).unwrap_or(Value::Null);
        match held.get(&rule.id) {
            Some((_, data)) if *data == rule.data => {}
            Some((version, data)) => {
                differing += 1;
                say!("~ {} (v{version})", rule.id);
                print_difference(&shown(data), &shown(&rule.data));
            }
            None => {
                differing += 1;
                say!("+ {} (new)", rule.id);
            }
        }
    }
    if differing == 0 {
        say!("no differences in {} rules", rules.len());
        return Ok(());
    }
    Err(Failure::not_met(format!("{differing} of {} rules differ", rules.len()))
        .next(format!("tradewind apply -f {}", arguments.file)))
}

async fn held_at(node: &Http) -> Result<BTreeMap<RuleId, (u64, Bytes)>, Failure> {
    let answer = node.get("/v1/configuration").await?;
    let mut held = BTreeMap::new();
    for (id, entry) in answer.as_object().into_iter().flatten() {
        let parsed = rule_data_from_json(id, &entry["data"]);
        if let Ok(parsed) = parsed {
            held.insert(parsed.id, (entry["version"].as_u64().unwrap_or(0), parsed.data));
        }
    }
    Ok(held)
}

/// The lines that only one of two documents has.
fn print_difference(old: &Value, new: &Value) {
    let lines = |value: &Value| -> Vec<String> {
        serde_saphyr::to_string(value).unwrap_or_default().lines().map(str::to_string).collect()
    };
    let (old, new) = (lines(old), lines(new));
    for line in old.iter().filter(|line| !new.contains(line)) {
        say!("  - {line}");
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        say!("  + {line}");
    }
}

fn read_share(text: &str) -> Result<f64, Failure> {
    let wrong = || Failure::usage(format!("--wait={text} is neither all nor a share such as 90%"));
    match text {
        "all" => Ok(1.0),
        share => {
            let number = share.strip_suffix('%').ok_or_else(wrong)?;
            let number: f64 = number.parse().map_err(|_| wrong())?;
            if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(wrong()) }
        }
    }
}

/// All rules of a file, a directory or standard input; every problem of every file at once.
pub(crate) fn read(file: &str) -> Result<Vec<ParsedRule>, Failure> {
    let mut texts = Vec::new();
    if file == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
        texts.push(("standard input".to_string(), text));
    } else {
        for path in files(Path::new(file))? {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                Failure::failed(format!("{} cannot be read: {error}", path.display()))
            })?;
            texts.push((path.display().to_string(), text));
        }
    }
    let mut rules: Vec<ParsedRule> = Vec::new();
    let mut wrong = Vec::new();
    for (name, text) in texts {
        match rules_from_yaml_or_json(&text) {
            Ok(parsed) => {
                for rule in parsed {
                    if rules.iter().any(|held| held.id == rule.id) {
                        wrong.push(format!("{name}: the rule {} stands twice", rule.id));
                    }
                    rules.push(rule);
                }
            }
            Err(problems) => {
                wrong.extend(problems.to_string().lines().map(|line| format!("{name}: {line}")));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(rules);
    }
    let count = wrong.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    Err(Failure::configuration(format!("{count} {noun}; nothing was changed"))
        .evidence(wrong.join("\n")))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path)
        .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", path.display())))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yaml" | "yml" | "json"))
        })
        .collect();
    files.sort();
    Ok(files)
}

/// How often the propagation is asked for.
const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_rejects_a_rule_does_not_have_it_in_force() {
        let rejection = ("n1".to_string(), "a".to_string(), "no such region".to_string());
        let state = Propagation {
            connected: 3,
            reached: 2,
            rejections: vec![rejection.clone(), rejection],
            ..Propagation::default()
        };
        let failure = enough(&state, 1.0, Duration::ZERO).unwrap_err().to_string();
        assert!(failure.contains("1 of 3 nodes reject it"), "{failure}");
        assert!(enough(&state, 0.6, Duration::ZERO).is_ok());
        let nobody = Propagation { connected: 0, ..Propagation::default() };
        assert!(enough(&nobody, 1.0, Duration::ZERO).is_err());
    }

    #[test]
    fn shares_are_all_or_a_percentage() {
        assert_eq!(read_share("all").ok(), Some(1.0));
        assert_eq!(read_share("90%").ok(), Some(0.9));
        for bad in ["", "90", "101%", "x%"] {
            assert!(read_share(bad).is_err(), "{bad}");
        }
    }
}
