//! Every way of saying no: one table maps a refusal to its status, code, title and headers, for both tiers.

use chrono::{DateTime, FixedOffset, SecondsFormat};
use serde::{Serialize, Serializer};

use crate::id::{CampaignId, RoundId};
use crate::schedule::{FieldError, Phase};

/// Media type of every refusal (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// No Retry-After is longer than this, seconds.
const LONGEST_RETRY_S: i64 = 3600;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal $title:literal $cache:ident,)*) => {
        /// Why a request is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them, for tables and documents.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The code that clients and metrics know it by.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The problem's title.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The problem's type URI.
            #[must_use]
            pub const fn type_uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:doorbuster:problem:", $code),)* }
            }

            /// Value of `cache-control`: what holds for everybody may be shared for a second, the rest is not stored.
            #[must_use]
            pub const fn cache_control(self) -> &'static str {
                match self { $(Self::$name => $cache,)* }
            }
        }
    };
}

const SHARED: &str = "public, max-age=1";
const PRIVATE: &str = "no-store";

refusals! {
    /// No user id, or an empty one.
    MissingUser = 401 "missing_user" "The request carries no user." PRIVATE,
    /// A malformed or repeated user id.
    InvalidUser = 400 "invalid_user" "The user id is malformed or was sent more than once." PRIVATE,
    /// No campaign, a malformed one, or two.
    InvalidCampaign = 400 "invalid_campaign" "The query parameter campaign is missing, malformed or repeated." PRIVATE,
    /// No such campaign.
    UnknownCampaign = 404 "unknown_campaign" "There is no such campaign." PRIVATE,
    /// The last round is over.
    Ended = 410 "ended" "The campaign has ended." SHARED,
    /// An operator paused it.
    Paused = 403 "paused" "The campaign is paused." PRIVATE,
    /// Before the first round.
    NotStarted = 403 "not_started" "The campaign has not started yet." PRIVATE,
    /// Between rounds.
    OutsideHours = 403 "outside_hours" "The campaign is closed at this hour." PRIVATE,
    /// The round's quota is committed.
    SoldOut = 409 "sold_out" "Every coupon of this round has been issued." SHARED,
    /// The user has this round's coupon.
    AlreadyIssued = 409 "already_issued" "This user already has a coupon of this round." PRIVATE,
    /// It may be otherwise in a moment.
    Busy = 503 "busy" "Earlier requests are being decided; ask again." PRIVATE,
    /// Something needed cannot be reached.
    Unavailable = 503 "unavailable" "The service cannot answer just now; ask again." PRIVATE,
    /// The origin wants a ticket that holds.
    Unticketed = 401 "unticketed" "The request did not come through the gateway." PRIVATE,
    /// Rate limit on a route without admission control.
    TooMany = 429 "too_many" "Too many requests; ask again." PRIVATE,
    /// Longer than any body that is read.
    BodyTooLarge = 413 "body_too_large" "The request body is too large." PRIVATE,
    /// No such path.
    NotFound = 404 "not_found" "There is nothing at this path." PRIVATE,
    /// The path exists under another method.
    MethodNotAllowed = 405 "method_not_allowed" "This path does not take this method." PRIVATE,
    /// No such coupon, or not this user's.
    UnknownCoupon = 404 "unknown_coupon" "This user has no such coupon." PRIVATE,
    /// A code with a typing error.
    InvalidCode = 400 "invalid_code" "The coupon code is malformed." PRIVATE,
    /// The order redeemed the coupon with another amount.
    OrderMismatch = 409 "order_mismatch" "This order redeemed the coupon with another amount." PRIVATE,
    /// The coupon is redeemed.
    AlreadyRedeemed = 409 "already_redeemed" "The coupon has been redeemed already." PRIVATE,
    /// Before the first instant at which it can be redeemed.
    NotRedeemableYet = 409 "not_redeemable_yet" "The coupon cannot be redeemed yet." PRIVATE,
    /// After the last.
    Expired = 410 "expired" "The coupon has expired." PRIVATE,
    /// An operator took it back.
    Voided = 410 "voided" "The coupon was voided." PRIVATE,
    /// The order is too small for the coupon.
    BelowMinimum = 422 "below_minimum" "The order is below the coupon's least amount." PRIVATE,
    /// Operations listener: no token that holds.
    Unauthorized = 401 "unauthorized" "The bearer token is missing or wrong." PRIVATE,
    /// Operations listener: the token may not do this.
    Forbidden = 403 "forbidden" "The bearer token does not allow this." PRIVATE,
    /// `if-match` names another version.
    VersionConflict = 412 "version_conflict" "The campaign has another version by now." PRIVATE,
    /// The campaign has coupons.
    HasCoupons = 409 "has_coupons" "The campaign has issued coupons and stays on record." PRIVATE,
    /// No such vendor.
    UnknownVendor = 404 "unknown_vendor" "There is no such vendor." PRIVATE,
    /// The vendor is not owed as much.
    InsufficientBalance = 409 "insufficient_balance" "The vendor's balance is smaller than the payout." PRIVATE,
    /// An idempotency key that named another request.
    KeyReused = 422 "key_reused" "The idempotency key was used for another request." PRIVATE,
    /// Not JSON.
    MalformedInput = 400 "invalid_input" "The request body is not JSON." PRIVATE,
    /// JSON with unknown fields or bad values.
    InvalidInput = 422 "invalid_input" "The request has fields that do not hold." PRIVATE,
}

/// A refusal with what is known about it: the body of the reply, and its headers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// The row of the table: rendered as `type`, `title`, `status` and `code`.
    #[serde(flatten, serialize_with = "serialize_row")]
    pub refusal: Refusal,
    /// The campaign asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<CampaignId>,
    /// The round meant: the current, else the next, else the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<RoundId>,
    /// When that round opens, where it is still to open.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_optional_instant")]
    pub opens_at: Option<DateTime<FixedOffset>>,
    /// When the next round opens, seen from now.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_optional_instant")]
    pub next_opens_at: Option<DateTime<FixedOffset>>,
    /// When the last round closed, if the campaign has ended.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_optional_instant")]
    pub closed_at: Option<DateTime<FixedOffset>>,
    /// Retry-After in seconds; the body gives it in milliseconds.
    #[serde(rename = "retry_after_ms", skip_serializing_if = "Option::is_none", serialize_with = "serialize_retry")]
    pub retry_after_s: Option<u32>,
    /// The coupon the user already has; the backend adds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon: Option<serde_json::Value>,
    /// What is wrong with each field of an operator's input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A refusal about which nothing more is known.
    #[must_use]
    pub fn new(refusal: Refusal) -> Self {
        Self {
            refusal,
            campaign: None,
            round: None,
            opens_at: None,
            next_opens_at: None,
            closed_at: None,
            retry_after_s: match refusal {
                Refusal::Paused => Some(30),
                Refusal::TooMany => Some(1),
                _ => None,
            },
            coupon: None,
            errors: Vec::new(),
        }
    }

    /// A refusal that concerns a campaign.
    #[must_use]
    pub fn about(refusal: Refusal, campaign: &CampaignId) -> Self {
        Self { campaign: Some(campaign.clone()), ..Self::new(refusal) }
    }

    /// `busy` or `unavailable`: ask again in 1 to 3 seconds, as `random` has it, so that a crowd does not return in
    /// one wave.
    #[must_use]
    pub fn ask_again(refusal: Refusal, campaign: Option<&CampaignId>, random: u64) -> Self {
        Self { campaign: campaign.cloned(), retry_after_s: Some((random % 3) as u32 + 1), ..Self::new(refusal) }
    }

    /// What a phase other than open refuses with; none while a round is open.
    #[must_use]
    pub fn outside(campaign: &CampaignId, phase: &Phase, now_ms: i64) -> Option<Self> {
        let until = |refusal, next: &crate::schedule::Round| Self {
            round: Some(next.id),
            opens_at: Some(next.opens),
            next_opens_at: Some(next.opens),
            retry_after_s: Some(seconds_until(next.opens, now_ms)),
            ..Self::about(refusal, campaign)
        };
        match phase {
            Phase::Open { .. } => None,
            Phase::NotStarted { next } => Some(until(Refusal::NotStarted, next)),
            Phase::OutsideHours { next } => Some(until(Refusal::OutsideHours, next)),
            Phase::Ended { last } => Some(Self {
                round: Some(last.id),
                closed_at: Some(last.closes),
                ..Self::about(Refusal::Ended, campaign)
            }),
        }
    }

    /// The round's quota is committed; the next round, if there is one, opens at `next_opens_at`.
    #[must_use]
    pub fn sold_out(
        campaign: &CampaignId,
        round: RoundId,
        next_opens_at: Option<DateTime<FixedOffset>>,
        now_ms: i64,
    ) -> Self {
        Self {
            round: Some(round),
            next_opens_at,
            retry_after_s: next_opens_at.map(|opens| seconds_until(opens, now_ms)),
            ..Self::about(Refusal::SoldOut, campaign)
        }
    }

    /// The user has this round's coupon.
    #[must_use]
    pub fn already_issued(campaign: &CampaignId, round: RoundId) -> Self {
        Self { round: Some(round), ..Self::about(Refusal::AlreadyIssued, campaign) }
    }

    /// The body, JSON.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `retry-after`, as text.
    #[must_use]
    pub fn retry_after(&self) -> Option<String> {
        self.retry_after_s.map(|seconds| seconds.to_string())
    }
}

/// Whole seconds until `instant`, rounded up so that whoever waits them is not early, 1 to 3600.
fn seconds_until(instant: DateTime<FixedOffset>, now_ms: i64) -> u32 {
    let wait_ms = instant.timestamp_millis().saturating_sub(now_ms);
    let wait_s = (wait_ms.saturating_add(999) / 1000).clamp(1, LONGEST_RETRY_S);
    u32::try_from(wait_s).unwrap_or(1)
}

/// RFC 3339 with a numeric offset, and milliseconds only where there are some.
#[must_use]
pub fn rfc3339(instant: &DateTime<FixedOffset>) -> String {
    let precision = if instant.timestamp_subsec_millis() == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
    instant.to_rfc3339_opts(precision, false)
}

#[derive(Serialize)]
struct Row {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
}

fn serialize_row<S: Serializer>(refusal: &Refusal, serializer: S) -> Result<S::Ok, S::Error> {
    let row =
        Row { r#type: refusal.type_uri(), title: refusal.title(), status: refusal.status(), code: refusal.code() };
    row.serialize(serializer)
}

pub(crate) fn serialize_instant<S: Serializer>(
    instant: &DateTime<FixedOffset>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    rfc3339(instant).serialize(serializer)
}

pub(crate) fn serialize_optional_instant<S: Serializer>(
    instant: &Option<DateTime<FixedOffset>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    instant.as_ref().map(rfc3339).serialize(serializer)
}

fn serialize_retry<S: Serializer>(seconds: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    seconds.map(|seconds| u64::from(seconds) * 1000).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(text).unwrap()
    }

    fn spring() -> CampaignId {
        CampaignId::parse("spring").unwrap()
    }

    #[test]
    fn a_sold_out_body_says_when_to_come_back() {
        let opens = at("2026-05-02T13:00:00+09:00");
        let now_ms = opens.timestamp_millis() - 1_500;
        let problem = Problem::sold_out(&spring(), "2026-05-01".parse().unwrap(), Some(opens), now_ms);
        assert_eq!(
            String::from_utf8(problem.body()).unwrap(),
            r#"{"type":"urn:doorbuster:problem:sold_out","title":"Every coupon of this round has been issued.","status":409,"code":"sold_out","campaign":"spring","round":"2026-05-01","next_opens_at":"2026-05-02T13:00:00+09:00","retry_after_ms":2000}"#
        );
        assert_eq!(problem.retry_after().as_deref(), Some("2"));
    }

    #[test]
    fn a_wait_is_rounded_up_and_bounded() {
        let opens = at("2026-05-02T13:00:00+09:00");
        for (before_ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (3_599_001, 3_600), (i64::MAX / 2, 3_600)]
        {
            assert_eq!(seconds_until(opens, opens.timestamp_millis() - before_ms), seconds, "{before_ms}");
        }
    }

    #[test]
    fn a_crowd_is_spread_over_three_seconds() {
        let waits: Vec<_> =
            (0..3).map(|random| Problem::ask_again(Refusal::Busy, None, random).retry_after_s).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn instants_have_numeric_offsets() {
        assert_eq!(rfc3339(&at("2026-05-02T13:00:00Z")), "2026-05-02T13:00:00+00:00");
        assert_eq!(rfc3339(&at("2026-05-02T13:00:00.5+09:00")), "2026-05-02T13:00:00.500+09:00");
    }
}
