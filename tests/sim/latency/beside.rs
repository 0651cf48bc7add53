//! The world of `tradewind bench latency`, in virtual time: one node, two targets at each of 2, 10,
//! 35 and 80 ms, with two servers each; beside what nginx and HAProxy do there by default.

use super::world::{Policy, World};

/// Requests a second that the targets can serve, all together.
const CAPACITY: f64 = 8.0 * 2.0 / SERVICE_MS * 1e3;
const SERVICE_MS: f64 = 20.44;

/// Mean and p99 of 25 seconds; one of the nearest targets is so many times as slow for ten of them.
fn run(policy: Policy, load: f64, slowness: f64, seed: u64) -> (f64, f64) {
    let rate = load * CAPACITY;
    let mut world = World::one_node(policy, &[2.0, 10.0, 35.0, 80.0], rate, (SERVICE_MS, 2), seed);
    world.run(5.0);
    world.done.clear();
    world.run(5.0);
    world.targets[0].slowness = slowness;
    world.run(10.0);
    world.targets[0].slowness = 1.0;
    world.run(10.0);
    let mut times: Vec<f64> = world.done.iter().map(|one| one.took_ms).collect();
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (mean, times[times.len() * 99 / 100])
}

/// The greatest of ours and the least of the others, as mean and p99.
fn beside(load: f64, slowness: f64) -> [(f64, f64); 2] {
    let seeds = [1, 2, 3];
    let mut ours = (0.0f64, 0.0f64);
    let mut others = (f64::INFINITY, f64::INFINITY);
    for seed in seeds {
        let (mean, p99) = run(Policy::Latency, load, slowness, seed);
        ours = (ours.0.max(mean), ours.1.max(p99));
        for policy in [Policy::RandomTwo, Policy::LeastConn] {
            let (mean, p99) = run(policy, load, slowness, seed);
            others = (others.0.min(mean), others.1.min(p99));
        }
    }
    println!(
        "load {load} slowness {slowness}: ours at most {ours:.1?}, theirs at least {others:.1?}"
    );
    [ours, others]
}

#[test]
fn up_to_three_fifths_of_the_capacity_mean_and_p99_are_below_least_connections() {
    for load in [0.2, 0.4, 0.5, 0.6] {
        let [ours, others] = beside(load, 1.0);
        assert!(ours.0 < others.0, "seeds 1 to 3, load {load}: mean {ours:?} beside {others:?}");
        assert!(ours.1 < others.1, "seeds 1 to 3, load {load}: p99 {ours:?} beside {others:?}");
    }
}

#[test]
fn at_three_quarters_and_more_the_mean_is_below_least_connections_still() {
    for load in [0.75, 0.9] {
        let [ours, others] = beside(load, 1.0);
        assert!(ours.0 < others.0, "seeds 1 to 3, load {load}: mean {ours:?} beside {others:?}");
    }
}

#[test]
fn with_a_target_slowed_tenfold_mean_and_p99_are_below_least_connections() {
    for load in [0.25, 0.5] {
        let [ours, others] = beside(load, 10.0);
        assert!(ours.0 < others.0, "seeds 1 to 3, load {load}: mean {ours:?} beside {others:?}");
        assert!(ours.1 < 0.85 * others.1, "seeds 1 to 3, load {load}: {ours:?} beside {others:?}");
    }
}

/// Seconds until a target that failed at once for so long has half of its traffic again, and what
/// part of the requests meanwhile it failed.
fn healing(lasting: f64, seed: u64) -> (f64, f64) {
    let distances = [2.0, 10.0, 35.0, 80.0];
    let mut world =
        World::one_node(Policy::Latency, &distances, 0.5 * CAPACITY, (SERVICE_MS, 2), seed);
    world.run(5.0);
    let served = |world: &mut World, seconds: f64| {
        world.done.clear();
        world.run(seconds);
        let served = world.done.iter().filter(|one| one.target == 0 && !one.failed).count();
        served as f64 / seconds
    };
    let before = served(&mut world, 5.0);
    world.targets[0].failing = true;
    served(&mut world, lasting);
    let failed = world.done.iter().filter(|one| one.failed).count();
    assert!(failed > 0, "seed {seed}: it failed");
    let part = failed as f64 / world.done.len() as f64;
    world.targets[0].failing = false;
    let back = (1..=40).find(|_| served(&mut world, 0.5) > before / 2.0);
    (back.map_or(f64::INFINITY, |halves| f64::from(halves) / 2.0), part)
}

#[test]
fn a_target_that_failed_at_once_has_its_traffic_back_soon_after_it_has_healed() {
    for (lasting, most) in [(5.0, 2.0), (10.0, 3.0), (20.0, 4.0), (40.0, 10.0)] {
        let all: Vec<(f64, f64)> = (1..=20).map(|seed| healing(lasting, seed)).collect();
        let back = all.iter().fold(0.0f64, |most, one| most.max(one.0));
        let failed = all.iter().map(|one| one.1).sum::<f64>() / all.len() as f64;
        println!("{lasting} s: back after {back} s at most, {failed:.4} of the requests failed");
        assert!(back <= most, "seeds 1 to 20: {lasting} s of failing, {back} s more without");
        assert!(failed <= 0.005, "exploration is bounded");
    }
}

/// A second node's first 50 requests, and its mean once it is settled; over so many cold starts.
fn cold(told: bool, starts: u64) -> (f64, f64) {
    let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
    let (mut first, mut settled) = (Vec::new(), Vec::new());
    for seed in 0..starts {
        let distances = [2.0, 10.0, 35.0, 80.0];
        // Little enough that two nodes, of which neither sees the other's queues, do not get into
        // each other's way: what counts here is what is known.
        let rate = 0.2 * CAPACITY;
        let mut world = World::one_node(Policy::Latency, &distances, rate, (SERVICE_MS, 2), seed);
        world.run(8.0);
        world.done.clear();
        // From now on the traffic goes to both, half of it to each.
        world.per_second /= 2.0;
        let new = world.join(0, told);
        world.run(5.0);
        world.done.retain(|one| one.node == new);
        world.done.sort_by_key(|one| one.sent);
        first.extend(world.done.iter().take(50).map(|one| one.took_ms));
        world.done.clear();
        world.run(10.0);
        settled.extend(world.done.iter().filter(|one| one.node == new).map(|one| one.took_ms));
    }
    (mean(&first), mean(&settled))
}

#[test]
fn what_a_peer_tells_makes_a_cold_node_as_good_as_a_settled_one() {
    let (with, settled) = cold(true, 30);
    let (without, alone) = cold(false, 30);
    println!("with {with:.1} of {settled:.1}, without {without:.1} of {alone:.1}");
    assert!(with <= 1.15 * settled, "seeds 0 to 29: {with:.1} beside {settled:.1}");
    assert!(without > 1.1 * with, "seeds 0 to 29: {without:.1} without a peer, {with:.1} with one");
}
