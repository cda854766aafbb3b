//! Rounds in which a backend has changed something lately, so that the others need not look at all
//! rounds to find those that have changed.

use doorbuster_domain::id::{CampaignId, RoundId};

use super::keys::EDGE;
use super::{Redis, RedisError};

/// A mark is kept for so long, milliseconds.
const KEPT_MS: i64 = 15_000;

impl Redis {
    /// Marks rounds as changed at `now_ms`, Redis's time.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn mark_busy(&self, rounds: &[(CampaignId, RoundId)], now_ms: i64) -> Result<(), RedisError> {
        if rounds.is_empty() {
            return Ok(());
        }
        let key = self.busy_key();
        let marks: Vec<(i64, String)> =
            rounds.iter().map(|(campaign, round)| (now_ms, format!("{campaign} {round}"))).collect();
        let mut pipeline = redis::pipe();
        pipeline
            .zadd_multiple(&key, &marks)
            .ignore()
            .zrembyscore(&key, "-inf", now_ms.saturating_sub(KEPT_MS))
            .ignore()
            .pexpire(&key, KEPT_MS)
            .ignore();
        self.transaction(EDGE, &mut pipeline).await
    }

    /// Rounds that were marked at `since_ms`, Redis's time, or later.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn busy_since(&self, since_ms: i64) -> Result<Vec<(CampaignId, RoundId)>, RedisError> {
        let reading = redis::Cmd::zrangebyscore(self.busy_key(), since_ms, "+inf");
        let marks: Vec<String> = self.command(EDGE, &reading).await?;
        let read = |mark: &String| {
            let (campaign, round) = mark.split_once(' ')?;
            Some((CampaignId::parse(campaign).ok()?, round.parse().ok()?))
        };
        Ok(marks.iter().filter_map(read).collect())
    }
}
