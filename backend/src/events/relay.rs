//! The relay: brings the events of one sink's outbox to the sink.
//!
//! Every backend has one for each sink, and the one that holds the sink's lease works. The lease is an advisory lock of
//! a connection of its own, by which the outbox is worked off too: it ends with the connection, however that ends, and
//! without it nothing can be deleted. Two relays that both believe to hold it send some events twice and none in another
//! order, since an event is sent only by whom the outbox shows that the earlier ones of its subject were delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::pace::{self, Pace, Tally};
use super::pass::{Outcome, Pass};
use super::sink::{Sink, Undelivered};
use crate::config::EventsConfig;
use crate::store::postgres::{DatabaseError, FailedDelivery, Outbox, Postgres};
use crate::telemetry::Metrics;

/// Between two tries to get the lease, or to reach PostgreSQL.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A holder of the lease says so often that it is there, while it sends.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Brings events to one sink.
#[derive(Debug)]
pub(super) struct Relay {
    sink: Sink,
    attempts: u32,
    base: Duration,
    postgres: Postgres,
    metrics: Arc<Metrics>,
}

impl Relay {
    pub(super) fn new(sink: Sink, config: &EventsConfig, postgres: Postgres, metrics: Arc<Metrics>) -> Self {
        Self { sink, attempts: config.attempts, base: config.backoff, postgres, metrics }
    }

    /// Relays whenever it has the lease, until `stop`. A pass under way is ended early.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let outcome = self.work(&stop).await;
            self.metrics.events.relaying(self.sink.name(), false);
            if let Err(error) = outcome {
                tracing::warn!(%error, sink = self.sink.name(), "events are not relayed by this backend now");
                stop.run_until_cancelled(tokio::time::sleep(TRY_AGAIN)).await;
            }
        }
    }

    async fn work(&self, stop: &CancellationToken) -> Result<(), DatabaseError> {
        let mut outbox = self.postgres.outbox(self.sink.name()).await?;
        while !outbox.lease().await? {
            if stop.run_until_cancelled(tokio::time::sleep(TRY_AGAIN)).await.is_none() {
                return Ok(());
            }
        }
        tracing::info!(sink = self.sink.name(), "relaying events");
        self.metrics.events.relaying(self.sink.name(), true);
        let mut pace = Pace::new(self.base);
        while !stop.is_cancelled() {
            let tally = self.pass(&mut outbox, pace.window(), stop).await?;
            let pause = pace.after(tally, rand::random());
            if !pause.is_zero() {
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
        Ok(())
    }

    /// Sends what is due and what is new, up to `window` of each.
    async fn pass(&self, outbox: &mut Outbox, window: usize, stop: &CancellationToken) -> Result<Tally, DatabaseError> {
        let due = outbox.due(window).await?;
        let fresh = outbox.head(window).await?;
        if due.is_empty() && fresh.is_empty() {
            return Ok(Tally::default());
        }
        let full = due.len() == window || fresh.len() == window;
        let pass = Pass::new(due, fresh);
        let unknown = pass.unknown().map(str::to_owned);
        let outcomes = self.send(&pass, outbox, stop).await?;
        let (settlement, mut tally) = pass.settle(outcomes, |error, failed| self.failure(error, failed));
        outbox.settle(&settlement).await?;
        self.metrics.events.count(self.sink.name(), tally.sent, tally.failed);
        if let Some(kind) = unknown {
            tracing::warn!(kind, sink = self.sink.name(), "an event waits for a backend of a later release");
            // Without the lease: such a backend can take it.
            return Err(DatabaseError::Unreadable("event of a later release"));
        }
        // What waited behind a delivered event is due now.
        tally.more |= full || !settlement.touched.is_empty();
        Ok(tally)
    }

    async fn send(
        &self,
        pass: &Pass,
        outbox: &mut Outbox,
        stop: &CancellationToken,
    ) -> Result<HashMap<usize, Outcome>, DatabaseError> {
        // As many failures in a row as there are deliveries under way: the sink is away, and the rest can wait.
        let failures = AtomicUsize::new(0);
        let gave_up = || failures.load(Ordering::Relaxed) >= self.sink.in_flight() || stop.is_cancelled();
        let sending = stream::iter(pass.chains())
            .map(async |chain| {
                let mut outcomes = Vec::with_capacity(chain.len());
                let mut next = None;
                for place in chain {
                    let outcome = match &next {
                        Some(outcome) => Outcome::clone(outcome),
                        None if gave_up() => Outcome::NotTried,
                        None => self.deliver(pass, place, &failures).await,
                    };
                    next = match &outcome {
                        Outcome::Sent => None,
                        Outcome::Failed(_) | Outcome::Behind => Some(Outcome::Behind),
                        Outcome::NotTried => Some(Outcome::NotTried),
                    };
                    outcomes.push((place, outcome));
                }
                outcomes
            })
            .buffer_unordered(self.sink.in_flight())
            .concat();
        let mut signs = interval(SIGN_OF_LIFE);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        signs.tick().await;
        let mut sending = std::pin::pin!(sending);
        loop {
            tokio::select! {
                outcomes = &mut sending => return Ok(outcomes.into_iter().collect()),
                _ = signs.tick() => outbox.ping().await?,
            }
        }
    }

    async fn deliver(&self, pass: &Pass, place: usize, failures: &AtomicUsize) -> Outcome {
        let Some(event) = pass.event(place) else { return Outcome::NotTried };
        match self.sink.deliver(event, now_s()).await {
            Ok(()) => {
                failures.store(0, Ordering::Relaxed);
                Outcome::Sent
            }
            Err(error) => {
                failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, sink = self.sink.name(), event = event.id, "an event was not delivered");
                Outcome::Failed(error)
            }
        }
    }

    fn failure(&self, error: Undelivered, failed: u32) -> FailedDelivery {
        let wait = pace::wait(self.base, failed, self.attempts, rand::random());
        if wait.is_none() {
            tracing::error!(%error, sink = self.sink.name(), "an event is given up: a dead letter");
        }
        FailedDelivery { error: error.to_string(), wait }
    }
}

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "a webhook's receiver compares its own clock with ours")]
fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
