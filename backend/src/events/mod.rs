//! Events out: what happened to coupons and campaigns, told to a webhook and to Kafka.
//!
//! Triggers write every event into the outbox in the transaction in which it happens (`migrations/0006_events.sql`), once
//! for each sink. Behind that, and never in its way, one backend at a time works off a sink's outbox ([`relay`]): an event
//! is deleted when the sink has it. A sink may get an event again, under the same id, and gets the events of one subject
//! (a coupon, a campaign) in order: while one is being tried again, or is a dead letter, later ones wait behind it.

mod event;
#[cfg(feature = "kafka")]
mod kafka;
mod metrics;
mod pace;
mod pass;
mod relay;
mod signature;
mod sink;
mod upkeep;
mod webhook;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use event::Event;
pub use metrics::EventMetrics;
pub use signature::SigningKey;

use crate::config::EventsConfig;
use crate::store::postgres::Postgres;
use crate::telemetry::Metrics;
use relay::Relay;
use sink::Sink;

/// Starts relaying to the configured sinks, until `stop`. Events are kept for them from before it returns.
///
/// # Errors
/// If a sink cannot be set up.
pub async fn start(
    config: &EventsConfig,
    postgres: &Postgres,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let sinks = Sink::all(config)?;
    let names: Vec<&'static str> = sinks.iter().map(Sink::name).collect();
    if let Err(error) = postgres.keep_sinks(&names).await {
        tracing::warn!(%error, "PostgreSQL has not heard of the sinks yet; a new one misses events until it has");
    }
    for sink in sinks {
        let relay = Relay::new(sink, config, postgres.clone(), Arc::clone(metrics));
        tasks.spawn(relay.run(stop.clone()));
    }
    tasks.spawn(upkeep::run(names, postgres.clone(), Arc::clone(metrics), stop.clone()));
    Ok(())
}
