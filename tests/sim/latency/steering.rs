//! What is promised of the latency policy, in worlds with and without trouble.

use super::world::{Done, Policy, World};

/// Five regions, as far apart as continents are.
fn five_regions() -> Vec<Vec<f64>> {
    vec![
        vec![0.5, 90.0, 160.0, 30.0, 200.0],
        vec![90.0, 0.5, 220.0, 110.0, 130.0],
        vec![160.0, 220.0, 0.5, 180.0, 320.0],
        vec![30.0, 110.0, 180.0, 0.5, 220.0],
        vec![200.0, 130.0, 320.0, 220.0, 0.5],
    ]
}

/// The demo's three regions.
fn demo(policy: Policy, seed: u64) -> World {
    let rtt = vec![vec![0.2, 88.0, 160.0], vec![88.0, 0.2, 220.0], vec![160.0, 220.0, 0.2]];
    World::new(policy, rtt, (3, 2), 100.0, (2.0, 64), seed)
}

fn share(done: &[Done], target: usize, node_is: impl Fn(usize) -> bool) -> f64 {
    let among: Vec<&Done> = done.iter().filter(|one| node_is(one.node)).collect();
    let hits = among.iter().filter(|one| one.target == target).count();
    hits as f64 / among.len().max(1) as f64
}

fn mean_and_p99(done: &[Done]) -> (f64, f64) {
    let mut times: Vec<f64> = done.iter().map(|one| one.took_ms).collect();
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (mean, times[times.len() * 99 / 100])
}

#[test]
fn a_target_slowed_by_300_ms_loses_its_traffic_in_2_s_and_has_it_back_within_10_s() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let mut world = demo(Policy::Latency, seed);
        world.run(10.0);
        let local = |node: usize| node < 3;
        world.done.clear();
        world.run(2.0);
        let before = share(&world.done, 0, local) + share(&world.done, 1, local);
        assert!(before > 0.95, "requests stay in their region: {before:.2}");

        world.targets[0].added_ms = 300.0;
        world.run(2.0);
        world.done.clear();
        world.run(2.0);
        let slowed = share(&world.done, 0, local);
        assert!(slowed < 0.05, "after two seconds {slowed:.3} still went there");
        let seen = world.done.iter().filter(|one| one.target == 0);
        assert!(seen.clone().all(|one| one.took_ms > 300.0), "the target was slow");

        world.run(10.0);
        world.targets[0].added_ms = 0.0;
        world.run(8.0);
        world.done.clear();
        world.run(2.0);
        let healed = share(&world.done, 0, local);
        assert!(healed > 0.2, "ten seconds after healing only {healed:.3} went there");
    }
}

#[test]
fn in_one_world_the_policy_beats_peak_ewma_and_keeps_up_with_a_full_scan() {
    let run = |policy: Policy| {
        // Four nodes and four targets a region; about 55 % of what the servers can do.
        let mut world = World::new(policy, five_regions(), (2, 4), 220.0, (10.0, 2), 11);
        world.run(10.0);
        world.done.clear();
        world.run(20.0);
        mean_and_p99(&world.done)
    };
    let ours = run(Policy::Latency);
    let peak = run(Policy::PeakEwma);
    let scan = run(Policy::LeastTime);
    let turn = run(Policy::RoundRobin);
    println!(
        "mean, p99 in ms: latency {ours:.1?} peak-EWMA {peak:.1?} scan {scan:.1?} turn {turn:.1?}"
    );
    assert!(ours.0 <= 0.26 * peak.0, "mean {:.1} beside {:.1}", ours.0, peak.0);
    assert!(ours.1 <= 0.4 * peak.1, "p99 {:.1} beside {:.1}", ours.1, peak.1);
    assert!(ours.0 <= 1.05 * scan.0, "mean {:.1} beside a full scan's {:.1}", ours.0, scan.0);
    assert!(ours.0 < turn.0);
}

#[test]
fn a_target_that_fails_fast_attracts_nothing() {
    let mut world = demo(Policy::Latency, 5);
    world.run(10.0);
    world.targets[0].failing = true;
    world.done.clear();
    world.run(30.0);
    let failed = world.done.iter().filter(|one| one.failed).count();
    assert!(failed > 0, "the target failed");
    let share = failed as f64 / world.done.len() as f64;
    println!("{failed} of {} failed", world.done.len());
    assert!(share <= 0.003, "{share:.4} of the requests failed");
}

#[test]
fn a_target_slowed_tenfold_is_left_and_found_again() {
    let mut world = demo(Policy::Latency, 6);
    world.run(10.0);
    world.targets[2].slowness = 10.0;
    world.run(2.0);
    world.done.clear();
    world.run(2.0);
    let local = |node: usize| (3..6).contains(&node);
    let slowed = share(&world.done, 2, local);
    assert!(slowed < 0.15, "{slowed:.3} still go to a target ten times as slow");
    world.targets[2].slowness = 1.0;
    world.run(8.0);
    world.done.clear();
    world.run(2.0);
    let healed = share(&world.done, 2, local);
    assert!(healed > 0.2, "eight seconds after recovery only {healed:.3} went there");
}
