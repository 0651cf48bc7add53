//! Chooses a target among a rule's.
//!
//! Reads cells and a selector, draws from the randomness handed in, and says which. Starting the
//! attempt is the caller's. No lock, and no allocation below 33 targets.

use rand::{Rng, RngExt};

use super::cell::{Standing, TargetCell};
use super::ejection::{LastOut, most_out};
use super::estimate::{Cost, Typical};
use super::hash;
use super::selector::{Selector, ShortList};
use crate::model::moment::Moment;
use crate::model::rule::{Balance, Outlier};

/// One target of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its numbers.
    pub cell: &'a TargetCell,
    /// Its share; 0 means no traffic.
    pub weight: u32,
    /// The same at every node, for its address.
    pub identity: u64,
    /// Whether the rule's own check says that it is down.
    pub down: bool,
}

impl Candidate<'_> {
    fn standing(&self, now: Moment) -> Standing {
        if self.down { Standing::Down } else { self.cell.standing(now) }
    }
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picked {
    /// This one of the candidates.
    Target(usize),
    /// None may be sent to.
    NoneReady(NoneReady),
}

/// Why no target may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoneReady {
    /// Every one has weight 0, or there is none.
    NoWeight,
    /// Every one fails its health check.
    AllDown,
    /// Every one that is left was tried for this request already.
    AllTried,
}

/// The cost of a target as it stands, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostBreakdown {
    /// Whether it may be sent to.
    pub standing: Standing,
    /// What it would cost, and why.
    pub cost: Cost,
    /// The part of the latency that is the wire.
    pub net_ms: f64,
    /// Attempts without a response head.
    pub in_flight: u32,
}

/// What a choice goes by.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// The rule's policy.
    pub balance: &'a Balance,
    /// The rule's idea of failing.
    pub outlier: &'a Outlier,
    /// Of the request, for the hash policy; a request without one goes where least is under way.
    pub key: Option<u64>,
}

/// Chooses a target; `tried` are those that this request was sent to before.
pub fn pick(
    how: How<'_>,
    candidates: &[Candidate<'_>],
    selector: &Selector,
    now: Moment,
    rng: &mut impl Rng,
    tried: &[usize],
) -> Picked {
    if let ([only], []) = (candidates, tried) {
        // Nothing to choose, and nothing to learn from having chosen.
        let standing = only.standing(now);
        if only.weight > 0 && matches!(standing, Standing::Ready | Standing::Unknown) {
            return Picked::Target(0);
        }
    }
    let field = match Field::look(how.outlier, candidates, now, tried) {
        Ok(field) => field,
        Err(none) => return Picked::NoneReady(none),
    };
    let chosen = match (how.balance, how.key) {
        (Balance::Latency, _) => field.by_latency(selector, rng),
        (Balance::RoundRobin, _) => field.in_turn(selector),
        (Balance::First, _) => field.usable().next(),
        (Balance::Hash(_), Some(key)) => hash::choose(field.candidates, field.usable(), key),
        (Balance::LeastRequests | Balance::Hash(_), _) => field.least_requests(rng),
    };
    chosen.map_or(Picked::NoneReady(NoneReady::AllTried), Picked::Target)
}

/// What each target would cost now.
pub fn explain(
    candidates: &[Candidate<'_>],
    selector: &Selector,
    now: Moment,
) -> Vec<CostBreakdown> {
    let typical = selector.typical();
    candidates
        .iter()
        .map(|candidate| {
            let snapshot = candidate.cell.snapshot(now);
            CostBreakdown {
                standing: candidate.standing(now),
                cost: snapshot.cost(&typical),
                net_ms: snapshot.net,
                in_flight: snapshot.in_flight,
            }
        })
        .collect()
}

/// The candidates of one choice, and what rules some of them out.
struct Field<'a> {
    candidates: &'a [Candidate<'a>],
    tried: &'a [usize],
    now: Moment,
    /// Too many are out: passive ejection is ignored, cost alone decides.
    panic: bool,
    /// More are ejected than the rule lets be kept out: up to this one they are.
    last_out: Option<LastOut>,
    /// Nobody would be left otherwise: those tried before are tried again.
    again: bool,
}

impl<'a> Field<'a> {
    fn look(
        outlier: &Outlier,
        candidates: &'a [Candidate<'a>],
        now: Moment,
        tried: &'a [usize],
    ) -> Result<Field<'a>, NoneReady> {
        let mut weighty = 0usize;
        let (mut down, mut ejected, mut fresh) = (0usize, 0usize, 0usize);
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.weight == 0 {
                continue;
            }
            weighty += 1;
            match candidate.standing(now) {
                Standing::Down => down += 1,
                Standing::Ejected => ejected += 1,
                _ if tried.contains(&index) => {}
                _ => fresh += 1,
            }
        }
        if weighty == 0 {
            return Err(NoneReady::NoWeight);
        }
        if down == weighty {
            return Err(NoneReady::AllDown);
        }
        let most_out = most_out(outlier.max_ejected, weighty);
        let share = (ejected + down) as f64 / weighty as f64;
        // A rule that lets more than half be kept out means it.
        let over = most_out == 0 || share > PANIC.max(outlier.max_ejected);
        let panic = ejected > 0 && over;
        let let_in = if panic { ejected } else { ejected.saturating_sub(most_out) };
        let last_out = (!panic && let_in > 0).then(|| LastOut::of(candidates, now, most_out));
        let left = fresh + let_in;
        let alone = weighty - down == tried.len();
        if left == 0 && !alone && ejected == 0 {
            return Err(NoneReady::AllTried);
        }
        // With passive ejection only and nobody else left, a target is better than none.
        let panic = panic || left == 0;
        Ok(Field { candidates, tried, now, panic, last_out, again: left == 0 })
    }

    fn allows(&self, index: usize) -> bool {
        let candidate = &self.candidates[index];
        if candidate.weight == 0 || !self.again && self.tried.contains(&index) {
            return false;
        }
        match candidate.standing(self.now) {
            Standing::Down => false,
            Standing::Ejected => {
                let out = |last: LastOut| last.keeps_out(index, candidate);
                self.panic || self.last_out.is_some_and(|last| !out(last))
            }
            Standing::HalfOpen => self.panic || candidate.cell.in_flight() == 0,
            Standing::Ready | Standing::Unknown => true,
        }
    }

    /// Whether this one is on trial, with a request under way that decides.
    fn is_tried_out(&self, index: usize) -> bool {
        let candidate = &self.candidates[index];
        candidate.weight > 0
            && candidate.standing(self.now) == Standing::HalfOpen
            && (self.again || !self.tried.contains(&index))
    }

    /// Those that may be sent to. Where caution would leave nobody, caution goes: first that of
    /// waiting for a trial, then that of ejection.
    fn usable(&self) -> impl Iterator<Item = usize> + Clone {
        let all = 0..self.candidates.len();
        let some = all.clone().any(|index| self.allows(index));
        let on_trial = !some && all.clone().any(|index| self.is_tried_out(index));
        all.filter(move |index| {
            if some {
                self.allows(*index)
            } else if on_trial {
                self.is_tried_out(*index)
            } else {
                let candidate = &self.candidates[*index];
                candidate.weight > 0 && candidate.standing(self.now) != Standing::Down
            }
        })
    }

    fn in_turn(&self, selector: &Selector) -> Option<usize> {
        let total: u64 = self.usable().map(|index| u64::from(self.candidates[index].weight)).sum();
        if total == 0 {
            return None;
        }
        // A step that shares no factor with the total visits every slot once a round, spread out.
        let step = spread_step(total);
        let slot = selector.turn().wrapping_mul(step) % total;
        let mut passed = 0;
        self.usable().find(|index| {
            passed += u64::from(self.candidates[*index].weight);
            slot < passed
        })
    }

    fn least_requests(&self, rng: &mut impl Rng) -> Option<usize> {
        let load = |index: usize| {
            let candidate = &self.candidates[index];
            f64::from(candidate.cell.open()) / f64::from(candidate.weight)
        };
        let weight = |index: usize| f64::from(self.candidates[index].weight);
        let one = draw(self.usable(), weight, rng)?;
        let other = draw(self.usable().filter(|index| *index != one), weight, rng);
        Some(other.filter(|other| load(*other) < load(one)).unwrap_or(one))
    }

    fn by_latency(&self, selector: &Selector, rng: &mut impl Rng) -> Option<usize> {
        selector.earn();
        if let Some(unknown) = self.unknown(rng) {
            return Some(unknown);
        }
        if self.candidates.len() <= SCANNED {
            let mut costs = [Look::NOTHING; SCANNED];
            let mut count = 0;
            for index in self.usable() {
                costs[count] = self.at(index, selector, rng);
                count += 1;
            }
            return self.choose(&mut costs[..count], selector, rng);
        }
        let list = selector.short_list(self.candidates.len(), self.now);
        let list = list.unwrap_or_else(|| self.shorten(selector, rng));
        let mut costs: Vec<Look> = Vec::with_capacity(list.indexes.len());
        for index in list.indexes.iter().filter(|index| self.allows(**index)) {
            costs.push(self.at(*index, selector, rng));
        }
        if costs.is_empty() {
            costs.extend(self.usable().map(|index| self.at(index, selector, rng)));
        }
        self.choose(&mut costs, selector, rng)
    }

    /// Unknown targets are tried first, one request each.
    fn unknown(&self, rng: &mut impl Rng) -> Option<usize> {
        let idle = |index: &usize| {
            let cell = self.candidates[*index].cell;
            self.candidates[*index].standing(self.now) == Standing::Unknown && cell.in_flight() == 0
        };
        draw(self.usable().filter(idle), |_| 1.0, rng)
    }

    fn at(&self, index: usize, selector: &Selector, rng: &mut impl Rng) -> Look {
        let cell = self.candidates[index].cell;
        let typical = selector.typical();
        let snapshot = cell.snapshot(self.now);
        let standing = self.candidates[index].standing(self.now);
        let (idle, h) = cell.idle(self.now);
        let sampled = cell.readings(self.now).is_some();
        let due = sampled
            && snapshot.in_flight == 0
            && standing == Standing::Ready
            && idle > h * rng.random_range(0.9..1.1)
            && selector.has_token();
        let cost = if due { snapshot.optimistic_cost(&typical) } else { snapshot.cost(&typical) };
        let full = match standing {
            Standing::Unknown => snapshot.in_flight > 0,
            _ => cell.cap().is_some_and(|cap| snapshot.in_flight >= cap),
        };
        Look {
            index,
            total: cost.total,
            q: cost.q,
            floor: snapshot.net + typical.svcbar,
            explores: sampled && snapshot.in_flight == 0 && idle >= 0.9 * h,
            half_open: standing == Standing::HalfOpen && !self.panic,
            full,
        }
    }

    fn choose(&self, looks: &mut [Look], selector: &Selector, rng: &mut impl Rng) -> Option<usize> {
        // If every one is at its cap, caps are ignored: only limits may refuse.
        let capped = looks.iter().all(|look| look.full || look.half_open);
        let within = |look: &Look| capped || !look.full;
        let best = looks
            .iter()
            .filter(|look| within(look) && !look.half_open)
            .map(|look| look.total)
            .fold(f64::INFINITY, f64::min);
        // A trial after an ejection is made only where it would matter.
        let worth = |look: &Look| !look.half_open || !best.is_finite() || look.floor <= 2.0 * best;
        if let Some(trial) = looks.iter().find(|look| look.half_open && worth(look)) {
            return Some(trial.index);
        }
        let limit = best * 1.15 + 0.5;
        let fits = |look: &&Look| within(look) && !look.half_open && look.total <= limit;
        let chosen = self.better_of_two(looks, fits, rng)?;
        selector.chose(looks[chosen].q);
        if looks[chosen].explores {
            // Two threads may both have seen the last token; then one sends without paying.
            let _ = selector.spend();
        }
        Some(looks[chosen].index)
    }

    fn better_of_two(
        &self,
        looks: &[Look],
        fits: impl Fn(&&Look) -> bool,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        let weight = |at: usize| f64::from(self.candidates[looks[at].index].weight);
        let among = || (0..looks.len()).filter(|at| fits(&&looks[*at]));
        let one = draw(among(), weight, rng)?;
        let other = draw(among().filter(|at| *at != one), weight, rng);
        let load = |at: usize| looks[at].q / weight(at);
        Some(other.filter(|other| load(*other) < load(one)).unwrap_or(one))
    }

    /// The best of a long list and two others, for the next moments.
    fn shorten(&self, selector: &Selector, rng: &mut impl Rng) -> std::sync::Arc<ShortList> {
        let typical: Typical = selector.typical();
        let mut all: Vec<(f64, usize)> = self
            .usable()
            .map(|index| {
                let cell = self.candidates[index].cell;
                (cell.snapshot(self.now).cost(&typical).total, index)
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut indexes: Vec<usize> = all.iter().take(SHORT).map(|(_, index)| *index).collect();
        for _ in 0..OTHERS {
            if all.len() > SHORT {
                indexes.push(all[rng.random_range(SHORT..all.len())].1);
            }
        }
        indexes.dedup();
        selector.set_short_list(ShortList { made: self.now, of: self.candidates.len(), indexes })
    }
}

/// What one target looks like in one choice.
#[derive(Clone, Copy)]
struct Look {
    index: usize,
    total: f64,
    q: f64,
    floor: f64,
    explores: bool,
    half_open: bool,
    full: bool,
}

impl Look {
    const NOTHING: Look = Look {
        index: 0,
        total: f64::INFINITY,
        q: 0.0,
        floor: 0.0,
        explores: false,
        half_open: false,
        full: false,
    };
}

/// One of them, with probability proportional to its weight, in one pass.
fn draw(
    among: impl Iterator<Item = usize>,
    weight: impl Fn(usize) -> f64,
    rng: &mut impl Rng,
) -> Option<usize> {
    let mut total = 0.0;
    let mut drawn = None;
    for index in among {
        let own = weight(index);
        total += own;
        if own > 0.0 && rng.random_range(0.0..total) < own {
            drawn = Some(index);
        }
    }
    drawn
}

/// A number near 0.618 of the total that shares no factor with it.
fn spread_step(total: u64) -> u64 {
    let begin = (total.saturating_mul(618) / 1000).max(1);
    (begin..).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// With more targets than this a short list is scanned.
const SCANNED: usize = 32;
/// How many of the best are in it.
const SHORT: usize = 16;
/// And how many random others.
const OTHERS: usize = 2;
/// More than this share out of service, or than a rule lets be ejected: cost alone decides.
const PANIC: f64 = 0.5;
