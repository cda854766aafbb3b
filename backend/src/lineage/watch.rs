//! Keeps this Redis and prefix claimed, and notices when the database is behind what others have
//! seen.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use doorbuster_domain::id::{CampaignId, RoundId};
use tokio_util::sync::CancellationToken;

use super::Lineage;
use crate::agenda::{Agenda, Stage};
use crate::catalog::Catalog;
use crate::store::postgres::{DatabaseError, Postgres, RecentRound, Standing};
use crate::store::redis::{Claim, Claimed, Clock, Owner, Redis, RedisError};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// At start, the backends of a database that was replaced are given so long to end.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// Rounds that closed longer ago, milliseconds, are not in Redis any more, or soon will not be.
const RECENT_MS: i64 = 2 * 24 * 3600 * 1_000;

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
    clock: Arc<Clock>,
    agenda: Agenda,
    catalog: Arc<Catalog>,
    lineage: Arc<Lineage>,
    /// This process, as a holder of claims.
    holder: String,
}

impl Watch {
    /// A watch that has not looked yet.
    #[must_use]
    pub fn new(
        postgres: Postgres,
        redis: Arc<Redis>,
        clock: Arc<Clock>,
        catalog: Arc<Catalog>,
        lineage: Arc<Lineage>,
    ) -> Self {
        let holder = format!("{:032x}", rand::random::<u128>());
        Self { postgres, redis, clock, agenda: Agenda::new(Arc::clone(&catalog)), catalog, lineage, holder }
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
        let (seen, lost) = (version.max(gateways.unwrap_or(0)), self.lineage.lost());
        // Asked again under a lock: by then PostgreSQL says what is not older than all of these.
        let is_behind = |now: &Standing| {
            !now.knows(&lineage) || now.drawn < seen || lost.as_ref() == Some(&now.installation.lineage)
        };
        let mut now = standing;
        if is_behind(&now) {
            now = self.go_back(seen, is_behind).await?;
        }
        if lineage != now.installation.lineage {
            self.claim(&now, Some(&lineage)).await?;
        }
        Ok(None)
    }

    /// Goes back to what PostgreSQL has. Redis first: from the moment at which it shows rounds as
    /// cold, nothing is learnt from it but what they are rebuilt from, so whoever acts by the new
    /// lineage has not counted what was lost.
    async fn go_back(&self, seen: i64, is_behind: impl FnOnce(&Standing) -> bool) -> Result<Standing, WatchError> {
        self.catalog.refresh().await?;
        let now_ms = self.clock.now(&self.redis).await?.now_ms;
        let rounds = self.rounds_in_use(now_ms).await?;
        self.redis.chill(&rounds).await?;
        let before = self.lineage.current();
        let now = self.postgres.draw_lineage(seen, is_behind).await?;
        if now.installation != *before {
            tracing::error!(
                lineage = now.installation.lineage,
                rounds = rounds.len(),
                "PostgreSQL was behind what Redis, a gateway or a backend had seen, as after a restore: \
                 its state is the one that holds, and rounds are rebuilt from it"
            );
        }
        self.lineage.adopt(now.installation.clone());
        self.catalog.refresh().await?;
        // So that every backend looks at them at once.
        self.redis.mark_busy(&rounds, now_ms).await?;
        Ok(now)
    }

    /// Rounds that are open or about to be, whether PostgreSQL knows them or not, and those that
    /// closed lately.
    async fn rounds_in_use(&self, now_ms: i64) -> Result<Vec<(CampaignId, RoundId)>, WatchError> {
        let recent = self.postgres.rounds_closing_after(now_ms - RECENT_MS).await?;
        let sheet = self.agenda.at(now_ms);
        let near = sheet.entries.iter().filter(|entry| matches!(entry.stage, Stage::Near | Stage::Open));
        let near = near.map(|entry| (entry.campaign.id.clone(), entry.round.id));
        let rounds: HashSet<_> =
            recent.into_iter().map(|RecentRound { campaign, round, .. }| (campaign, round)).chain(near).collect();
        Ok(rounds.into_iter().collect())
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
