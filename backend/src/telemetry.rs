//! What the backend says about itself: log lines and metrics.

use std::time::Duration;

use doorbuster_domain::refusal::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Media type of [`Metrics::render`].
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Sends log lines to the standard error.
pub fn start_logging(filter: &str, format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
    }
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    code: &'static str,
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
    /// Abandoned reservations that the sweeper took up.
    pub swept: Counter,
    /// Requests with a bearer token that does not hold.
    pub wrong_tokens: Counter,
    in_flight: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
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
            swept: Counter::default(),
            wrong_tokens: Counter::default(),
            in_flight: Gauge::default(),
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
        registry.register("swept", "Abandoned reservations taken up", metrics.swept.clone());
        registry.register(
            "wrong_tokens",
            "Requests with a bearer token that does not hold",
            metrics.wrong_tokens.clone(),
        );
        registry.register("in_flight", "Requests being served on the public listener", metrics.in_flight.clone());
        metrics
    }
}

impl Metrics {
    /// Counts a refused issue request.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.refused.get_or_create(&Code { code: refusal.code() }).inc();
    }

    /// Notes how long a commit took.
    pub fn note_commit(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// All of it, for a scraper. `in_flight`: requests being served on the public listener.
    #[must_use]
    pub fn render(&self, in_flight: usize) -> String {
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
