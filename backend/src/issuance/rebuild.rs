//! Rebuilding a round when an operator asks for it.

use std::time::Duration;

use doorbuster_domain::id::{CampaignId, RoundId};

use super::hydration::Hydrated;
use super::{Issuance, RoundKey};
use crate::operators::Operator;
use crate::store::postgres::DatabaseError;
use crate::store::redis::RedisError;

/// An operator waits so long; a round of a million coupons is rebuilt in about four seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why a round was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// PostgreSQL does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis does not answer.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// There is no such round.
    #[error("no such round")]
    Gone,
    /// It needs longer; it goes on.
    #[error("the round is not rebuilt yet")]
    Unfinished,
}

impl Issuance {
    /// Rebuilds a round in Redis from PostgreSQL, and enters that into the operators' log
    /// beforehand. What is pending stays. If PostgreSQL turns out to lack what it was known to
    /// have, all rounds in use are rebuilt, a moment later.
    ///
    /// # Errors
    /// [`RebuildError`]. Asking again does no harm.
    pub async fn rebuild(&self, by: &Operator, campaign: &CampaignId, round: RoundId) -> Result<(), RebuildError> {
        let key = RoundKey { campaign: campaign.clone(), round };
        let before = self.known_before();
        let shown = self.redis.count(campaign, round).await?;
        self.postgres.note_rebuild(by, campaign, round, shown.committed, shown.pending).await?;
        self.ask_anew(&before, std::slice::from_ref(&key)).await;
        self.redis.chill(&[(campaign.clone(), round)]).await?;
        match tokio::time::timeout(PATIENCE, self.hydrations.hydrate(&key)).await {
            Ok(Hydrated::Done) => {
                self.counts.touch(&key);
                Ok(())
            }
            Ok(Hydrated::Gone) => Err(RebuildError::Gone),
            Ok(Hydrated::Failed) | Err(_) => Err(RebuildError::Unfinished),
        }
    }
}
