//! What a coupon takes off an order.

use serde::{Deserialize, Serialize};

/// The largest amount of money, in a currency's minor unit: the largest integer that every JSON reader holds exactly.
pub const LARGEST_AMOUNT: u64 = (1 << 53) - 1;

/// What a coupon is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Discount {
    /// A part of the order.
    Percent {
        /// 1 to 100.
        #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 100))]
        value: u64,
        /// Not more than this, in the currency's minor unit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(nullable = false, minimum = 1, maximum = 9_007_199_254_740_991_u64))]
        max_amount: Option<u64>,
    },
    /// An amount.
    Amount {
        /// In the currency's minor unit.
        #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 9_007_199_254_740_991_u64))]
        value: u64,
    },
}

impl Discount {
    /// What is taken off an order of `order_amount`, both in the currency's minor unit. A percentage is rounded down to
    /// it; nothing exceeds the order.
    #[must_use]
    pub fn of(&self, order_amount: u64) -> u64 {
        let full = match *self {
            Self::Percent { value, max_amount } => {
                // Twice as wide, so that no product overflows.
                let part = u128::from(order_amount) * u128::from(value) / 100;
                u64::try_from(part).unwrap_or(u64::MAX).min(max_amount.unwrap_or(u64::MAX))
            }
            Self::Amount { value } => value,
        };
        full.min(order_amount)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(value: u64, max_amount: Option<u64>) -> Discount {
        Discount::Percent { value, max_amount }
    }

    #[test]
    fn the_contracts_example() {
        let half = percent(50, Some(10_000));
        for (order, discount) in [(30_000, 10_000), (20_000, 10_000), (19_999, 9_999), (1, 0), (0, 0)] {
            assert_eq!(half.of(order), discount, "{order}");
        }
        let amount = Discount::Amount { value: 5_000 };
        for (order, discount) in [(30_000, 5_000), (5_000, 5_000), (4_999, 4_999), (0, 0)] {
            assert_eq!(amount.of(order), discount, "{order}");
        }
    }

    fn discounts() -> impl Strategy<Value = Discount> {
        prop_oneof![
            (any::<u64>(), any::<Option<u64>>()).prop_map(|(value, max_amount)| percent(value, max_amount)),
            (1..=100_u64, any::<Option<u64>>()).prop_map(|(value, max_amount)| percent(value, max_amount)),
            any::<u64>().prop_map(|value| Discount::Amount { value }),
        ]
    }

    proptest! {
        #[test]
        fn it_exceeds_neither_the_order_nor_its_cap(discount in discounts(), order: u64) {
            let off = discount.of(order);
            prop_assert!(off <= order);
            match discount {
                Discount::Percent { max_amount, .. } => prop_assert!(max_amount.is_none_or(|cap| off <= cap)),
                Discount::Amount { value } => prop_assert_eq!(off, value.min(order)),
            }
        }

        #[test]
        fn a_percentage_is_rounded_down_by_less_than_one(value in 1..=100_u64, order: u64) {
            let off = u128::from(percent(value, None).of(order));
            let exact_times_100 = u128::from(order) * u128::from(value);
            prop_assert!(off * 100 <= exact_times_100 && exact_times_100 < (off + 1) * 100);
        }

        #[test]
        fn a_larger_order_is_never_given_less(discount in discounts(), order: u64, more: u64) {
            prop_assert!(discount.of(order) <= discount.of(order.saturating_add(more)));
        }
    }
}
