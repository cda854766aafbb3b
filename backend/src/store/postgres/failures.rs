//! Failed issuances: reservations that PostgreSQL would not take although it answered.

use chrono::{DateTime, NaiveDate, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use serde_json::json;
use sqlx::FromRow;

use super::audit_log::{self, Record};
use super::{DatabaseError, Postgres, Reservation, signed, unsigned};
use crate::operators::Operator;

/// Longest cause that is kept, characters.
const LONGEST_CAUSE: usize = 500;

/// A user whose reservation was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its id; later failures have higher ones.
    pub id: i64,
    /// The campaign.
    pub campaign: CampaignId,
    /// Its round.
    pub round: RoundId,
    /// The user.
    pub user: UserId,
    /// The user's last reservation that was refused.
    pub code: CouponCode,
    /// Its number, which was given back.
    pub number: u64,
    /// How often that reservation was refused.
    pub attempts: u64,
    /// What PostgreSQL said last.
    pub cause: String,
    /// When a reservation of this user was refused first.
    pub first_failed_at: DateTime<Utc>,
    /// When one was refused last.
    pub last_failed_at: DateTime<Utc>,
    /// When an operator last had it tried again.
    pub retried_at: Option<DateTime<Utc>>,
}

/// Which failures are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureFilter {
    /// Of this campaign only.
    pub campaign: Option<CampaignId>,
    /// Of this round only.
    pub round: Option<RoundId>,
}

#[derive(FromRow)]
struct FailureRow {
    id: i64,
    campaign: String,
    round: NaiveDate,
    user_id: String,
    code: String,
    number: i64,
    attempts: i32,
    cause: String,
    first_failed_at: DateTime<Utc>,
    last_failed_at: DateTime<Utc>,
    retried_at: Option<DateTime<Utc>>,
}

impl FailureRow {
    fn into_failure(self) -> Result<Failure, DatabaseError> {
        Ok(Failure {
            id: self.id,
            campaign: CampaignId::parse(&self.campaign).map_err(|_| DatabaseError::Unreadable("campaign id"))?,
            round: RoundId(self.round),
            user: UserId::parse(&self.user_id).map_err(|_| DatabaseError::Unreadable("user id"))?,
            code: CouponCode::parse(&self.code).map_err(|_| DatabaseError::Unreadable("coupon code"))?,
            number: unsigned(self.number),
            attempts: unsigned(self.attempts.into()),
            cause: self.cause,
            first_failed_at: self.first_failed_at,
            last_failed_at: self.last_failed_at,
            retried_at: self.retried_at,
        })
    }
}

const FAILURE: &str =
    "id, campaign, round, user_id, code, number, attempts, cause, first_failed_at, last_failed_at, retried_at";

impl Postgres {
    /// Notes that a reservation was refused; tells whether it is to be given up, which it is after `bound` refusals.
    ///
    /// # Errors
    /// If PostgreSQL does not answer, or the round does not exist any more.
    pub async fn note_refused(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        refused: &Reservation,
        cause: &str,
        bound: u32,
    ) -> Result<bool, DatabaseError> {
        let cause: String = cause.chars().take(LONGEST_CAUSE).collect();
        let noting = sqlx::query_scalar("SELECT note_refused_issuance($1, $2, $3, $4, $5, $6, $7)")
            .bind(campaign.as_str())
            .bind(round.0)
            .bind(refused.user.as_str())
            .bind(refused.code.as_str())
            .bind(signed(refused.number))
            .bind(cause)
            .bind(i32::try_from(bound).unwrap_or(i32::MAX));
        self.within(noting.fetch_one(&self.pool)).await
    }

    /// Failures whose users have no coupon, newest first, from those below the id `before` on.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn open_failures(
        &self,
        filter: &FailureFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Failure>, DatabaseError> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {FAILURE} FROM open_failures
              WHERE ($1::text IS NULL OR campaign = $1) AND ($2::date IS NULL OR round = $2)
                AND ($3::bigint IS NULL OR id < $3)
              ORDER BY id DESC LIMIT $4"
        )))
        .bind(filter.campaign.as_ref().map(CampaignId::as_str))
        .bind(filter.round.map(|round| round.0))
        .bind(before)
        .bind(i64::from(limit));
        let rows: Vec<FailureRow> = self.within(query.fetch_all(&self.pool)).await?;
        rows.into_iter().map(FailureRow::into_failure).collect()
    }

    /// The ids of failures whose users have no coupon, oldest first, from those above the id `after` on.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn open_failures_after(
        &self,
        filter: &FailureFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<i64>, DatabaseError> {
        let query = sqlx::query_scalar(
            "SELECT id FROM open_failures
              WHERE ($1::text IS NULL OR campaign = $1) AND ($2::date IS NULL OR round = $2)
                AND ($3::bigint IS NULL OR id > $3)
              ORDER BY id LIMIT $4",
        )
        .bind(filter.campaign.as_ref().map(CampaignId::as_str))
        .bind(filter.round.map(|round| round.0))
        .bind(after)
        .bind(i64::from(limit));
        self.within(query.fetch_all(&self.pool)).await
    }

    /// How many users of a round were given up and have no coupon.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn failed(&self, campaign: &CampaignId, round: RoundId) -> Result<u64, DatabaseError> {
        let counting = sqlx::query_scalar("SELECT count(*) FROM open_failures WHERE campaign = $1 AND round = $2")
            .bind(campaign.as_str())
            .bind(round.0);
        Ok(unsigned(self.within(counting.fetch_one(&self.pool)).await?))
    }

    /// A reservation that was given up, whether its user has a coupon by now or not.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn failure(&self, id: i64) -> Result<Option<Failure>, DatabaseError> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {FAILURE} FROM failed_issuances WHERE id = $1 AND given_up_at IS NOT NULL"
        )))
        .bind(id);
        let row: Option<FailureRow> = self.within(query.fetch_optional(&self.pool)).await?;
        row.map(FailureRow::into_failure).transpose()
    }

    /// Notes that an operator is about to have a failure tried again; from now on its round is swept.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn note_retry(&self, by: &Operator, failure: &Failure) -> Result<(), DatabaseError> {
        let Failure { id, campaign, round, user, .. } = failure;
        let after = json!({"campaign": campaign, "round": round, "user": user});
        let subject = format!("failure/{id}");
        let record = Record { by, action: "failure.retried", subject, before: None, after: Some(after) };
        self.within(async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("UPDATE failed_issuances SET retried_at = now() WHERE id = $1")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            audit_log::record(&mut transaction, &record).await?;
            transaction.commit().await
        })
        .await
    }
}
