//! The node's control side in Prometheus text.
//!
//! Counters of events, and gauges read off the published view at the moment of the scrape.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use super::activation::Activator;
use super::driver::View;
use crate::engine::port::Event;
use crate::model::follow::FeedState;
use crate::model::latency::LatencyInfoRow;
use crate::model::moment::Moment;

/// Counters of what happened on the control side.
#[derive(Debug, Default)]
pub(crate) struct NodeMetrics {
    deltas: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl NodeMetrics {
    /// Counts an event.
    pub(crate) fn count(&self, event: &Event) {
        match event {
            Event::Applied { path, replaced, .. } => {
                let result = if *replaced { "replaced" } else { "applied" };
                let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
                *deltas.entry((path.as_str(), result)).or_default() += 1;
            }
            Event::Refused { reason, .. } => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                *refused.entry(reason).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Everything here, and what the view and the targets say now.
    pub(crate) fn write(
        &self,
        view: &View,
        activator: &Activator,
        rows: &[LatencyInfoRow],
        now: Moment,
        out: &mut String,
    ) {
        let deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "# TYPE tradewind_deltas_total counter");
        for ((path, result), count) in deltas.iter() {
            let labels = format!("path=\"{path}\",result=\"{result}\"");
            let _ = writeln!(out, "tradewind_deltas_total{{{labels}}} {count}");
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "# TYPE tradewind_verification_failures_total counter");
        for (reason, count) in refused.iter() {
            let name = "tradewind_verification_failures_total";
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {count}");
        }
        write_rules(view, activator, now, out);
        let _ = writeln!(out, "# TYPE tradewind_peer_rtt_seconds gauge");
        for neighbour in &view.neighbours {
            if let (Some(rtt), Some(node)) = (neighbour.rtt, &neighbour.card.node) {
                let rtt = rtt.as_secs_f64();
                let _ = writeln!(out, "tradewind_peer_rtt_seconds{{peer=\"{node}\"}} {rtt}");
            }
        }
        let _ = writeln!(out, "# TYPE tradewind_target_latency_seconds gauge");
        for row in rows {
            let source = crate::wire::peer_json::source_word(row.source);
            let _ = writeln!(
                out,
                "tradewind_target_latency_seconds{{target=\"{}\",source=\"{source}\"}} {}",
                row.target,
                row.latency_ms / 1e3
            );
        }
    }
}

fn write_rules(view: &View, activator: &Activator, now: Moment, out: &mut String) {
    let status = &view.status;
    let (active, elsewhere, rejected) = activator.counts();
    let revision =
        |position: Option<crate::model::head::Position>| position.map_or(0, |at| at.revision.0);
    let known = status.known;
    let behind = if status.behind.is_zero() {
        0.0
    } else {
        (status.behind + now.since(view.at)).as_secs_f64()
    };
    let feed = |state: FeedState| u8::from(status.feed == state);
    let _ = write!(
        out,
        "# TYPE tradewind_rules gauge\n\
         tradewind_rules{{state=\"active\"}} {active}\n\
         tradewind_rules{{state=\"not_here\"}} {elsewhere}\n\
         tradewind_rules{{state=\"rejected\"}} {rejected}\n\
         # TYPE tradewind_ledger_revision gauge\n\
         tradewind_ledger_revision{{kind=\"active\"}} {}\n\
         tradewind_ledger_revision{{kind=\"known\"}} {}\n\
         # TYPE tradewind_overrides gauge\n\
         tradewind_overrides {}\n\
         # TYPE tradewind_lag_seconds gauge\n\
         tradewind_lag_seconds {behind}\n\
         # TYPE tradewind_feed_state gauge\n\
         tradewind_feed_state{{state=\"live\"}} {}\n\
         tradewind_feed_state{{state=\"lagging\"}} {}\n\
         tradewind_feed_state{{state=\"lost\"}} {}\n",
        revision(status.active),
        revision(known),
        status.rule_set.overrides.len(),
        feed(FeedState::Live),
        feed(FeedState::Lagging),
        feed(FeedState::Lost),
    );
}
