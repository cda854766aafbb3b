//! Campaigns, and changing them under their lock.

use std::collections::HashMap;

use doorbuster_domain::id::{CampaignId, RoundId};
use sqlx::types::Json;
use sqlx::{FromRow, Postgres as Db, Transaction};

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres, history};
use crate::campaign::{Campaign, Stored};
use crate::operators::Operator;

/// A campaign's row.
#[derive(Debug, FromRow)]
pub struct CampaignRow {
    id: String,
    version: i64,
    paused: bool,
    spec: String,
}

impl CampaignRow {
    fn into_stored(self) -> Stored {
        Stored::read(self.id, self.version, self.paused, &self.spec)
    }
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// The campaign is gone, once the change is committed; these were its rounds.
    Yes(Vec<RoundId>),
    /// It has coupons.
    HasCoupons,
}

impl Postgres {
    /// Every campaign's version.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn campaign_versions(&self) -> Result<HashMap<String, i64>, DatabaseError> {
        let rows: Vec<(String, i64)> =
            self.within(sqlx::query_as("SELECT id, version FROM campaigns").fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().collect())
    }

    /// The campaigns of these ids, as far as they exist.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn campaigns(&self, ids: &[String]) -> Result<Vec<Stored>, DatabaseError> {
        let rows: Vec<CampaignRow> = self
            .within(
                sqlx::query_as("SELECT id, version, paused, spec::text FROM campaigns WHERE id = ANY ($1)")
                    .bind(ids)
                    .fetch_all(&self.pool),
            )
            .await?;
        Ok(rows.into_iter().map(CampaignRow::into_stored).collect())
    }

    /// One campaign.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn campaign(&self, id: &CampaignId) -> Result<Option<Stored>, DatabaseError> {
        Ok(self.campaigns(&[id.to_string()]).await?.pop())
    }

    /// Begins to change a campaign that exists or not. Whoever else wants to, waits; so does a hydration.
    ///
    /// # Errors
    /// If PostgreSQL does not answer, or the lock cannot be had in time.
    pub async fn change(&self, id: &CampaignId) -> Result<Change, DatabaseError> {
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            // A campaign that does not exist has no row to lock.
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('campaign ' || $1, 0))")
                .bind(id.as_str())
                .execute(&mut *transaction)
                .await?;
            let row: Option<CampaignRow> =
                sqlx::query_as("SELECT id, version, paused, spec::text FROM campaigns WHERE id = $1 FOR UPDATE")
                    .bind(id.as_str())
                    .fetch_optional(&mut *transaction)
                    .await?;
            Ok((transaction, row))
        })
        .await
        .map(|(transaction, row)| {
            let current = row.map(CampaignRow::into_stored);
            Change { postgres: self.clone(), id: id.clone(), transaction, current }
        })
    }
}

/// A change of one campaign under way. Dropped without a commit it never was.
#[derive(Debug)]
pub struct Change {
    postgres: Postgres,
    id: CampaignId,
    transaction: Transaction<'static, Db>,
    current: Option<Stored>,
}

impl Change {
    /// The campaign's id.
    #[must_use]
    pub fn id(&self) -> &CampaignId {
        &self.id
    }

    /// The campaign before the change.
    #[must_use]
    pub fn current(&self) -> Option<&Stored> {
        self.current.as_ref()
    }

    /// Draws the campaign's next version, above the one that Redis shows.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn draw_version(&mut self, shown: i64) -> Result<i64, DatabaseError> {
        let drawing = sqlx::query_scalar("SELECT next_above('campaign_version', $1)").bind(shown);
        self.postgres.within(drawing.fetch_one(&mut *self.transaction)).await
    }

    /// The currency that this vendor has, if it is not this one.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn other_currency(&mut self, vendor: &str, currency: &str) -> Result<Option<String>, DatabaseError> {
        self.postgres
            .within(async {
                // Two first campaigns of a vendor must not miss each other.
                sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('vendor ' || $1, 0))")
                    .bind(vendor)
                    .execute(&mut *self.transaction)
                    .await?;
                sqlx::query_scalar("SELECT currency FROM vendors WHERE id = $1 AND currency <> $2")
                    .bind(vendor)
                    .bind(currency)
                    .fetch_optional(&mut *self.transaction)
                    .await
            })
            .await
    }

    /// Writes the campaign, and what its rounds of these days follow it in. Of one that cannot be
    /// read only the version and the pause are written.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn write(&mut self, stored: &Stored) -> Result<(), DatabaseError> {
        match stored {
            Stored::Readable(campaign) => self.write_whole(campaign).await,
            Stored::Unreadable(_) => {
                let writing = sqlx::query("UPDATE campaigns SET version = $2, paused = $3 WHERE id = $1")
                    .bind(self.id.as_str())
                    .bind(stored.version())
                    .bind(stored.paused());
                self.postgres.within(writing.execute(&mut *self.transaction)).await?;
                Ok(())
            }
        }
    }

    async fn write_whole(&mut self, campaign: &Campaign) -> Result<(), DatabaseError> {
        self.postgres
            .within(async {
                sqlx::query(
                    "INSERT INTO campaigns (id, version, paused, spec) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (id) DO UPDATE
                     SET version = excluded.version, paused = excluded.paused, spec = excluded.spec",
                )
                .bind(self.id.as_str())
                .bind(campaign.version)
                .bind(campaign.paused)
                .bind(Json(&campaign.spec))
                .execute(&mut *self.transaction)
                .await?;
                // Rounds are a day long at most, so those of earlier dates are over whatever the schedule says now.
                let rounds: Vec<chrono::NaiveDate> = sqlx::query_scalar(
                    "SELECT round FROM rounds WHERE campaign = $1 AND round > current_date - 4 ORDER BY round",
                )
                .bind(self.id.as_str())
                .fetch_all(&mut *self.transaction)
                .await?;
                for round in rounds {
                    let Some(window) = campaign.schedule.round(RoundId(round)) else { continue };
                    history::follow(&mut self.transaction, &self.id, window, campaign.spec.quota).await?;
                }
                Ok(())
            })
            .await
    }

    /// Deletes the campaign, unless a coupon was issued.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn delete(&mut self) -> Result<Deleted, DatabaseError> {
        self.postgres
            .within(async {
                // A commit under way holds its round; whoever comes later finds the round gone.
                let rounds: Vec<chrono::NaiveDate> =
                    sqlx::query_scalar("SELECT round FROM rounds WHERE campaign = $1 ORDER BY round FOR UPDATE")
                        .bind(self.id.as_str())
                        .fetch_all(&mut *self.transaction)
                        .await?;
                let has_coupons: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM coupons WHERE campaign = $1)")
                    .bind(self.id.as_str())
                    .fetch_one(&mut *self.transaction)
                    .await?;
                if has_coupons {
                    return Ok(Deleted::HasCoupons);
                }
                sqlx::query("DELETE FROM campaigns WHERE id = $1")
                    .bind(self.id.as_str())
                    .execute(&mut *self.transaction)
                    .await?;
                Ok(Deleted::Yes(rounds.into_iter().map(RoundId).collect()))
            })
            .await
    }

    /// Enters the change into the audit log.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn record(
        &mut self,
        by: &Operator,
        action: &'static str,
        after: Option<&Stored>,
    ) -> Result<(), DatabaseError> {
        let shown = |stored: &Stored| serde_json::to_value(stored.shown()).ok();
        let (before, after) = (self.current.as_ref().and_then(shown), after.and_then(shown));
        let record = Record { by, action, subject: format!("campaign/{}", self.id), before, after };
        self.postgres.within(audit_log::record(&mut self.transaction, &record)).await
    }

    /// Makes the change.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; the change may be made all the same.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        self.postgres.within(self.transaction.commit()).await
    }
}
