//! The orchestrator's numbers, one registry per orchestrator.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Everything that is counted.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) followers: Gauge,
    pub(super) propagation_seconds: Histogram,
    pub(super) commits: Counter,
    pub(super) frame_bytes: Counter,
    pub(super) revision: Gauge,
    pub(super) live_rules: Gauge,
    pub(super) fenced: Gauge,
    pub(super) refused_writes: Counter,
    pub(super) adopted: Counter,
    pub(super) conflicts: Counter,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("tradewind");
        let metrics = Metrics {
            followers: Gauge::default(),
            propagation_seconds: Histogram::new(BUCKETS),
            commits: Counter::default(),
            frame_bytes: Counter::default(),
            revision: Gauge::default(),
            live_rules: Gauge::default(),
            fenced: Gauge::default(),
            refused_writes: Counter::default(),
            adopted: Counter::default(),
            conflicts: Counter::default(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register("followers", "Nodes with an open stream", m.followers.clone());
        let help = "From a commit to a node's report that it is active";
        registry.register("propagation_seconds", help, m.propagation_seconds.clone());
        registry.register("commits", "Commits since the start", m.commits.clone());
        let help = "Bytes of deltas, each counted once for all followers";
        registry.register("frame_bytes", help, m.frame_bytes.clone());
        registry.register("ledger_revision", "The ledger's revision", m.revision.clone());
        registry.register("live_rules", "Live rules in the ledger", m.live_rules.clone());
        registry.register("fenced", "1 while no writes are taken", m.fenced.clone());
        registry.register("refused_writes", "Writes that were refused", m.refused_writes.clone());
        registry.register("overrides_adopted", "Overrides adopted", m.adopted.clone());
        let help = "Overrides whose base the ledger had moved on from";
        registry.register("override_conflicts", help, m.conflicts.clone());
        Metrics { registry, ..metrics }
    }

    /// All of them as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

/// From 1 ms.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];
