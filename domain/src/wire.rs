//! The sync between an edge and the backend: `POST /internal/v1/edge/sync`, JSON both ways.
//!
//! Unknown fields are ignored, so that either side can be upgraded first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{CampaignId, RoundId};
use crate::timetable::Timetable;

/// Path of the sync on the operations listener.
pub const SYNC_PATH: &str = "/internal/v1/edge/sync";

/// What an edge sends up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SyncRequest {
    /// Drawn when the Envoy process started: 1 to 64 characters of `a-z 0-9 -`.
    #[cfg_attr(feature = "schema", schema(pattern = "^[a-z0-9-]{1,64}$"))]
    pub gateway: String,
    /// At most so many campaigns are wanted, nearest round first.
    #[cfg_attr(feature = "schema", schema(format = Int64, maximum = 4_294_967_295_u64))]
    pub max_campaigns: u32,
    /// What it has decided since it started, where that has changed since its last sync was answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub totals: Vec<Totals>,
}

/// Decisions about one round since an edge started. Totals, so that a lost reply counts nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Totals {
    /// The campaign.
    pub campaign: CampaignId,
    /// The current round, else the next, else the last.
    pub round: RoundId,
    /// How many requests were `admitted`, or refused with a code.
    pub decisions: BTreeMap<String, u64>,
}

/// What the backend sends down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SyncResponse {
    /// Redis's clock, Unix milliseconds, carried forward by the backend's monotonic clock.
    pub now_ms: i64,
    /// How far `now_ms` may be off when it was written, milliseconds.
    pub uncertainty_ms: u32,
    /// Gateways that have synced within the last seconds, this one included: at least 1.
    pub gateways: u32,
    /// Whether `campaigns` holds every campaign there is.
    pub complete: bool,
    /// The campaigns, nearest round first.
    pub campaigns: Vec<SyncCampaign>,
}

/// One campaign, as an edge needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SyncCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Its version; a newer one lifts every latch.
    pub version: u64,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Its rounds around now.
    pub timetable: Timetable,
    /// Coupons per round; none means no limit.
    #[cfg_attr(feature = "schema", schema(required))]
    pub quota: Option<u64>,
    /// The round which `issued` and `reserved` describe: the current one, else the next.
    #[cfg_attr(feature = "schema", schema(required))]
    pub round: Option<RoundId>,
    /// Committed coupons of that round.
    pub issued: u64,
    /// Committed and pending ones.
    pub reserved: u64,
}
