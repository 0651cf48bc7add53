//! What is made of figures: quantiles, ranges over rounds, and the slope of a line through samples.

/// The value at a share of sorted values.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// The values of several samples together, sorted.
pub(super) fn pooled<'s>(samples: impl Iterator<Item = &'s [f64]>) -> Vec<f64> {
    let mut all: Vec<f64> = samples.flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The middle value.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(values, 0.5)
}

/// The least, the middle and the greatest of several rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) middle: f64,
    pub(super) most: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        let middle = median(&mut values);
        Spread { least: quantile(&values, 0.0), middle, most: quantile(&values, 1.0) }
    }

    /// `4.36 (3.73..4.40)`, so wide that columns line up.
    pub(super) fn shown(&self, digits: usize) -> String {
        let Spread { least, middle, most } = *self;
        let range = format!("({least:.digits$}..{most:.digits$})");
        format!("{middle:8.digits$} {range:16}")
    }
}

/// A straight line through samples, by least squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slope {
    /// Rise per unit of the first coordinate.
    pub(super) rise: f64,
    /// Its standard error: how much of a rise the scatter alone makes.
    pub(super) error: f64,
}

impl Slope {
    /// Through fewer than three points, or points one above the other, there is none.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Slope> {
        let count = points.len() as f64;
        if points.len() < 3 {
            return None;
        }
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let width: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if width <= 0.0 {
            return None;
        }
        let both: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let rise = both / width;
        let off = |(x, y): &(f64, f64)| (y - mean_y - rise * (x - mean_x)).powi(2);
        let scatter: f64 = points.iter().map(off).sum::<f64>() / (count - 2.0);
        Some(Slope { rise, error: (scatter / width).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_there() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.5), 50.0);
        assert_eq!(quantile(&sorted, 0.99), 99.0);
        assert_eq!(quantile(&sorted, 0.999), 100.0);
        assert_eq!(quantile(&sorted, 1.0), 100.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_spread_has_its_ends() {
        let spread = Spread::of([4.0, 2.0, 9.0].into_iter());
        assert_eq!(spread, Spread { least: 2.0, middle: 4.0, most: 9.0 });
        assert_eq!(spread.shown(1).trim(), "4.0 (2.0..9.0)");
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let points: Vec<(f64, f64)> =
            (0..10).map(|x| (f64::from(x), 7.0 + 3.0 * f64::from(x))).collect();
        let slope = Slope::through(&points).unwrap();
        assert!((slope.rise - 3.0).abs() < 1e-9, "{slope:?}");
        assert!(slope.error < 1e-9, "{slope:?}");
    }

    #[test]
    fn scatter_around_a_level_is_within_its_error() {
        let points: Vec<(f64, f64)> =
            (0..100).map(|x| (f64::from(x), f64::from(x * 37 % 11))).collect();
        let slope = Slope::through(&points).unwrap();
        assert!(slope.rise.abs() < 3.0 * slope.error, "{slope:?}");
        assert!(slope.error > 0.001, "{slope:?}");
    }

    #[test]
    fn too_little_has_no_slope() {
        assert_eq!(Slope::through(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Slope::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
