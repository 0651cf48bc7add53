//! The formulas of the latency policy, on plain numbers.
//!
//! Times are in milliseconds and ages in seconds, both `f64`. No atomics and no state here: the
//! same numbers give the same cost. Terms are named as in docs/SPECIFICATION.md, "Latency".

/// The numbers of one target at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// The part of the latency that is the wire.
    pub net: f64,
    /// The uncongested service time, once enough samples told it.
    pub sb: Option<f64>,
    /// Short-term mean of the time to the response head.
    pub fast: f64,
    /// Long-term mean of the same.
    pub slow: f64,
    /// Error share as last written.
    pub err: f64,
    /// 2^(-age / h): how much of the excess over the base still counts.
    pub decay: f64,
    /// 2^(-error age / 2h): how much of the error share still counts.
    pub err_decay: f64,
    /// Attempts without a response head yet.
    pub in_flight: u32,
    /// Mean age of those, in milliseconds.
    pub outstanding_ms: f64,
}

/// What a rule's traffic looks like as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// Mean queue at the chosen targets.
    pub qbar: f64,
    /// Typical service time; 0 before the first sample.
    pub svcbar: f64,
    /// Pooled squared coefficient of variation of the service time.
    pub cv2: f64,
}

/// The cost of a target, with what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What is compared; lower is better.
    pub total: f64,
    /// The estimate it rests on, decayed.
    pub est: f64,
    /// Service part of the estimate.
    pub svc: f64,
    /// Surcharge for being slower than its own best.
    pub price: f64,
    /// Surcharge for requests that hang.
    pub stall: f64,
    /// Share of the requests in flight that wait at the target.
    pub q: f64,
    /// Surcharge for errors, in milliseconds.
    pub err: f64,
}

/// What an error share of 1 costs, in milliseconds.
const ERROR_MS: f64 = 500.0;
/// Effective sample counts of the two means, from their half-lives.
const K_FAST: f64 = 8.0;
const K_SLOW: f64 = 64.0;
/// Variance of an exponentially weighted mean over 1/k: 2 ln 2 of the weights' half-life.
const WEIGHT: f64 = 2.9;
/// Standard errors by which the fast mean must differ to be believed.
const Z: f64 = 1.0;
/// How much steeper the cost of a queue is for each request that waits as a rule, beyond the first.
/// With 0, least connections have the lower mean from 60 % of the capacity on
/// (`sim latency::beside`).
const STEEP: f64 = 2.0;
/// Beyond this many it is as steep as it gets.
const MOST_QUEUE: f64 = 8.0;
/// Service times below this many milliseconds are noise.
const LEAST_SVC: f64 = 0.1;
/// Uncongested service times below this many milliseconds are noise.
const LEAST_SB: f64 = 0.5;

impl Snapshot {
    /// The estimate: the slow mean, moved only by what one outlier of a heavy tail cannot do.
    pub fn est(&self, typical: &Typical) -> f64 {
        let service = (self.slow - self.net).max(LEAST_SVC);
        let se = service * (typical.cv2 / (WEIGHT * K_FAST)).sqrt();
        self.slow + (self.fast - self.slow - Z * se).max(0.0)
    }

    /// What a number decays towards: the wire plus a typical service time, or less.
    pub fn base(&self, x: f64, typical: &Typical) -> f64 {
        self.net + (x - self.net).max(LEAST_SVC).min(typical.svcbar.max(LEAST_SVC))
    }

    /// The number after its age: the network part never decays.
    pub fn eff(&self, x: f64, typical: &Typical) -> f64 {
        let base = self.base(x, typical);
        base + (x - base) * self.decay
    }

    /// What it costs to send one more request there.
    pub fn cost(&self, typical: &Typical) -> Cost {
        let est = self.est(typical);
        let svc = (self.eff(est, typical) - self.net).max(LEAST_SVC);
        let price = self.sb.map_or(1.0, |sb| {
            let dead = (2.0 * ((1.0 + typical.cv2) / 1.6).sqrt()).clamp(2.0, 3.0);
            (svc / (dead * sb.max(LEAST_SB))).max(1.0).sqrt()
        });
        self.priced(est, svc, price, typical)
    }

    /// The same as if it had recovered, from being slow and from failing: what exploration bets on.
    pub fn optimistic_cost(&self, typical: &Typical) -> Cost {
        let est = self.est(typical);
        let svc = (self.base(est, typical) - self.net).max(LEAST_SVC);
        Snapshot { err: 0.0, ..*self }.priced(est, svc, 1.0, typical)
    }

    fn priced(&self, est: f64, svc: f64, price: f64, typical: &Typical) -> Cost {
        let patience = (est - self.net).max(LEAST_SB) * (1.0 + typical.cv2);
        let stall = ((self.outstanding_ms - self.net) / patience).max(1.0);
        let q = self.queue(svc);
        let err = ERROR_MS * self.err * self.err_decay;
        let load = load(q, typical.qbar);
        let total = self.net + (svc * price).max(svc * stall) * load + err;
        Cost { total, est: self.net + svc, svc, price, stall, q, err }
    }

    fn queue(&self, svc: f64) -> f64 {
        f64::from(self.in_flight) * svc / (svc + self.net).max(LEAST_SVC)
    }

    /// A lower bound of the uncongested service time, with room for the luck of few samples.
    pub fn uncongested(&self, typical: &Typical) -> f64 {
        let luck = 1.0 + 2.0 * (typical.cv2 / (WEIGHT * K_SLOW)).sqrt();
        (self.slow - self.net).max(LEAST_SB) * luck
    }
}

/// What one more request costs with `q` in the queue, beside what it costs with `qbar`.
///
/// Where requests seldom wait, in proportion. The more of them wait as a rule, the more steeply:
/// one that joins a queue makes those behind it wait, and costs more than its own time.
/// Not a power of the ratio, which would do as well but is dear for each target of each pick.
fn load(q: f64, qbar: f64) -> f64 {
    let ratio = (1.0 + q) / (1.0 + qbar);
    let steep = STEEP * (qbar - 1.0).clamp(0.0, MOST_QUEUE);
    if ratio > 1.0 {
        ratio * (1.0 + steep * (ratio - 1.0))
    } else {
        ratio / (1.0 + steep * (1.0 - ratio))
    }
}
