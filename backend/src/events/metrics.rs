//! What relaying counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::postgres::Backlog;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

/// Counters of this process's relays, and the length of all queues. Labels come from the configuration.
#[derive(Debug, Default)]
pub struct EventMetrics {
    delivered: Family<SinkLabel, Counter>,
    failed: Family<SinkLabel, Counter>,
    relaying: Family<SinkLabel, Gauge>,
    waiting: Family<SinkLabel, Gauge>,
    age: Family<SinkLabel, Gauge<f64, AtomicU64>>,
    parked: Family<SinkLabel, Gauge>,
    dead: Family<SinkLabel, Gauge>,
}

impl EventMetrics {
    /// Registers all of them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("events_delivered", "Events delivered, by sink", self.delivered.clone());
        registry.register("events_failed", "Deliveries of events that failed, by sink", self.failed.clone());
        registry.register("events_relaying", "Whether this backend works off the outbox", self.relaying.clone());
        registry.register("outbox_events", "Events in the outbox that were not tried yet", self.waiting.clone());
        registry.register("outbox_age_seconds", "Age of the oldest event in the outbox", self.age.clone());
        registry.register("events_parked", "Events that wait for another attempt, or behind one", self.parked.clone());
        registry.register("events_dead", "Dead letters", self.dead.clone());
    }

    /// Counts a pass of a relay.
    pub(super) fn count(&self, sink: &str, delivered: usize, failed: usize) {
        let label = label(sink);
        self.delivered.get_or_create(&label).inc_by(delivered as u64);
        self.failed.get_or_create(&label).inc_by(failed as u64);
    }

    /// Notes whether this backend works off the sink's outbox.
    pub(super) fn relaying(&self, sink: &str, yes: bool) {
        self.relaying.get_or_create(&label(sink)).set(i64::from(yes));
    }

    /// Notes what waits.
    pub(super) fn note(&self, backlogs: &[Backlog]) {
        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for backlog in backlogs {
            let label = label(&backlog.sink);
            self.waiting.get_or_create(&label).set(signed(backlog.waiting));
            self.age.get_or_create(&label).set(backlog.age_s);
            self.parked.get_or_create(&label).set(signed(backlog.parked));
            self.dead.get_or_create(&label).set(signed(backlog.dead));
        }
    }
}

fn label(sink: &str) -> SinkLabel {
    SinkLabel { sink: sink.to_owned() }
}
