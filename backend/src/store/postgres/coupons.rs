//! Coupons: committing them and looking them up.

use chrono::{DateTime, NaiveDate, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use doorbuster_domain::redemption::Promise;
use sqlx::FromRow;
use sqlx::types::Json;

use super::{DatabaseError, Postgres, signed, unsigned};
use crate::campaign::Terms;

/// A reservation to be committed, with all that its coupon will hold.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The coupon's code.
    pub code: CouponCode,
    /// Its holder.
    pub user: UserId,
    /// Its number in the round.
    pub number: u64,
    /// The epoch under which it was reserved.
    pub epoch: i64,
    /// When it was reserved.
    pub issued_at: DateTime<Utc>,
    /// First instant at which it can be redeemed.
    pub redeemable_from: DateTime<Utc>,
    /// First instant at which it no longer can.
    pub redeemable_until: DateTime<Utc>,
    /// What it is worth.
    pub terms: Terms,
    /// The campaign's version that set the terms.
    pub version: i64,
}

/// A committed coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// Its code.
    pub code: CouponCode,
    /// Its campaign.
    pub campaign: CampaignId,
    /// Its round.
    pub round: RoundId,
    /// The order of reservation in the round.
    pub number: u64,
    /// When it was reserved.
    pub issued_at: DateTime<Utc>,
    /// First instant at which it can be redeemed.
    pub redeemable_from: DateTime<Utc>,
    /// First instant at which it no longer can.
    pub redeemable_until: DateTime<Utc>,
    /// What it is worth.
    pub terms: Terms,
    /// When it was redeemed, if it was.
    pub redeemed_at: Option<DateTime<Utc>>,
    /// When it was voided, if it was.
    pub voided_at: Option<DateTime<Utc>>,
}

impl Coupon {
    /// What it promises.
    #[must_use]
    pub fn promise(&self) -> Promise {
        Promise {
            from_ms: self.redeemable_from.timestamp_millis(),
            until_ms: self.redeemable_until.timestamp_millis(),
            min_order_amount: self.terms.min_order_amount,
            discount: self.terms.discount,
        }
    }
}

/// What became of one reservation; see `commit_coupons` in the migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The coupon exists.
    Issued(Box<Coupon>),
    /// The user has this other coupon of the round.
    UserTaken(Box<Coupon>),
    /// Another coupon has the number.
    NumberTaken,
    /// Another coupon has the code.
    CodeTaken,
    /// The epoch is over.
    Stale,
    /// The round does not exist.
    Gone,
    /// What `commit_coupons` of a later release answers and this one does not know.
    Unknown,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Commit {
    /// One for each reservation, in their order.
    pub outcomes: Vec<Outcome>,
    /// Coupons of the round after this batch.
    pub issued: u64,
}

/// A place in a user's list of coupons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When the last coupon shown was issued, Unix microseconds.
    pub issued_us: i64,
    /// Its code.
    pub code: CouponCode,
}

#[derive(FromRow)]
struct CommitRow {
    place: i64,
    outcome: String,
    code: Option<String>,
    number: Option<i64>,
    issued_at: Option<DateTime<Utc>>,
    redeemable_from: Option<DateTime<Utc>>,
    redeemable_until: Option<DateTime<Utc>>,
    terms: Option<Json<Terms>>,
    round_issued: i64,
}

#[derive(FromRow)]
pub(super) struct CouponRow {
    code: String,
    campaign: String,
    round: NaiveDate,
    number: i64,
    issued_at: DateTime<Utc>,
    redeemable_from: DateTime<Utc>,
    redeemable_until: DateTime<Utc>,
    terms: Json<Terms>,
    pub(super) redeemed_at: Option<DateTime<Utc>>,
    pub(super) voided_at: Option<DateTime<Utc>>,
}

impl CouponRow {
    pub(super) fn into_coupon(self) -> Result<Coupon, DatabaseError> {
        Ok(Coupon {
            code: CouponCode::parse(&self.code).map_err(|_| DatabaseError::Unreadable("coupon code"))?,
            campaign: CampaignId::parse(&self.campaign).map_err(|_| DatabaseError::Unreadable("campaign id"))?,
            round: RoundId(self.round),
            number: unsigned(self.number),
            issued_at: self.issued_at,
            redeemable_from: self.redeemable_from,
            redeemable_until: self.redeemable_until,
            terms: self.terms.0,
            redeemed_at: self.redeemed_at,
            voided_at: self.voided_at,
        })
    }
}

impl CommitRow {
    fn into_outcome(self, campaign: &CampaignId, round: RoundId) -> Result<Outcome, DatabaseError> {
        let coupon = || {
            Some(Box::new(Coupon {
                code: CouponCode::parse(&self.code?).ok()?,
                campaign: campaign.clone(),
                round,
                number: unsigned(self.number?),
                issued_at: self.issued_at?,
                redeemable_from: self.redeemable_from?,
                redeemable_until: self.redeemable_until?,
                terms: self.terms?.0,
                // A batch asks for what was just issued; whoever shows a coupon that is older looks it up.
                redeemed_at: None,
                voided_at: None,
            }))
        };
        match self.outcome.as_str() {
            "issued" => coupon().map(Outcome::Issued),
            "user_taken" => coupon().map(Outcome::UserTaken),
            "number_taken" => Some(Outcome::NumberTaken),
            "code_taken" => Some(Outcome::CodeTaken),
            "stale" => Some(Outcome::Stale),
            "gone" => Some(Outcome::Gone),
            _ => Some(Outcome::Unknown),
        }
        .ok_or(DatabaseError::Unreadable("commit outcome"))
    }
}

const COUPONS: &str = "
    SELECT coupons.code, campaign, round, number, issued_at, redeemable_from, redeemable_until, terms, redeemed_at, voided_at
      FROM coupons
      LEFT JOIN redemptions ON redemptions.code = coupons.code
      LEFT JOIN voids ON voids.code = coupons.code";

impl Postgres {
    /// Commits reservations of one round in one round trip and one transaction. Safe to repeat.
    ///
    /// # Errors
    /// If PostgreSQL refuses the batch, or does not answer; it may be committed all the same.
    pub async fn commit(
        &self,
        campaign: &CampaignId,
        round: RoundId,
        batch: &[Reservation],
    ) -> Result<Commit, DatabaseError> {
        fn column<T>(batch: &[Reservation], of: impl Fn(&Reservation) -> T) -> Vec<T> {
            batch.iter().map(of).collect()
        }
        let query = sqlx::query_as("SELECT * FROM commit_coupons($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
            .bind(campaign.as_str())
            .bind(round.0)
            .bind(column(batch, |each| each.code.to_string()))
            .bind(column(batch, |each| each.user.to_string()))
            .bind(column(batch, |each| signed(each.number)))
            .bind(column(batch, |each| each.epoch))
            .bind(column(batch, |each| each.issued_at))
            .bind(column(batch, |each| each.redeemable_from))
            .bind(column(batch, |each| each.redeemable_until))
            .bind(column(batch, |each| Json(each.terms.clone())))
            .bind(column(batch, |each| each.version));
        let mut rows: Vec<CommitRow> = self.within(query.fetch_all(&self.pool)).await?;
        rows.sort_unstable_by_key(|row| row.place);
        if rows.len() != batch.len() {
            return Err(DatabaseError::Unreadable("number of commit outcomes"));
        }
        let issued = rows.first().map_or(0, |row| unsigned(row.round_issued));
        let outcomes = rows.into_iter().map(|row| row.into_outcome(campaign, round)).collect::<Result<_, _>>()?;
        Ok(Commit { outcomes, issued })
    }

    /// The coupon of this code, if it is this user's.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn coupon(&self, user: &UserId, code: CouponCode) -> Result<Option<Coupon>, DatabaseError> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COUPONS} WHERE coupons.code = $1 AND user_id = $2")))
            .bind(code.as_str())
            .bind(user.as_str());
        let row: Option<CouponRow> = self.within(query.fetch_optional(&self.pool)).await?;
        row.map(CouponRow::into_coupon).transpose()
    }

    /// A user's coupon of a round.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn coupon_of(
        &self,
        user: &UserId,
        campaign: &CampaignId,
        round: RoundId,
    ) -> Result<Option<Coupon>, DatabaseError> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{COUPONS} WHERE user_id = $1 AND campaign = $2 AND round = $3"
        )))
        .bind(user.as_str())
        .bind(campaign.as_str())
        .bind(round.0);
        let row: Option<CouponRow> = self.within(query.fetch_optional(&self.pool)).await?;
        row.map(CouponRow::into_coupon).transpose()
    }

    /// A user's coupons, newest first, from the cursor on.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn coupons(
        &self,
        user: &UserId,
        campaign: Option<&CampaignId>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<Coupon>, DatabaseError> {
        let after_at = after.and_then(|cursor| DateTime::from_timestamp_micros(cursor.issued_us));
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "{COUPONS}
              WHERE user_id = $1 AND ($2::text IS NULL OR campaign = $2)
                AND ($3::timestamptz IS NULL OR (issued_at, coupons.code) < ($3, $4))
              ORDER BY issued_at DESC, coupons.code DESC LIMIT $5"
        )))
        .bind(user.as_str())
        .bind(campaign.map(CampaignId::as_str))
        .bind(after_at)
        .bind(after.map(|cursor| cursor.code.to_string()))
        .bind(i64::from(limit));
        let rows: Vec<CouponRow> = self.within(query.fetch_all(&self.pool)).await?;
        rows.into_iter().map(CouponRow::into_coupon).collect()
    }
}
