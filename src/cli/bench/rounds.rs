//! Rounds of requests to several proxies by turns, and the table of what came out.
//!
//! Who goes first changes from round to round, so that nobody is always measured after the same
//! other. Shown is the middle of the rounds, with the least and the greatest beside it, and for CPU
//! the middle of the ratios within each round.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::paced::{Arrivals, Order, Pacer};
use super::peers::Peer;
use super::statistics::{Spread, pooled, quantile};
use super::traffic::{self, Outcome, Shape};
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// A proxy, and what it is asked.
pub(super) struct Contender<'a> {
    pub(super) name: String,
    pub(super) peer: &'a Peer,
    pub(super) at: SocketAddr,
    pub(super) shape: Shape,
}

/// How often and how quickly.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    /// Requests a round.
    pub(super) requests: usize,
    pub(super) rounds: usize,
    /// Who sends them when; none: as fast as they are answered.
    pub(super) paced: Option<(&'a Pacer, Arrivals)>,
    /// Where those asked write what they log, which counts as well; none: they log nothing.
    pub(super) logs: Option<&'a Path>,
}

/// One round of one proxy.
#[derive(Debug)]
pub(super) struct Round {
    cpu_us: f64,
    per_second: f64,
    errors: usize,
    /// From when it was sent, or due, to its last byte, of each request; in milliseconds, sorted.
    times: Vec<f64>,
}

/// The rounds of each, in the order of the contenders.
pub(super) async fn run(
    contenders: &[Contender<'_>],
    course: Course<'_>,
) -> Result<Vec<Vec<Round>>, Failure> {
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for number in 0..=course.rounds {
        for turn in 0..contenders.len() {
            let which = (turn + number) % contenders.len();
            let Contender { peer, at, shape, .. } = &contenders[which];
            // The first one warms up.
            let requests = if number == 0 { course.requests / 10 + 1 } else { course.requests };
            if let Some(place) = course.logs {
                memory_at_hand(&place.join("at-hand"), requests * LINE)
                    .map_err(|error| Failure::failed(format!("{}: {error}", place.display())))?;
            }
            let connections = shape.connections;
            if let Some((pacer, arrivals)) = course.paced {
                // The proxies before it have had the processor and its caches.
                let requests = RETURNING * connections;
                pacer.run(Order { at: *at, connections, requests, arrivals }).await?;
            }
            let before = peer.cpu_seconds();
            let outcome = match course.paced {
                Some((pacer, arrivals)) => {
                    let arrivals = arrivals.in_round(number);
                    pacer.run(Order { at: *at, connections, requests, arrivals }).await?
                }
                // Goes on where the last round ended: what that asked for may still be in a cache.
                None => traffic::flat_out(*at, shape, number * requests, requests).await?,
            };
            if course.logs.is_some() {
                tokio::time::sleep(WRITTEN).await;
            }
            let cpu = peer.cpu_seconds() - before;
            if number > 0 {
                rounds[which].push(Round::of(outcome, cpu));
            }
        }
    }
    Ok(rounds)
}

/// Requests of each connection that do not count, at the beginning of each round at a rate: of the
/// first ones the caches know nothing any more, and the queue they make must have passed.
const RETURNING: usize = 5;

/// Has so many bytes of files find memory that was in use just now. A hypervisor may take back what
/// a system does not use and give it anew at the first write, which costs whoever writes ten times
/// what writing does, and says nothing of the one that is measured.
fn memory_at_hand(file: &Path, bytes: usize) -> std::io::Result<()> {
    std::fs::write(file, vec![0; bytes])?;
    std::fs::remove_file(file)
}

/// The table; ratios are to the one named `base`. Per gigabyte where requests bring so many bytes.
pub(super) fn print(names: &[String], rounds: &[Vec<Round>], base: &str, upload: usize) {
    let unit = if upload > 0 { "CPU s/GB" } else { "CPU us/request" };
    let to_base = format!("to {base}");
    say!(
        "{:22} {unit:>25} {to_base:>9} {:>10} {:>9} {:>25} {:>25} {:>7}",
        "",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "errors",
    );
    let scale = if upload > 0 { 1e-6 / (upload as f64 / 1e9) } else { 1.0 };
    let cpu = |rounds: &[Round]| Spread::of(rounds.iter().map(|round| round.cpu_us * scale));
    let at = names.iter().position(|name| name == base);
    for (name, own) in names.iter().zip(rounds) {
        let of = |value: fn(&Round) -> f64| Spread::of(own.iter().map(value));
        let ratio = at.map_or("-".to_string(), |at| format!("{:.3}", paired(own, &rounds[at])));
        let errors: usize = own.iter().map(|round| round.errors).sum();
        say!(
            "{name:22} {} {ratio:>9} {:10.0} {:9.2} {} {} {errors:7}",
            cpu(own).shown(if upload > 0 { 3 } else { 1 }),
            of(|round| round.per_second).middle,
            quantiles(own, 0.5).middle,
            quantiles(own, 0.99).shown(2),
            quantiles(own, 0.999).shown(2),
        );
    }
}

/// How the CPU of each round stands to that of the other in the same round, in the middle: what
/// makes the machine slow for a while does so for both.
fn paired(own: &[Round], base: &[Round]) -> f64 {
    Spread::of(own.iter().zip(base).map(|(own, base)| own.cpu_us / base.cpu_us)).middle
}

/// How the slowest requests of each stand to those of the one named `base`: in the middle round, in
/// which nothing disturbs when rounds are short, and of all rounds together, disturbed or not.
pub(super) fn print_tails(names: &[String], rounds: &[Vec<Round>], base: &str) {
    let tails: Vec<[f64; 4]> = rounds.iter().map(|rounds| tails(rounds)).collect();
    let at = names.iter().position(|name| name == base);
    for (name, own) in names.iter().zip(&tails) {
        let [p99, p999, all_p99, all_p999] = std::array::from_fn(|which| {
            let to_base =
                at.map_or("-".to_string(), |at| format!("{:.2}", own[which] / tails[at][which]));
            format!("{:.3} ms ({to_base})", own[which])
        });
        say!(
            "{name:22} middle round: p99 {p99}, p99.9 {p999}; together: p99 {all_p99}, \
             p99.9 {all_p999}"
        );
    }
}

/// p99 and p99.9 of the middle round, and of all rounds together.
fn tails(rounds: &[Round]) -> [f64; 4] {
    let all = pooled(rounds.iter().map(|round| round.times.as_slice()));
    let middle = |share| quantiles(rounds, share).middle;
    [middle(0.99), middle(0.999), quantile(&all, 0.99), quantile(&all, 0.999)]
}

/// The time within which this share of requests was answered, of each round.
fn quantiles(rounds: &[Round], share: f64) -> Spread {
    Spread::of(rounds.iter().map(|round| quantile(&round.times, share)))
}

impl Round {
    fn of(outcome: Outcome, cpu: f64) -> Round {
        Round {
            cpu_us: cpu * 1e6 / outcome.times.len().max(1) as f64,
            per_second: outcome.per_second(),
            errors: outcome.errors,
            times: outcome.times,
        }
    }
}

/// Bytes of a line in an access log, at the most.
const LINE: usize = 512;
/// From the last answer of a round until what was logged is written.
const WRITTEN: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_both_slow_is_no_difference() {
        let of = |cpu: [f64; 3]| {
            cpu.map(|cpu| Round { cpu_us: cpu, ..Round::of(Outcome::default(), 0.0) })
        };
        let (base, own) = (of([10.0, 30.0, 11.0]), of([11.0, 33.0, 12.1]));
        assert!((paired(&own, &base) - 1.1).abs() < 1e-9);
    }
}
