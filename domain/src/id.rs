//! Names of campaigns, users, rounds, orders and requests. A value of these types has passed its check; there is no other way in.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// A text that is no id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(&'static str);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, pattern = $pattern))]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule of this id.
            ///
            /// # Errors
            /// [`InvalidId`], which states the rule and not the text: clients write it.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&[u8]) -> bool = $valid;
                if valid(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(InvalidId($rule)) }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A campaign's id: `[a-z0-9][a-z0-9-]{0,62}`.
    CampaignId,
    "must be 1 to 63 characters of a-z 0-9 -, not beginning with -",
    "^[a-z0-9][a-z0-9-]{0,62}$",
    |text| {
        text.len() <= 63
            && text.first().is_some_and(|first| *first != b'-')
            && text.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }
);

text_id!(
    /// A user's id: 1 to 128 bytes of `A-Z a-z 0-9 . _ : @ | + = ~ -`.
    UserId,
    "must be 1 to 128 bytes of A-Z a-z 0-9 . _ : @ | + = ~ -",
    "^[A-Za-z0-9._:@|+=~-]{1,128}$",
    |text| {
        (1..=128).contains(&text.len())
            && text.iter().all(|c| {
                matches!(c, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
                    | b'.' | b'_' | b':' | b'@' | b'|' | b'+' | b'=' | b'~' | b'-')
            })
    }
);

text_id!(
    /// A shop's name for an order: 1 to 128 visible ASCII characters.
    OrderId,
    "must be 1 to 128 visible ASCII characters",
    "^[!-~]{1,128}$",
    is_visible
);

text_id!(
    /// The name an operator gives to a request, so that sent again it is known to be the same: 1 to 128 visible ASCII
    /// characters.
    IdempotencyKey,
    "must be 1 to 128 visible ASCII characters",
    "^[!-~]{1,128}$",
    is_visible
);

fn is_visible(text: &[u8]) -> bool {
    (1..=128).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// A round's name: the local date on which it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RoundId(pub NaiveDate);

impl fmt::Display for RoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl FromStr for RoundId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_date(text).map(Self).ok_or(InvalidId("must be a date of the form YYYY-MM-DD"))
    }
}

/// Reads exactly `YYYY-MM-DD`. chrono alone would also take `2026-5-1` and `+12026-05-01`.
#[must_use]
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    let well_formed = text.len() == 10
        && text.bytes().enumerate().all(|(at, c)| if at == 4 || at == 7 { c == b'-' } else { c.is_ascii_digit() });
    if !well_formed {
        return None;
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaign_ids_follow_their_rule() {
        for good in ["a", "0", "spring", "spring-2026", "a-", &"a".repeat(63)] {
            assert!(CampaignId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a b", "é", &"a".repeat(64)] {
            assert!(CampaignId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn user_ids_follow_their_rule() {
        for good in ["u", "auth0|5f7c", "a.b_c:d@e+f=g~h-i", &"u".repeat(128)] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a,b", "a/b", "ü", "a\0", &"u".repeat(129)] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn order_ids_and_keys_are_visible() {
        for good in ["A-1", "2026/05/01#7", "{\"a\":1}", &"o".repeat(128)] {
            assert!(OrderId::parse(good).is_ok() && IdempotencyKey::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A 1", "A\0", "A\u{7f}", "é", &"o".repeat(129)] {
            assert!(OrderId::parse(bad).is_err() && IdempotencyKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn round_ids_are_dates_and_nothing_like_dates() {
        assert_eq!("2026-05-01".parse::<RoundId>().unwrap().to_string(), "2026-05-01");
        for bad in ["2026-5-1", "2026-02-30", "+2026-05-1", "2026-05-01 ", "20260501", ""] {
            assert!(bad.parse::<RoundId>().is_err(), "{bad}");
        }
    }
}
