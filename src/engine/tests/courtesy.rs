//! Claims about strangers: however many peers name an address, it is asked seldom.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::engine::Engine;
use crate::engine::config::{EngineConfig, Keep, Pace, Topology};
use crate::engine::port::{Effect, Input, Ticket};
use crate::model::digest::Digest;
use crate::model::ids::{NodeId, RuleId, Version};
use crate::model::key::PrivateKey;
use crate::model::peer::PeerCard;

fn at(host: u8, port: u16) -> PeerAddr {
    PeerAddr(SocketAddr::from(([10, 0, 0, host], port)))
}

fn moment(millis: u64) -> Moment {
    Moment::START + Duration::from_millis(millis)
}

proptest! {
    #[test]
    fn no_order_of_names_and_questions_breaks_the_bounds(
        steps in prop::collection::vec((0u64..400, 0u8..6, 0u16..40), 1..400),
    ) {
        let mut courtesy = Courtesy::default();
        let (mut now, mut asked) = (0, BTreeMap::<PeerAddr, Vec<u64>>::new());
        let mut learnt = BTreeMap::<PeerAddr, usize>::new();
        for (pause, source, victim) in steps {
            now += pause;
            let (source, victim) = (at(source, 7500), at(99, 2_000 + victim));
            if courtesy.may_learn(source, victim, moment(now)) {
                *learnt.entry(source).or_default() += 1;
            }
            if courtesy.may_ask(victim, moment(now)) {
                asked.entry(victim).or_default().push(now);
            }
        }
        let seconds = now as f64 / 1e3;
        let total: usize = asked.values().map(Vec::len).sum();
        prop_assert!(total as f64 <= BURST + PACE * seconds + 1.0, "{total} in {seconds} s");
        for times in asked.values() {
            let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            for (number, wait) in waits.iter().enumerate() {
                let least = FIRST_WAIT * 2u32.pow(number.min(16) as u32);
                prop_assert!(u128::from(*wait) >= least.min(LONGEST_WAIT).as_millis());
            }
        }
        for count in learnt.values() {
            let most = limits::NEW_ADDRESSES_PER_LIST as f64 + NAMES_PER_SECOND * seconds + 1.0;
            prop_assert!(*count as f64 <= most, "{count} believed");
        }
    }
}

#[test]
fn who_has_answered_once_is_no_stranger_and_nothing_grows_without_bound() {
    let mut courtesy = Courtesy::default();
    let friend = at(1, 7500);
    assert!(courtesy.may_ask(friend, moment(0)));
    assert!(!courtesy.may_ask(friend, moment(1)));
    courtesy.answered(friend);
    for _ in 0..1_000 {
        assert!(courtesy.may_ask(friend, moment(2)));
    }
    for number in 0..60_000u64 {
        let port = 1_024 + u16::try_from(number % 60_000).unwrap();
        let now = moment(number * 1_000);
        courtesy.may_learn(at(3, port), at(4, port), now);
        courtesy.may_ask(at(5, port), now);
        courtesy.answered(at(6, port));
    }
    assert_eq!(courtesy.sources.len(), limits::COURTESY);
    assert_eq!(courtesy.strangers.len(), limits::COURTESY);
    assert_eq!(courtesy.answered.len(), limits::COURTESY);
}

fn mind() -> Engine {
    let config = EngineConfig {
        node: NodeId::parse("a").unwrap(),
        region: String::new(),
        labels: BTreeMap::new(),
        peer_address: at(1, 7500),
        traffic_addresses: Vec::new(),
        program_version: String::new(),
        key: PrivateKey::from_seed([1; 32]),
        trusted: Vec::new(),
        orchestrators: 0,
        seeds: vec![at(2, 7500)],
        topology: Topology::Discover { near: 5, far: 2 },
        pace: Pace::default(),
    };
    Engine::new(config, Keep::default(), 7, moment(0))
}

/// A minute after minute of peers that answer every question with the same twenty addresses, and
/// announce themselves under them too.
#[test]
fn a_whole_fleet_of_liars_makes_a_node_knock_seldom() {
    let victims: Vec<PeerAddr> = (0..20).map(|port| at(200, 2_000 + port)).collect();
    let liars: Vec<PeerAddr> = (2..20).map(|host| at(host, 7500)).collect();
    let mut engine = mind();
    let (mut knocks, mut tickets) = (BTreeMap::<PeerAddr, usize>::new(), 0);
    const SECONDS: u64 = 600;
    for step in 0..SECONDS * 10 {
        let now = moment(step * 100);
        let forged = victims[usize::try_from(step).unwrap() % victims.len()];
        tickets += 1;
        let digest = Digest {
            from: PeerCard::unknown(forged),
            cluster: None,
            head: None,
            beacon: None,
            overrides: None,
            versions: vec![(RuleId::parse("x").unwrap(), Version::new(step + 1).unwrap())],
            marks: Vec::new(),
        };
        let ticket = Ticket(u64::MAX / 2 + tickets);
        let mut inputs = vec![Input::Tick, Input::DigestReceived { ticket, digest }];
        while let Some(input) = inputs.pop() {
            engine.handle(now, input);
            while let Some(effect) = engine.poll() {
                let (to, answer) = match effect {
                    Effect::FetchNeighbours { from } if liars.contains(&from) => {
                        let list = victims.iter().chain(&liars).copied().map(PeerCard::unknown);
                        let rtt = Duration::from_millis(1);
                        let list = list.collect();
                        (from, Input::NeighboursAnswered { from, card: None, list, rtt })
                    }
                    Effect::FetchNeighbours { from } => (from, Input::NeighboursFailed { from }),
                    Effect::SendDigest { to, .. } => (to, Input::DigestFailed { to }),
                    Effect::Pull { ticket, from, .. } => (from, Input::PullFailed { ticket }),
                    _ => continue,
                };
                *knocks.entry(to).or_default() += 1;
                inputs.push(answer);
            }
        }
    }
    let at_victims = |at: &PeerAddr| knocks.get(at).copied().unwrap_or(0);
    let each = victims.iter().map(at_victims).max().unwrap();
    let all: usize = victims.iter().map(at_victims).sum();
    assert!(all > 0, "they were named, and asked");
    // Waits of 4, 8, … 256 s: eight questions in ten minutes, each with its digests and one pull.
    assert!(each <= 8 * 5, "{each} requests to one address: {knocks:?}");
}
