//! From a rule pushed to a running node to the first request that it serves.
//!
//! The rule is posted to the node's peer port for that node only (an overlay), so no orchestrator
//! and no disk is in between; a client asks over a kept connection until the new answer comes.

use std::fmt::Write;
use std::time::Instant;

use super::operator::Conversation;
use super::peers::Peer;
use super::{load, quantile, traffic};
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// Pushes so many times, once the node has so many rules; for each of those numbers.
pub(super) async fn run(rules: &[usize], pushes: usize) -> Result<(), Failure> {
    say!("rules      from the push to the first request served by it, {pushes} pushes");
    say!("                  p50        p99       last   the push answered, p50");
    for count in rules {
        let directory = super::tempdir()?;
        let outcome = measure(&directory, *count, pushes).await;
        let _ = std::fs::remove_dir_all(&directory);
        let (served, answered) = outcome?;
        say!(
            "{count:8} {:9.2} ms {:7.2} ms {:7.2} ms {:14.2} ms",
            quantile(&served, 0.5),
            quantile(&served, 0.99),
            quantile(&served, 1.0),
            quantile(&answered, 0.5),
        );
    }
    say!("load {} at the end", load());
    Ok(())
}

/// Times in milliseconds, sorted: until served, until the push was answered.
async fn measure(
    directory: &std::path::Path,
    rules: usize,
    pushes: usize,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let mut text = String::from("id: up\ndata: { respond: { body: up } }\n");
    for number in 0..rules.saturating_sub(1) {
        let host = format!("h{number}.example");
        let _ = write!(
            text,
            "---\nid: r{number}\ndata: {{ match: {{ hosts: [{host}] }}, respond: {{ body: x }} }}\n"
        );
    }
    let (node, control) = Peer::node(directory, &text)?;
    if !traffic::wait_until_up(node.at, "up".len()).await {
        return Err(node.is_not_up());
    }
    let mut operator = Conversation::begin(control).await?;
    let mut client = Conversation::begin(node.at).await?;
    let (mut served, mut answered) = (Vec::new(), Vec::new());
    for number in 0..pushes {
        let answer = number.to_string();
        let rule = format!(
            "{{\"pushed\":{{\"data\":{{\"match\":{{\"hosts\":[\"push.example\"]}},\
             \"respond\":{{\"body\":\"{answer}\"}}}}}}}}"
        );
        let begun = Instant::now();
        operator.push(rule, "1h").await?;
        answered.push(begun.elapsed().as_secs_f64() * 1e3);
        while client.get("push.example", "/").await?.body != answer.as_bytes() {}
        served.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    served.sort_by(f64::total_cmp);
    answered.sort_by(f64::total_cmp);
    Ok((served, answered))
}
