//! Rounds as a whole: their version, counts, pending places, and rebuilding them.

use std::sync::LazyLock;
use std::time::Duration;

use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use redis::{Pipeline, Script, Value};

use super::keys::{EDGE, RoundKeys};
use super::link::is_at_an_end;
use super::places::{Held, unreadable};
use super::{Redis, RedisError, of_each};

static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("swap.lua")));
static CHILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("chill.lua")));
static RAISE_VERSION: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("raise_version.lua")));

/// A round's keys stay for so long after it closed.
const AFTERLIFE: Duration = Duration::from_secs(24 * 3600);

/// Rounds that one exchange counts, and versions that one reads.
const READ_AT_ONCE: usize = 200;

/// A rebuilding that was given up leaves its keys for so long.
const STAGED_MS: i64 = 10 * 60 * 1_000;

/// When the keys of a round may go, Unix milliseconds.
#[must_use]
pub(super) fn expiry_ms(closes_ms: i64) -> i64 {
    closes_ms.saturating_add(i64::try_from(AFTERLIFE.as_millis()).unwrap_or(i64::MAX))
}

/// What Redis knows of a round; by default, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoundCounts {
    /// Whether it may be relied on: there, and not marked for rebuilding.
    pub warm: bool,
    /// The epoch shown; 0 if there is none.
    pub epoch: i64,
    /// Committed coupons.
    pub committed: u64,
    /// Places held and not committed.
    pub pending: u64,
}

/// What became of a rebuilt round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// It is in place.
    Swapped,
    /// Redis shows a later epoch by now.
    Older,
    /// Redis lost what was staged, as when it was emptied meanwhile.
    Lost,
}

/// A round being rebuilt beside its live keys.
#[derive(Debug)]
pub struct Staging {
    campaign: CampaignId,
    round: RoundId,
    epoch: i64,
    users: String,
    free: String,
    /// The highest number staged so far.
    next: u64,
    staged_users: u64,
    staged_free: u64,
}

impl Redis {
    /// The version that Redis shows for a campaign; 0 if it shows none.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn version(&self, campaign: &CampaignId) -> Result<i64, RedisError> {
        let version: Option<i64> =
            self.command(campaign.as_str(), &redis::Cmd::get(self.version_key(campaign))).await?;
        Ok(version.unwrap_or(0))
    }

    /// Raises a campaign's version; tells the one shown afterwards, which is never lower than `version`.
    ///
    /// # Errors
    /// If Redis cannot be reached; the version may be raised all the same.
    pub async fn raise_version(&self, campaign: &CampaignId, version: i64) -> Result<i64, RedisError> {
        self.invoke(campaign.as_str(), RAISE_VERSION.key(self.version_key(campaign)).arg(version)).await
    }

    /// What Redis knows of a round.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn count(&self, campaign: &CampaignId, round: RoundId) -> Result<RoundCounts, RedisError> {
        let mut pipeline = redis::pipe();
        ask_count(&mut pipeline, &self.round_keys(campaign, round));
        let counted: Counted = self.transaction(campaign.as_str(), &mut pipeline).await?;
        Ok(counted.into())
    }

    /// What Redis knows of each round; none of those whose node in a cluster cannot be reached,
    /// or is handing them over.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub async fn counts(&self, rounds: &[(&CampaignId, RoundId)]) -> Result<Vec<Option<RoundCounts>>, RedisError> {
        let mut known = Vec::with_capacity(rounds.len());
        for some in rounds.chunks(READ_AT_ONCE) {
            known.extend(self.count_some(some).await?);
        }
        Ok(known)
    }

    async fn count_some(&self, rounds: &[(&CampaignId, RoundId)]) -> Result<Vec<Option<RoundCounts>>, RedisError> {
        if !self.is_cluster() {
            match self.count_together(rounds).await {
                // What one round's keys hold must not hide the others.
                Err(RedisError::Failed(error)) if !is_at_an_end(&error) => {}
                counted => return Ok(counted?.into_iter().map(Some).collect()),
            }
        }
        of_each(rounds.iter().map(|(campaign, round)| self.count(campaign, *round)).collect()).await
    }

    /// Counts rounds in one exchange, where one server has them all.
    async fn count_together(&self, rounds: &[(&CampaignId, RoundId)]) -> Result<Vec<RoundCounts>, RedisError> {
        let mut pipeline = redis::pipe();
        for (campaign, round) in rounds {
            ask_count(&mut pipeline, &self.round_keys(campaign, *round));
        }
        let replies: Vec<Value> = self.transaction(EDGE, &mut pipeline).await?;
        let counted = replies.chunks(COUNT_REPLIES).map(|replies| {
            let counted: Result<Counted, _> = redis::from_redis_value(Value::Array(replies.to_vec()));
            counted.map(RoundCounts::from).map_err(|_| unreadable("a count"))
        });
        counted.collect()
    }

    /// Up to `limit` places held since `until_ms` (Unix milliseconds) or longer, oldest first.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn held_since(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<Held>, RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut pipeline = redis::pipe();
        pipeline.hget(&keys.round, "epoch").zrangebyscore_limit_withscores(
            &keys.pending,
            "-inf",
            until_ms,
            0,
            isize::try_from(limit).unwrap_or(isize::MAX),
        );
        let (epoch, members): (Option<i64>, Vec<(String, f64)>) =
            self.transaction(campaign.as_str(), &mut pipeline).await?;
        let epoch = epoch.unwrap_or(0);
        members
            .iter()
            .map(|(member, since_ms)| {
                parse_member(member, epoch, *since_ms).ok_or_else(|| unreadable("a pending place"))
            })
            .collect()
    }

    /// Marks rounds cold, whatever they show. In a cluster, those whose node cannot be reached are
    /// left out while others can be.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub async fn chill(&self, rounds: &[(CampaignId, RoundId)]) -> Result<(), RedisError> {
        let chilled = rounds.iter().map(async |(campaign, round)| {
            let key = self.round_keys(campaign, *round).round;
            self.invoke::<bool>(campaign.as_str(), &CHILL.key(key)).await
        });
        of_each(chilled.collect()).await.map(drop)
    }

    /// Keeps the keys of a closed round while something in them is not settled.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn keep_round(&self, campaign: &CampaignId, round: RoundId, now_ms: i64) -> Result<(), RedisError> {
        let keys = self.round_keys(campaign, round);
        let mut pipeline = redis::pipe();
        for key in [&keys.round, &keys.users, &keys.pending, &keys.free] {
            pipeline.pexpire_at(key, expiry_ms(now_ms)).ignore();
        }
        self.transaction(campaign.as_str(), &mut pipeline).await
    }

    /// Drops the rounds of a deleted campaign. Its version stays for a while: it turns away whoever still knows the
    /// campaign.
    ///
    /// # Errors
    /// If Redis cannot be reached; the keys expire in time, and an epoch is never used again.
    pub async fn drop_campaign(&self, campaign: &CampaignId, rounds: &[RoundId]) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        let afterlife_ms = i64::try_from(AFTERLIFE.as_millis()).unwrap_or(i64::MAX);
        pipeline.pexpire(self.version_key(campaign), afterlife_ms).ignore();
        for round in rounds {
            let keys = self.round_keys(campaign, *round);
            pipeline.unlink(&[keys.round, keys.users, keys.pending, keys.free]).ignore();
        }
        self.transaction(campaign.as_str(), &mut pipeline).await
    }

    /// The versions that Redis shows for campaigns; 0 where it shows none, none where a node cannot be reached.
    ///
    /// # Errors
    /// If Redis cannot be reached at all.
    pub async fn versions(&self, campaigns: &[&CampaignId]) -> Result<Vec<Option<i64>>, RedisError> {
        if self.is_cluster() {
            return of_each(campaigns.iter().map(|campaign| self.version(campaign)).collect()).await;
        }
        let mut versions = Vec::with_capacity(campaigns.len());
        for some in campaigns.chunks(READ_AT_ONCE) {
            let keys: Vec<String> = some.iter().map(|campaign| self.version_key(campaign)).collect();
            let shown: Vec<Option<i64>> = self.command(EDGE, redis::cmd("MGET").arg(keys)).await?;
            versions.extend(shown.into_iter().map(|version| Some(version.unwrap_or(0))));
        }
        Ok(versions)
    }

    /// Begins to rebuild a round beside its live keys.
    #[must_use]
    pub fn stage(&self, campaign: &CampaignId, round: RoundId, epoch: i64) -> Staging {
        let keys = self.round_keys(campaign, round);
        let stage = format!("{}:stage:{epoch}", keys.round);
        Staging {
            campaign: campaign.clone(),
            round,
            epoch,
            users: format!("{stage}:users"),
            free: format!("{stage}:free"),
            next: 0,
            staged_users: 0,
            staged_free: 0,
        }
    }

    /// Adds committed coupons, whose numbers must rise from call to call.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn stage_coupons(
        &self,
        staging: &mut Staging,
        coupons: &[(UserId, u64, CouponCode)],
    ) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        for (user, number, code) in coupons {
            for gap in staging.next + 1..*number {
                pipeline.zadd(&staging.free, gap, gap).ignore();
                staging.staged_free += 1;
            }
            staging.next = *number;
            staging.staged_users += 1;
            pipeline.hset(&staging.users, user.as_str(), code.as_str()).ignore();
        }
        pipeline.pexpire(&staging.users, STAGED_MS).ignore().pexpire(&staging.free, STAGED_MS).ignore();
        self.transaction(staging.campaign.as_str(), &mut pipeline).await
    }

    /// Puts a rebuilt round in place.
    ///
    /// # Errors
    /// If Redis cannot be reached; it may be in place all the same.
    pub async fn swap(&self, staging: Staging, version: i64, closes_ms: i64) -> Result<Swap, RedisError> {
        let keys = self.round_keys(&staging.campaign, staging.round);
        let reply: String = self
            .invoke(
                staging.campaign.as_str(),
                SWAP.key(keys.version)
                    .key(keys.round)
                    .key(keys.users)
                    .key(keys.pending)
                    .key(keys.free)
                    .key(staging.users)
                    .key(staging.free)
                    .arg(staging.epoch)
                    .arg(version)
                    .arg(staging.next)
                    .arg(staging.staged_users)
                    .arg(staging.staged_free)
                    .arg(expiry_ms(closes_ms)),
            )
            .await?;
        match reply.as_str() {
            "swapped" => Ok(Swap::Swapped),
            "older" => Ok(Swap::Older),
            "lost" => Ok(Swap::Lost),
            _ => Err(unreadable("a swap")),
        }
    }
}

/// What [`ask_count`] is answered: epoch and cold mark, places, and those of them that are pending.
type Counted = ((Option<i64>, Option<String>), u64, u64);

/// Replies to one [`ask_count`].
const COUNT_REPLIES: usize = 3;

fn ask_count(pipeline: &mut Pipeline, keys: &RoundKeys) {
    pipeline.hmget(&keys.round, &["epoch", "cold"]).hlen(&keys.users).zcard(&keys.pending);
}

impl From<Counted> for RoundCounts {
    fn from(((epoch, cold), reserved, pending): Counted) -> Self {
        Self {
            warm: epoch.is_some() && cold.is_none(),
            epoch: epoch.unwrap_or(0),
            committed: reserved.saturating_sub(pending),
            pending,
        }
    }
}

/// Reads `CODE:NUMBER:USER`.
fn parse_member(member: &str, epoch: i64, since_ms: f64) -> Option<Held> {
    let mut parts = member.splitn(3, ':');
    let code = CouponCode::parse(parts.next()?).ok()?;
    let number = parts.next()?.parse().ok()?;
    let user = UserId::parse(parts.next()?).ok()?;
    // Scores are doubles; milliseconds since 1970 fit exactly.
    #[expect(clippy::cast_possible_truncation, reason = "a score is a time in whole milliseconds")]
    let since_ms = since_ms as i64;
    Some(Held { user, code, number, epoch, since_ms })
}
