//! Claims about overlays: a write of them is taken whole, or refused and told so.

use std::time::Duration;

use super::*;
use crate::engine::config::{EngineConfig, Keep, Pace, Topology};
use crate::engine::port::Input;
use crate::model::ids::NodeId;
use crate::model::key::PrivateKey;

fn mind() -> Engine {
    let config = EngineConfig {
        node: NodeId::parse("a").unwrap(),
        region: String::new(),
        labels: BTreeMap::new(),
        peer_address: PeerAddr(([10, 0, 0, 1], 7500).into()),
        traffic_addresses: Vec::new(),
        program_version: String::new(),
        key: PrivateKey::from_seed([1; 32]),
        trusted: Vec::new(),
        orchestrators: 0,
        seeds: Vec::new(),
        topology: Topology::Discover { near: 5, far: 2 },
        pace: Pace::default(),
    };
    let mut engine = Engine::new(config, Keep::default(), 7, Moment::START);
    while engine.poll().is_some() {}
    engine
}

/// How a write was answered, and how many activations it asked for.
fn set(
    engine: &mut Engine,
    overlays: Vec<(RuleId, Option<(Bytes, Moment)>)>,
) -> (Result<(), WriteRefused>, usize) {
    let (mut answers, mut activations) = (Vec::new(), 0);
    engine.handle(Moment::START, Input::SetOverlays { ticket: Ticket(9), overlays });
    while let Some(effect) = engine.poll() {
        match effect {
            Effect::AnswerWrite { ticket, result } => answers.push((ticket, result)),
            Effect::Activate { .. } => activations += 1,
            _ => {}
        }
    }
    let [(Ticket(9), result)] = &answers[..] else { panic!("one answer: {answers:?}") };
    (result.clone().map(|_| ()), activations)
}

#[test]
fn overlays_beyond_what_a_node_holds_are_refused_whole() {
    let mut engine = mind();
    let until = Moment::START + Duration::from_secs(60);
    let on = |number: usize| {
        let id = RuleId::parse(&format!("r{number}")).unwrap();
        (id, Some((Bytes::from_static(b"data"), until)))
    };
    let most = limits::OVERLAYS;
    assert_eq!(set(&mut engine, (1..most).map(on).collect()), (Ok(()), 1));
    let refused = set(&mut engine, vec![on(0), on(most)]);
    assert_eq!(refused, (Err(WriteRefused::TooManyOverlays), 0), "one would fit");
    assert_eq!(set(&mut engine, vec![on(0)]), (Ok(()), 1));
    assert_eq!(set(&mut engine, vec![on(3)]), (Ok(()), 1), "another body needs no room");
    assert_eq!(set(&mut engine, vec![on(most)]).0, Err(WriteRefused::TooManyOverlays));
    assert_eq!(set(&mut engine, vec![(on(3).0, None)]), (Ok(()), 1));
    assert_eq!(set(&mut engine, vec![on(most)]), (Ok(()), 1));
    assert_eq!(engine.rule_set().overlays.len(), most);
    engine.handle(until, Input::Tick);
    assert!(engine.rule_set().overlays.is_empty(), "each has its end");
}
