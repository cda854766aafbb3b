//! Rounds as they are and were: a round keeps its window and quota when its campaign's schedule
//! changes.

use chrono::{DateTime, NaiveDate, Utc};
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::schedule::Round;
use sqlx::{FromRow, PgConnection};

use super::{DatabaseError, Postgres, signed, unsigned};

/// A round that was prepared at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRound {
    /// Its name.
    pub round: RoundId,
    /// When it opens or opened.
    pub opens: DateTime<Utc>,
    /// When it closes or closed.
    pub closes: DateTime<Utc>,
    /// Its coupons; none means no limit.
    pub quota: Option<u64>,
    /// Committed coupons.
    pub issued: u64,
    /// Of these, voided.
    pub void: u64,
    /// Users whose reservation was given up and who have no coupon.
    pub failed: u64,
}

#[derive(FromRow)]
struct PastRow {
    round: NaiveDate,
    opens_at: DateTime<Utc>,
    closes_at: DateTime<Utc>,
    quota: Option<i64>,
    issued: i64,
    void: i64,
    failed: i64,
}

impl From<PastRow> for PastRound {
    fn from(row: PastRow) -> Self {
        Self {
            round: RoundId(row.round),
            opens: row.opens_at,
            closes: row.closes_at,
            quota: row.quota.map(unsigned),
            issued: unsigned(row.issued),
            void: unsigned(row.void),
            failed: unsigned(row.failed),
        }
    }
}

/// The largest bigint as the largest quota means that there once was no limit; then a missing quota
/// means that as well.
const PAST: &str = "
    SELECT round, opens_at, closes_at, issued, void,
           coalesce(quota, nullif(max_number, 9223372036854775807)) AS quota,
           (SELECT count(*) FROM open_failures failed
             WHERE failed.campaign = rounds.campaign AND failed.round = rounds.round) AS failed
      FROM rounds";

/// Has a round that is prepared follow its campaign; nothing changes in one that is over, and that
/// the change does not open again.
pub(super) async fn follow(
    connection: &mut PgConnection,
    campaign: &CampaignId,
    window: Round,
    quota: Option<u64>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE rounds
            SET opens_at = $3, closes_at = $4, quota = $5,
                max_number = greatest(max_number, coalesce($5, 9223372036854775807))
          WHERE campaign = $1 AND round = $2 AND (closes_at > now() OR $4 > now())",
    )
    .bind(campaign.as_str())
    .bind(window.id.0)
    .bind(DateTime::<Utc>::from(window.opens))
    .bind(DateTime::<Utc>::from(window.closes))
    .bind(quota.map(signed))
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes a round's row where there is none yet; otherwise has it [`follow`] its campaign.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    campaign: &CampaignId,
    window: Round,
    quota: Option<u64>,
) -> Result<(), sqlx::Error> {
    let made = sqlx::query(
        "INSERT INTO rounds (campaign, round, opens_at, closes_at, quota, max_number)
         VALUES ($1, $2, $3, $4, $5, coalesce($5, 9223372036854775807))
         ON CONFLICT (campaign, round) DO NOTHING",
    )
    .bind(campaign.as_str())
    .bind(window.id.0)
    .bind(DateTime::<Utc>::from(window.opens))
    .bind(DateTime::<Utc>::from(window.closes))
    .bind(quota.map(signed))
    .execute(&mut *connection)
    .await?;
    if made.rows_affected() == 0 { follow(connection, campaign, window, quota).await } else { Ok(()) }
}

impl Postgres {
    /// A round that was prepared, however its campaign's schedule has changed since.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn past_round(&self, campaign: &CampaignId, round: RoundId) -> Result<Option<PastRound>, DatabaseError> {
        let sql = sqlx::AssertSqlSafe(format!("{PAST} WHERE campaign = $1 AND round = $2"));
        let query = sqlx::query_as(sql).bind(campaign.as_str()).bind(round.0);
        let row: Option<PastRow> = self.within(query.fetch_optional(&self.pool)).await?;
        Ok(row.map(PastRound::from))
    }

    /// Up to `limit` rounds that were prepared, newest first, from those before `before` on.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn past_rounds(
        &self,
        campaign: &CampaignId,
        before: Option<RoundId>,
        limit: u32,
    ) -> Result<Vec<PastRound>, DatabaseError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "{PAST} WHERE campaign = $1 AND ($2::date IS NULL OR round < $2)
              ORDER BY round DESC LIMIT $3"
        ));
        let query =
            sqlx::query_as(sql).bind(campaign.as_str()).bind(before.map(|round| round.0)).bind(i64::from(limit));
        let rows: Vec<PastRow> = self.within(query.fetch_all(&self.pool)).await?;
        Ok(rows.into_iter().map(PastRound::from).collect())
    }
}
