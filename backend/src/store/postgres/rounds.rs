//! Rounds.

use chrono::{DateTime, NaiveDate, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};

use super::{DatabaseError, Postgres, history, signed, unsigned};
use crate::campaign::Stored;

/// A round whose hydration has begun: commits reserved under earlier epochs are refused from now on, so what it holds
/// does not change until Redis shows the new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The new epoch.
    pub epoch: i64,
    /// The campaign's version, read under its lock.
    pub version: i64,
    /// When the round closes, Unix milliseconds.
    pub closes_ms: i64,
}

/// A round that closed lately or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentRound {
    /// Its campaign.
    pub campaign: CampaignId,
    /// Its name.
    pub round: RoundId,
    /// When it closes, Unix milliseconds.
    pub closes_ms: i64,
    /// When it closes, or when a failed issuance of it was last tried again, whichever is later.
    pub used_until_ms: i64,
}

impl Postgres {
    /// Gives a round a new epoch, above the one that Redis shows, making its row where there is none yet. None if there
    /// is no such campaign, or it has no such round.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn open_epoch(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        shown: i64,
    ) -> Result<Option<Opened>, DatabaseError> {
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            // Waits for a change under way, which has told Redis its version but may not have committed it.
            let row: Option<(i64, String)> =
                sqlx::query_as("SELECT version, spec::text FROM campaigns WHERE id = $1 FOR SHARE")
                    .bind(campaign.as_str())
                    .fetch_optional(&mut *transaction)
                    .await?;
            let Some((version, spec)) = row else { return Ok(None) };
            let stored = Stored::read(campaign.to_string(), version, false, &spec);
            if let Some(known) = stored.readable()
                && let Some(window) = known.schedule.round(round)
            {
                history::prepare(&mut transaction, campaign, window, known.spec.quota).await?;
            }
            // Drawn under the row's lock, so that epochs of a round only rise.
            let row: Option<(i64, DateTime<Utc>)> = sqlx::query_as(
                "UPDATE rounds SET epoch = next_above('round_epoch', greatest(epoch, $3))
                  WHERE campaign = $1 AND round = $2
                 RETURNING epoch, closes_at",
            )
            .bind(campaign.as_str())
            .bind(round.0)
            .bind(shown)
            .fetch_optional(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(row.map(|(epoch, closes)| Opened { epoch, version, closes_ms: closes.timestamp_millis() }))
        })
        .await
    }

    /// Up to `limit` coupons of a round with numbers above `above`, by number.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn coupons_above(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        above: u64,
        limit: u32,
    ) -> Result<Vec<(UserId, u64, CouponCode)>, DatabaseError> {
        let rows: Vec<(String, i64, String)> = self
            .within(
                sqlx::query_as(
                    "SELECT user_id, number, code FROM coupons
                      WHERE campaign = $1 AND round = $2 AND number > $3 ORDER BY number LIMIT $4",
                )
                .bind(campaign.as_str())
                .bind(round.0)
                .bind(signed(above))
                .bind(i64::from(limit))
                .fetch_all(&self.pool),
            )
            .await?;
        rows.into_iter()
            .map(|(user, number, code)| {
                let user = UserId::parse(&user).map_err(|_| DatabaseError::Unreadable("user id"))?;
                let code = CouponCode::parse(&code).map_err(|_| DatabaseError::Unreadable("coupon code"))?;
                Ok((user, unsigned(number), code))
            })
            .collect()
    }

    /// How many coupons of each round exist.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn issued(&self, rounds: &[(&CampaignId, RoundId)]) -> Result<Vec<u64>, DatabaseError> {
        let (campaigns, dates): (Vec<_>, Vec<_>) =
            rounds.iter().map(|(campaign, round)| (campaign.to_string(), round.0)).unzip();
        let issued: Vec<Option<i64>> = self
            .within(
                sqlx::query_scalar(
                    "SELECT rounds.issued FROM unnest($1, $2) WITH ORDINALITY AS asked (campaign, round, place)
                       LEFT JOIN rounds USING (campaign, round) ORDER BY place",
                )
                .bind(campaigns)
                .bind(dates)
                .fetch_all(&self.pool),
            )
            .await?;
        Ok(issued.into_iter().map(|issued| unsigned(issued.unwrap_or(0))).collect())
    }

    /// All rounds that close after `since_ms`, Unix milliseconds, or in which a failed issuance was tried again since.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn rounds_closing_after(&self, since_ms: i64) -> Result<Vec<RecentRound>, DatabaseError> {
        let since = DateTime::from_timestamp_millis(since_ms).unwrap_or_default();
        let rows: Vec<(String, NaiveDate, DateTime<Utc>, DateTime<Utc>)> = self
            .within(
                sqlx::query_as(
                    "SELECT campaign, round, closes_at, max(used_until)
                       FROM (SELECT campaign, round, closes_at, closes_at AS used_until
                               FROM rounds WHERE closes_at > $1
                              UNION ALL
                             SELECT campaign, round, closes_at, greatest(closes_at, retried_at)
                               FROM rounds JOIN failed_issuances USING (campaign, round)
                              WHERE retried_at > $1) used
                      GROUP BY campaign, round, closes_at",
                )
                .bind(since)
                .fetch_all(&self.pool),
            )
            .await?;
        rows.into_iter()
            .map(|(campaign, round, closes, used_until)| {
                let campaign = CampaignId::parse(&campaign).map_err(|_| DatabaseError::Unreadable("campaign id"))?;
                let (closes_ms, used_until_ms) = (closes.timestamp_millis(), used_until.timestamp_millis());
                Ok(RecentRound { campaign, round: RoundId(round), closes_ms, used_until_ms })
            })
            .collect()
    }
}
