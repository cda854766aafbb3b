//! What to do about a reservation that PostgreSQL did not turn into a coupon: alike for a request and for the sweeper.

use super::lanes::Committed;
use super::{Issuance, RoundKey};
use crate::store::redis::{Held, RedisError};

impl Issuance {
    /// Brings Redis in line with what PostgreSQL said of `held`.
    pub(super) async fn resolve(&self, key: &RoundKey, held: &Held, committed: &Committed) -> Result<(), RedisError> {
        let (campaign, round) = (&key.campaign, key.round);
        let resolved = match committed {
            Committed::Issued(_) | Committed::Unknown => return Ok(()),
            // The place stays: if a hydration merged it, it can be committed under the new epoch.
            Committed::Stale => self.redis.mark_cold(campaign, round, held.epoch).await,
            Committed::Failed => self.redis.release(campaign, round, held).await,
            Committed::UserTaken(_) | Committed::NumberTaken | Committed::CodeTaken | Committed::Gone => {
                self.metrics.conflicts.inc();
                tracing::warn!(
                    %campaign, %round, number = held.number, epoch = held.epoch, outcome = committed.name(),
                    "PostgreSQL contradicts Redis; the round is rebuilt"
                );
                self.redis.discard(campaign, round, held).await
            }
        };
        self.counts.touch(key);
        resolved
    }
}
