//! A campaign: what an operator writes, checked field by field, and what the backend keeps of it.

mod input;
mod schema;
mod stored;

use chrono::{DateTime, FixedOffset};
use doorbuster_domain::count::Rounds;
pub use doorbuster_domain::discount::Discount;
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{FieldError, Phase, Round, Schedule, ScheduleSpec};
use doorbuster_domain::validity::Validity;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use schema::CampaignInput;
pub use stored::{ShownStored, ShownUnreadable, Stored, Unreadable};

/// The largest quota.
pub const LARGEST_QUOTA: u64 = 10_000_000;

/// What an operator writes. A value of this type was checked by [`Spec::from_json`] once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Spec {
    /// For people.
    #[schema(
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub title: String,
    /// Who is owed for the discounts.
    #[schema(
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub vendor: String,
    /// Three capital letters.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// When rounds open and close.
    pub schedule: ScheduleSpec,
    /// Coupons per round; none means no limit.
    #[schema(required, maximum = 10_000_000)]
    pub quota: Option<u64>,
    /// What a coupon is worth.
    pub discount: Discount,
    /// In the currency's minor unit.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    pub min_order_amount: u64,
    /// From when until when a coupon can be redeemed.
    pub validity: Validity,
}

/// What a coupon keeps of its campaign for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What it is worth.
    pub discount: Discount,
    /// In the currency's minor unit.
    pub min_order_amount: u64,
    /// Three capital letters.
    pub currency: String,
    /// Who is credited when it is redeemed. None on coupons that are older than the ledger: the campaign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
}

impl Spec {
    /// The names of its fields.
    pub const FIELDS: [&'static str; 8] =
        ["title", "vendor", "currency", "schedule", "quota", "discount", "min_order_amount", "validity"];

    /// Checks what an operator sent.
    ///
    /// # Errors
    /// Every field that is unknown, missing or wrong, all at once.
    pub fn from_json(value: &Value) -> Result<(Self, Schedule), Vec<FieldError>> {
        input::read(value)
    }

    /// What a coupon issued now keeps.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            discount: self.discount,
            min_order_amount: self.min_order_amount,
            currency: self.currency.clone(),
            vendor: Some(self.vendor.clone()),
        }
    }
}

/// A campaign as PostgreSQL holds it, ready for use.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// Equal versions mean equal configuration.
    pub version: i64,
    /// Whether an operator paused it.
    pub paused: bool,
    /// What the operator wrote.
    pub spec: Spec,
    /// Its schedule, compiled.
    pub schedule: Schedule,
}

/// A campaign as operators and the audit log see it: what was written, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct Shown<'a> {
    id: &'a CampaignId,
    version: i64,
    paused: bool,
    #[serde(flatten)]
    spec: &'a Spec,
}

impl Campaign {
    /// The campaign as operators see it.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown { id: &self.id, version: self.version, paused: self.paused, spec: &self.spec }
    }

    /// The rounds to speak of at `now_ms` (Unix milliseconds).
    #[must_use]
    pub fn rounds(&self, now_ms: i64) -> Rounds {
        let phase = self.schedule.phase(now_ms);
        let (Phase::NotStarted { next: round }
        | Phase::Open { round }
        | Phase::OutsideHours { next: round }
        | Phase::Ended { last: round }) = phase;
        Rounds { phase, round, next: self.schedule.round_after(round.id) }
    }

    /// When the round after `round` opens.
    #[must_use]
    pub fn opens_after(&self, round: Round) -> Option<DateTime<FixedOffset>> {
        self.schedule.round_after(round.id).map(|next| next.opens)
    }
}
