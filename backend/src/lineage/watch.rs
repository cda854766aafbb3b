//! Keeps this Redis and prefix claimed, and notices when the database is behind what others have
//! seen.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Lineage;
use crate::catalog::Catalog;
use crate::store::postgres::{DatabaseError, Postgres, Standing};
use crate::store::redis::{Claim, Claimed, Owner, Redis, RedisError};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// At start, the backends of a database that was replaced are given so long to end.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// A look could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// PostgreSQL does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis does not answer.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Why this process cannot use its Redis.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is another installation's.
    #[error(
        "the Redis and prefix {prefix:?} are used by {owner}, and this database is the installation \
         {installation}; set a redis_prefix (or a Redis) of its own here. If the other installation \
         does not exist any more, run `doorbuster installation claim`"
    )]
    Foreign {
        /// Whose it is.
        owner: Owner,
        /// The prefix of the keys.
        prefix: String,
        /// The installation of this process.
        installation: String,
    },
    /// It is used with another database of the same installation.
    #[error(
        "the Redis and prefix {prefix:?} are used by {owner}, of which this database is a copy; run \
         `doorbuster installation new` on the copy and set a redis_prefix (or a Redis) of its own there"
    )]
    Copy {
        /// Whose it is.
        owner: Owner,
        /// The prefix of the keys.
        prefix: String,
    },
}

/// Looks each second, and at once where there is a suspicion.
#[derive(Debug)]
pub struct Watch {
    postgres: Postgres,
    redis: Arc<Redis>,
    catalog: Arc<Catalog>,
    lineage: Arc<Lineage>,
    /// This process, as a holder of claims.
    holder: String,
}

impl Watch {
    /// A watch that has not looked yet.
    #[must_use]
    pub fn new(postgres: Postgres, redis: Arc<Redis>, catalog: Arc<Catalog>, lineage: Arc<Lineage>) -> Self {
        let holder = format!("{:032x}", rand::random::<u128>());
        Self { postgres, redis, catalog, lineage, holder }
    }

    /// Claims Redis before the first request. One that cannot be reached is claimed later; until
    /// then nothing else is sent to it.
    ///
    /// # Errors
    /// If it is somebody else's.
    pub async fn begin(&self) -> Result<(), Refused> {
        let until = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            let refused = match self.look().await {
                Ok(None) => return Ok(()),
                Ok(Some(refused)) => refused,
                Err(error) => {
                    tracing::warn!(%error, "Redis cannot be claimed yet");
                    self.redis.bar_unclaimed(&error);
                    return Ok(());
                }
            };
            if matches!(refused, Refused::Foreign { .. }) || tokio::time::Instant::now() > until {
                return Err(refused);
            }
            tracing::warn!(%refused, "waiting for the backends of the other database to end");
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let watching = async {
            loop {
                let _ = tokio::time::timeout(EVERY, self.lineage.suspicion.notified()).await;
                match self.look().await {
                    Ok(None) => {}
                    Ok(Some(refused)) => tracing::error!(%refused, "Redis may not be used"),
                    Err(error) => {
                        if let WatchError::Redis(error) = &error {
                            self.redis.explain_missing_claim(error);
                        }
                        tracing::debug!(%error, "cannot look whether the database is behind");
                    }
                }
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// One look: takes over the lineage of the database, claims Redis, and draws a new lineage if
    /// the database turns out to be behind. Some if Redis is somebody else's.
    async fn look(&self) -> Result<Option<Refused>, WatchError> {
        let standing = self.postgres.standing().await?;
        self.lineage.adopt(standing.installation.clone());
        let (lineage, version) = match self.claim(&standing, None).await? {
            Claimed::Ours { lineage, version } => (lineage, version),
            Claimed::Foreign(owner) => {
                let (prefix, installation) = (self.redis.prefix().to_owned(), standing.installation.id);
                return Ok(Some(Refused::Foreign { owner, prefix, installation }));
            }
            Claimed::Copy(owner) => {
                return Ok(Some(Refused::Copy { owner, prefix: self.redis.prefix().to_owned() }));
            }
        };
        let gateways = self.lineage.seen_above(standing.drawn);
        let seen = version.max(gateways.unwrap_or(0));
        // Redis and gateways were asked before, so what PostgreSQL says now is not older than what
        // they have seen.
        let is_behind = |now: &Standing| !now.knows(&lineage) || now.drawn < seen;
        let mut now = standing;
        if is_behind(&now) {
            now = self.postgres.draw_lineage(seen, is_behind).await?;
            self.lineage.adopt(now.installation.clone());
            self.catalog.refresh().await?;
        }
        if lineage != now.installation.lineage {
            self.claim(&now, Some(&lineage)).await?;
        }
        Ok(None)
    }

    async fn claim(&self, standing: &Standing, replaces: Option<&str>) -> Result<Claimed, RedisError> {
        self.redis
            .claim(&Claim {
                installation: &standing.installation.id,
                lineage: &standing.installation.lineage,
                replaces,
                version: standing.committed,
                place: &standing.place,
                address: self.postgres.address(),
                holder: &self.holder,
            })
            .await
    }
}
