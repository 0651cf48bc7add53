//! Rule changes under load: what requests and WebSockets of other rules notice of them.
//!
//! Clients ask at a fixed rate under one rule, WebSockets are held open under another, and the
//! rules of a third kind change all the time, by overlays at the node's peer port. Four phases
//! follow each other: quiet; changes; the same changes at a second node that serves nobody, which
//! shows what the machine alone is to blame for; and quiet again.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;

use super::held::Held;
use super::operator::Conversation;
use super::peers::{Peer, free_ports};
use super::statistics::{Spread, pooled};
use super::traffic::{self, Outcome, Shape};
use super::{load, origin, quantile, tempdir};
use crate::cli::failure::Failure;
use crate::cli::output::say;

#[derive(Debug, Args)]
pub(crate) struct ChangesArguments {
    /// Rule changes a second
    #[arg(long, default_value_t = 1_000.0)]
    changes: f64,
    /// Rules changed by one POST, where one each is too slow
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Rules that are changed, by turns
    #[arg(long, default_value_t = 1_000)]
    rules: usize,
    /// Seconds of each phase
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often all phases are gone through
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Requests a second under a rule that does not change
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Their connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// WebSockets held open under another rule that does not change
    #[arg(long, default_value_t = 10_000)]
    websockets: usize,
    /// How many of them talk all the time
    #[arg(long, default_value_t = 100)]
    talking: usize,
}

/// What a phase came to.
struct Phase {
    outcome: Outcome,
    echoes: Vec<f64>,
    resident_mib: f64,
    descriptors: f64,
}

/// What changes came to.
struct Changed {
    /// Where the changed rules lead.
    steady: SocketAddr,
    /// For each rule what it was changed to last; 0: never.
    last: Vec<AtomicU64>,
    applied: AtomicUsize,
    took: Duration,
}

/// Runs and prints it; a failed request, a closed socket or a lost change is a failure.
pub(super) async fn run(arguments: &ChangesArguments) -> Result<(), Failure> {
    let directory = tempdir()?;
    let outcome = measure(arguments, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn measure(arguments: &ChangesArguments, directory: &Path) -> Result<(), Failure> {
    if arguments.batch == 0 || arguments.rules < OPERATORS * arguments.batch {
        let least = OPERATORS * arguments.batch.max(1);
        return Err(Failure::usage(format!("--rules must be at least {least}")));
    }
    let steady = origin::start(SIZE).await?;
    let [sockets] = free_ports()?;
    let _sockets = origin::spawn(&directory.join("origin"), sockets, 0).await?;
    let text = rules(arguments.rules, steady, sockets);
    let (node, control) = Peer::node(&directory.join("node"), &text)?;
    let (other, elsewhere) = Peer::node(&directory.join("other"), &text)?;
    let shape = Shape::new(arguments.connections, SIZE).asking(STEADY, "/")?;
    for node in [&node, &other] {
        if !traffic::wait_until_answered(node.at, &shape).await {
            return Err(node.is_not_up());
        }
    }
    let (single, shared) = split(arguments.websockets, arguments.connections);
    let begun = Instant::now();
    let held = Held::open(node.at, SOCKETS, single, shared, arguments.talking).await?;
    let first = held.echo_all().await;
    say!(
        "\nchanges: {} WebSockets ({shared} of them over HTTP/2) opened in {:.1} s, {first} echoed",
        arguments.websockets,
        begun.elapsed().as_secs_f64()
    );
    let before = load();
    let site = Site { arguments, node: &node, held: &held, shape: &shape, steady };
    // Thrown away: connections are made, and buffers grow to what is needed.
    site.phase(None, Duration::from_secs(2)).await?;
    let length = Duration::from_secs(arguments.seconds);
    let (mut quiet, mut changes, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    let mut changed = Vec::new();
    let mut stale = 0;
    for _ in 0..arguments.rounds.max(1) {
        quiet.push(site.phase(None, length).await?.0);
        for (at, of, phases) in [(control, &node, &mut changes), (elsewhere, &other, &mut apart)] {
            let (phase, made) = site.phase(Some(at), length).await?;
            stale += made.stale(of.at).await?;
            phases.push(phase);
            changed.push(made);
        }
        quiet.push(site.phase(None, length).await?.0);
    }
    let last = held.echo_all().await;
    print(arguments, [&quiet, &changes, &apart], &changed);
    say!("load {before} before and {} after", load());
    let missing = arguments.websockets - last;
    say!("{last} WebSockets echoed at the end, {} had closed", held.closed());
    say!("{stale} changed rules are not at their last change");
    held.end().await;
    let phases = quiet.iter().chain(&changes).chain(&apart);
    let failed: usize = phases.map(|phase| phase.outcome.errors).sum();
    let unechoed = arguments.websockets - first;
    if failed + missing + unechoed + stale > 0 {
        let what = format!(
            "{failed} requests failed, {missing} WebSockets did not last, {unechoed} never echoed, \
             {stale} changes were lost"
        );
        return Err(Failure::failed(what));
    }
    Ok(())
}

/// What is measured.
struct Site<'a> {
    arguments: &'a ChangesArguments,
    node: &'a Peer,
    held: &'a Held,
    shape: &'a Shape,
    steady: SocketAddr,
}

impl Site<'_> {
    /// Requests for so long, with changes at this peer port meanwhile.
    async fn phase(
        &self,
        change_at: Option<SocketAddr>,
        length: Duration,
    ) -> Result<(Phase, Changed), Failure> {
        self.held.times();
        let rate = self.arguments.rate;
        let requests = (rate * length.as_secs_f64()) as usize;
        let asking = traffic::at_rate(self.node.at, self.shape, rate, requests);
        let changing = async {
            match change_at {
                Some(at) => change(self.arguments, at, self.steady, length).await,
                None => Ok(Changed::none(self.steady, 0)),
            }
        };
        let (outcome, changed) = tokio::join!(asking, changing);
        let phase = Phase {
            outcome: outcome?,
            echoes: self.held.times(),
            resident_mib: self.node.resident_kib() / 1024.0,
            descriptors: self.node.descriptors(),
        };
        Ok((phase, changed?))
    }
}

/// Changes rules by turns for so long, each when it is due; every operator has rules of its own, so
/// that a rule's changes follow each other.
async fn change(
    arguments: &ChangesArguments,
    at: SocketAddr,
    steady: SocketAddr,
    length: Duration,
) -> Result<Changed, Failure> {
    let changed = Arc::new(Changed::none(steady, arguments.rules));
    let begun = Instant::now();
    let mut operators = Vec::new();
    for operator in 0..OPERATORS {
        let mut conversation = Conversation::begin(at).await?;
        let changed = changed.clone();
        let (batch, rate) = (arguments.batch, arguments.changes);
        operators.push(tokio::spawn(async move {
            for post in (operator..).step_by(OPERATORS) {
                let due = Duration::from_secs_f64((post * batch) as f64 / rate);
                if due >= length || begun.elapsed() >= length {
                    return Ok(());
                }
                tokio::time::sleep_until((begun + due).into()).await;
                changed.push(&mut conversation, operator, post, batch).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for operator in operators {
        operator.await.map_err(|error| Failure::failed(error.to_string()))??;
    }
    let took = begun.elapsed();
    let mut changed = Arc::try_unwrap(changed)
        .map_err(|_| Failure::failed("an operator did not come to its end"))?;
    changed.took = took;
    Ok(changed)
}

impl Changed {
    fn none(steady: SocketAddr, rules: usize) -> Changed {
        let last = (0..rules).map(|_| AtomicU64::new(0)).collect();
        Changed { steady, last, applied: AtomicUsize::new(0), took: Duration::ZERO }
    }

    async fn push(
        &self,
        conversation: &mut Conversation,
        operator: usize,
        post: usize,
        batch: usize,
    ) -> Result<(), Failure> {
        let own = self.last.len() / OPERATORS;
        let mut rules = String::from("{");
        for number in 0..batch {
            let which = operator + (post / OPERATORS * batch + number) % own * OPERATORS;
            let value = (post * batch + number + 1) as u64;
            let comma = if number == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(
                rules,
                "{comma}\"changing-{which}\":{}",
                changing(which, value, self.steady)
            );
            self.last[which].store(value, Relaxed);
        }
        rules.push('}');
        conversation.push(rules, "1h").await?;
        self.applied.fetch_add(batch, Relaxed);
        Ok(())
    }

    /// How many rules do not serve what they were changed to last.
    async fn stale(&self, at: SocketAddr) -> Result<usize, Failure> {
        let mut client = Conversation::begin(at).await?;
        let mut stale = 0;
        for (which, value) in self.last.iter().enumerate() {
            let value = value.load(Relaxed);
            if value == 0 {
                continue;
            }
            let answer = client.get(&format!("c{which}.example"), "/").await?;
            let said = answer.headers.get("x-change").and_then(|said| said.to_str().ok());
            stale += usize::from(answer.status != 200 || said != Some(&value.to_string()));
        }
        Ok(stale)
    }
}

/// A rule that is told from others of its kind, and from itself before, by a header of its answers.
fn changing(which: usize, value: u64, steady: SocketAddr) -> String {
    format!(
        "{{\"data\":{{\"match\":{{\"hosts\":[\"c{which}.example\"]}},\"filters\":[{{\
         \"responseHeaders\":{{\"set\":[{{\"name\":\"x-change\",\"value\":\"{value}\"}}]}}}}],\
         \"targets\":[{{\"url\":\"http://{steady}\"}}]}}}}"
    )
}

/// The rule that clients ask under, the one of the WebSockets, and those that will change.
fn rules(count: usize, steady: SocketAddr, sockets: SocketAddr) -> String {
    let mut text = format!(
        "id: steady\ndata: {{ match: {{ hosts: [{STEADY}] }}, targets: [{{ url: \
         \"http://{steady}\" }}] }}\n---\nid: sockets\ndata: {{ match: {{ hosts: [{SOCKETS}] }}, \
         targets: [{{ url: \"http://{sockets}\" }}], timeouts: {{ idle: 1h }} }}\n"
    );
    for which in 0..count {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\nid: changing-{which}\ndata: {{ match: {{ hosts: [c{which}.example] }}, \
             targets: [{{ url: \"http://{steady}\" }}] }}\n"
        );
    }
    text
}

/// How many WebSockets have a connection each; the rest shares some. A node takes as many
/// connections as descriptors allow with one to a target for each, and keeps none open for another
/// request while fewer than one place in sixteen is left.
fn split(websockets: usize, connections: usize) -> (usize, usize) {
    let limit = rlimit::Resource::NOFILE.get().map_or(1_024, |(soft, _)| soft);
    let places = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(512) / 2;
    let room = (places / 16 * 15).saturating_sub(connections + 128);
    let single = websockets.min(room);
    (single, websockets - single)
}

fn print(arguments: &ChangesArguments, series: [&Vec<Phase>; 3], changed: &[Changed]) {
    say!(
        "{:.0} requests/s over {} connections, {} s a phase; {} rules change",
        arguments.rate,
        arguments.connections,
        arguments.seconds,
        arguments.rules
    );
    say!(
        "{:18} {:>25} {:>25} {:>25} {:>7} {:>12} {:>9} {:>12}",
        "",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "failed",
        "echo p99 ms",
        "RSS MiB",
        "descriptors"
    );
    let names = ["quiet", "changes", "changes elsewhere"];
    for (name, phases) in names.iter().zip(series) {
        let of = |value: fn(&Phase) -> f64| Spread::of(phases.iter().map(value));
        let share = |share: f64| {
            Spread::of(phases.iter().map(|phase| quantile(&phase.outcome.times, share))).shown(2)
        };
        let failed: usize = phases.iter().map(|phase| phase.outcome.errors).sum();
        say!(
            "{name:18} {} {} {} {failed:7} {:12.2} {:9.1} {:12.0}",
            share(0.5),
            share(0.99),
            share(0.999),
            of(|phase| quantile(&phase.echoes, 0.99)).middle,
            of(|phase| phase.resident_mib).most,
            of(|phase| phase.descriptors).most,
        );
    }
    let [quiet, changes, apart] = series.map(|phases| {
        quantile(&pooled(phases.iter().map(|phase| phase.outcome.times.as_slice())), 0.99)
    });
    say!(
        "p99 of all rounds to that of all quiet phases: {:.2} with changes, {:.2} with changes \
         elsewhere",
        changes / quiet,
        apart / quiet
    );
    for (changed, place) in changed.iter().zip(["", " elsewhere"].iter().cycle()) {
        let applied = changed.applied.load(Relaxed);
        let rate = applied as f64 / changed.took.as_secs_f64();
        say!("{applied} changes in force{place}, {rate:.0} a second");
        if rate < arguments.changes * SUSTAINED {
            say!("fewer than asked for: more of them at once with --batch");
        }
    }
}

/// Operators that change rules at once.
const OPERATORS: usize = 4;
/// Bytes of an answer.
const SIZE: usize = 1024;
/// Of the rate asked for; less is said.
const SUSTAINED: f64 = 0.98;
const STEADY: &str = "steady.example";
const SOCKETS: &str = "sockets.example";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rule_document::rules_from_yaml_or_json;

    #[test]
    fn the_rules_and_their_changes_are_rules() {
        let at = "127.0.0.1:80".parse().unwrap();
        assert_eq!(rules_from_yaml_or_json(&rules(7, at, at)).unwrap().len(), 9);
        let change = format!("{{\"changing-3\":{}}}", changing(3, 17, at));
        let parsed = rules_from_yaml_or_json(&change).unwrap();
        assert_eq!(parsed[0].id.as_str(), "changing-3");
    }

    #[test]
    fn what_descriptors_do_not_allow_is_shared() {
        let (single, shared) = split(1_000_000_000, 64);
        assert_eq!(single + shared, 1_000_000_000);
        assert!(shared > 0);
        assert_eq!(split(10, 64).1, 10_usize.saturating_sub(single));
    }
}
