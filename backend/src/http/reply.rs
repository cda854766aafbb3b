//! Replies: JSON, problems, coupons.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::refusal::{PROBLEM_JSON, Problem, rfc3339};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::campaign::Discount;
use crate::catalog::Catalog;
use crate::store::postgres::Coupon;

/// Anything but refusals: JSON that no cache keeps.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// A refusal, with the headers of its row in the table.
pub(super) fn problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, PROBLEM_JSON), (header::CACHE_CONTROL, problem.refusal.cache_control())];
    let mut response = (status, headers, problem.body()).into_response();
    if let Some(seconds) = problem.retry_after().and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// One coupon.
#[derive(Serialize, ToSchema)]
pub(super) struct CouponReply {
    pub(super) coupon: CouponBody,
}

/// A place held for a coupon that is not committed yet.
#[derive(Serialize, ToSchema)]
pub(super) struct PendingReply {
    pub(super) status: PendingStatus,
    pub(super) code: CouponCode,
}

/// The only one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PendingStatus {
    Pending,
}

/// A coupon, as the contract shows it.
#[derive(Serialize, ToSchema)]
#[schema(as = Coupon)]
pub(super) struct CouponBody {
    #[schema(value_type = CouponCode)]
    code: String,
    campaign: CampaignId,
    round: RoundId,
    /// The order of reservation in its round, from 1.
    #[schema(minimum = 1)]
    number: u64,
    #[schema(format = DateTime)]
    issued_at: String,
    #[schema(format = DateTime)]
    redeemable_from: String,
    #[schema(format = DateTime)]
    redeemable_until: String,
    discount: Discount,
    min_order_amount: u64,
    currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    redeemed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    voided_at: Option<String>,
}

/// An instant in the zone of a campaign.
pub(super) fn local(catalog: &Catalog, campaign: &CampaignId, instant: DateTime<Utc>) -> String {
    match catalog.get(campaign) {
        Some(campaign) => rfc3339(&campaign.schedule.local(instant.timestamp_millis())),
        None => rfc3339(&instant.fixed_offset()),
    }
}

impl CouponBody {
    /// Times are in the zone of the coupon's campaign.
    pub(super) fn new(coupon: &Coupon, catalog: &Catalog) -> Self {
        let local = |instant| local(catalog, &coupon.campaign, instant);
        Self {
            code: coupon.code.to_string(),
            campaign: coupon.campaign.clone(),
            round: coupon.round,
            number: coupon.number,
            issued_at: local(coupon.issued_at),
            redeemable_from: local(coupon.redeemable_from),
            redeemable_until: local(coupon.redeemable_until),
            discount: coupon.terms.discount,
            min_order_amount: coupon.terms.min_order_amount,
            currency: coupon.terms.currency.clone(),
            redeemed_at: coupon.redeemed_at.map(local),
            voided_at: coupon.voided_at.map(local),
        }
    }

    /// As part of a problem.
    pub(super) fn into_value(self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }
}
