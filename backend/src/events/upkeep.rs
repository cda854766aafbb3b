//! What every backend looks after, whether it relays or not: which sinks there are, and how much waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::postgres::{DatabaseError, Postgres};
use crate::telemetry::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps `sinks` known, forgets those that nobody has any more, and measures, until `stop`.
pub(super) async fn run(sinks: Vec<&'static str>, postgres: Postgres, metrics: Arc<Metrics>, stop: CancellationToken) {
    let looking = async {
        loop {
            if let Err(error) = look(&sinks, &postgres, &metrics).await {
                tracing::warn!(%error, "the outbox cannot be looked after");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

async fn look(sinks: &[&str], postgres: &Postgres, metrics: &Metrics) -> Result<(), DatabaseError> {
    postgres.keep_sinks(sinks).await?;
    while postgres.forget_sinks().await? {}
    metrics.events.note(&postgres.backlogs().await?);
    Ok(())
}
