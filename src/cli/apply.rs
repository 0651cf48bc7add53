//! `apply`, `diff` and `validate`: rules from files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

use super::arguments::{ApplyArguments, FileArguments};
use super::client::{Applied, Client, Propagation, Write};
use super::failure::Failure;
use super::http::Http;
use crate::model::ids::RuleId;
use crate::wire::quantity::parse_duration;
use crate::wire::rule_document::{
    ParsedRule, rule_data_from_json, rule_data_to_json, rules_from_yaml_or_json,
};

/// `tradewind validate FILE`.
pub(crate) fn validate(file: &str) -> Result<(), Failure> {
    let rules = read(file)?;
    println!("{} rules are valid", rules.len());
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
    say_applied(&applied, arguments.dry_run);
    match (share, applied.position.filter(|_| !arguments.dry_run)) {
        (Some(share), Some(position)) => wait(&client, position.revision.0, share, patience).await,
        _ => Ok(()),
    }
}

fn say_applied(applied: &Applied, dry_run: bool) {
    let revision = applied.position.map_or(0, |at| at.revision.0);
    let longest = applied.rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    for rule in &applied.rules {
        let from =
            if rule.previous == 0 { "new".to_string() } else { format!("v{}", rule.previous) };
        let (id, to) = (&rule.id, rule.version);
        match rule.outcome.as_str() {
            "unchanged" => println!("{id:longest$}   v{to}   unchanged"),
            _ if dry_run => println!("{id:longest$}   {from} -> v{to}   would be accepted"),
            "retired" => {
                println!("{id:longest$}   {from} -> v{to}   revision {revision}   retired")
            }
            _ => println!("{id:longest$}   {from} -> v{to}   revision {revision}   accepted"),
        }
    }
}

/// Through a node's peer port; it answers once the rules are in force there.
async fn apply_at(
    node: &Http,
    rules: &[ParsedRule],
    arguments: &ApplyArguments,
) -> Result<(), Failure> {
    let mut body = Map::new();
    for rule in rules {
        let mut data = rule_data_to_json(&rule.data)
            .map(|data| json!({ "data": data }))
            .map_err(|problems| Failure::configuration(problems.to_string()))?;
        if let Some(version) = arguments.if_version.filter(|version| *version > 0) {
            data["version"] = Value::from(version);
        }
        body.insert(rule.id.to_string(), data);
    }
    let query = if arguments.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/v1/configuration{query}");
    let answer = node.json(Method::POST, &path, Some(&Value::Object(body))).await?;
    if arguments.dry_run {
        println!("{} rules would be accepted", rules.len());
        return Ok(());
    }
    let through = answer["through"].as_str().unwrap_or("?");
    for (id, one) in answer["results"].as_object().into_iter().flatten() {
        let state = one["state"].as_str().unwrap_or("?");
        let why = one["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
        println!("{id}   v{}   {state} here (through {through}){why}", one["version"]);
    }
    Ok(())
}

/// Polls until enough nodes have it in force.
async fn wait(
    client: &Client,
    revision: u64,
    share: f64,
    patience: Duration,
) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let state = client.propagation(revision, "").await?;
        let wanted = (f64::from(state.connected) * share).ceil();
        let enough = state.connected > 0 && f64::from(state.reached) >= wanted;
        let late = begun.elapsed() >= patience;
        if enough || late {
            println!("{}", propagation_text(&state));
            if enough {
                return Ok(());
            }
            let cause = format!("not enough nodes have it in force after {patience:?}");
            return Err(Failure::not_met(cause)
                .evidence(format!("waiting for: {}", state.waiting.join(", ")))
                .next("tradewind status"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The two lines that say how far a commit has come.
pub(crate) fn propagation_text(state: &Propagation) -> String {
    let ms = |value: f64| format!("{} ms", value.round());
    let mut text = format!("reached    {}/{}", state.reached, state.connected);
    if state.timed && state.reached > 0 {
        text.push_str(&format!(
            "  p50 {}  p99 {}  last {} ({})",
            ms(state.p50_ms),
            ms(state.p99_ms),
            ms(state.last_ms),
            state.last_node
        ));
    }
    text.push_str(&format!("   stream {}, peer {}", state.by_stream, state.by_peer));
    for (node, rule, why) in &state.rejections {
        text.push_str(&format!("\nrejected   {rule} at {node}: {why}"));
    }
    if !state.unreachable.is_empty() {
        let nodes: Vec<String> = state
            .unreachable
            .iter()
            .map(|row| {
                let (node, seen) = (&row.node, row.last_seen_ms);
                match row.active {
                    Some(at) => format!("{node} (last seen {}, revision {at})", ago(seen)),
                    None => format!("{node} ({})", span(seen)),
                }
            })
            .collect();
        let count = nodes.len();
        let known = if count == 1 { "node" } else { "nodes" };
        text.push_str(&format!(
            "\n{count} {known} known but not reachable: {} - they catch up on return",
            nodes.join(", ")
        ));
    }
    text
}

/// `41 s ago`.
pub(crate) fn ago(ms: u64) -> String {
    format!("{} ago", span(ms))
}

/// `41 s`, `3 h`.
fn span(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
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
                println!("~ {} (v{version})", rule.id);
                print_difference(&shown(data), &shown(&rule.data));
            }
            None => {
                differing += 1;
                println!("+ {} (new)", rule.id);
            }
        }
    }
    if differing == 0 {
        println!("no differences in {} rules", rules.len());
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
        println!("  - {line}");
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        println!("  + {line}");
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
    use crate::cli::client::NodeRow;

    fn gone(node: &str, last_seen_ms: u64, active: Option<u64>) -> NodeRow {
        NodeRow {
            node: node.to_string(),
            region: String::new(),
            peer_address: String::new(),
            traffic: Vec::new(),
            connected: false,
            last_seen_ms,
            behind_ms: 0,
            active,
            feed: String::new(),
            rejected: Vec::new(),
            overrides: 0,
            draining: false,
            requests: 0,
            alarm: String::new(),
        }
    }

    #[test]
    fn what_wait_prints_is_the_wording_of_the_specification() {
        let state = Propagation {
            epoch: 1,
            revision: 48211,
            connected: 1000,
            reached: 1000,
            p50_ms: 43.2,
            p99_ms: 140.4,
            last_ms: 211.9,
            last_node: "sin4".to_string(),
            by_stream: 971,
            by_peer: 29,
            waiting: Vec::new(),
            unreachable: vec![gone("gru2", 41_000, Some(47002)), gone("syd9", 10_800_000, None)],
            rejections: Vec::new(),
            timed: true,
        };
        let expected = [
            "reached    1000/1000  p50 43 ms  p99 140 ms  last 212 ms (sin4)",
            "   stream 971, peer 29\n",
            "2 nodes known but not reachable: gru2 (last seen 41 s ago, revision 47002), ",
            "syd9 (3 h) - they catch up on return",
        ];
        assert_eq!(propagation_text(&state), expected.concat());
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
