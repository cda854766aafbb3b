//! Rounds.

use chrono::{DateTime, NaiveDate, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use serde_json::json;
use sqlx::FromRow;

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres, history, signed, unsigned};
use crate::campaign::Stored;
use crate::operators::Operator;

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
    /// How many coupons it is said to have.
    pub issued: u64,
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
    /// How far it has come.
    pub mark: Mark,
}

#[derive(FromRow)]
struct RecentRow {
    campaign: String,
    round: NaiveDate,
    closes_at: DateTime<Utc>,
    used_until: DateTime<Utc>,
    epoch: i64,
    issued: i64,
}

impl RecentRow {
    fn into_round(self) -> Result<RecentRound, DatabaseError> {
        Ok(RecentRound {
            campaign: CampaignId::parse(&self.campaign).map_err(|_| DatabaseError::Unreadable("campaign id"))?,
            round: RoundId(self.round),
            closes_ms: self.closes_at.timestamp_millis(),
            used_until_ms: self.used_until.timestamp_millis(),
            mark: Mark { epoch: self.epoch, issued: unsigned(self.issued) },
        })
    }
}

/// How far a round has come in PostgreSQL; both only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Its epoch.
    pub epoch: i64,
    /// Its coupons.
    pub issued: u64,
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
            let row: Option<(i64, DateTime<Utc>, i64)> = sqlx::query_as(
                "UPDATE rounds SET epoch = next_above('round_epoch', greatest(epoch, $3))
                  WHERE campaign = $1 AND round = $2
                 RETURNING epoch, closes_at, issued",
            )
            .bind(campaign.as_str())
            .bind(round.0)
            .bind(shown)
            .fetch_optional(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(row.map(|(epoch, closes, issued)| {
                let (closes_ms, issued) = (closes.timestamp_millis(), unsigned(issued));
                Opened { epoch, version, closes_ms, issued }
            }))
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

    /// Corrects how many coupons a round is said to have, while it has this epoch.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn correct_issued(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        epoch: i64,
        issued: u64,
    ) -> Result<(), DatabaseError> {
        let correcting = sqlx::query("UPDATE rounds SET issued = $4 WHERE campaign = $1 AND round = $2 AND epoch = $3")
            .bind(campaign.as_str())
            .bind(round.0)
            .bind(epoch)
            .bind(signed(issued));
        self.within(correcting.execute(&self.pool)).await?;
        Ok(())
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
        let rows: Vec<RecentRow> = self
            .within(
                sqlx::query_as(
                    "SELECT campaign, round, closes_at, max(used_until) AS used_until, epoch, issued
                       FROM (SELECT campaign, round, closes_at, closes_at AS used_until, epoch, issued
                               FROM rounds WHERE closes_at > $1
                              UNION ALL
                             SELECT campaign, round, closes_at, greatest(closes_at, retried_at), epoch, issued
                               FROM rounds JOIN failed_issuances USING (campaign, round)
                              WHERE retried_at > $1) used
                      GROUP BY campaign, round, closes_at, epoch, issued",
                )
                .bind(since)
                .fetch_all(&self.pool),
            )
            .await?;
        rows.into_iter().map(RecentRow::into_round).collect()
    }

    /// Enters into the operators' log that a round is about to be rebuilt, with the counts that
    /// Redis showed.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn note_rebuild(
        &self,
        by: &Operator,
        campaign: &CampaignId,
        round: RoundId,
        issued: u64,
        pending: u64,
    ) -> Result<(), DatabaseError> {
        self.within(async {
            let record = Record {
                by,
                action: "round.rebuilt",
                subject: format!("round/{campaign}/{round}"),
                before: Some(json!({"issued": issued, "pending": pending})),
                after: None,
            };
            audit_log::record(&mut *self.pool.acquire().await?, &record).await
        })
        .await
    }

    /// How far each round has come; nothing where there is no such round, and none where there is
    /// no such campaign.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn marks(&self, rounds: &[(&CampaignId, RoundId)]) -> Result<Vec<Option<Mark>>, DatabaseError> {
        let (campaigns, dates): (Vec<_>, Vec<_>) =
            rounds.iter().map(|(campaign, round)| (campaign.to_string(), round.0)).unzip();
        let rows: Vec<(bool, Option<i64>, Option<i64>)> = self
            .within(
                sqlx::query_as(
                    "SELECT campaigns.id IS NOT NULL, rounds.epoch, rounds.issued
                       FROM unnest($1, $2) WITH ORDINALITY AS asked (campaign, round, place)
                       LEFT JOIN campaigns ON campaigns.id = asked.campaign
                       LEFT JOIN rounds USING (campaign, round) ORDER BY place",
                )
                .bind(campaigns)
                .bind(dates)
                .fetch_all(&self.pool),
            )
            .await?;
        let mark = |(exists, epoch, issued): (bool, Option<i64>, Option<i64>)| {
            exists.then(|| Mark { epoch: epoch.unwrap_or(0), issued: unsigned(issued.unwrap_or(0)) })
        };
        Ok(rows.into_iter().map(mark).collect())
    }
}
