//! Rules reach everybody: by the stream, by peers, from disks, by hand.

use std::time::Duration;

use tradewind::engine::port::{Event, Expected, HandWrite};
use tradewind::model::follow::FeedState;
use tradewind::model::ids::RuleId;
use tradewind::model::record::Body;

use super::seed;
use super::world::{MS, Options, SECOND, World};

fn fleet(nodes: usize, usual: u64) -> World {
    let options = Options { nodes, ..Options::default() };
    let mut world = World::new(options, seed(usual));
    world.put("first", "1");
    world.start_all();
    world.run(SECOND * 5);
    world
}

fn by_hand(id: &str, body: &str) -> HandWrite {
    HandWrite {
        id: RuleId::parse(id).unwrap(),
        body: Body::Live(bytes::Bytes::copy_from_slice(body.as_bytes())),
        version: None,
        expected: Expected::Anything,
    }
}

#[test]
fn two_hundred_nodes_follow_every_commit() {
    let mut world = fleet(200, 1);
    let mut last = world.put("a", "1");
    for number in 0..20 {
        world.run(MS * 50);
        last = world.put(&format!("r{number}"), "x");
        if number % 5 == 4 {
            last = world.retire(&format!("r{}", number - 1));
        }
    }
    let took = world.run_until(SECOND * 2, |world| world.all_at(last));
    assert!(took.is_some(), "not everybody arrived");
    assert!(took.unwrap() < MS * 120, "the stream takes a one-way trip: {took:?}");
    let live = world.alive().filter(|(_, engine)| engine.status(world.now).feed == FeedState::Live);
    assert_eq!(live.count(), 200);
}

#[test]
fn without_an_orchestrator_a_rule_by_hand_reaches_everybody_and_is_adopted_later() {
    let mut world = fleet(60, 2);
    world.set_authority(false);
    world.run(SECOND * 5);
    let ticket = world.write_at(7, vec![by_hand("by-hand", "me"), by_hand("first", "2")]);
    let took = world
        .run_until(SECOND * 3, |world| world.all_have("by-hand", 1) && world.all_have("first", 2));
    assert!(took.is_some_and(|took| took < SECOND), "took {took:?}");
    assert!(world.answers[&ticket].is_ok());

    world.set_authority(true);
    let healed = world.run_until(SECOND * 30, |world| {
        world.all_equal() && world.alive().all(|(_, e)| e.rule_set().overrides.is_empty())
    });
    assert!(healed.is_some(), "adopted and equal");
    let id = RuleId::parse("first").unwrap();
    let adopted = world.authority.ledger.record(&id).unwrap();
    assert_eq!(adopted.version.get(), 2);
    assert_eq!(adopted.body.data().unwrap().as_ref(), b"2");
    assert!(world.authority.conflicts.is_empty());
    world.run(SECOND * 5);
    assert!(world.alive().all(|(_, e)| e.keep().authored.is_empty()), "acknowledged");
}

#[test]
fn an_override_that_the_ledger_overtook_is_filed_as_a_conflict() {
    let mut world = fleet(20, 3);
    for index in 0..10 {
        world.faults.no_stream.insert(index);
        for other in 10..20 {
            world.faults.cuts.insert((index, other));
            world.faults.cuts.insert((other, index));
        }
    }
    world.break_streams();
    world.run(SECOND * 12);
    world.write_at(3, vec![by_hand("first", "hand")]);
    world.put("first", "ledger");
    world.run(SECOND * 5);
    world.faults.no_stream.clear();
    world.faults.cuts.clear();
    let healed = world.run_until(SECOND * 30, |world| world.all_equal());
    assert!(healed.is_some());
    world.run(SECOND * 10);
    assert!(world.all_have("first", 2));
    let id = RuleId::parse("first").unwrap();
    assert_eq!(world.authority.conflicts, vec![id]);
    assert!(world.counts.lost > 0, "the partition was real");
}

#[test]
fn a_silent_stream_is_noticed_and_the_rule_comes_from_a_peer() {
    let mut world = fleet(30, 4);
    world.faults.black_holes.insert(11);
    let last = world.put("late", "1");
    let took = world.run_until(SECOND * 10, |world| world.all_at(last));
    assert!(world.counts.swallowed > 0, "the stream was silent");
    assert!(took.is_some_and(|took| took < SECOND * 5), "took {took:?}");
    world.run(SECOND * 4);
    let lost = world.nodes[11].told.iter().any(|(_, told)| *told == Event::Feed(FeedState::Lost));
    assert!(lost, "silence is noticed within three beacons");
}

#[test]
fn an_empty_disk_learns_everything_from_one_peer() {
    let mut world = fleet(10, 5);
    world.set_authority(false);
    world.run(SECOND * 3);
    world.crash(4);
    world.wipe(4);
    world.run(SECOND);
    world.start(4);
    let position = world.authority.ledger.position();
    let took = world.run_until(SECOND * 5, |world| world.all_at(position));
    assert!(took.is_some_and(|took| took < SECOND * 2), "took {took:?}");
}

#[test]
fn a_partition_heals_to_equal_heads_within_ten_seconds() {
    let mut world = fleet(40, 6);
    for a in 0..20 {
        world.faults.no_stream.insert(a);
        for b in 20..40 {
            world.faults.cuts.insert((a, b));
            world.faults.cuts.insert((b, a));
        }
    }
    world.break_streams();
    for number in 0..10 {
        world.put(&format!("p{number}"), "x");
        world.run(SECOND);
    }
    let behind = world
        .alive()
        .filter(|(i, _)| *i < 20)
        .filter(|(_, e)| e.status(world.now).accepted < Some(world.authority.ledger.position()));
    assert_eq!(behind.count(), 20, "the cut-off half is behind");
    world.faults.cuts.clear();
    let position = world.authority.ledger.position();
    let took = world.run_until(SECOND * 20, |world| world.all_at(position));
    assert!(took.is_some_and(|took| took < SECOND * 10), "took {took:?}");
}

#[test]
fn an_orchestrator_that_lost_its_disk_gets_everything_back_from_the_fleet() {
    let mut world = fleet(20, 7);
    for number in 0..5 {
        world.put(&format!("r{number}"), "x");
    }
    world.run(SECOND * 3);
    world.set_authority(false);
    world.run(SECOND);
    let most =
        world.alive().filter_map(|(_, e)| e.rule_set().ledger.clone()).max_by_key(|l| l.position());
    let before = most.clone().unwrap().live_count();
    world.authority.recover(&most.unwrap());
    world.published();
    world.set_authority(true);
    let position = world.put("after", "1");
    assert_eq!(position.epoch.0, 2);
    let took = world.run_until(SECOND * 30, |world| world.all_at(position));
    assert!(took.is_some(), "everybody follows the new epoch");
    assert_eq!(world.authority.ledger.live_count(), before + 1);
}

#[test]
fn poisoned_answers_are_dropped_counted_and_never_applied() {
    let mut world = fleet(30, 8);
    for index in 0..15 {
        world.faults.no_stream.insert(index);
    }
    world.break_streams();
    world.run(SECOND * 3);
    world.faults.flips = 0.5;
    let mut last = world.authority.ledger.position();
    for number in 0..20 {
        last = world.put(&format!("p{number}"), "good");
        world.run(MS * 700);
    }
    let poisoned = world.alive().any(|(_, e)| super::checks::poisoned(e.rule_set()));
    assert!(!poisoned);
    assert!(world.counts.flipped > 5, "answers were altered: {:?}", world.counts);
    assert!(world.counts.refused > 0);
    world.faults.flips = 0.0;
    let took = world.run_until(SECOND * 120, |world| world.all_at(last));
    assert!(took.is_some(), "honest answers get through in the end");
}

#[test]
fn a_fleet_without_orchestrators_is_configured_by_hand() {
    let options = Options { nodes: 25, orchestrators: 0, ..Options::default() };
    let mut world = World::new(options, seed(9));
    world.start_all();
    world.run(SECOND * 5);
    for number in 0..10 {
        world.write_at(number * 2, vec![by_hand(&format!("r{number}"), "x")]);
    }
    let took = world.run_until(SECOND * 5, |world| {
        (0..10).all(|number| world.all_have(&format!("r{number}"), 1))
    });
    assert!(took.is_some_and(|took| took < SECOND * 2), "took {took:?}");
    let took = world.run_until(SECOND * 20, |world| world.all_equal());
    assert!(took.is_some());
    let calm: Duration = SECOND * 30;
    let before = world.counts.clone();
    world.run(calm);
    let digests = world.counts.digests - before.digests;
    assert!(digests < 25 * 30, "a calm fleet is quiet: {digests} digests in {calm:?}");
    assert_eq!(world.counts.pulls, before.pulls, "and pulls nothing");
}
