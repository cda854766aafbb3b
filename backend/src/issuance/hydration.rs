//! Cold rounds: filling a round's keys in Redis from PostgreSQL. Opening and recovering are this one path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::RoundKey;
use crate::store::postgres::{DatabaseError, Postgres};
use crate::store::redis::{Lease, Redis, RedisError, Swap};
use crate::telemetry::Metrics;

/// Coupons read and staged at a time: each page is well within one call's deadline.
const PAGE: u32 = 5_000;

/// Between two looks at another backend's lease.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who has failed lets others look at the lease first: they may reach what this backend does not.
const AFTER_FAILURE: Duration = LOOK_AGAIN.saturating_mul(4);

/// Nobody waits longer for another backend's work; those who need the round ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What became of a hydration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hydrated {
    /// Redis has the round, by this hydration or a later one.
    Done,
    /// There is no such round.
    Gone,
    /// PostgreSQL or Redis cannot be reached, or another backend needs long.
    Failed,
}

#[derive(Debug, thiserror::Error)]
enum HydrationError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Hydrations under way in this process, at most one for each round.
#[derive(Debug)]
pub(super) struct Hydrations {
    postgres: Postgres,
    redis: Arc<Redis>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    /// This process, as a holder of leases: what it took and had no answer for is its own.
    holder: String,
    under_way: Mutex<HashMap<RoundKey, watch::Receiver<Option<Hydrated>>>>,
}

impl Hydrations {
    pub(super) fn new(postgres: Postgres, redis: Arc<Redis>, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        let holder = format!("{:032x}", rand::random::<u128>());
        Self { postgres, redis, metrics, tasks, holder, under_way: Mutex::default() }
    }

    /// Hydrates a round, or waits for the hydration under way. Whoever stops waiting does not stop it.
    pub(super) async fn hydrate(self: &Arc<Self>, key: &RoundKey) -> Hydrated {
        let mut outcome = match self.under_way.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()) {
            Entry::Occupied(under_way) => under_way.get().clone(),
            Entry::Vacant(vacant) => {
                let (tell, outcome) = watch::channel(None);
                vacant.insert(outcome.clone());
                let (this, key) = (Arc::clone(self), key.clone());
                self.tasks.spawn(async move {
                    let hydrated = this.run(&key).await;
                    if hydrated == Hydrated::Failed {
                        // Whoever comes meanwhile hears of this failure.
                        tell.send_replace(Some(hydrated));
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                    this.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    tell.send_replace(Some(hydrated));
                });
                outcome
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(hydrated) => hydrated.unwrap_or(Hydrated::Failed),
            // Its task panicked; the next to come begins another.
            Err(_) => {
                self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                Hydrated::Failed
            }
        }
    }

    async fn run(&self, key: &RoundKey) -> Hydrated {
        match self.fill_alone(key).await {
            Ok(hydrated) => hydrated,
            Err(error) => {
                tracing::warn!(%error, campaign = %key.campaign, round = %key.round, "a round cannot be hydrated");
                Hydrated::Failed
            }
        }
    }

    /// Backends take turns: whoever waited finds the round filled. The lease is kept while this one works, however long
    /// that takes, and ends soon after it was killed or paused.
    async fn fill_alone(&self, key: &RoundKey) -> Result<Hydrated, HydrationError> {
        let lease = self.redis.lease(&key.campaign, key.round, &self.holder);
        let came = Instant::now();
        while !self.redis.take(&lease).await? {
            if came.elapsed() > LONGEST_WAIT {
                return Ok(Hydrated::Failed);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let filled = tokio::select! {
            filled = self.fill(key) => filled,
            never = self.keep(&lease) => match never {},
        };
        if let Err(error) = self.redis.give_back(&lease).await {
            tracing::debug!(%error, "a lease has to end by itself");
        }
        filled
    }

    async fn keep(&self, lease: &Lease) -> Infallible {
        loop {
            tokio::time::sleep(Lease::TERM / 4).await;
            // Lost or not, the work goes on: the epoch decides whose counts.
            if let Err(error) = self.redis.take(lease).await {
                tracing::debug!(%error, "a lease may end early");
            }
        }
    }

    /// A replica that was failed over to may have missed a change, and shows a round that is warm under a version of the past.
    async fn shows_newest_version(&self, key: &RoundKey) -> Result<bool, HydrationError> {
        let Some(campaign) = self.postgres.campaign(&key.campaign).await? else { return Ok(false) };
        Ok(self.redis.version(&key.campaign).await? >= campaign.version())
    }

    /// The new epoch is committed before anything is read: from then on no commit changes the round until Redis shows
    /// that epoch, since those who come with an older one are refused. So the pages read below fit each other, however
    /// long that takes, and no lock is held meanwhile.
    async fn fill(&self, key: &RoundKey) -> Result<Hydrated, HydrationError> {
        let began = Instant::now();
        let known = self.redis.count(&key.campaign, key.round).await?;
        if known.warm && self.shows_newest_version(key).await? {
            return Ok(Hydrated::Done);
        }
        let shown = known.epoch;
        let Some(opened) = self.postgres.open_epoch(&key.campaign, key.round, shown).await? else {
            return Ok(Hydrated::Gone);
        };
        let mut staging = self.redis.stage(&key.campaign, key.round, opened.epoch);
        let (mut above, mut issued) = (0, 0);
        loop {
            let page = self.postgres.coupons_above(&key.campaign, key.round, above, PAGE).await?;
            let Some((_, last, _)) = page.last() else { break };
            above = *last;
            issued += page.len() as u64;
            self.redis.stage_coupons(&mut staging, &page).await?;
        }
        // Somebody added or deleted rows by hand. Nobody commits under this epoch before the swap.
        if issued != opened.issued {
            tracing::warn!(
                campaign = %key.campaign, round = %key.round, issued, said = opened.issued,
                "a round's count of coupons is corrected"
            );
            self.postgres.correct_issued(&key.campaign, key.round, opened.epoch, issued).await?;
        }
        let swapped = self.redis.swap(staging, opened.version, opened.closes_ms).await?;
        self.metrics.note_hydration(began.elapsed());
        tracing::info!(
            campaign = %key.campaign, round = %key.round, epoch = opened.epoch, highest = above, ?swapped,
            "hydrated a round"
        );
        Ok(if swapped == Swap::Lost { Hydrated::Failed } else { Hydrated::Done })
    }
}
