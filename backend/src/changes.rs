//! Changing campaigns, so that every backend acts by the change once it is answered.
//!
//! A change locks the campaign, draws its version under that lock, writes the version to Redis, commits, and only then
//! is answered. From the moment Redis shows it, `issue.lua` turns away whoever knows an older one; they read PostgreSQL
//! and wait there for the lock. If the commit fails, Redis is ahead of PostgreSQL; whoever notices gives PostgreSQL's
//! state a new version ([`Changes::repair`]).

use std::sync::Arc;

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{FieldError, Schedule};
use tokio::sync::Mutex;

use crate::campaign::{Campaign, Spec, Stored};
use crate::catalog::Catalog;
use crate::operators::Operator;
use crate::store::postgres::{Change, DatabaseError, Deleted, Postgres};
use crate::store::redis::{Redis, RedisError};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such campaign.
    #[error("no such campaign")]
    Unknown,
    /// The campaign has another version than the caller expects.
    #[error("another version")]
    Conflict,
    /// It cannot be deleted any more.
    #[error("has coupons")]
    HasCoupons,
    /// The change contradicts another campaign.
    #[error("{}: {}", .0.field, .0.message)]
    Invalid(FieldError),
    /// PostgreSQL failed; whether the change was made is unknown.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis failed; the change was not made.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Whether a campaign was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not.
    Created,
    /// It was.
    Replaced,
}

/// Whether a campaign is to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It is.
    On,
    /// It is to go on.
    Off,
}

/// Who makes a change, and what the audit log calls it.
#[derive(Debug, Clone, Copy)]
struct Act<'a> {
    by: &'a Operator,
    action: &'static str,
}

/// Versions that a caller is willing to change: RFC 9110's `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// None was named.
    Anything,
    /// `*`: the campaign must exist.
    Existing,
    /// One of these.
    Versions(Vec<i64>),
}

impl Expected {
    fn check(&self, current: Option<&Stored>) -> Result<(), ChangeError> {
        let met = match (self, current) {
            (Self::Anything, _) | (Self::Existing, Some(_)) => true,
            (Self::Existing | Self::Versions(_), None) => false,
            (Self::Versions(versions), Some(current)) => versions.contains(&current.version()),
        };
        if met { Ok(()) } else { Err(ChangeError::Conflict) }
    }
}

/// Makes changes.
#[derive(Debug)]
pub struct Changes {
    postgres: Postgres,
    redis: Arc<Redis>,
    catalog: Arc<Catalog>,
    /// One repair at a time: a crowd that is turned away must not queue up at the campaign's lock.
    repairing: Mutex<()>,
}

impl Changes {
    /// Changes to what `postgres` and `redis` hold, told to `catalog`.
    #[must_use]
    pub fn new(postgres: Postgres, redis: Arc<Redis>, catalog: Arc<Catalog>) -> Self {
        Self { postgres, redis, catalog, repairing: Mutex::new(()) }
    }

    /// Creates or replaces a campaign. A paused one stays paused.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn put(
        &self,
        by: &Operator,
        id: &CampaignId,
        spec: Spec,
        schedule: Schedule,
        expected: &Expected,
    ) -> Result<(Stored, Put), ChangeError> {
        let mut change = self.postgres.change(id).await?;
        expected.check(change.current())?;
        if let Some(currency) = change.other_currency(&spec.vendor, &spec.currency).await? {
            let message =
                format!("the vendor {:?} has its campaigns in {currency}; name that, or another vendor", spec.vendor);
            return Err(ChangeError::Invalid(FieldError::new("currency", message)));
        }
        let (put, paused) = change.current().map_or((Put::Created, false), |was| (Put::Replaced, was.paused()));
        let campaign = Campaign { id: id.clone(), version: 0, paused, spec, schedule };
        let action = if put == Put::Created { "campaign.created" } else { "campaign.replaced" };
        Ok((self.finish(change, &campaign.into(), Some(Act { by, action })).await?, put))
    }

    /// Pauses or resumes a campaign; where it already is so, nothing changes.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn set_paused(
        &self,
        by: &Operator,
        id: &CampaignId,
        pause: Pause,
        expected: &Expected,
    ) -> Result<Stored, ChangeError> {
        let change = self.postgres.change(id).await?;
        let current = change.current().ok_or(ChangeError::Unknown)?.clone();
        expected.check(Some(&current))?;
        let (paused, action) = match pause {
            Pause::On => (true, "campaign.paused"),
            Pause::Off => (false, "campaign.resumed"),
        };
        if current.paused() == paused {
            return Ok(current);
        }
        self.finish(change, &current.with(current.version(), paused), Some(Act { by, action })).await
    }

    /// Deletes a campaign that has no coupon yet.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn delete(&self, by: &Operator, id: &CampaignId, expected: &Expected) -> Result<(), ChangeError> {
        let mut change = self.postgres.change(id).await?;
        expected.check(Some(change.current().ok_or(ChangeError::Unknown)?))?;
        let Deleted::Yes(rounds) = change.delete().await? else { return Err(ChangeError::HasCoupons) };
        change.record(by, "campaign.deleted", None).await?;
        let version = self.draw_version(&mut change).await?;
        self.redis.raise_version(id, version).await?;
        change.commit().await?;
        self.catalog.remove(id).await;
        if let Err(error) = self.redis.drop_campaign(id, &rounds).await {
            tracing::warn!(%error, campaign = %id, "the keys of a deleted campaign stay until they expire");
        }
        Ok(())
    }

    /// Brings PostgreSQL and Redis together again where Redis shows a version that the catalog does not know.
    ///
    /// # Errors
    /// [`ChangeError::Database`] or [`ChangeError::Redis`].
    pub async fn catch_up(&self, id: &CampaignId, shown: i64) -> Result<(), ChangeError> {
        let is_behind = || self.catalog.get(id).is_some_and(|known| known.version < shown);
        let _repairing = self.repairing.lock().await;
        if is_behind() {
            self.catalog.refresh().await?;
        }
        if is_behind() { self.repair(id, shown).await } else { Ok(()) }
    }

    /// PostgreSQL is behind Redis: a change is under way, or failed after it had told Redis. The lock tells which.
    async fn repair(&self, id: &CampaignId, shown: i64) -> Result<(), ChangeError> {
        let change = self.postgres.change(id).await?;
        match change.current().cloned() {
            None => self.catalog.remove(id).await,
            Some(current) if current.version() >= shown => self.catalog.put(current).await,
            Some(current) => {
                let version = self.finish(change, &current, None).await?.version();
                tracing::warn!(campaign = %id, version, "gave a campaign a new version: Redis was ahead");
            }
        }
        Ok(())
    }

    /// Without an act it is no operator's change: what they wrote stays as it is.
    async fn finish(&self, mut change: Change, stored: &Stored, act: Option<Act<'_>>) -> Result<Stored, ChangeError> {
        let version = self.draw_version(&mut change).await?;
        let stored = stored.with(version, stored.paused());
        change.write(&stored).await?;
        if let Some(Act { by, action }) = act {
            change.record(by, action, Some(&stored)).await?;
        }
        self.redis.raise_version(change.id(), version).await?;
        change.commit().await?;
        self.catalog.put(stored.clone()).await;
        Ok(stored)
    }

    async fn draw_version(&self, change: &mut Change) -> Result<i64, ChangeError> {
        let shown = self.redis.version(change.id()).await?;
        Ok(change.draw_version(shown).await?)
    }
}
