//! Redeeming and voiding a coupon under its lock, with the vendor's credit in the same transaction.

use chrono::{DateTime, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{OrderId, UserId};
use doorbuster_domain::redemption::Order;
use doorbuster_domain::refusal::rfc3339;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, Postgres as Db, Transaction};

use super::audit_log::{self, Record};
use super::coupons::CouponRow;
use super::{Coupon, DatabaseError, Postgres, signed, unsigned};
use crate::operators::Operator;

/// For which order a coupon was redeemed, and for how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The order.
    pub order: Order,
    /// What was taken off it, in the currency's minor unit.
    pub discount_amount: u64,
    /// When.
    pub redeemed_at: DateTime<Utc>,
}

/// That an operator took a coupon back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voiding {
    /// Why.
    pub reason: String,
    /// Whether it had been redeemed, so that the vendor's credit was taken back too.
    pub reversed: bool,
    /// When.
    pub voided_at: DateTime<Utc>,
}

/// A coupon with all that has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The coupon.
    pub coupon: Coupon,
    /// Its holder.
    pub user: UserId,
    /// Who is credited with its discount.
    pub vendor: String,
    /// For which order it was redeemed, if it was.
    pub redemption: Option<Redemption>,
    /// That it was voided, if it was.
    pub voiding: Option<Voiding>,
}

/// A coupon that nobody else redeems or voids meanwhile. Dropped without either it stays what it was.
#[derive(Debug)]
pub struct LockedCoupon {
    postgres: Postgres,
    transaction: Transaction<'static, Db>,
    life: Life,
}

#[derive(FromRow)]
struct LifeRow {
    #[sqlx(flatten)]
    coupon: CouponRow,
    user_id: String,
    vendor: String,
    order_id: Option<String>,
    order_amount: Option<i64>,
    discount_amount: Option<i64>,
    reason: Option<String>,
    reversed: Option<bool>,
}

impl LifeRow {
    fn into_life(self) -> Result<Life, DatabaseError> {
        let (redemption, voiding) = (self.redemption()?, self.voiding());
        let user = UserId::parse(&self.user_id).map_err(|_| DatabaseError::Unreadable("user id"))?;
        Ok(Life { coupon: self.coupon.into_coupon()?, user, vendor: self.vendor, redemption, voiding })
    }

    fn redemption(&self) -> Result<Option<Redemption>, DatabaseError> {
        let (Some(id), Some(amount), Some(discount_amount), Some(redeemed_at)) =
            (&self.order_id, self.order_amount, self.discount_amount, self.coupon.redeemed_at)
        else {
            return Ok(None);
        };
        let id = OrderId::parse(id).map_err(|_| DatabaseError::Unreadable("order id"))?;
        let order = Order { id, amount: unsigned(amount) };
        Ok(Some(Redemption { order, discount_amount: unsigned(discount_amount), redeemed_at }))
    }

    fn voiding(&self) -> Option<Voiding> {
        let voided_at = self.coupon.voided_at?;
        Some(Voiding { reason: self.reason.clone()?, reversed: self.reversed?, voided_at })
    }
}

async fn life(connection: &mut PgConnection, code: CouponCode) -> Result<Option<LifeRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT coupons.code, campaign, round, number, issued_at, redeemable_from, redeemable_until, terms, user_id,
                coalesce(terms ->> 'vendor', campaigns.vendor) AS vendor,
                order_id, order_amount, discount_amount, redeemed_at, reason, reversed, voided_at
           FROM coupons JOIN campaigns ON campaigns.id = coupons.campaign
           LEFT JOIN redemptions ON redemptions.code = coupons.code
           LEFT JOIN voids ON voids.code = coupons.code
          WHERE coupons.code = $1",
    )
    .bind(code.as_str())
    .fetch_optional(connection)
    .await
}

impl Postgres {
    /// The coupon of this code, whoever's it is, with all that has become of it.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn coupon_life(&self, code: CouponCode) -> Result<Option<Life>, DatabaseError> {
        let row = self.within(async { life(&mut *self.pool.acquire().await?, code).await }).await?;
        row.map(LifeRow::into_life).transpose()
    }

    /// Takes the coupon of this code for redeeming or voiding; only if it is this user's, where one is named.
    ///
    /// # Errors
    /// If PostgreSQL does not answer, or the lock cannot be had in time.
    pub async fn lock_coupon(
        &self,
        code: CouponCode,
        user: Option<&UserId>,
    ) -> Result<Option<LockedCoupon>, DatabaseError> {
        let locked = self
            .within(async {
                let mut transaction = self.pool.begin().await?;
                let locked = sqlx::query(
                    "SELECT FROM coupons WHERE code = $1 AND ($2::text IS NULL OR user_id = $2) FOR NO KEY UPDATE",
                )
                .bind(code.as_str())
                .bind(user.map(UserId::as_str))
                .execute(&mut *transaction)
                .await?;
                if locked.rows_affected() == 0 {
                    return Ok(None);
                }
                // A statement of its own: what others did before they gave up the lock is not in the first one's snapshot.
                let row = life(&mut transaction, code).await?;
                Ok(row.map(|row| (transaction, row)))
            })
            .await?;
        let Some((transaction, row)) = locked else { return Ok(None) };
        Ok(Some(LockedCoupon { postgres: self.clone(), transaction, life: row.into_life()? }))
    }
}

impl LockedCoupon {
    /// The coupon, and what has become of it.
    #[must_use]
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Redeems it, and credits the vendor with the discount. `by` is the operator who does, unless its user does.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; it may be redeemed all the same.
    pub async fn redeem(mut self, by: Option<&Operator>, redemption: &Redemption) -> Result<(), DatabaseError> {
        let writing = sqlx::query(
            "WITH redeemed AS (
                 INSERT INTO redemptions (code, order_id, order_amount, discount_amount, redeemed_at)
                 VALUES ($1, $2, $3, $4, $5)
             )
             SELECT id FROM post_to_ledger($6, $7, 'redemption', $1, $4, $5)",
        )
        .bind(self.life.coupon.code.as_str())
        .bind(redemption.order.id.as_str())
        .bind(signed(redemption.order.amount))
        .bind(signed(redemption.discount_amount))
        .bind(redemption.redeemed_at)
        .bind(&self.life.vendor)
        .bind(&self.life.coupon.terms.currency);
        self.postgres.within(writing.execute(&mut *self.transaction)).await?;
        if let Some(by) = by {
            self.record(by, "coupon.redeemed", Some(redemption), None).await?;
        }
        self.commit().await
    }

    /// Voids it; where it was redeemed, the vendor's credit is taken back.
    ///
    /// # Errors
    /// If PostgreSQL does not answer; it may be voided all the same.
    pub async fn void(mut self, by: &Operator, voiding: &Voiding) -> Result<(), DatabaseError> {
        let writing = sqlx::query("INSERT INTO voids (code, reason, reversed, voided_at) VALUES ($1, $2, $3, $4)")
            .bind(self.life.coupon.code.as_str())
            .bind(&voiding.reason)
            .bind(voiding.reversed)
            .bind(voiding.voided_at);
        self.postgres.within(writing.execute(&mut *self.transaction)).await?;
        if let Some(redemption) = &self.life.redemption {
            let writing = sqlx::query("SELECT id FROM post_to_ledger($1, $2, 'reversal', $3, $4, $5)")
                .bind(&self.life.vendor)
                .bind(&self.life.coupon.terms.currency)
                .bind(self.life.coupon.code.as_str())
                .bind(-signed(redemption.discount_amount))
                .bind(voiding.voided_at);
            self.postgres.within(writing.execute(&mut *self.transaction)).await?;
        }
        let redemption = self.life.redemption.clone();
        self.record(by, "coupon.voided", redemption.as_ref(), Some(voiding)).await?;
        self.commit().await
    }

    async fn record(
        &mut self,
        by: &Operator,
        action: &'static str,
        redemption: Option<&Redemption>,
        voiding: Option<&Voiding>,
    ) -> Result<(), DatabaseError> {
        let record = Record {
            by,
            action,
            subject: format!("coupon/{}", self.life.coupon.code),
            before: Some(state(self.life.redemption.as_ref(), self.life.voiding.as_ref())),
            after: Some(state(redemption, voiding)),
        };
        self.postgres.within(audit_log::record(&mut self.transaction, &record)).await
    }

    async fn commit(self) -> Result<(), DatabaseError> {
        self.postgres.within(self.transaction.commit()).await
    }
}

/// What the audit log says of a coupon.
fn state(redemption: Option<&Redemption>, voiding: Option<&Voiding>) -> Value {
    let utc = |instant: DateTime<Utc>| rfc3339(&instant.fixed_offset());
    let redemption = redemption.map(|redemption| {
        json!({
            "order_id": redemption.order.id, "order_amount": redemption.order.amount,
            "discount_amount": redemption.discount_amount, "redeemed_at": utc(redemption.redeemed_at),
        })
    });
    let voiding = voiding.map(
        |voiding| json!({"reason": voiding.reason, "reversed": voiding.reversed, "voided_at": utc(voiding.voided_at)}),
    );
    json!({"redemption": redemption, "void": voiding})
}
