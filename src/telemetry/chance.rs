//! Randomness of tests that can be run again as they were. For tests only.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Begins with the number in the variable `SEED`, or with any; prints which.
pub(crate) fn seeded() -> SmallRng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("SEED={seed}");
    SmallRng::seed_from_u64(seed)
}
