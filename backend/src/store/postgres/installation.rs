//! The installation that the database belongs to, and its lineage.

use serde_json::json;
use sqlx::FromRow;

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres};
use crate::operators::Operator;

/// Which installation a database belongs to, and which history it has.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Installation {
    /// Names the database with its backends, its keys in Redis and its gateways; see the table
    /// `installation`.
    pub id: String,
    /// Replaced when the database is found to be behind Redis or a gateway.
    pub lineage: String,
}

/// What the database says about itself.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Standing {
    /// The installation and its lineage.
    #[sqlx(flatten)]
    pub installation: Installation,
    /// Earlier lineages.
    pub former: Vec<String>,
    /// Tells the database from its copies.
    pub place: String,
    /// The highest version of a campaign.
    pub committed: i64,
    /// The highest version drawn so far. A later version cannot have come from this database.
    pub drawn: i64,
}

impl Standing {
    /// Whether this database has, or has had, this lineage.
    #[must_use]
    pub fn knows(&self, lineage: &str) -> bool {
        self.installation.lineage == lineage || self.former.iter().any(|former| former == lineage)
    }
}

const STANDING: &str = "
    SELECT id, lineage, former, database_place() AS place,
           (SELECT coalesce(max(version), 0) FROM campaigns) AS committed,
           coalesce(pg_sequence_last_value('campaign_version'), 0) AS drawn
      FROM installation";

impl Postgres {
    /// The installation and its lineage.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn installation(&self) -> Result<Installation, DatabaseError> {
        self.within(sqlx::query_as("SELECT id, lineage FROM installation").fetch_one(&self.pool)).await
    }

    /// What the database says about itself.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn standing(&self) -> Result<Standing, DatabaseError> {
        self.within(sqlx::query_as(STANDING).fetch_one(&self.pool)).await
    }

    /// Draws a new lineage if `is_behind` still says so under the lock, and gives every campaign a
    /// version above `seen`. Returns what the database says of itself afterwards.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; the lineage may be drawn all the same.
    pub async fn draw_lineage(
        &self,
        seen: i64,
        is_behind: impl FnOnce(&Standing) -> bool,
    ) -> Result<Standing, DatabaseError> {
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("SELECT FROM installation FOR UPDATE").execute(&mut *transaction).await?;
            let standing: Standing = sqlx::query_as(STANDING).fetch_one(&mut *transaction).await?;
            if !is_behind(&standing) {
                return Ok(standing);
            }
            sqlx::query("SELECT raise_campaign_version($1)").bind(seen).execute(&mut *transaction).await?;
            // The last hundred are enough to recognise a Redis that was restored.
            sqlx::query(
                "UPDATE installation
                    SET lineage = gen_random_uuid(),
                        former = (former || lineage)[greatest(cardinality(former) - 98, 1):]",
            )
            .execute(&mut *transaction)
            .await?;
            // Waits for changes under way; each of them has drawn its version before.
            sqlx::query("UPDATE campaigns SET version = nextval('campaign_version')")
                .execute(&mut *transaction)
                .await?;
            let standing = sqlx::query_as(STANDING).fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(standing)
        })
        .await
    }

    /// Makes the database an installation of its own.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn draw_installation(&self, by: &Operator) -> Result<Installation, DatabaseError> {
        let shown = |installation: &Installation| json!({"id": installation.id, "lineage": installation.lineage});
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            let before: Installation =
                sqlx::query_as("SELECT id, lineage FROM installation FOR UPDATE").fetch_one(&mut *transaction).await?;
            let after: Installation = sqlx::query_as(
                "UPDATE installation
                    SET id = gen_random_uuid(), lineage = gen_random_uuid(), former = '{}'
                 RETURNING id, lineage",
            )
            .fetch_one(&mut *transaction)
            .await?;
            let record = Record {
                by,
                action: "installation.renewed",
                subject: format!("installation/{}", after.id),
                before: Some(shown(&before)),
                after: Some(shown(&after)),
            };
            audit_log::record(&mut transaction, &record).await?;
            transaction.commit().await?;
            Ok(after)
        })
        .await
    }

    /// How many connections of backends there are to this database, those of this process excepted.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn other_backends(&self) -> Result<i64, DatabaseError> {
        self.within(
            sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = $1
                    AND pid <> pg_backend_pid()",
            )
            .bind(super::APPLICATION_NAME)
            .fetch_one(&self.pool),
        )
        .await
    }
}
