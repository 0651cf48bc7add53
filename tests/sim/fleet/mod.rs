//! A fleet of real node minds under one virtual clock.
//!
//! `world` moves messages, `authority` plays the orchestrator, `checks` watches every step, the
//! rest are scenarios. A failing run prints its seed; `TRADEWIND_SEED=n cargo test --test sim
//! NAME` replays it.

mod authority;
mod carrier;
mod checks;
mod world;

mod chaos;
mod convergence;
mod overlay;
mod scripted;

/// The seed of a run: the test's own, or the one asked for.
fn seed(usual: u64) -> u64 {
    let asked = std::env::var("TRADEWIND_SEED").ok().and_then(|text| text.parse().ok());
    let seed = asked.unwrap_or(usual);
    println!("seed {seed}: replay with TRADEWIND_SEED={seed}");
    seed
}
