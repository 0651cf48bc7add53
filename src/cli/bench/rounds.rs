//! Rounds of requests to several proxies by turns, and the table of what came out.
//!
//! Who goes first changes from round to round, so that nobody is always measured after the same
//! other. Shown is the middle of the rounds, with the least and the greatest beside it: a
//! difference within the range is none.

use std::net::SocketAddr;

use super::peers::Peer;
use super::statistics::{Spread, quantile};
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Requests a round.
    pub(super) requests: usize,
    pub(super) rounds: usize,
    /// Requests a second; none: as fast as they are answered.
    pub(super) rate: Option<f64>,
}

/// One round of one proxy.
#[derive(Debug)]
pub(super) struct Round {
    cpu_us: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    errors: usize,
}

/// The rounds of each, in the order of the contenders.
pub(super) async fn run(
    contenders: &[Contender<'_>],
    course: Course,
) -> Result<Vec<Vec<Round>>, Failure> {
    let mut rounds: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    for number in 0..=course.rounds {
        for turn in 0..contenders.len() {
            let which = (turn + number) % contenders.len();
            let Contender { peer, at, shape, .. } = &contenders[which];
            // The first one warms up.
            let requests = if number == 0 { course.requests / 10 + 1 } else { course.requests };
            let before = peer.cpu_seconds();
            let outcome = match course.rate {
                Some(rate) => traffic::at_rate(*at, shape, rate, requests).await?,
                None => traffic::flat_out(*at, shape, requests).await?,
            };
            let cpu = peer.cpu_seconds() - before;
            if number > 0 {
                rounds[which].push(Round::of(&outcome, cpu));
            }
        }
    }
    Ok(rounds)
}

/// The table; ratios are to the one named `base`. Per gigabyte where requests bring so many bytes.
pub(super) fn print(
    contenders: &[Contender<'_>],
    rounds: &[Vec<Round>],
    base: &str,
    upload: usize,
) {
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
    let at = contenders.iter().position(|contender| contender.name == base);
    let base = at.map(|at| cpu(&rounds[at]).middle);
    for (contender, rounds) in contenders.iter().zip(rounds) {
        let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let ratio =
            base.map_or("-".to_string(), |base| format!("{:.2}", cpu(rounds).middle / base));
        let errors: usize = rounds.iter().map(|round| round.errors).sum();
        say!(
            "{:22} {} {ratio:>9} {:10.0} {:9.2} {} {} {errors:7}",
            contender.name,
            cpu(rounds).shown(if upload > 0 { 3 } else { 1 }),
            of(|round| round.per_second).middle,
            of(|round| round.p50_ms).middle,
            of(|round| round.p99_ms).shown(2),
            of(|round| round.p999_ms).shown(2),
        );
    }
}

/// How the slowest requests of each stand to those of the one named `base`.
pub(super) fn print_tails(contenders: &[Contender<'_>], rounds: &[Vec<Round>], base: &str) {
    let Some(at) = contenders.iter().position(|contender| contender.name == base) else { return };
    let of =
        |rounds: &[Round], value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value)).middle;
    for (contender, own) in contenders.iter().zip(rounds) {
        let to_base = |value| of(own, value) / of(&rounds[at], value);
        say!(
            "{:22} p99 {:.2} and p99.9 {:.2} times those of {base}",
            contender.name,
            to_base(|round| round.p99_ms),
            to_base(|round| round.p999_ms)
        );
    }
}

/// How many requests a second the middle of these rounds answered.
pub(super) fn per_second(rounds: &[Round]) -> f64 {
    Spread::of(rounds.iter().map(|round| round.per_second)).middle
}

impl Round {
    fn of(outcome: &Outcome, cpu: f64) -> Round {
        Round {
            cpu_us: cpu * 1e6 / outcome.times.len().max(1) as f64,
            per_second: outcome.per_second(),
            p50_ms: quantile(&outcome.times, 0.5),
            p99_ms: quantile(&outcome.times, 0.99),
            p999_ms: quantile(&outcome.times, 0.999),
            errors: outcome.errors,
        }
    }
}
