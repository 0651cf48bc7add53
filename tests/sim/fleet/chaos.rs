//! Everything at once: loss, cuts, crashes, old disks, an orchestrator that comes and goes.
//!
//! The checks watch every activation; in the end all is healed and everybody must be equal.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tradewind::engine::port::{Expected, HandWrite};
use tradewind::model::ids::RuleId;
use tradewind::model::record::Body;

use super::seed;
use super::world::{MS, Options, SECOND, World};

fn by_hand(id: &str, body: String) -> HandWrite {
    HandWrite {
        id: RuleId::parse(id).unwrap(),
        body: Body::Live(bytes::Bytes::from(body)),
        version: None,
        expected: Expected::Anything,
    }
}

fn trouble(world: &mut World, rng: &mut ChaCha8Rng, step: u32) {
    let nodes = world.nodes.len();
    let one = rng.random_range(0..nodes);
    let other = rng.random_range(0..nodes);
    match rng.random_range(0..12u32) {
        0 | 1 if world.authority.up => {
            world.put(&format!("r{}", rng.random_range(0..20u32)), &format!("p{step}"));
        }
        2 if world.authority.up => {
            world.put("retired", "x");
            world.retire("retired");
        }
        3 => {
            let id = format!("h{}", rng.random_range(0..6u32));
            world.write_at(one, vec![by_hand(&id, format!("hand {step}"))]);
        }
        4 if world.nodes[one].engine.is_some() => world.crash(one),
        5 | 6 if world.nodes[one].engine.is_none() => world.start(one),
        7 => {
            world.faults.cuts.insert((one, other));
        }
        8 => {
            let first = world.faults.cuts.iter().next().copied();
            first.map(|cut| world.faults.cuts.remove(&cut));
        }
        9 => {
            world.faults.black_holes.insert(one);
        }
        10 => {
            world.faults.black_holes.clear();
        }
        11 if step.is_multiple_of(7) => world.set_authority(!world.authority.up),
        _ => {}
    }
}

fn survives(nodes: usize, steps: u32, usual: u64) {
    let seed = seed(usual);
    let mut world = World::new(Options { nodes, ..Options::default() }, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    world.put("first", "1");
    world.start_all();
    world.run(SECOND * 4);
    world.faults.loss = 0.2;
    world.faults.flips = 0.05;
    for step in 0..steps {
        trouble(&mut world, &mut rng, step);
        world.run(MS * rng.random_range(20..800u64) as u32);
    }
    assert!(world.counts.lost > 0, "messages were lost");
    assert!(world.counts.crashes > 0, "nodes crashed");

    world.faults = super::world::Faults::default();
    world.set_authority(true);
    for index in 0..nodes {
        if world.nodes[index].engine.is_none() {
            world.start(index);
        }
    }
    let healed = world.run_until(SECOND * 120, |world| {
        world.all_equal() && world.all_at(world.authority.ledger.position())
    });
    assert!(healed.is_some(), "seed {seed}: not equal after two minutes of peace");
    let left = world.alive().filter(|(_, e)| !e.rule_set().overrides.is_empty()).count();
    assert_eq!(left, 0, "every override was adopted, or was void");
}

#[test]
fn forty_nodes_survive_everything_at_once() {
    for usual in 31..35 {
        survives(40, 120, usual);
    }
}

#[test]
#[ignore = "slow; run in release: cargo test --release --test sim -- --ignored"]
fn a_thousand_nodes_survive_everything_at_once() {
    survives(1_000, 200, 41);
}

#[test]
#[ignore = "slow; run in release: cargo test --release --test sim -- --ignored"]
fn many_seeds_survive_everything_at_once() {
    for usual in 100..160 {
        survives(30, 150, usual);
    }
}
