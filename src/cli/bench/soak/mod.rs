//! A bounded soak: all that clients, targets and operators do to a node, for as long as it takes to
//! see whether anything grows.
//!
//! Samples of memory, descriptors and threads, a line a minute, and a verdict over the second half:
//! what the first half needs to come to its size is no growth.

mod load;
mod tally;
mod verdict;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::certificate::Identity;
use super::peers::{Peer, free_ports};
use super::{load as machine_load, origin, tempdir};
use crate::cli::failure::Failure;
use crate::cli::output::say;
use tally::{Kind, Tally};
use verdict::Sample;

#[derive(Debug, Args)]
pub(crate) struct SoakArguments {
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// How much of everything there is, in proportion to the default
    #[arg(long, default_value_t = 1.0)]
    intensity: f64,
}

/// Where everything is.
struct Site {
    /// The node's traffic, in clear text and over TLS, and its peer port.
    plain: SocketAddr,
    secure: SocketAddr,
    control: SocketAddr,
    identity: Identity,
    /// The target that stays.
    steady: SocketAddr,
    /// The target that is ended and comes back.
    restarting: SocketAddr,
    intensity: f64,
    until: Instant,
    tally: Tally,
}

/// Runs and prints it; growth, a failed request or a panic is a failure.
pub(super) async fn run(arguments: &SoakArguments) -> Result<(), Failure> {
    if arguments.minutes <= 0.0 || arguments.intensity <= 0.0 {
        return Err(Failure::usage("--minutes and --intensity must be more than nothing"));
    }
    let directory = tempdir()?;
    let outcome = soak(arguments, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn soak(arguments: &SoakArguments, directory: &Path) -> Result<(), Failure> {
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let [steady, restarting, secure] = free_ports()?;
    let _steady = origin::spawn(&directory.join("steady"), steady, load::SIZE).await?;
    let target = origin::spawn(&directory.join("restarting"), restarting, load::SIZE).await?;
    let identity = Identity::within(directory)?;
    let text = rules(steady, restarting);
    let (mut node, control) = Peer::node_with(&directory.join("node"), &text, |command| {
        command.args(["--access-log", "off", "--listen-tls", &secure.to_string()]);
        command.arg("--certificate").arg(&identity.both);
        // What an operator should see; each change of a rule need not be.
        command.env("RUST_LOG", "warn");
    })?;
    let shape = load::kept()?;
    if !super::traffic::wait_until_answered(node.at, &shape).await {
        return Err(node.is_not_up());
    }
    let site = Arc::new(Site {
        plain: node.at,
        secure,
        control,
        identity,
        steady,
        restarting,
        intensity: arguments.intensity,
        until: Instant::now() + length,
        tally: Tally::default(),
    });
    say!("\nsoak: {} minutes at intensity {}", arguments.minutes, arguments.intensity);
    let at_rest = Sample::of(&node, Duration::ZERO);
    let tasks = load::start(&site, target, &directory.join("restarting"))?;
    let samples = watch(&mut node, &site, length).await?;
    for task in tasks {
        task.await.map_err(|error| Failure::failed(error.to_string()))??;
    }
    site.tally.print();
    tokio::time::sleep(SETTLED.min(length)).await;
    let after = Sample::of(&node, length);
    say!(
        "at rest    {:.1} MiB and {:.0} descriptors before, {:.1} and {:.0} after {:.0} s of quiet",
        at_rest.resident_mib,
        at_rest.descriptors,
        after.resident_mib,
        after.descriptors,
        SETTLED.min(length).as_secs_f64()
    );
    let said = node.said();
    let lines = said.lines().filter(|line| !line.trim().is_empty()).count();
    say!("log        {lines} lines at level warn and above, load {} at the end", machine_load());
    if let Some(last) = said.lines().next_back() {
        say!("           the last: {}", last.chars().take(300).collect::<String>());
    }
    verdict::judge(&samples, site.tally.failed(), panics(&said))
}

/// Samples until the end, with a line a minute.
async fn watch(node: &mut Peer, site: &Site, length: Duration) -> Result<Vec<Sample>, Failure> {
    let begun = Instant::now();
    let every = SAMPLES.min(length / 30);
    let a_line = LINES.min(length / 5);
    say!(
        "{:>7} {:>9} {:>12} {:>8} {:>9} {:>7} {:>12} {:>7} {:>6}",
        "minute",
        "RSS MiB",
        "descriptors",
        "threads",
        "done",
        "failed",
        "interrupted",
        "panics",
        "load"
    );
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines = 0;
    while begun.elapsed() < length {
        tokio::time::sleep(every.min(length.saturating_sub(begun.elapsed()))).await;
        if !node.process_mut().runs() {
            let said = node.said();
            let last = said.lines().next_back().unwrap_or_default();
            return Err(Failure::failed("the node has ended").evidence(last));
        }
        let sample = Sample::of(node, begun.elapsed());
        // At the end everybody leaves, and that is no fall.
        if Instant::now() < site.until {
            samples.push(sample);
        }
        if begun.elapsed() >= a_line * (lines + 1) {
            lines += 1;
            say!(
                "{:7.1} {:9.1} {:12.0} {:8.0} {:9} {:7} {:12} {:7} {:>6}",
                begun.elapsed().as_secs_f64() / 60.0,
                sample.resident_mib,
                sample.descriptors,
                sample.threads,
                site.tally.done(),
                site.tally.failed(),
                site.tally.interrupted(),
                panics(&node.said()),
                machine_load()
            );
        }
    }
    Ok(samples)
}

/// How often the process said that a thread panicked.
fn panics(said: &str) -> usize {
    said.matches("panicked at").count()
}

/// One rule for each kind of load, and those that change.
fn rules(steady: SocketAddr, restarting: SocketAddr) -> String {
    let mut text = format!(
        "id: steady\ndata: {{ match: {{ hosts: [{}, {}] }}, targets: [{{ url: \
         \"http://{steady}\" }}] }}\n",
        Kind::HOST,
        super::certificate::NAME
    );
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "---\nid: restarting\ndata: {{ match: {{ hosts: [{}] }}, targets: [{{ url: \
         \"http://{restarting}\" }}, {{ url: \"http://{steady}\" }}], retry: {{ attempts: 2, on: \
         [connect_failure, \"502\"] }} }}\n",
        Kind::RESTARTING
    );
    for which in 0..load::CHANGING {
        let _ = write!(
            text,
            "---\nid: changing-{which}\ndata: {{ match: {{ hosts: [c{which}.example] }}, \
             targets: [{{ url: \"http://{steady}\" }}] }}\n"
        );
    }
    text
}

/// How often is looked.
const SAMPLES: Duration = Duration::from_secs(10);
/// How often is said what was seen.
const LINES: Duration = Duration::from_secs(60);
/// What the node needs, when all have gone, to let go of what it kept for them.
const SETTLED: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rule_document::rules_from_yaml_or_json;

    #[test]
    fn the_rules_are_rules() {
        let at = "127.0.0.1:80".parse().unwrap();
        let all = rules_from_yaml_or_json(&rules(at, "127.0.0.1:81".parse().unwrap())).unwrap();
        assert_eq!(all.len(), load::CHANGING + 2);
    }

    #[test]
    fn panics_are_counted_where_they_are_said() {
        assert_eq!(panics("fine\n"), 0);
        assert_eq!(panics("thread 'a' (1) panicked at x.rs:1:1:\nthread 'b' panicked at y"), 2);
    }
}
