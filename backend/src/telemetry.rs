//! What the backend says about itself: metrics here, log lines and spans in [`logs`].

pub mod logs;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use doorbuster_domain::refusal::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::events::EventMetrics;
use crate::lineage::Lineage;
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;

/// Media type of [`Metrics::render`].
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of the time that one exchange with a store takes, seconds.
pub(crate) const STORE_SECONDS: [f64; 12] =
    [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Bounds of the time that work in the background takes, seconds.
const WORK_SECONDS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// What a scrape finds, as opposed to what was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// Requests being served on the public listener.
    pub in_flight: usize,
    /// Connections to PostgreSQL, and those of them that nobody uses.
    pub connections: (usize, usize),
    /// Campaigns that this release cannot read.
    pub unreadable: usize,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Counters of this process. Labels come from code, never from a request.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests that reached the issue handler.
    pub issue_requests: Counter,
    /// Requests answered with a coupon.
    pub issued: Counter,
    /// Requests answered with 202.
    pub pending: Counter,
    refused: Family<Code, Counter>,
    /// Issue requests without a ticket that holds, where tickets are looked at.
    pub unticketed: Counter,
    /// Reservations committed together.
    pub batch_size: Histogram,
    commit_seconds: Histogram,
    /// Batches that PostgreSQL did not answer or refused.
    pub commit_failures: Counter,
    /// Reservations that PostgreSQL refused for good.
    pub failed: Counter,
    /// Reservations that PostgreSQL contradicted.
    pub conflicts: Counter,
    /// Rounds filled from PostgreSQL.
    pub hydrations: Counter,
    hydration_seconds: Histogram,
    /// Abandoned reservations that the sweeper took up.
    pub swept: Counter,
    /// Requests with a bearer token that does not hold.
    pub wrong_tokens: Counter,
    sweep_seconds: Histogram,
    pending_places: Gauge,
    pending_oldest: Gauge<f64, AtomicU64>,
    connections: Family<State, Gauge>,
    in_flight: Gauge,
    unreadable: Gauge,
    /// What relaying counts.
    pub events: EventMetrics,
}

impl Metrics {
    /// Begins to count, beside the latencies that the stores measure.
    #[must_use]
    pub fn new(redis: &Redis, postgres: &Postgres, lineage: &Lineage) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("doorbuster"),
            issue_requests: Counter::default(),
            issued: Counter::default(),
            pending: Counter::default(),
            refused: Family::default(),
            unticketed: Counter::default(),
            batch_size: Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]),
            commit_seconds: Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]),
            commit_failures: Counter::default(),
            failed: Counter::default(),
            conflicts: Counter::default(),
            hydrations: Counter::default(),
            hydration_seconds: Histogram::new(WORK_SECONDS),
            swept: Counter::default(),
            wrong_tokens: Counter::default(),
            sweep_seconds: Histogram::new(WORK_SECONDS),
            pending_places: Gauge::default(),
            pending_oldest: Gauge::default(),
            connections: Family::default(),
            in_flight: Gauge::default(),
            unreadable: Gauge::default(),
            events: EventMetrics::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("issue_requests", "Requests that reached the issue handler", metrics.issue_requests.clone());
        registry.register("issued", "Issue requests answered with a coupon", metrics.issued.clone());
        registry.register("pending", "Issue requests answered with 202", metrics.pending.clone());
        registry.register("refused", "Issue requests refused, by problem code", metrics.refused.clone());
        registry.register("unticketed", "Issue requests without a ticket that holds", metrics.unticketed.clone());
        registry.register("commit_batch_size", "Reservations committed together", metrics.batch_size.clone());
        registry.register("commit_seconds", "Time of one commit in PostgreSQL", metrics.commit_seconds.clone());
        registry.register(
            "commit_failures",
            "Commits that failed or were not answered",
            metrics.commit_failures.clone(),
        );
        registry.register("failed_issuances", "Reservations that PostgreSQL refused for good", metrics.failed.clone());
        registry.register("conflicts", "Reservations that PostgreSQL contradicted", metrics.conflicts.clone());
        registry.register("hydrations", "Rounds filled from PostgreSQL", metrics.hydrations.clone());
        registry.register(
            "hydration_seconds",
            "Time of filling a round from PostgreSQL",
            metrics.hydration_seconds.clone(),
        );
        registry.register(
            "lineage_changes",
            "Times that the database was found to have another lineage",
            lineage.changes().clone(),
        );
        registry.register("swept", "Abandoned reservations taken up", metrics.swept.clone());
        registry.register(
            "wrong_tokens",
            "Requests with a bearer token that does not hold",
            metrics.wrong_tokens.clone(),
        );
        registry.register("sweep_seconds", "Time of one sweep over all rounds", metrics.sweep_seconds.clone());
        registry.register(
            "pending_places",
            "Places reserved and not committed, at the last sweep",
            metrics.pending_places.clone(),
        );
        registry.register(
            "pending_oldest_seconds",
            "Age of the oldest of them, at the last sweep",
            metrics.pending_oldest.clone(),
        );
        registry.register("redis_seconds", "Time of one exchange with Redis, by its kind", redis.latency().clone());
        registry.register("postgres_seconds", "Time of one exchange with PostgreSQL", postgres.latency().clone());
        registry.register(
            "postgres_connections",
            "Connections to PostgreSQL, by whether they are in use",
            metrics.connections.clone(),
        );
        registry.register("in_flight", "Requests being served on the public listener", metrics.in_flight.clone());
        registry.register(
            "unreadable_campaigns",
            "Campaigns that are not served because this release cannot read them",
            metrics.unreadable.clone(),
        );
        metrics.events.register(registry);
        metrics
    }

    /// Counts a refused issue request.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.refused.get_or_create(&Code { code: refusal.code() }).inc();
    }

    /// Notes how long a commit took.
    pub fn note_commit(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// Notes that a round was filled, and how long that took.
    pub fn note_hydration(&self, took: Duration) {
        self.hydrations.inc();
        self.hydration_seconds.observe(took.as_secs_f64());
    }

    /// Notes how long a sweep took, how many places it found pending, and for how long the oldest of them was.
    pub fn note_sweep(&self, took: Duration, pending: u64, oldest: Duration) {
        self.sweep_seconds.observe(took.as_secs_f64());
        self.pending_places.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.pending_oldest.set(oldest.as_secs_f64());
    }

    /// All of it, for a scraper.
    #[must_use]
    pub fn render(&self, scene: Scene) -> String {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (all, idle) = scene.connections;
        self.in_flight.set(gauge(scene.in_flight));
        self.unreadable.set(gauge(scene.unreadable));
        self.connections.get_or_create(&State { state: "idle" }).set(gauge(idle));
        self.connections.get_or_create(&State { state: "used" }).set(gauge(all.saturating_sub(idle)));
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
