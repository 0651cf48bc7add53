//! The invariants of the latency policy, each named after its claim; on a virtual clock.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::cell::{Outcome, Standing, TargetCell};
use super::estimate::{Snapshot, Typical};
use super::pick::{Candidate, How, NoneReady, Picked, pick};
use super::prior::{PeerWord, triangulate};
use super::selector::Selector;
use crate::model::latency::{LatencyInfoRow, LatencySource};
use crate::model::moment::Moment;
use crate::model::rule::{Balance, HashKey, Outlier};

const SUCCESS: Outcome = Outcome::Success;
const FAILURE: Outcome = Outcome::ServerFailure { retry_after: None };

fn ms(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1e3)
}

fn start() -> Moment {
    Moment::START + Duration::from_secs(1)
}

/// One request that takes this long.
fn exchange(cell: &TargetCell, selector: &Selector, now: &mut Moment, took: f64, out: Outcome) {
    let attempt = cell.begin(*now);
    *now = *now + ms(took);
    cell.finish(attempt, *now, out, selector, &Outlier::default(), 0.5);
}

fn trained(latencies: &[f64]) -> (TargetCell, Selector, Moment) {
    let (cell, selector) = (TargetCell::new(None), Selector::default());
    let mut now = start();
    for took in latencies {
        exchange(&cell, &selector, &mut now, *took, SUCCESS);
        now = now + ms(10.0);
    }
    (cell, selector, now)
}

fn choose(
    cells: &[TargetCell],
    weights: &[u32],
    selector: &Selector,
    now: Moment,
    seed: u64,
) -> Picked {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    pick_with(&Balance::Latency, cells, weights, selector, now, &mut rng)
}

fn pick_with(
    policy: &Balance,
    cells: &[TargetCell],
    weights: &[u32],
    selector: &Selector,
    now: Moment,
    rng: &mut ChaCha8Rng,
) -> Picked {
    let candidates: Vec<Candidate<'_>> = cells
        .iter()
        .zip(weights)
        .map(|(cell, weight)| Candidate { cell, weight: *weight, identity: 0, down: false })
        .collect();
    let how = How { balance: policy, outlier: &Outlier::default(), key: None };
    pick(how, &candidates, selector, now, rng, &[])
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (0.01..200.0f64, 0.1..500.0f64, 0.1..500.0f64, 0.0..1.0f64, 0u32..50, 0.0..1000.0f64).prop_map(
        |(net, fast, slow, err, in_flight, age)| Snapshot {
            net,
            sb: Some(1.0),
            fast: net + fast,
            slow: net + slow,
            err,
            decay: 1.0,
            err_decay: 1.0,
            in_flight,
            outstanding_ms: if in_flight == 0 { 0.0 } else { age },
        },
    )
}

fn typical() -> impl Strategy<Value = Typical> {
    (0.0..10.0f64, 0.0..50.0f64, 0.0..10.0f64).prop_map(|(qbar, svcbar, cv2)| Typical {
        qbar,
        svcbar,
        cv2,
    })
}

#[test]
fn a_peer_that_calls_a_target_near_is_forgotten_with_the_first_answer() {
    let row = LatencyInfoRow {
        target: "http://t:1".to_string(),
        latency_ms: 0.0,
        net_ms: 0.0,
        svc_ms: 0.0,
        err: 0.0,
        confidence: 1.0,
        samples: 1,
        age_ms: 0,
        source: LatencySource::Measured,
    };
    let prior = triangulate(&[PeerWord { row: &row, rtt: Duration::ZERO }]).unwrap();
    let (cell, selector) = (TargetCell::new(None), Selector::default());
    let mut now = start() + Duration::from_secs(3600);
    cell.import(&prior, now);
    selector.import(prior.svc_ms);
    for _ in 0..4 {
        now = now + ms(500.0);
        exchange(&cell, &selector, &mut now, 10.0, SUCCESS);
    }
    let readings = cell.readings(now).unwrap();
    assert!(readings.net_ms > 9.9, "{readings:?}");
    assert!(readings.latency_ms > 8.0 - 0.1, "{readings:?}");
}

#[test]
fn a_caller_without_time_tells_something_only_of_a_target_that_is_late() {
    let (cell, selector, mut now) = trained(&[20.0; 40]);
    let before = cell.readings(now).unwrap();
    for took in [0.01, 1.0, 5.0, 19.0, 99.0] {
        exchange(&cell, &selector, &mut now, took, Outcome::CutShort);
    }
    let after = cell.readings(now).unwrap();
    assert_eq!((after.net_ms, after.latency_ms), (before.net_ms, before.latency_ms));
    assert_eq!((after.err, cell.standing(now)), (0.0, Standing::Ready));
    for _ in 0..5 {
        exchange(&cell, &selector, &mut now, 2_000.0, Outcome::CutShort);
    }
    assert!(cell.readings(now).unwrap().err > 0.2, "nobody else waits longer: it hangs");
    assert_eq!(cell.standing(now), Standing::Ejected);
}

#[test]
fn a_time_out_is_no_reason_to_expect_an_answer_sooner() {
    let (cell, selector, mut now) = trained(&[200.0; 40]);
    let before = cell.readings(now).unwrap();
    for _ in 0..4 {
        exchange(&cell, &selector, &mut now, 50.0, Outcome::TimedOut);
    }
    let after = cell.readings(now).unwrap();
    assert!(after.net_ms >= before.net_ms - 1e-9, "{after:?}");
    assert!(after.latency_ms >= before.latency_ms - 1e-9, "{after:?}");
}

proptest! {
    #[test]
    fn in_flight_equals_sent_minus_done(ends in prop::collection::vec(0u8..6, 0..60)) {
        let (cell, selector) = (TargetCell::new(None), Selector::default());
        let mut now = start();
        let mut open = Vec::new();
        let (mut sent, mut done) = (0u32, 0u32);
        for end in ends {
            now = now + ms(3.0);
            let outcome = match end {
                5 => Outcome::CutShort,
                0 => SUCCESS,
                1 => FAILURE,
                2 => Outcome::TimedOut,
                3 => Outcome::Aborted,
                _ => {
                    open.push(cell.begin(now));
                    sent += 1;
                    continue;
                }
            };
            if let Some(attempt) = open.pop() {
                cell.finish(attempt, now, outcome, &selector, &Outlier::default(), 0.5);
                done += 1;
            }
        }
        prop_assert_eq!(cell.in_flight(), sent - done);
        let outstanding = cell.snapshot(now).outstanding_ms;
        prop_assert!(outstanding.is_finite() && outstanding >= 0.0);
    }

    #[test]
    fn cost_is_finite_positive_and_at_least_the_wire(one in snapshot(), typical in typical()) {
        let cost = one.cost(&typical).total;
        prop_assert!(cost.is_finite() && cost > 0.0 && cost >= one.net);
    }

    #[test]
    fn cost_does_not_fall_with_load_errors_or_latency(one in snapshot(), typical in typical()) {
        let before = one.cost(&typical).total;
        let busier = Snapshot { in_flight: one.in_flight + 1, ..one };
        prop_assert!(busier.cost(&typical).total >= before - 1e-9);
        let failing = Snapshot { err: (one.err + 0.1).min(1.0), ..one };
        prop_assert!(failing.cost(&typical).total >= before);
        let slower = Snapshot { fast: one.fast + 5.0, slow: one.slow + 5.0, ..one };
        let idle = |snapshot: Snapshot| Snapshot { in_flight: 0, outstanding_ms: 0.0, ..snapshot };
        let slow = idle(slower).cost(&typical).total;
        prop_assert!(slow >= idle(one).cost(&typical).total - 1e-9);
    }

    #[test]
    fn idle_time_never_raises_cost(one in snapshot(), typical in typical(), decay in 0.0..1.0f64) {
        let one = Snapshot { in_flight: 0, outstanding_ms: 0.0, ..one };
        let aged = Snapshot { decay, err_decay: decay.sqrt(), ..one };
        prop_assert!(aged.cost(&typical).total <= one.cost(&typical).total + 1e-9);
    }

    #[test]
    fn of_two_that_differ_in_service_time_the_faster_costs_less(
        net in 0.1..100.0f64, svc in 1.0..50.0f64, more in 1.0..100.0f64, in_flight in 0u32..20,
    ) {
        let typical = Typical { qbar: 1.0, svcbar: 200.0, cv2: 0.5 };
        let of = |svc: f64| Snapshot {
            net, sb: None, fast: net + svc, slow: net + svc, err: 0.0, decay: 1.0,
            err_decay: 1.0, in_flight, outstanding_ms: 0.0,
        };
        prop_assert!(of(svc).cost(&typical).total < of(svc + more).cost(&typical).total);
    }

    #[test]
    fn a_failure_only_raises_cost_and_a_fast_one_attracts_nothing(
        latencies in prop::collection::vec(5.0..50.0f64, 20..40), fast in 0.05..1.0f64,
    ) {
        let (cell, selector, mut now) = trained(&latencies);
        let before = cell.snapshot(now);
        exchange(&cell, &selector, &mut now, fast, FAILURE);
        let after = cell.snapshot(now);
        prop_assert!(after.err > before.err);
        let times = |one: &Snapshot| (one.fast, one.slow, one.net);
        prop_assert_eq!(times(&after), times(&before));
    }

    #[test]
    fn any_peer_table_leaves_everything_finite_and_matters_little_after_four_samples(
        rows in prop::collection::vec(
            (any::<f64>(), any::<f64>(), any::<f64>(), any::<u64>(), any::<u64>(), 0u64..500),
            0..8,
        ),
    ) {
        let rows: Vec<(LatencyInfoRow, Duration)> = rows
            .into_iter()
            .map(|(net, svc, err, samples, age, rtt)| (LatencyInfoRow {
                target: "http://t:1".to_string(), latency_ms: net + svc, net_ms: net,
                svc_ms: svc, err, confidence: 1.0, samples, age_ms: age % 1_000_000,
                source: LatencySource::Measured,
            }, Duration::from_millis(rtt)))
            .collect();
        let words: Vec<PeerWord<'_>> =
            rows.iter().map(|(row, rtt)| PeerWord { row, rtt: *rtt }).collect();
        let (cell, selector) = (TargetCell::new(None), Selector::default());
        let mut now = start() + Duration::from_secs(3600);
        if let Some(prior) = triangulate(&words) {
            cell.import(&prior, now);
            selector.import(prior.svc_ms);
            prop_assert!(cell.standing(now) != Standing::Ejected, "a peer never ejects");
            let cost = cell.snapshot(now).cost(&selector.typical()).total;
            prop_assert!(cost.is_finite() && cost > 0.0);
        }
        let prior = cell.readings(now).map_or(10.0, |readings| readings.latency_ms);
        for _ in 0..4 {
            now = now + ms(500.0);
            exchange(&cell, &selector, &mut now, 10.0, SUCCESS);
        }
        let mixed = cell.readings(now).unwrap().latency_ms;
        prop_assert!(mixed.is_finite());
        // Rounding to nanoseconds and the decay of idle time move it by hundredths.
        let most = 0.2 * (prior - 10.0).abs() + 0.1;
        prop_assert!((mixed - 10.0).abs() <= most, "{mixed} of {prior}");
    }

    #[test]
    fn triangulated_distance_never_exceeds_the_true_one(
        target in (-100.0..100.0f64, -100.0..100.0f64),
        own in (-100.0..100.0f64, -100.0..100.0f64),
        peers in prop::collection::vec((-100.0..100.0f64, -100.0..100.0f64), 1..6),
    ) {
        let distance =
            |a: (f64, f64), b: (f64, f64)| ((a.0 - b.0).powi(2) + (a.1 - b.1).powi(2)).sqrt();
        let rows: Vec<(LatencyInfoRow, f64)> = peers
            .iter()
            .map(|at| (*at, distance(own, *at)))
            .filter(|(_, rtt)| *rtt >= 3.0)
            .map(|(at, rtt)| (LatencyInfoRow {
                target: "t".to_string(), latency_ms: 0.0, net_ms: distance(at, target),
                svc_ms: 1.0, err: 0.0, confidence: 1.0, samples: 9, age_ms: 1,
                source: LatencySource::Measured,
            }, rtt))
            .collect();
        let words: Vec<PeerWord<'_>> =
            rows.iter().map(|(row, rtt)| PeerWord { row, rtt: ms(*rtt) }).collect();
        if let Some(prior) = triangulate(&words) {
            prop_assert!(prior.net_ms <= distance(own, target).max(0.01) + 1e-6);
        }
    }

    #[test]
    fn the_pick_is_one_of_the_rules_targets_and_never_an_ejected_one(
        failing in prop::collection::vec(any::<bool>(), 3..8), seed in any::<u64>(),
    ) {
        prop_assume!(failing.iter().filter(|f| **f).count() * 2 < failing.len());
        let selector = Selector::default();
        let cells: Vec<TargetCell> = failing.iter().map(|_| TargetCell::new(None)).collect();
        let mut now = start();
        for (cell, failing) in cells.iter().zip(&failing) {
            exchange(cell, &selector, &mut now, 5.0, SUCCESS);
            for _ in 0..5 {
                exchange(cell, &selector, &mut now, 0.1, if *failing { FAILURE } else { SUCCESS });
            }
        }
        let weights = vec![1; cells.len()];
        match choose(&cells, &weights, &selector, now, seed) {
            Picked::Target(index) => prop_assert!(!failing[index], "ejected"),
            Picked::NoneReady(why) => prop_assert!(false, "{why:?}"),
        }
    }
}

#[test]
fn identical_targets_get_equal_shares() {
    let selector = Selector::default();
    let cells: Vec<TargetCell> = (0..4).map(|_| TargetCell::new(None)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut now = start();
    let mut counts = [0u32; 4];
    for _ in 0..4_000 {
        let picked = pick_with(&Balance::Latency, &cells, &[1; 4], &selector, now, &mut rng);
        let Picked::Target(index) = picked else { panic!("{picked:?}") };
        counts[index] += 1;
        exchange(&cells[index], &selector, &mut now, 10.0, SUCCESS);
    }
    for count in counts {
        assert!((800..1_200).contains(&count), "{counts:?}");
    }
}

#[test]
fn exploration_stays_under_half_a_percent_and_finds_a_recovered_target() {
    let selector = Selector::default();
    let cells = [TargetCell::new(None), TargetCell::new(None)];
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut now = start();
    let slow_until = now + Duration::from_secs(60);
    let (mut to_slow, mut sent, mut back_at) = (0u32, 0u32, None);
    while now < slow_until + Duration::from_secs(30) {
        let slow = now < slow_until && now > start() + Duration::from_secs(10);
        let picked = pick_with(&Balance::Latency, &cells, &[1; 2], &selector, now, &mut rng);
        let Picked::Target(index) = picked else { panic!("{picked:?}") };
        if slow && now > start() + Duration::from_secs(15) {
            sent += 1;
            to_slow += u32::from(index == 0);
        }
        if now > slow_until && index == 0 && back_at.is_none() {
            back_at = Some(now);
        }
        let took = if index == 0 && slow { 300.0 } else { 5.0 };
        let attempt = cells[index].begin(now);
        cells[index].finish(attempt, now + ms(took), SUCCESS, &selector, &Outlier::default(), 0.5);
        now = now + ms(10.0);
    }
    assert!(f64::from(to_slow) <= 0.005 * f64::from(sent) + 3.0, "{to_slow} of {sent}");
    assert!(to_slow > 0, "it is tried now and then");
    let back = back_at.expect("a recovered target is found again").since(slow_until);
    assert!(back <= Duration::from_secs(10), "{back:?}");
}

#[test]
fn a_stale_target_is_unknown_again_after_its_time_to_live() {
    let (cell, _, now) = trained(&[10.0, 10.0]);
    assert_eq!(cell.standing(now), Standing::Ready);
    assert_eq!(cell.standing(now + super::cell::TTL), Standing::Unknown);
    let hinted = TargetCell::new(Some(Duration::from_millis(4)));
    assert_eq!(hinted.standing(now), Standing::Ready);
}

#[test]
fn five_failures_eject_one_trial_decides_and_the_back_off_doubles() {
    let (cell, selector, mut now) = trained(&[10.0; 20]);
    assert!(selector.spend(), "a rule starts with one token");
    for _ in 0..5 {
        exchange(&cell, &selector, &mut now, 1.0, FAILURE);
    }
    assert_eq!(cell.standing(now), Standing::Ejected);
    now = now + Duration::from_millis(1_300);
    assert_eq!(cell.standing(now), Standing::HalfOpen);
    exchange(&cell, &selector, &mut now, 1.0, FAILURE);
    assert_eq!(cell.standing(now + Duration::from_millis(1_300)), Standing::Ejected, "doubled");
    now = now + Duration::from_millis(2_600);
    exchange(&cell, &selector, &mut now, 10.0, SUCCESS);
    assert_eq!(cell.standing(now), Standing::Ready);
}

#[test]
fn after_trials_that_fail_fast_the_pause_grows_slowly_while_exploration_pays_for_them() {
    // Pauses in seconds, as trial after trial fails.
    let pauses = |took: f64, tokens: bool| -> Vec<u64> {
        let (cell, selector, mut now) = trained(&[10.0; 20]);
        (0..5).for_each(|_| exchange(&cell, &selector, &mut now, took, FAILURE));
        let mut pauses = Vec::new();
        for _ in 0..60 {
            let begun = now;
            while cell.standing(now) == Standing::Ejected {
                now = now + ms(250.0);
            }
            pauses.push(now.since(begun).as_secs());
            if tokens {
                (0..200).for_each(|_| selector.earn());
            } else {
                while selector.spend() {}
            }
            exchange(&cell, &selector, &mut now, took, FAILURE);
        }
        pauses
    };
    let doubled = [1, 2, 4, 8, 16, 30, 30];
    assert_eq!(pauses(1.0, false)[..7], doubled);
    assert_eq!(pauses(100.0, true)[..7], doubled, "whoever asked has waited");
    let paid = pauses(1.0, true);
    let of = |pause: u64| paid.iter().filter(|one| **one == pause).count();
    assert_eq!([1, 2, 4, 8, 16].map(of), [9, 8, 8, 8, 8]);
    assert!(paid.is_sorted() && paid.last() == Some(&30), "no longer than the rule allows");
}

#[test]
fn a_target_that_has_recovered_is_forgiven_most_of_its_errors() {
    let err = |cell: &TargetCell, now| cell.readings(now).unwrap().err;
    // By the trial after an ejection, and by a success after it was left alone.
    for failures in [5, 3] {
        let (cell, selector, mut now) = trained(&[10.0; 20]);
        (0..failures).for_each(|_| exchange(&cell, &selector, &mut now, 1.0, FAILURE));
        let before = err(&cell, now);
        assert!(before > 0.2);
        now = now + Duration::from_millis(2_500);
        exchange(&cell, &selector, &mut now, 10.0, SUCCESS);
        assert!(err(&cell, now) < before / 8.0);
        assert!(cell.cap().is_some(), "it may not have many at once at first");
    }
}

#[test]
fn down_by_health_check_is_never_picked_and_all_down_is_said() {
    let selector = Selector::default();
    let cells = [TargetCell::new(None), TargetCell::new(None)];
    let with = |down: [bool; 2], balance: &Balance, seed: u64| {
        let of = |at: usize| Candidate {
            cell: &cells[at],
            weight: 1,
            identity: at as u64,
            down: down[at],
        };
        let how = How { balance, outlier: &Outlier::default(), key: Some(seed) };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        pick(how, &[of(0), of(1)], &selector, start(), &mut rng, &[])
    };
    let by_address = Balance::Hash(HashKey::ClientIp);
    let policies =
        [Balance::Latency, Balance::LeastRequests, Balance::RoundRobin, Balance::First, by_address];
    for balance in &policies {
        for seed in 0..50 {
            assert_eq!(with([true, false], balance, seed), Picked::Target(1), "{balance:?}");
        }
        let all = with([true, true], balance, 1);
        assert_eq!(all, Picked::NoneReady(NoneReady::AllDown), "{balance:?}");
    }
    let none = choose(&cells, &[0, 0], &selector, start(), 1);
    assert_eq!(none, Picked::NoneReady(NoneReady::NoWeight));
}

#[test]
fn round_robin_and_least_requests_share_by_weight() {
    for policy in [Balance::RoundRobin, Balance::LeastRequests] {
        let selector = Selector::default();
        let cells: Vec<TargetCell> = (0..3).map(|_| TargetCell::new(None)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut now = start();
        let mut counts = [0u32; 3];
        for _ in 0..6_000 {
            let picked = pick_with(&policy, &cells, &[1, 2, 3], &selector, now, &mut rng);
            let Picked::Target(index) = picked else { panic!("{picked:?}") };
            counts[index] += 1;
            exchange(&cells[index], &selector, &mut now, 1.0, SUCCESS);
        }
        for (index, count) in counts.iter().enumerate() {
            let fair = 1_000 * (u32::try_from(index).unwrap() + 1);
            assert!(count.abs_diff(fair) < fair / 3, "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn a_trial_under_way_is_no_reason_to_send_to_who_is_ejected() {
    let (dead, healed) = (TargetCell::new(None), TargetCell::new(None));
    let selector = Selector::default();
    let mut now = start();
    for cell in [&dead, &healed] {
        exchange(cell, &selector, &mut now, 1.0, SUCCESS);
    }
    let retry_after = |seconds| Some(Duration::from_secs(seconds));
    for (cell, seconds) in [(&dead, 30), (&healed, 1)] {
        let failed = Outcome::ServerFailure { retry_after: retry_after(seconds) };
        exchange(cell, &selector, &mut now, 1.0, failed);
    }
    now = now + Duration::from_secs(2);
    assert_eq!(dead.standing(now), Standing::Ejected);
    assert_eq!(healed.standing(now), Standing::HalfOpen);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let policies = [Balance::First, Balance::RoundRobin, Balance::LeastRequests, Balance::Latency];
    let trial = healed.begin(now);
    let cells = [dead, healed];
    for policy in policies {
        for _ in 0..20 {
            let picked = pick_with(&policy, &cells, &[1, 1], &selector, now, &mut rng);
            assert_eq!(picked, Picked::Target(1), "{policy:?}");
        }
    }
    cells[1].finish(trial, now, SUCCESS, &selector, &Outlier::default(), 0.5);
}

#[test]
fn what_only_a_hint_says_is_near_gets_one_request_at_a_time_until_it_has_answered() {
    let cells = [TargetCell::new(Some(ms(1.0))), trained(&[20.0; 40]).0];
    let (selector, mut now) = (Selector::default(), start() + Duration::from_secs(1));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut next = |now| pick_with(&Balance::Latency, &cells, &[1, 1], &selector, now, &mut rng);
    assert_eq!(next(now), Picked::Target(0), "the near one first");
    let attempt = cells[0].begin(now);
    assert_eq!(next(now), Picked::Target(1), "nobody knows yet how fast it is");
    now = now + ms(2.0);
    cells[0].finish(attempt, now, SUCCESS, &selector, &Outlier::default(), 0.5);
    assert_eq!(next(now), Picked::Target(0));
    cells[0].hint(ms(500.0));
    assert_eq!(next(now), Picked::Target(0), "what was measured counts, and no new hint");
}

#[test]
fn a_hint_that_a_rule_gives_later_counts_until_there_is_a_measurement() {
    let cell = TargetCell::new(Some(ms(5.0)));
    let now = start();
    assert!((cell.snapshot(now).net - 5.0).abs() < 1e-9);
    cell.hint(ms(80.0));
    assert!((cell.snapshot(now + ms(60.0)).net - 80.0).abs() < 1e-9);
    let late = TargetCell::new(None);
    assert_eq!(late.standing(now), Standing::Unknown);
    late.hint(ms(80.0));
    assert_eq!(late.standing(now), Standing::Ready);
    let mut now = now;
    exchange(&late, &Selector::default(), &mut now, 9.0, SUCCESS);
    now = now + Duration::from_secs(601);
    assert!(!late.is_sampled(now), "peers are asked about it, hint or not");
}

#[test]
fn a_long_list_is_cut_to_the_best_and_still_finds_them() {
    let selector = Selector::default();
    let cells: Vec<TargetCell> = (0..100).map(|_| TargetCell::new(None)).collect();
    let mut now = start();
    for (index, cell) in cells.iter().enumerate() {
        for _ in 0..4 {
            let took = if index < 5 { 5.0 } else { 80.0 };
            exchange(cell, &selector, &mut now, took, SUCCESS);
        }
    }
    let weights = vec![1; cells.len()];
    for seed in 0..100 {
        let picked = choose(&cells, &weights, &selector, now, seed);
        assert!(matches!(picked, Picked::Target(index) if index < 100), "{picked:?}");
    }
}
