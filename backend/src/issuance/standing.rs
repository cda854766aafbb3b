//! Where a campaign stands, for those who only look: the count, and the gateways' sync.

use std::sync::Arc;

use chrono::{DateTime, FixedOffset};
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{Phase, Round};
use doorbuster_domain::wire::SyncCampaign;
use serde::Serialize;
use tokio::time::Instant;

use super::{Issuance, RoundKey};
use crate::campaign::Campaign;
use crate::store::postgres::DatabaseError;
use crate::store::redis::{Reading, RedisError, RoundCounts};

/// Rounds asked about in one round trip.
const ASKED_AT_ONCE: usize = 200;

/// What the contract calls a campaign's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// After the last round.
    Ended,
    /// An operator paused it.
    Paused,
    /// Before the first round.
    Scheduled,
    /// Between rounds.
    Closed,
    /// The round's quota is committed.
    SoldOut,
    /// None of these.
    Open,
}

/// Where a campaign stands.
#[derive(Debug)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// The current round, else the next, else the last.
    pub round: Round,
    /// When the round after that opens.
    pub next_opens: Option<DateTime<FixedOffset>>,
    /// Committed coupons of that round.
    pub issued: u64,
    /// By Redis's clock, in the campaign's zone.
    pub as_of: DateTime<FixedOffset>,
}

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
    pub async fn standing(&self, campaign: &Campaign) -> Result<Standing, StandingError> {
        let now_ms = self.now().await?.now_ms;
        let (round, next_opens) = campaign.round_to_speak_of(now_ms);
        let issued = if now_ms < round.opens_ms() { 0 } else { self.issued(&campaign.id, round).await? };
        let state = match campaign.schedule.phase(now_ms) {
            Phase::Ended { .. } => State::Ended,
            _ if campaign.paused => State::Paused,
            Phase::NotStarted { .. } => State::Scheduled,
            Phase::OutsideHours { .. } => State::Closed,
            Phase::Open { .. } if campaign.spec.quota.is_some_and(|quota| issued >= quota) => State::SoldOut,
            Phase::Open { .. } => State::Open,
        };
        Ok(Standing { state, round, next_opens, issued, as_of: campaign.schedule.local(now_ms) })
    }

    /// Committed coupons of a round: from Redis while it knows the round, since a crowd may ask, else from PostgreSQL.
    async fn issued(&self, campaign: &CampaignId, round: Round) -> Result<u64, DatabaseError> {
        let key = RoundKey { campaign: campaign.clone(), round: round.id };
        let counts = self.redis.counts(&[(campaign, round.id)]).await.ok();
        let issued = match counts.as_deref() {
            Some([counts]) if counts.warm => counts.committed,
            _ => self.postgres.issued(campaign, round.id).await?,
        };
        Ok(self.progress.hear(&key, issued))
    }

    /// Where up to `limit` campaigns stand, nearest round first, and whether these are all.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn sync(&self, limit: usize, now_ms: i64) -> Result<(Vec<SyncCampaign>, bool), RedisError> {
        let snapshot = self.catalog.snapshot();
        let mut campaigns: Vec<(i64, &Arc<Campaign>, Round)> = snapshot
            .campaigns
            .values()
            .map(|campaign| {
                let (round, _) = campaign.round_to_speak_of(now_ms);
                // Those that are over come last.
                let nearness = if round.closes_ms() <= now_ms { i64::MAX } else { round.opens_ms() };
                (nearness, campaign, round)
            })
            .collect();
        campaigns.sort_by(|(one, campaign, _), (other, another, _)| one.cmp(other).then(campaign.id.cmp(&another.id)));
        let complete = snapshot.is_fresh() && campaigns.len() <= limit;
        campaigns.truncate(limit);

        let mut told = Vec::with_capacity(campaigns.len());
        for chunk in campaigns.chunks(ASKED_AT_ONCE) {
            let asked: Vec<_> = chunk.iter().map(|(_, campaign, round)| (&campaign.id, round.id)).collect();
            let counts = self.redis.counts(&asked).await?;
            for ((_, campaign, round), counts) in chunk.iter().zip(counts) {
                told.push(self.told(campaign, *round, counts, now_ms));
            }
        }
        Ok((told, complete))
    }

    fn told(&self, campaign: &Campaign, round: Round, counts: RoundCounts, now_ms: i64) -> SyncCampaign {
        let key = RoundKey { campaign: campaign.id.clone(), round: round.id };
        // A cold round's counts are those of what Redis lost; what this process heard holds all the same.
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
