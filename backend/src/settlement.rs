//! A coupon's life after its issue: redeemed for an order, voided by an operator, and the vendor paid.
//!
//! The lock of the coupon's row decides between all who redeem or void it; the vendor's lock, taken last, between all
//! who change its balance. What a coupon promises is in its own row: no later change of its campaign touches it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{IdempotencyKey, UserId};
use doorbuster_domain::redemption::Order;
use doorbuster_domain::refusal::Refusal;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::operators::Operator;
use crate::store::postgres::{Coupon, DatabaseError, Life, Payout, Postgres, Redemption, Vendor, Voiding};
use crate::store::redis::{Reading, RedisError};

/// What Redis's clock shows, if it can be asked. Only what is done for the first time needs it.
pub type Now = Result<Reading, RedisError>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// It may not be; the coupon is the one in question.
    #[error("{}", .0.code())]
    Refused(Refusal, Option<Box<Coupon>>),
    /// PostgreSQL failed; whether it was done is unknown.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis's clock is not known; it was not done.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl From<Refusal> for SettlementError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

/// What becomes of a redeemed coupon that is voided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// The vendor's credit is taken back.
    Reverse,
    /// It is not voided.
    Keep,
}

/// Redeems, voids and pays out.
#[derive(Debug)]
pub struct Settlement {
    postgres: Postgres,
    /// Those who queue up for one coupon or one vendor must leave connections to those who issue.
    turns: Semaphore,
    deadline: Duration,
}

impl Settlement {
    /// Works in `postgres` over at most `connections`, waiting at most `deadline` for one.
    #[must_use]
    pub fn new(postgres: Postgres, connections: usize, deadline: Duration) -> Self {
        Self { postgres, turns: Semaphore::new(connections.max(1)), deadline }
    }

    /// Redeems a user's coupon for an order. The same order again gets the same answer. `by` is the operator who does,
    /// unless the user does.
    ///
    /// # Errors
    /// [`SettlementError`].
    pub async fn redeem(
        &self,
        by: Option<&Operator>,
        code: CouponCode,
        user: &UserId,
        order: Order,
        now: Now,
    ) -> Result<(Coupon, Redemption), SettlementError> {
        let _turn = self.turn().await?;
        let locked = self.postgres.lock_coupon(code, Some(user)).await?.ok_or(Refusal::UnknownCoupon)?;
        let Life { coupon, redemption, voiding, .. } = locked.life().clone();
        let refuse = |refusal| SettlementError::Refused(refusal, Some(Box::new(coupon.clone())));
        if voiding.is_some() {
            return Err(refuse(Refusal::Voided));
        }
        if let Some(earlier) = redemption {
            order.repeats(&earlier.order).map_err(refuse)?;
            return Ok((coupon, earlier));
        }
        let now_ms = now?.now_ms;
        let discount_amount = coupon.promise().redeem(order.amount, now_ms).map_err(refuse)?;
        let redemption = Redemption { order, discount_amount, redeemed_at: instant(now_ms) };
        locked.redeem(by, &redemption).await?;
        Ok((coupon, redemption))
    }

    /// Voids a coupon. Voided again it stays as it was voided first.
    ///
    /// # Errors
    /// [`SettlementError`].
    pub async fn void(
        &self,
        by: &Operator,
        code: CouponCode,
        reason: String,
        redeemed: Redeemed,
        now: Now,
    ) -> Result<(Coupon, Voiding), SettlementError> {
        let _turn = self.turn().await?;
        let locked = self.postgres.lock_coupon(code, None).await?.ok_or(Refusal::UnknownCoupon)?;
        let Life { coupon, redemption, voiding, .. } = locked.life().clone();
        if let Some(earlier) = voiding {
            return Ok((coupon, earlier));
        }
        let reversed = redemption.is_some();
        if reversed && redeemed == Redeemed::Keep {
            return Err(SettlementError::Refused(Refusal::AlreadyRedeemed, Some(Box::new(coupon))));
        }
        let voiding = Voiding { reason, reversed, voided_at: instant(now?.now_ms) };
        locked.void(by, &voiding).await?;
        Ok((coupon, voiding))
    }

    /// Pays a vendor `asked`, or all that it is owed. The same key again gets the same answer.
    ///
    /// # Errors
    /// [`SettlementError`].
    pub async fn pay_out(
        &self,
        by: &Operator,
        vendor: &str,
        key: &IdempotencyKey,
        asked: Option<u64>,
        now: Now,
    ) -> Result<(Vendor, Payout), SettlementError> {
        let _turn = self.turn().await?;
        let mut locked = self.postgres.lock_vendor(vendor).await?.ok_or(Refusal::UnknownVendor)?;
        let vendor = locked.vendor().clone();
        if let Some(earlier) = locked.payout(key).await? {
            return if earlier.asked == asked { Ok((vendor, earlier)) } else { Err(Refusal::KeyReused.into()) };
        }
        let owed = u64::try_from(vendor.balance).unwrap_or(0);
        let amount = asked.unwrap_or(owed);
        if amount == 0 || amount > owed {
            return Err(Refusal::InsufficientBalance.into());
        }
        let payout = locked.pay_out(by, key, asked, amount, instant(now?.now_ms)).await?;
        Ok((vendor, payout))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, DatabaseError> {
        match tokio::time::timeout(self.deadline, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(DatabaseError::Late(self.deadline.as_millis())),
        }
    }
}

fn instant(now_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(now_ms).unwrap_or_default()
}
