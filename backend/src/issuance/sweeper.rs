//! What every backend looks after each second: abandoned reservations, rounds about to open, Redis ahead of PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use doorbuster_domain::schedule::Phase;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::lanes::Committed;
use super::request::reservation;
use super::{Issuance, RoundKey};
use crate::campaign::Campaign;
use crate::store::postgres::RecentRound;
use crate::store::redis::{Held, RoundCounts};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Rounds are swept until so long after their closing.
const SWEPT_MS: i64 = 2 * 24 * 3600 * 1_000;

/// A round is warmed when it opens within this.
const WARMED_MS: i64 = 60_000;

/// Places taken up at a time.
const SWEPT_AT_ONCE: usize = 500;

/// A round's hydration goes on behind the sweeper after so long, so that one round does not keep it from the others.
const PATIENCE: Duration = Duration::from_secs(1);

impl Issuance {
    /// Samples Redis's clock each second until `stop`.
    pub async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        let keeping = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                if let Err(error) = self.clock.sample(&self.redis).await {
                    tracing::warn!(%error, "Redis's clock cannot be read");
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// Sweeps each second until `stop`.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let sweeping = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                let Ok(reading) = self.now().await else { continue };
                self.notice_newer_versions().await;
                self.warm_rounds(reading.now_ms).await;
                self.sweep_rounds(reading.now_ms).await;
                if let Some(now) = DateTime::from_timestamp_millis(reading.now_ms) {
                    self.progress.forget_before(now.date_naive());
                }
            }
        };
        stop.run_until_cancelled(sweeping).await;
    }

    async fn notice_newer_versions(&self) {
        let snapshot = self.catalog.snapshot();
        let campaigns: Vec<&Campaign> = snapshot.campaigns.values().map(AsRef::as_ref).collect();
        let ids: Vec<_> = campaigns.iter().map(|campaign| &campaign.id).collect();
        let Ok(shown) = self.redis.versions(&ids).await else { return };
        for (campaign, shown) in campaigns.iter().zip(shown) {
            if let Some(shown) = shown
                && campaign.version < shown
                && let Err(error) = self.changes.catch_up(&campaign.id, shown).await
            {
                tracing::warn!(%error, campaign = %campaign.id, "cannot catch up with a newer version");
            }
        }
    }

    /// Rounds that are open or about to be, and that Redis does not know.
    async fn warm_rounds(&self, now_ms: i64) {
        let snapshot = self.catalog.snapshot();
        let near: Vec<RoundKey> = snapshot
            .campaigns
            .values()
            .filter_map(|campaign| match campaign.schedule.phase(now_ms) {
                Phase::Open { round } => Some((campaign, round)),
                Phase::NotStarted { next } | Phase::OutsideHours { next } => {
                    (next.opens_ms() - now_ms <= WARMED_MS).then_some((campaign, next))
                }
                Phase::Ended { .. } => None,
            })
            .map(|(campaign, round)| RoundKey { campaign: campaign.id.clone(), round: round.id })
            .collect();
        for (key, counts) in near.iter().zip(self.counts_of(&near).await) {
            if counts.is_some_and(|counts| !counts.warm) {
                self.hydrate_behind(key).await;
            }
        }
    }

    async fn sweep_rounds(&self, now_ms: i64) {
        let began = Instant::now();
        let rounds = match self.postgres.rounds_closing_after(now_ms - SWEPT_MS).await {
            Ok(rounds) => rounds,
            Err(error) => {
                tracing::warn!(%error, "cannot sweep");
                return;
            }
        };
        let keys: Vec<RoundKey> = rounds
            .iter()
            .map(|RecentRound { campaign, round, .. }| RoundKey { campaign: campaign.clone(), round: *round })
            .collect();
        let (mut pending, mut oldest_ms) = (0, 0);
        for ((key, round), counts) in keys.iter().zip(&rounds).zip(self.counts_of(&keys).await) {
            if let Some(counts) = counts
                && counts.pending > 0
            {
                pending += counts.pending;
                oldest_ms = oldest_ms.max(self.sweep_round(key, counts, round.closes_ms, now_ms).await);
            }
        }
        let oldest = Duration::from_millis(u64::try_from(oldest_ms).unwrap_or(0));
        self.metrics.note_sweep(began.elapsed(), pending, oldest);
    }

    /// Tells for how long the round's oldest place is pending, milliseconds.
    async fn sweep_round(&self, key: &RoundKey, counts: RoundCounts, closes_ms: i64, now_ms: i64) -> i64 {
        let Some(campaign) = self.catalog.get(&key.campaign) else { return 0 };
        if !counts.warm {
            self.hydrate_behind(key).await;
        }
        if closes_ms < now_ms
            && let Err(error) = self.redis.keep_round(&key.campaign, key.round, now_ms).await
        {
            tracing::warn!(%error, campaign = %key.campaign, round = %key.round, "cannot keep a round's keys");
        }
        let sweep_after_ms = i64::try_from(self.deadlines.sweep_after.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_sub(sweep_after_ms);
        match self.redis.held_since(&key.campaign, key.round, now_ms, SWEPT_AT_ONCE).await {
            Ok(mut held) => {
                let oldest_ms = held.first().map_or(0, |oldest| now_ms - oldest.since_ms);
                // Oldest first: what follows may still be at work.
                held.truncate(held.partition_point(|held| held.since_ms <= until_ms));
                self.take_up(key, &campaign, held).await;
                oldest_ms
            }
            Err(error) => {
                tracing::warn!(%error, campaign = %key.campaign, round = %key.round, "cannot sweep a round");
                0
            }
        }
    }

    /// Commits abandoned places. Another sweeper, or the place's own request, may do the same: the code decides.
    async fn take_up(&self, key: &RoundKey, campaign: &Campaign, abandoned: Vec<Held>) {
        let submitted: Vec<_> = abandoned
            .into_iter()
            .map(|held| (self.lanes.submit(key, reservation(campaign, &held), None), held))
            .collect();
        for (answer, held) in submitted {
            let Ok(committed) = answer.await else { continue };
            if committed == Committed::Unknown {
                continue;
            }
            self.metrics.swept.inc();
            tracing::info!(
                campaign = %key.campaign, round = %key.round, number = held.number, outcome = committed.name(),
                "swept an abandoned place"
            );
            if let Err(error) = self.resolve(key, &held, &committed).await {
                tracing::warn!(%error, campaign = %key.campaign, "a conflict cannot be resolved yet");
            }
        }
    }

    /// What Redis knows of each round; none where it does not answer.
    async fn counts_of(&self, keys: &[RoundKey]) -> Vec<Option<RoundCounts>> {
        let asked: Vec<_> = keys.iter().map(|key| (&key.campaign, key.round)).collect();
        self.redis.counts(&asked).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot count");
            vec![None; keys.len()]
        })
    }

    async fn hydrate_behind(&self, key: &RoundKey) {
        // Late or not, the next sweep will see what came of it.
        let _elapsed = tokio::time::timeout(PATIENCE, self.hydrations.hydrate(key)).await;
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
