//! The live numbers of one target at one node: shared by its rules and all traffic threads.
//!
//! Atomics only. Counters are exact under every interleaving; the means may lose a sample when
//! two threads finish at once. About 200 bytes. Decisions are `pick`'s, formulas `estimate`'s.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::estimate::Snapshot;
use super::prior::Prior;
use super::selector::{Float, Selector};
use crate::model::latency::{LatencyInfoRow, LatencySource};
use crate::model::moment::Moment;
use crate::model::rule::Outlier;

/// The live numbers of one target.
#[derive(Debug)]
pub struct TargetCell {
    /// Windowed minima in two buckets each.
    net: [Float; 2],
    /// The minimum is what peers told, not a measurement.
    net_told: AtomicBool,
    sb: [Float; 2],
    window: AtomicU64,
    fast: Float,
    slow: Float,
    n: AtomicU64,
    last: AtomicU64,
    h: Float,
    err: Float,
    err_at: AtomicU64,
    consecutive: AtomicU32,
    until: AtomicU64,
    /// In parts of `WHOLE`.
    ejections: AtomicU32,
    half: AtomicBool,
    in_flight: AtomicU32,
    /// Sum of the start times of what is outstanding, in microseconds, wrapping.
    started: AtomicI64,
    bodies: AtomicU32,
    ramp: AtomicU32,
    source: AtomicU8,
    /// Not a number while there is none.
    hint: Float,
    /// Exponentials are computed at most every 50 ms, or after a sample.
    cached_at: AtomicU64,
    decay: Float,
    err_decay: Float,
}

/// One attempt on its way to a response head. `finish` it exactly once.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    started: Moment,
    sent: Moment,
}

impl Attempt {
    /// The request goes out on an open connection: the latency counts from here.
    pub fn sent(&mut self, now: Moment) {
        self.sent = now;
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response head came, and it does not count as a failure.
    Success,
    /// A 5xx, a reset, no connection. No latency sample: a fast failure is not a fast target.
    ServerFailure {
        /// What the target asked for.
        retry_after: Option<Duration>,
    },
    /// No response head in time.
    TimedOut,
    /// The client went away first.
    Aborted,
    /// No response head in the time that the client, or the rest of the exchange, had: less than
    /// the rule gives a target. A failure only where it usually answers long before that.
    CutShort,
}

/// Whether a target may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Ready,
    /// Nothing is known of it: one request at a time.
    Unknown,
    /// Its ejection has run out: one request will tell.
    HalfOpen,
    /// It failed too often.
    Ejected,
    /// It fails the rule's health check; never a cell's own word.
    Down,
}

impl TargetCell {
    /// A target of which only the hint is known, if there is one.
    pub fn new(hint: Option<Duration>) -> TargetCell {
        TargetCell {
            net: [Float::new(f64::INFINITY), Float::new(f64::INFINITY)],
            net_told: AtomicBool::new(false),
            sb: [Float::new(f64::INFINITY), Float::new(f64::INFINITY)],
            window: AtomicU64::new(0),
            fast: Float::new(0.0),
            slow: Float::new(0.0),
            n: AtomicU64::new(0),
            last: AtomicU64::new(0),
            h: Float::new(H_LEAST),
            err: Float::new(0.0),
            err_at: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            half: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            started: AtomicI64::new(0),
            bodies: AtomicU32::new(0),
            ramp: AtomicU32::new(1),
            source: AtomicU8::new(DEFAULT),
            hint: Float::new(hint.map_or(f64::NAN, millis)),
            cached_at: AtomicU64::new(0),
            decay: Float::new(1.0),
            err_decay: Float::new(1.0),
        }
    }

    /// A rule says, or says anew, how far away it is.
    pub fn hint(&self, net: Duration) {
        self.hint.store(millis(net));
    }

    /// An attempt begins.
    pub fn begin(&self, now: Moment) -> Attempt {
        self.in_flight.fetch_add(1, Relaxed);
        self.started.fetch_add(micros(now), Relaxed);
        Attempt { started: now, sent: now }
    }

    /// An attempt ended. `unit` is uniform in [0, 1).
    pub fn finish(
        &self,
        attempt: Attempt,
        now: Moment,
        outcome: Outcome,
        selector: &Selector,
        outlier: &Outlier,
        unit: f64,
    ) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.started.fetch_sub(micros(attempt.started), Relaxed);
        let took = millis(now.since(attempt.sent)).clamp(LEAST_MS, MOST_MS);
        match outcome {
            Outcome::Success => {
                self.move_err(0.0, now);
                self.succeeded(now);
                self.sample(took, selector, now);
            }
            Outcome::ServerFailure { retry_after } => {
                self.move_err(1.0, now);
                // Where that was fast, whoever asked is answered by another target hardly later.
                let usual = self.net_ms().unwrap_or(0.0) + selector.typical().svcbar;
                let again = || took <= usual && selector.spend();
                self.failed(now, retry_after, outlier, unit, again);
            }
            Outcome::TimedOut => self.timed_out(took, selector, outlier, unit, now),
            Outcome::CutShort if self.is_late(took, selector, now) => {
                self.timed_out(took, selector, outlier, unit, now);
            }
            Outcome::CutShort | Outcome::Aborted => {
                let known = self.n.load(Relaxed) > 0;
                if known && took > self.usual(selector, now) {
                    self.fast.store(self.fast.load().max(took));
                }
            }
        }
    }

    /// What an answer is expected to take, in ms; nothing while nothing is known.
    fn usual(&self, selector: &Selector, now: Moment) -> f64 {
        let known = self.n.load(Relaxed) > 0;
        if known { self.snapshot(now).est(&selector.typical()) } else { 0.0 }
    }

    /// Whether this is so long, in ms, that something must be wrong with the target: by what it
    /// takes at its best, and by what the rule's targets usually do.
    fn is_late(&self, took: f64, selector: &Selector, now: Moment) -> bool {
        let Snapshot { net, sb, .. } = self.snapshot(now);
        let svc = selector.typical().svcbar.max(sb.unwrap_or(0.0));
        svc > 0.0 && took > LATE_MS.max(LATE * (net + svc))
    }

    fn timed_out(&self, took: f64, selector: &Selector, outlier: &Outlier, unit: f64, now: Moment) {
        // The answer would have taken longer: never a reason to expect it sooner.
        let least = self.usual(selector, now);
        self.move_err(1.0, now);
        self.failed(now, None, outlier, unit, || false);
        self.sample(took.max(least), selector, now);
    }

    /// A response's body, or a tunnel, begins to flow.
    pub fn body_begin(&self) {
        self.bodies.fetch_add(1, Relaxed);
    }

    /// It has ended.
    pub fn body_done(&self) {
        self.bodies.fetch_sub(1, Relaxed);
    }

    /// Attempts without a response head.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Attempts, bodies and tunnels: what least_requests, limits and drain count.
    pub fn open(&self) -> u32 {
        self.in_flight().saturating_add(self.bodies.load(Relaxed))
    }

    /// A connection took this long to open: the wire alone.
    pub fn observe_connect(&self, rtt: Duration, now: Moment) {
        self.rotate(now);
        self.distance(millis(rtt).clamp(LEAST_MS, MOST_MS));
    }

    /// Whether it may be sent to.
    pub fn standing(&self, now: Moment) -> Standing {
        if now.as_nanos() < self.until.load(Relaxed) {
            Standing::Ejected
        } else if self.half.load(Relaxed) {
            Standing::HalfOpen
        } else if self.is_known(now) {
            Standing::Ready
        } else {
            Standing::Unknown
        }
    }

    /// When its ejection ends, or has ended.
    pub(super) fn ejected_until(&self) -> Moment {
        Moment::from_nanos(self.until.load(Relaxed))
    }

    /// Whether there is an estimate that is not too old, or a hint.
    pub fn is_known(&self, now: Moment) -> bool {
        self.is_sampled(now) || self.hinted_ms().is_some()
    }

    /// Whether there is an estimate that is not too old; else peers are asked for theirs.
    pub fn is_sampled(&self, now: Moment) -> bool {
        self.n.load(Relaxed) > 0 && now.since(Moment::from_nanos(self.last.load(Relaxed))) < TTL
    }

    /// Whether its distance may have changed unnoticed: nobody has gone there for long, though it
    /// is not forgotten yet.
    pub fn is_unvisited(&self, now: Moment) -> bool {
        let long_ago = |at: &AtomicU64| now.since(Moment::from_nanos(at.load(Relaxed))) >= TTL / 2;
        self.is_sampled(now) && long_ago(&self.last) && long_ago(&self.window)
    }

    /// How many may be in flight while it is being got to know; none once it is.
    pub fn cap(&self) -> Option<u32> {
        let ramp = self.ramp.load(Relaxed);
        (ramp < RAMPED).then_some(ramp)
    }

    /// Seconds since the last sample, and the re-trial interval.
    pub(super) fn idle(&self, now: Moment) -> (f64, f64) {
        let last = Moment::from_nanos(self.last.load(Relaxed));
        (now.since(last).as_secs_f64(), self.h.load())
    }

    /// The numbers now, as the formulas want them.
    pub fn snapshot(&self, now: Moment) -> Snapshot {
        let fresh_at = self.cached_at.load(Relaxed);
        let at = now.as_nanos();
        if fresh_at == 0 || at.saturating_sub(fresh_at) > CACHE_NANOS || fresh_at > at {
            let (idle, h) = self.idle(now);
            let err_age = now.since(Moment::from_nanos(self.err_at.load(Relaxed))).as_secs_f64();
            self.decay.store((-idle / h).exp2());
            self.err_decay.store((-err_age / (2.0 * h)).exp2());
            self.cached_at.store(at.max(1), Relaxed);
        }
        let in_flight = self.in_flight();
        let outstanding_ms = if in_flight == 0 {
            0.0
        } else {
            let mean = self.started.load(Relaxed) / i64::from(in_flight);
            (float(micros(now) - mean) / 1e3).max(0.0)
        };
        let sampled = self.n.load(Relaxed) > 0;
        let net = self.net_ms().or_else(|| self.hinted_ms()).unwrap_or(0.0);
        let (fast, slow) = if sampled { (self.fast.load(), self.slow.load()) } else { (net, net) };
        let sb = self.sb[0].load().min(self.sb[1].load());
        Snapshot {
            net,
            sb: sb.is_finite().then_some(sb),
            fast,
            slow,
            err: self.err.load(),
            decay: self.decay.load(),
            err_decay: self.err_decay.load(),
            in_flight,
            outstanding_ms,
        }
    }

    /// Begins with what peers say, unless there are samples of one's own.
    pub fn import(&self, prior: &Prior, now: Moment) -> bool {
        if self.is_sampled(now) {
            return false;
        }
        let heard = now - prior.age.min(TTL);
        self.net[0].store(prior.net_ms);
        self.net[1].store(f64::INFINITY);
        self.net_told.store(true, Relaxed);
        self.window.store(now.as_nanos(), Relaxed);
        self.fast.store(prior.net_ms + prior.svc_ms);
        self.slow.store(prior.net_ms + prior.svc_ms);
        self.err.store(prior.err.min(0.5));
        self.err_at.store(heard.as_nanos(), Relaxed);
        self.last.store(heard.as_nanos(), Relaxed);
        self.ramp.store(4, Relaxed);
        self.source.store(PEER, Relaxed);
        self.cached_at.store(0, Relaxed);
        self.n.store(IMPORTED_SAMPLES, Relaxed);
        true
    }

    /// Raw numbers for peers and status pages; none while nothing was measured or told.
    pub fn readings(&self, now: Moment) -> Option<Readings> {
        let samples = self.n.load(Relaxed);
        if samples == 0 {
            return None;
        }
        let (idle, _) = self.idle(now);
        let net_ms = self.net_ms().unwrap_or(0.0);
        let latency_ms = self.slow.load();
        Some(Readings {
            latency_ms,
            net_ms,
            svc_ms: (latency_ms - net_ms).max(LEAST_MS),
            err: self.err.load(),
            samples,
            age: Duration::from_secs_f64(idle),
            source: match self.source.load(Relaxed) {
                MEASURED => LatencySource::Measured,
                PEER => LatencySource::Peer,
                _ => LatencySource::Default,
            },
        })
    }

    fn hinted_ms(&self) -> Option<f64> {
        let hint = self.hint.load();
        (!hint.is_nan()).then_some(hint)
    }

    fn net_ms(&self) -> Option<f64> {
        let net = self.net[0].load().min(self.net[1].load());
        net.is_finite().then_some(net)
    }

    fn move_err(&self, towards: f64, now: Moment) {
        let at = Moment::from_nanos(self.err_at.load(Relaxed));
        let age = now.since(at).as_secs_f64();
        let decayed = self.err.load() * (-age / (2.0 * self.h.load())).exp2();
        let weight = 1.0 - (-(age / 5.0 + 0.125)).exp2();
        self.err.store(decayed + weight * (towards - decayed));
        self.err_at.store(now.as_nanos(), Relaxed);
        self.cached_at.store(0, Relaxed);
    }

    fn succeeded(&self, now: Moment) {
        self.consecutive.store(0, Relaxed);
        if self.half.swap(false, Relaxed) {
            self.ramp.store(2, Relaxed);
            self.err.store(self.err.load() / FORGETS_ERR);
        } else if self.ramp.load(Relaxed) < RAMPED {
            self.ramp.fetch_add(1, Relaxed);
        }
        let forgiven = Moment::from_nanos(self.until.load(Relaxed)) + FORGIVEN;
        if self.ejections.load(Relaxed) > 0 && now >= forgiven {
            self.ejections.store(0, Relaxed);
        }
    }

    /// `again` is whether the pause after a trial that failed may grow slowly, which is paid for as
    /// an exploration.
    fn failed(
        &self,
        now: Moment,
        retry: Option<Duration>,
        outlier: &Outlier,
        unit: f64,
        again: impl FnOnce() -> bool,
    ) {
        let in_a_row = self.consecutive.fetch_add(1, Relaxed) + 1;
        let trial = self.half.load(Relaxed);
        if let Some(retry) = retry.filter(|retry| !retry.is_zero()) {
            self.eject(now + retry.min(outlier.eject_for));
        } else if trial || in_a_row >= outlier.consecutive {
            if now.as_nanos() < self.until.load(Relaxed) {
                return;
            }
            let paid = trial && again();
            let counted = self.ejections.fetch_add(if paid { 1 } else { WHOLE }, Relaxed);
            let doubled = (counted / WHOLE).saturating_sub(u32::from(paid)).min(MOST_DOUBLED);
            let pause = f64::from(1u32 << doubled) * (0.75 + unit / 2.0);
            self.eject(now + Duration::from_secs_f64(pause).min(outlier.eject_for));
        }
    }

    fn eject(&self, until: Moment) {
        self.until.fetch_max(until.as_nanos(), Relaxed);
        self.ramp.store(1, Relaxed);
        self.half.store(true, Relaxed);
        self.consecutive.store(0, Relaxed);
    }

    fn sample(&self, took: f64, selector: &Selector, now: Moment) {
        let typical = selector.typical();
        let before = self.n.load(Relaxed);
        let stale = before > 0 && !self.is_sampled(now);
        let n = if stale { 0 } else { before };
        let (idle, h) = if n == 0 { (0.0, H_LEAST) } else { self.idle(now) };
        self.rotate(now);
        self.distance(took);
        self.cached_at.store(0, Relaxed);
        let old = self.snapshot(now);
        let svc = took - old.net;
        selector.sample(svc, (old.slow - old.net).max(0.1), n);
        let share = 1.0 / (float(i64::try_from(n).unwrap_or(i64::MAX)) + 1.0);
        let a_fast = (1.0 - (-(idle + 0.125)).exp2()).max(share);
        let a_slow = (1.0 - (-(idle / 10.0 + 1.0 / 64.0)).exp2()).max(share);
        let decayed = |x: f64| if n == 0 { took } else { old.eff(x, &typical) };
        let fast = decayed(old.fast) + a_fast * (took - decayed(old.fast));
        let mut slow = decayed(old.slow) + a_slow * (took - decayed(old.slow));
        let typical_svc = typical.svcbar.max(0.5);
        if svc > 3.0 * typical_svc && idle > 1.0 {
            self.h.store((h * 2.0).min(H_MOST));
        } else if svc < 2.0 * typical_svc {
            if h > H_LEAST || idle > 2.0 {
                // It has recovered: `ramp` bounds what that costs if not.
                slow = fast;
                self.err.store(self.err.load() / FORGETS_ERR);
                self.ramp.fetch_min(4, Relaxed);
            }
            self.h.store(H_LEAST);
        }
        self.fast.store(fast);
        self.slow.store(slow);
        self.last.store(now.as_nanos(), Relaxed);
        self.source.store(MEASURED, Relaxed);
        if stale {
            self.n.store(1, Relaxed);
        } else {
            self.n.fetch_add(1, Relaxed);
        }
        self.cached_at.store(0, Relaxed);
        if n + 1 >= SB_SAMPLES {
            lower(&self.sb[0], self.snapshot(now).uncongested(&selector.typical()));
        }
    }

    /// A bound of the wire's part. The first of one's own replaces what peers told: a distance that
    /// is too short would make every later sample look like waiting, and wear off only with the
    /// window.
    fn distance(&self, ms: f64) {
        if self.net_told.swap(false, Relaxed) {
            self.net[0].store(ms);
        } else {
            lower(&self.net[0], ms);
        }
    }

    /// Rotates both minima by the first sample after the window.
    fn rotate(&self, now: Moment) {
        let begun = self.window.load(Relaxed);
        let over = now.since(Moment::from_nanos(begun)) >= WINDOW;
        let mine =
            over && self.window.compare_exchange(begun, now.as_nanos(), Relaxed, Relaxed).is_ok();
        if mine && begun != 0 {
            for pair in [&self.net, &self.sb] {
                pair[1].store(pair[0].load());
                pair[0].store(f64::INFINITY);
            }
        }
    }
}

/// Raw numbers of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Readings {
    /// Long-term mean of the time to the response head.
    pub latency_ms: f64,
    /// The part of it that is the wire.
    pub net_ms: f64,
    /// The part of it that is the target.
    pub svc_ms: f64,
    /// Error share as last written.
    pub err: f64,
    /// How many samples went in.
    pub samples: u64,
    /// Since the last one.
    pub age: Duration,
    /// Where they come from.
    pub source: LatencySource,
}

impl Readings {
    /// How far they can be relied on: enough samples, and fresh ones.
    pub fn confidence(&self) -> f64 {
        let enough = float(i64::try_from(self.samples.min(16)).unwrap_or(16)) / 16.0;
        enough * (-self.age.as_secs_f64() / 10.0).exp2()
    }

    /// What is said of them to others.
    pub fn row(&self, target: String) -> LatencyInfoRow {
        LatencyInfoRow {
            target,
            latency_ms: self.latency_ms,
            net_ms: self.net_ms,
            svc_ms: self.svc_ms,
            err: self.err,
            confidence: self.confidence(),
            samples: self.samples,
            age_ms: u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX),
            source: self.source,
        }
    }
}

fn lower(cell: &Float, to: f64) {
    if to < cell.load() {
        cell.store(to);
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(at: Moment) -> i64 {
    i64::try_from(at.as_nanos() / 1_000).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds and counts, not identities")]
fn float(number: i64) -> f64 {
    number as f64
}

/// Bounds of any latency, in milliseconds.
pub(super) const LEAST_MS: f64 = 0.01;
/// See `LEAST_MS`.
pub(super) const MOST_MS: f64 = 600_000.0;
/// An answer that takes so many times what it usually does is late, whoever waits for it.
const LATE: f64 = 10.0;
/// One that takes no longer is not, in ms: a pause of the machine may be to blame.
const LATE_MS: f64 = 100.0;
/// Re-trial interval, in seconds.
const H_LEAST: f64 = 2.0;
/// See `H_LEAST`.
const H_MOST: f64 = 8.0;
/// What the errors of a target that has recovered are divided by.
const FORGETS_ERR: f64 = 8.0;
/// From this many in flight on there is no cap.
const RAMPED: u32 = 16;
/// What an ejection counts: the pause doubles with each, or with as many that were paid for.
const WHOLE: u32 = 8;
/// How often the pause of an ejection is doubled.
const MOST_DOUBLED: u32 = 5;
/// Samples before the uncongested service time is believed.
const SB_SAMPLES: u64 = 32;
/// What a prior counts as: after four samples of one's own it weighs a fifth of the long-term mean
/// (1/2 * 2/3 * 3/4 * 4/5). Counted as two it would still weigh a third.
const IMPORTED_SAMPLES: u64 = 1;
/// The minima are of the last one to two of these.
const WINDOW: Duration = Duration::from_secs(60);
/// Ejections are forgiven this long after the last one ended.
const FORGIVEN: Duration = Duration::from_secs(30);
/// No sample and no word of a peer for this long: unknown again.
pub const TTL: Duration = Duration::from_secs(600);
/// How long the exponentials are good for.
const CACHE_NANOS: u64 = 50_000_000;
const DEFAULT: u8 = 0;
const PEER: u8 = 1;
const MEASURED: u8 = 2;
