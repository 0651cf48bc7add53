//! What is drawn by chance: when requests are due and how long they are served.
//!
//! Pure: the same seed gives the same run, for each proxy the same.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// When requests are due: independent clients, so many a second on average (a Poisson process).
pub(super) fn arrivals(rate: f64, lasting: Duration, seed: u64) -> Vec<Duration> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut due = Vec::new();
    let mut at = 0.0;
    loop {
        at -= unit(&mut rng).ln() / rate;
        if at >= lasting.as_secs_f64() {
            return due;
        }
        due.push(Duration::from_secs_f64(at));
    }
}

/// How long requests are served: log-normal, as most services are.
#[derive(Debug)]
pub(super) struct ServiceTimes {
    median_ms: f64,
    sigma: f64,
    rng: ChaCha8Rng,
}

impl ServiceTimes {
    pub(super) fn new(median_ms: f64, sigma: f64, seed: u64) -> ServiceTimes {
        ServiceTimes { median_ms, sigma, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next one's.
    pub(super) fn draw(&mut self) -> Duration {
        let (a, b) = (unit(&mut self.rng), unit(&mut self.rng));
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        Duration::from_secs_f64(self.median_ms * (self.sigma * normal).exp() / 1e3)
    }
}

/// The mean of a log-normal distribution with this median.
pub(super) fn mean_ms(median_ms: f64, sigma: f64) -> f64 {
    median_ms * (sigma * sigma / 2.0).exp()
}

/// Uniform in (0, 1): its logarithm is finite.
fn unit(rng: &mut impl Rng) -> f64 {
    rng.random_range(f64::EPSILON..1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_order_at_the_rate_and_as_irregularly_as_independent_clients() {
        let due = arrivals(400.0, Duration::from_secs(100), 7);
        assert!(due.is_sorted());
        let rate = due.len() as f64 / 100.0;
        assert!((rate - 400.0).abs() < 8.0, "seed 7: {rate}");
        let gaps: Vec<f64> = due.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let cv2 = variance / (mean * mean);
        assert!((cv2 - 1.0).abs() < 0.05, "seed 7: {cv2}");
        assert_eq!(due, arrivals(400.0, Duration::from_secs(100), 7));
        assert_ne!(due, arrivals(400.0, Duration::from_secs(100), 8));
    }

    #[test]
    fn services_take_the_median_and_the_mean_of_their_distribution() {
        let mut times = ServiceTimes::new(16.0, 0.7, 3);
        let mut drawn: Vec<f64> = (0..40_000).map(|_| times.draw().as_secs_f64() * 1e3).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!((drawn[20_000] - 16.0).abs() < 0.4, "seed 3: median {}", drawn[20_000]);
        assert!((mean - mean_ms(16.0, 0.7)).abs() < 0.4, "seed 3: mean {mean}");
    }
}
