//! What every backend looks after each second: abandoned reservations, rounds about to open, Redis ahead of PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::counts::Watched;
use super::lanes::Committed;
use super::request::reservation;
use super::standing::watched;
use super::{Issuance, RoundKey};
use crate::agenda::{Entry, Sheet, Stage};
use crate::campaign::Campaign;
use crate::store::postgres::RecentRound;
use crate::store::redis::{Held, RoundCounts};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Rounds are swept until so long after their closing.
const SWEPT_MS: i64 = 2 * 24 * 3600 * 1_000;

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

    /// Marks in Redis the rounds that this process changes, until `stop`.
    pub async fn mark_busy_rounds(self: Arc<Self>, stop: CancellationToken) {
        self.counts.mark(&self.clock, stop).await;
    }

    /// Sweeps each second until `stop`.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let sweeping = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                let Ok(reading) = self.now().await else { continue };
                let sheet = self.agenda.at(reading.now_ms);
                self.notice_newer_versions(&sheet).await;
                self.warm_rounds(&sheet, reading.now_ms).await;
                self.sweep_rounds(&sheet, reading.now_ms).await;
                self.counts.forget_unwanted();
                if let Some(now) = DateTime::from_timestamp_millis(reading.now_ms) {
                    self.progress.forget_before(now.date_naive());
                }
            }
        };
        stop.run_until_cancelled(sweeping).await;
    }

    /// Only campaigns that can be asked for a coupon: what was changed about the others is
    /// noticed before their next round opens.
    async fn notice_newer_versions(&self, sheet: &Sheet) {
        let campaigns: Vec<&Campaign> = near(sheet).map(|entry| entry.campaign.as_ref()).collect();
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
    async fn warm_rounds(&self, sheet: &Sheet, now_ms: i64) {
        let near: Vec<Watched> = near(sheet).map(|entry| watched(entry)).collect();
        for (watched, counts) in near.iter().zip(self.counts_of(&near, now_ms).await) {
            if counts.is_some_and(|counts| !counts.warm) {
                self.hydrate_behind(&watched.key).await;
            }
        }
    }

    async fn sweep_rounds(&self, sheet: &Sheet, now_ms: i64) {
        let began = Instant::now();
        let before = self.known_before();
        let rounds = match self.postgres.rounds_closing_after(now_ms - SWEPT_MS).await {
            Ok(rounds) => rounds,
            Err(error) => {
                tracing::warn!(%error, "cannot sweep");
                return;
            }
        };
        let near: Vec<RoundKey> = near(sheet).map(|entry| watched(entry).key).collect();
        self.compare(before, &rounds, &near).await;
        let recent: Vec<Watched> = rounds
            .iter()
            .map(|RecentRound { campaign, round, used_until_ms, .. }| Watched {
                key: RoundKey { campaign: campaign.clone(), round: *round },
                closes_ms: *used_until_ms,
            })
            .collect();
        let (mut pending, mut oldest_ms) = (0, 0);
        let counted = self.counts_of(&recent, now_ms).await;
        for ((watched, round), counts) in recent.iter().zip(&rounds).zip(counted) {
            if let Some(counts) = counts
                && counts.pending > 0
            {
                pending += counts.pending;
                oldest_ms = oldest_ms.max(self.sweep_round(&watched.key, counts, round.closes_ms, now_ms).await);
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
    async fn counts_of(&self, rounds: &[Watched], now_ms: i64) -> Vec<Option<RoundCounts>> {
        self.counts.look(rounds, now_ms, Instant::now()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot count");
            vec![None; rounds.len()]
        })
    }

    async fn hydrate_behind(&self, key: &RoundKey) {
        // Late or not, the next sweep will see what came of it.
        let _elapsed = tokio::time::timeout(PATIENCE, self.hydrations.hydrate(key)).await;
    }
}

/// Campaigns whose round is open or about to open.
fn near(sheet: &Sheet) -> impl Iterator<Item = &Arc<Entry>> {
    sheet.entries.iter().filter(|entry| matches!(entry.stage, Stage::Near | Stage::Open))
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
