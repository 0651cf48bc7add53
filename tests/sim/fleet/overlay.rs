//! The overlay holds together: near neighbours alone make islands, a few random ones join them.

use std::collections::BTreeSet;

use tradewind::engine::config::Topology;
use tradewind::model::peer::NeighbourKind;

use super::seed;
use super::world::{Options, SECOND, World, index_of};

/// Nodes that can be reached from the first over chosen neighbours, in either direction.
fn island_of_first(world: &World) -> usize {
    let mut links: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); world.nodes.len()];
    for (index, engine) in world.alive() {
        for neighbour in engine.neighbours() {
            if neighbour.kind != NeighbourKind::Inbound {
                let other = index_of(neighbour.card.address);
                links[index].insert(other);
                links[other].insert(index);
            }
        }
    }
    let mut seen = BTreeSet::from([0]);
    let mut edge = vec![0];
    while let Some(index) = edge.pop() {
        for other in &links[index] {
            if seen.insert(*other) {
                edge.push(*other);
            }
        }
    }
    seen.len()
}

fn settled(near: usize, far: usize, usual: u64) -> World {
    let options =
        Options { nodes: 200, cities: 8, near, far, orchestrators: 0, ..Options::default() };
    let mut world = World::new(options, seed(usual));
    world.start_all();
    world.run(SECOND * 60);
    world
}

#[test]
fn near_neighbours_alone_split_two_hundred_nodes_into_islands() {
    let world = settled(5, 0, 21);
    let size = island_of_first(&world);
    assert!(size < 200, "the fault that far neighbours exist for: {size} of 200 in one island");
}

#[test]
fn a_few_far_neighbours_hold_two_hundred_nodes_together() {
    let world = settled(5, 2, 21);
    assert_eq!(island_of_first(&world), 200);
    let mut near_local = 0u32;
    let mut near_all = 0u32;
    for (index, engine) in world.alive() {
        let neighbours = engine.neighbours();
        assert!(neighbours.len() <= tradewind::model::limits::NEIGHBOURS, "in-degree is capped");
        for neighbour in neighbours.iter().filter(|n| n.kind == NeighbourKind::Near) {
            near_all += 1;
            let other = index_of(neighbour.card.address);
            near_local += u32::from(world.nodes[other].city == world.nodes[index].city);
        }
        let far = neighbours.iter().filter(|n| n.kind == NeighbourKind::Far);
        assert!(far.count() >= 1, "n{index} has far neighbours");
    }
    assert!(near_all >= 200 * 4, "near neighbours were found: {near_all}");
    let share = f64::from(near_local) / f64::from(near_all);
    assert!(share > 0.9, "near ones are in the same city: {share:.2}");
}

#[test]
fn a_fixed_topology_is_taken_as_given() {
    let options = Options { nodes: 6, ..Options::default() };
    let mut world = World::new(options, seed(22));
    for index in 0..6 {
        let next = super::world::address((index + 1) % 6);
        let last = super::world::address((index + 5) % 6);
        world.nodes[index].config.topology = Topology::Fixed(vec![next, last]);
    }
    world.start_all();
    world.run(SECOND * 30);
    for (_, engine) in world.alive() {
        let neighbours = engine.neighbours();
        assert_eq!(neighbours.len(), 2);
        assert!(neighbours.iter().all(|neighbour| neighbour.kind == NeighbourKind::Fixed));
    }
}
