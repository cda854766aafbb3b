//! Where a campaign stands, for those who only look: the count, and the gateways' sync.

use std::sync::Arc;

use doorbuster_domain::count::Count;
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::schedule::Round;
use doorbuster_domain::wire::SyncCampaign;
use tokio::time::Instant;

use super::{Issuance, RoundKey};
use crate::campaign::Campaign;
use crate::store::postgres::DatabaseError;
use crate::store::redis::{Reading, RedisError, RoundCounts};

/// Neither store can tell.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// Redis's clock is not known.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Redis does not know the round, and PostgreSQL does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Issuance {
    /// What Redis's clock shows.
    ///
    /// # Errors
    /// If it was not heard of lately and cannot be asked.
    pub async fn now(&self) -> Result<Reading, RedisError> {
        match self.clock.at(Instant::now()) {
            Some(reading) => Ok(reading),
            None => self.clock.sample(&self.redis).await,
        }
    }

    /// Where one campaign stands.
    ///
    /// # Errors
    /// If it cannot be known.
    pub async fn count(&self, campaign: &Campaign) -> Result<Count, StandingError> {
        let now_ms = self.now().await?.now_ms;
        let rounds = campaign.rounds(now_ms);
        let has_opened = rounds.round.opens_ms() <= now_ms;
        let issued = if has_opened { self.issued(&campaign.id, rounds.round).await? } else { 0 };
        let as_of = campaign.schedule.local(now_ms);
        Ok(Count::new(&campaign.id, &rounds, campaign.paused, campaign.spec.quota, issued, as_of))
    }

    /// Committed coupons of a round: from Redis while it knows the round, since a crowd may ask, else from PostgreSQL.
    async fn issued(&self, campaign: &CampaignId, round: Round) -> Result<u64, DatabaseError> {
        let key = RoundKey { campaign: campaign.clone(), round: round.id };
        let issued = match self.redis.count(campaign, round.id).await {
            Ok(counts) if counts.warm => counts.committed,
            _ => self.postgres.issued(&[(campaign, round.id)]).await?.first().copied().unwrap_or(0),
        };
        Ok(self.progress.hear(&key, issued))
    }

    /// Where up to `limit` campaigns stand, nearest round first, and whether these are all.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub async fn sync(&self, limit: usize, now_ms: i64) -> Result<(Vec<SyncCampaign>, bool), RedisError> {
        let snapshot = self.catalog.snapshot();
        let mut campaigns: Vec<(i64, &Arc<Campaign>, Round)> = snapshot
            .campaigns
            .values()
            .map(|campaign| {
                let round = campaign.rounds(now_ms).round;
                // Those that are over come last.
                let nearness = if round.closes_ms() <= now_ms { i64::MAX } else { round.opens_ms() };
                (nearness, campaign, round)
            })
            .collect();
        campaigns.sort_by(|(one, campaign, _), (other, another, _)| one.cmp(other).then(campaign.id.cmp(&another.id)));
        let complete = snapshot.is_fresh() && campaigns.len() <= limit;
        campaigns.truncate(limit);

        let asked: Vec<_> = campaigns.iter().map(|(_, campaign, round)| (&campaign.id, round.id)).collect();
        // Of rounds that are not heard of now, no more is known than of those that Redis has lost.
        let counts: Vec<_> = self.redis.counts(&asked).await?.into_iter().map(Option::unwrap_or_default).collect();
        let opened: Vec<_> = campaigns
            .iter()
            .zip(&counts)
            .filter(|((_, _, round), counts)| !counts.warm && round.opens_ms() <= now_ms)
            .map(|((_, campaign, round), _)| (&campaign.id, round.id))
            .collect();
        self.hear_from_postgres(&opened).await;
        let told = campaigns
            .iter()
            .zip(counts)
            .map(|((_, campaign, round), counts)| self.told(campaign, *round, counts, now_ms));
        let told = told.collect();
        Ok((told, complete))
    }

    /// Hears the counts of rounds that Redis lost, or keeps no more. Without PostgreSQL, what was heard before holds.
    async fn hear_from_postgres(&self, rounds: &[(&CampaignId, RoundId)]) {
        if rounds.is_empty() {
            return;
        }
        match self.postgres.issued(rounds).await {
            Ok(issued) => {
                for ((campaign, round), issued) in rounds.iter().zip(issued) {
                    self.progress.hear(&RoundKey { campaign: (*campaign).clone(), round: *round }, issued);
                }
            }
            Err(error) => tracing::warn!(%error, "the counts of cold rounds are not known"),
        }
    }

    fn told(&self, campaign: &Campaign, round: Round, counts: RoundCounts, now_ms: i64) -> SyncCampaign {
        let key = RoundKey { campaign: campaign.id.clone(), round: round.id };
        // What Redis holds of a cold round is what it has not lost yet.
        let (committed, pending) = if counts.warm { (counts.committed, counts.pending) } else { (0, 0) };
        let issued = self.progress.hear(&key, committed);
        SyncCampaign {
            id: campaign.id.clone(),
            version: u64::try_from(campaign.version).unwrap_or(0),
            paused: campaign.paused,
            timetable: campaign.schedule.timetable(now_ms),
            quota: campaign.spec.quota,
            round: (now_ms < round.closes_ms()).then_some(round.id),
            issued,
            reserved: issued.max(committed + pending),
        }
    }
}
