//! Whether anything grew: lines through the samples of the second half, and what they may rise.

use std::time::Duration;

use super::super::process::Process;
use super::super::statistics::Slope;
use crate::cli::failure::Failure;
use crate::cli::output::say;

/// The node at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) resident_mib: f64,
    pub(super) descriptors: f64,
    pub(super) threads: f64,
}

impl Sample {
    pub(super) fn of(process: &Process, at: Duration) -> Sample {
        Sample {
            at,
            resident_mib: process.resident_kib() / 1024.0,
            descriptors: process.descriptors(),
            threads: process.threads(),
        }
    }
}

/// What may not grow, and by how much an hour it may seem to.
struct Judged {
    name: &'static str,
    unit: &'static str,
    figure: fn(&Sample) -> f64,
    limit: f64,
}

/// Says how it went; an error when something grew, failed or panicked.
pub(super) fn judge(samples: &[Sample], failed: usize, panics: usize) -> Result<(), Failure> {
    let second = &samples[samples.len() / 2..];
    let mut wrong = Vec::new();
    for Judged { name, unit, figure, limit } in JUDGED {
        let points: Vec<(f64, f64)> = second
            .iter()
            .map(|sample| (sample.at.as_secs_f64() / 3600.0, figure(sample)))
            .collect();
        let Some(slope) = Slope::through(&points) else {
            wrong.push(format!("{name}: too few samples to say"));
            continue;
        };
        let grew = grows(slope, limit);
        let word = match slope.rise + SURE * slope.error > limit {
            _ if grew => "GREW",
            true => "no growth beyond the scatter",
            false => "flat",
        };
        say!(
            "{name:18} {word}: {:+.1} {unit} an hour over the second half, give or take {:.1}; \
             may be {limit}",
            slope.rise,
            SURE * slope.error
        );
        if grew {
            wrong.push(format!("{name} grew by {:.1} {unit} an hour", slope.rise));
        }
    }
    say!("{failed} failed, {panics} panics");
    if failed > 0 {
        wrong.push(format!("{failed} failed"));
    }
    if panics > 0 {
        wrong.push(format!("{panics} panics"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("the soak was not passed: {}", wrong.join(", "))))
}

/// Whether it rises by more than it may, beyond what the scatter of the samples explains.
fn grows(slope: Slope, limit: f64) -> bool {
    slope.rise - SURE * slope.error > limit
}

const JUDGED: [Judged; 3] = [
    Judged { name: "memory", unit: "MiB", figure: |at| at.resident_mib, limit: MEMORY },
    Judged {
        name: "sockets and files",
        unit: "descriptors",
        figure: |at| at.descriptors,
        limit: DESCRIPTORS,
    },
    Judged { name: "threads", unit: "threads", figure: |at| at.threads, limit: THREADS },
];
/// Standard errors that a rise has to exceed: at three, a level is taken for growth once in 700
/// soaks. Samples that follow each other are not independent (a target is away for some of them),
/// so it is somewhat more often than that; run it again.
const SURE: f64 = 3.0;
/// MiB an hour. At the default intensity there are about two million requests an hour, 180,000
/// connections and 140,000 clients that break off: 4 MiB are two bytes, 23 and 30 of each. What
/// leaks at all leaks more than that. What the allocator does not give back at once is less.
const MEMORY: f64 = 4.0;
/// Descriptors an hour: the target is ended 120 times in one and 36,000 WebSockets come and go; a
/// descriptor lost in one of four endings is more.
const DESCRIPTORS: f64 = 30.0;
/// Threads an hour; there is no reason for any.
const THREADS: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// A half hour, a sample each ten seconds, with scatter.
    fn samples(rise: f64, descriptors: f64) -> Vec<Sample> {
        (0..180u32)
            .map(|n| Sample {
                at: Duration::from_secs(u64::from(n) * 10),
                resident_mib: 60.0 + rise * f64::from(n) / 360.0 + f64::from(n * 37 % 11) / 10.0,
                descriptors: 200.0 + descriptors * f64::from(n) / 360.0 + f64::from(n * 53 % 23),
                threads: 9.0,
            })
            .collect()
    }

    #[test]
    fn a_level_is_flat_and_a_rise_is_growth() {
        assert!(judge(&samples(0.0, 0.0), 0, 0).is_ok());
        let failure = judge(&samples(20.0, 0.0), 0, 0).unwrap_err().to_string();
        assert!(failure.contains("memory grew by"), "{failure}");
        let failure = judge(&samples(0.0, 200.0), 0, 0).unwrap_err().to_string();
        assert!(failure.contains("descriptors an hour"), "{failure}");
    }

    #[test]
    fn growth_that_ends_in_the_first_half_is_none() {
        let mut warming = samples(0.0, 0.0);
        for (n, sample) in warming.iter_mut().enumerate().take(80) {
            sample.resident_mib -= 40.0 - n as f64 / 2.0;
        }
        assert!(judge(&warming, 0, 0).is_ok());
    }

    #[test]
    fn failures_panics_and_too_few_samples_are_said() {
        let failure = judge(&samples(0.0, 0.0), 2, 1).unwrap_err().to_string();
        assert!(failure.contains("2 failed, 1 panics"), "{failure}");
        let failure = judge(&samples(0.0, 0.0)[..3], 0, 0).unwrap_err().to_string();
        assert!(failure.contains("too few"), "{failure}");
    }
}
