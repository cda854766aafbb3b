//! Where a campaign stands, for those who only look: the count, and the gateways' sync.

use std::collections::HashMap;
use std::sync::Arc;

use doorbuster_domain::count::Count;
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::Round;
use doorbuster_domain::wire::SyncCampaign;
use tokio::time::Instant;

use super::counts::Watched;
use super::{Issuance, RoundKey};
use crate::agenda::{Entry, Stage};
use crate::campaign::Campaign;
use crate::lineage::Generation;
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
        self.clock.now(&self.redis).await
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
        let since = self.lineage.generation();
        let key = RoundKey { campaign: campaign.clone(), round: round.id };
        let issued = match self.redis.count(campaign, round.id).await {
            Ok(counts) if counts.warm => counts.committed,
            _ => self.postgres.issued(&[(campaign, round.id)]).await?.first().copied().unwrap_or(0),
        };
        Ok(self.progress.hear(&key, issued, since))
    }

    /// Where up to `limit` campaigns stand, those first that gateways need first, and whether
    /// these are all.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub async fn sync(&self, limit: usize, now_ms: i64) -> Result<(Vec<SyncCampaign>, bool), RedisError> {
        let asked = Instant::now();
        let sheet = self.agenda.at(now_ms);
        let complete = self.catalog.snapshot().is_complete() && sheet.entries.len() <= limit;
        let entries = sheet.entries.get(..limit.min(sheet.entries.len())).unwrap_or_default();
        let mut standings = self.standings(entries, now_ms, asked).await?;
        let told = entries.iter().map(|entry| {
            let standing = standings.remove(&entry.campaign.id).unwrap_or_default();
            told(entry, standing)
        });
        Ok((told.collect(), complete))
    }

    /// The counts of those campaigns' rounds that have begun, as of `since` or later. Of the
    /// others there is nothing to count.
    async fn standings(
        &self,
        entries: &[Arc<Entry>],
        now_ms: i64,
        since: Instant,
    ) -> Result<HashMap<CampaignId, Standing>, RedisError> {
        let generation = self.lineage.generation();
        let begun: Vec<Watched> = entries
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Open | Stage::Ended))
            .map(|entry| watched(entry))
            .collect();
        let (over, live): (Vec<Watched>, Vec<Watched>) =
            begun.into_iter().partition(|watched| watched.is_settled(now_ms));
        // Of rounds that are not known now, no more is known than of those that Redis has lost.
        let looked = self.counts.look(&live, now_ms, since).await?;
        let looked: Vec<_> = looked.into_iter().map(Option::unwrap_or_default).collect();
        let cold = live.iter().zip(&looked).filter(|(_, counts)| !counts.warm).map(|(watched, _)| watched);
        self.count_in_postgres(&over.iter().chain(cold).collect::<Vec<_>>(), now_ms).await;
        let over = over.iter().map(|watched| (watched, RoundCounts::default()));
        let standings = live.iter().zip(looked).chain(over).map(|(watched, counts)| {
            let standing = self.standing(&watched.key, counts, generation);
            (watched.key.campaign.clone(), standing)
        });
        Ok(standings.collect())
    }

    /// Counts the coupons of rounds that Redis lost, or keeps no more. Without PostgreSQL, what
    /// was known before stays so.
    async fn count_in_postgres(&self, watched: &[&Watched], now_ms: i64) {
        let due = self.counts.without_row(watched, now_ms);
        if due.is_empty() {
            return;
        }
        let asked = Instant::now();
        let rounds: Vec<_> = due.iter().map(|key| (&key.campaign, key.round)).collect();
        match self.postgres.issued(&rounds).await {
            Ok(issued) => self.counts.note_rows(due.into_iter().zip(issued), asked),
            Err(error) => {
                tracing::warn!(%error, "the counts of cold rounds are not known");
                self.counts.note_no_rows(asked);
            }
        }
    }

    fn standing(&self, key: &RoundKey, counts: RoundCounts, since: Generation) -> Standing {
        // What Redis holds of a cold round is what it has not lost yet.
        let (committed, pending) = if counts.warm { (counts.committed, counts.pending) } else { (0, 0) };
        let known = if counts.warm { committed } else { self.counts.row(key) };
        let issued = self.progress.hear(key, known, since);
        Standing { issued, reserved: issued.max(committed + pending) }
    }
}

/// The counts of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Standing {
    /// Committed coupons.
    issued: u64,
    /// Committed and pending ones.
    reserved: u64,
}

/// The round that a campaign's entry is about.
pub(super) fn watched(entry: &Entry) -> Watched {
    let key = RoundKey { campaign: entry.campaign.id.clone(), round: entry.round.id };
    Watched { key, closes_ms: entry.round.closes_ms() }
}

fn told(entry: &Entry, standing: Standing) -> SyncCampaign {
    let campaign = &entry.campaign;
    SyncCampaign {
        id: campaign.id.clone(),
        version: u64::try_from(campaign.version).unwrap_or(0),
        paused: campaign.paused,
        timetable: entry.timetable.clone(),
        quota: campaign.spec.quota,
        round: (entry.stage != Stage::Ended).then_some(entry.round.id),
        issued: standing.issued,
        reserved: standing.reserved,
    }
}
