//! What Redis holds of a round, for an audit.

use std::collections::BTreeMap;

use doorbuster_domain::id::{CampaignId, RoundId};
use redis::cmd;

use super::{Redis, RedisError};

/// Entries asked for at a time.
const PAGE: usize = 1_000;

/// A round's keys as they are written, not as they should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Whether backends rely on them; otherwise they are rebuilt before anything else is decided.
    pub warm: bool,
    /// The highest number given so far.
    pub next: u64,
    /// `CODE` of users whose coupon is committed, `CODE:NUMBER` of those whose place is pending.
    pub users: BTreeMap<String, String>,
    /// `CODE:NUMBER:USER` by the time of reservation, Unix milliseconds.
    pub pending: Vec<(String, i64)>,
    /// Numbers given back.
    pub free: Vec<u64>,
}

impl Redis {
    /// A round's keys, read piece by piece while others change them; none if Redis does not know the round.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn places(&self, campaign: &CampaignId, round: RoundId) -> Result<Option<Places>, RedisError> {
        let keys = self.round_keys(campaign, round);
        let (epoch, next, cold): (Option<i64>, Option<u64>, Option<String>) =
            self.command(campaign.as_str(), cmd("HMGET").arg(&keys.round).arg(&["epoch", "next", "cold"])).await?;
        if epoch.is_none() {
            return Ok(None);
        }
        let mut users = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let (next_cursor, page): (u64, Vec<(String, String)>) = self
                .command(campaign.as_str(), cmd("HSCAN").arg(&keys.users).arg(cursor).arg("COUNT").arg(PAGE))
                .await?;
            users.extend(page);
            cursor = next_cursor;
            if cursor == 0 {
                break;
            }
        }
        let pending: Vec<(String, f64)> = self.members(campaign, &keys.pending).await?;
        let free: Vec<(u64, f64)> = self.members(campaign, &keys.free).await?;
        // Scores are doubles; milliseconds since 1970 fit exactly.
        #[expect(clippy::cast_possible_truncation, reason = "a score is a time in whole milliseconds")]
        let pending = pending.into_iter().map(|(member, since_ms)| (member, since_ms as i64)).collect();
        let free = free.into_iter().map(|(number, _)| number).collect();
        Ok(Some(Places { warm: cold.is_none(), next: next.unwrap_or(0), users, pending, free }))
    }

    /// The members of a sorted set with their scores.
    async fn members<T: redis::FromRedisValue>(
        &self,
        campaign: &CampaignId,
        key: &str,
    ) -> Result<Vec<(T, f64)>, RedisError> {
        let mut members = Vec::new();
        loop {
            let (from, to) = (members.len(), members.len() + PAGE - 1);
            let page: Vec<(T, f64)> =
                self.command(campaign.as_str(), cmd("ZRANGE").arg(key).arg(from).arg(to).arg("WITHSCORES")).await?;
            let is_last = page.len() < PAGE;
            members.extend(page);
            if is_last {
                return Ok(members);
            }
        }
    }
}
