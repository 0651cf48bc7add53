//! What is printed: a table for each scenario, medians with the range of the runs.

use super::cold::{Cold, FIRST, SHARE, Starts};
use super::figures::{Beside, Mean, Range};
use super::proxies::{Contender, OURS};
use super::scenario::{LEFT, Run, Scenario};
use super::targets::Fault;
use crate::cli::bench::load;
use crate::cli::output::{say, table};

/// One scenario's runs, those of ours first.
pub(super) fn scenario(
    scenario: Scenario,
    contenders: &[Contender],
    all: &[Vec<Run>],
    load_before: &str,
) {
    let runs = all.first().map_or(0, Vec::len);
    let word = format!("{scenario:?}").to_lowercase();
    let load = load();
    say!("\n{word}: {runs} runs, median (least to most), load {load_before} to {load}");
    let troubled = scenario.fault() != Fault::None;
    let mut heading = vec!["PROXY", "MEAN MS", "P99 MS", "ERRORS OF ALL"];
    if troubled {
        heading.extend(["SHARE", "LEFT AFTER S", "BACK AFTER S"]);
    }
    heading.push("MEAN, P99 AND ERRORS OF OURS BESIDE IT");
    let rows = contenders.iter().zip(all).map(|(contender, runs)| {
        let of = |figure: fn(&Run) -> f64| shown(Range::of(runs.iter().map(figure)));
        let sum = |figure: fn(&Run) -> usize| runs.iter().map(figure).sum::<usize>();
        let mut row = vec![
            contender.name.to_string(),
            of(|run| run.times.mean),
            of(|run| run.times.p99),
            format!("{} of {}", sum(|run| run.errors), sum(|run| run.requests)),
        ];
        if troubled {
            row.push(of(|run| run.before * 100.0) + " %");
            row.push(of(|run| run.left));
            row.push(of(|run| run.back));
        }
        row.push(match all.first() {
            Some(ours) if contender.name != OURS => verdict(ours, runs, contender.is_other()),
            _ => String::new(),
        });
        row
    });
    say!("{}", table(&heading, rows.collect()));
    if troubled {
        say!(
            "SHARE: of the traffic before the trouble; LEFT: below {:.0} % of a second's traffic; \
             BACK: half of the earlier share",
            LEFT * 100.0
        );
    }
}

/// How the runs of ours lie beside another's.
fn verdict(ours: &[Run], other: &[Run], must_win: bool) -> String {
    let word = |figure: fn(&Run) -> f64| {
        let range = |runs: &[Run]| Range::of(runs.iter().map(figure));
        match (range(ours), range(other)) {
            (Some(ours), Some(other)) => match ours.beside(&other) {
                Beside::Below => "below",
                Beside::Overlapping if must_win => "OVERLAPS",
                Beside::Overlapping => "overlaps",
                Beside::Above if must_win => "ABOVE",
                Beside::Above => "above",
            },
            _ => "-",
        }
    };
    let errors = |runs: &[Run]| runs.iter().map(|run| run.errors).sum::<usize>();
    let failed = match errors(ours).cmp(&errors(other)) {
        std::cmp::Ordering::Less => "fewer",
        std::cmp::Ordering::Equal => "as many",
        std::cmp::Ordering::Greater if must_win => "MORE",
        std::cmp::Ordering::Greater => "more",
    };
    format!("{}, {}, {failed}", word(|run| run.times.mean), word(|run| run.times.p99))
}

/// The cold starts.
pub(super) fn cold(starts: &Starts, load_before: &str) {
    let (count, load) = (starts.with.len(), load());
    say!(
        "\ncold: a second node of ours, {count} starts, median (least to most), load \
         {load_before} to {load}"
    );
    let heading = ["PEER", "FIRST MS", "SETTLED MS", "RATIO", "MEAN RATIO", "ERRORS"];
    let rows = [("with", &starts.with), ("without", &starts.without)].map(|(name, runs)| {
        let of = |figure: fn(&Cold) -> f64| shown(Range::of(runs.iter().map(figure)));
        vec![
            name.to_string(),
            of(|run| run.first),
            of(|run| run.settled),
            Range::of(runs.iter().map(Cold::ratio)).map_or(String::new(), |range| {
                format!("{:.2} ({:.2} to {:.2})", range.middle, range.low, range.high)
            }),
            Mean::of(&runs.iter().map(Cold::ratio).collect::<Vec<f64>>())
                .map_or(String::new(), |mean| format!("{:.3} +- {:.3}", mean.value, mean.error)),
            runs.iter().map(|run| run.errors).sum::<usize>().to_string(),
        ]
    });
    say!("{}", table(&heading, rows.to_vec()));
    say!(
        "FIRST: the mean of its first {FIRST} requests, at {:.0} % of the usual traffic for both \
         nodes; RATIO: to its own settled mean; +-: standard error",
        SHARE * 100.0
    );
}

fn shown(range: Option<Range>) -> String {
    let one = |value: f64| {
        if value.is_finite() { format!("{value:.1}") } else { "never".to_string() }
    };
    range.map_or("-".to_string(), |range| {
        format!("{} ({} to {})", one(range.middle), one(range.low), one(range.high))
    })
}
