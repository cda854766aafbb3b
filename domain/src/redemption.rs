//! Whether an order redeems a coupon, and for how much.

use crate::discount::Discount;
use crate::id::OrderId;
use crate::refusal::Refusal;

/// An order of the shop's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The shop's name for it.
    pub id: OrderId,
    /// In the coupon's currency's minor unit.
    pub amount: u64,
}

impl Order {
    /// Whether this is `earlier` again, which redeemed the coupon.
    ///
    /// # Errors
    /// [`Refusal::OrderMismatch`] if its amount is another, [`Refusal::AlreadyRedeemed`] if the order is.
    pub fn repeats(&self, earlier: &Self) -> Result<(), Refusal> {
        match earlier {
            same if same == self => Ok(()),
            same if same.id == self.id => Err(Refusal::OrderMismatch),
            _ => Err(Refusal::AlreadyRedeemed),
        }
    }
}

/// What a coupon promises, fixed when it was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// First instant at which it can be redeemed, Unix milliseconds.
    pub from_ms: i64,
    /// First instant at which it no longer can, Unix milliseconds.
    pub until_ms: i64,
    /// The smallest order it is for, in the currency's minor unit.
    pub min_order_amount: u64,
    /// What it is worth.
    pub discount: Discount,
}

impl Promise {
    /// What is taken off an order of `order_amount` at `now_ms` (Unix milliseconds).
    ///
    /// # Errors
    /// [`Refusal::NotRedeemableYet`], [`Refusal::Expired`] or [`Refusal::BelowMinimum`].
    pub fn redeem(&self, order_amount: u64, now_ms: i64) -> Result<u64, Refusal> {
        if now_ms < self.from_ms {
            Err(Refusal::NotRedeemableYet)
        } else if now_ms >= self.until_ms {
            Err(Refusal::Expired)
        } else if order_amount < self.min_order_amount {
            Err(Refusal::BelowMinimum)
        } else {
            Ok(self.discount.of(order_amount))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(id: &str, amount: u64) -> Order {
        Order { id: OrderId::parse(id).unwrap(), amount }
    }

    #[test]
    fn the_first_instant_is_in_and_the_last_is_out() {
        let discount = Discount::Percent { value: 50, max_amount: Some(10_000) };
        let promise = Promise { from_ms: 1_000, until_ms: 2_000, min_order_amount: 20_000, discount };
        for (now_ms, answer) in [
            (i64::MIN, Err(Refusal::NotRedeemableYet)),
            (999, Err(Refusal::NotRedeemableYet)),
            (1_000, Ok(10_000)),
            (1_999, Ok(10_000)),
            (2_000, Err(Refusal::Expired)),
            (i64::MAX, Err(Refusal::Expired)),
        ] {
            assert_eq!(promise.redeem(20_000, now_ms), answer, "{now_ms}");
        }
        assert_eq!(promise.redeem(19_999, 1_000), Err(Refusal::BelowMinimum));
    }

    #[test]
    fn one_order_repeats_itself_alone() {
        let earlier = order("A-1", 30_000);
        assert_eq!(order("A-1", 30_000).repeats(&earlier), Ok(()));
        assert_eq!(order("A-1", 30_001).repeats(&earlier), Err(Refusal::OrderMismatch));
        assert_eq!(order("A-2", 30_000).repeats(&earlier), Err(Refusal::AlreadyRedeemed));
    }

    proptest! {
        #[test]
        fn it_redeems_within_the_promise_and_nowhere_else(
            from_ms: i64, until_ms: i64, now_ms: i64, min_order_amount: u64, order_amount: u64, value: u64,
        ) {
            let promise = Promise { from_ms, until_ms, min_order_amount, discount: Discount::Amount { value } };
            let holds = (from_ms..until_ms).contains(&now_ms) && order_amount >= min_order_amount;
            let redeemed = promise.redeem(order_amount, now_ms);
            prop_assert_eq!(redeemed.is_ok(), holds);
            prop_assert!(redeemed.is_ok_and(|discount| discount <= order_amount) == holds);
        }
    }
}
