//! A user's own coupons.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, UserId};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::request;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::reply::{CouponBody, CouponReply, PendingReply, PendingStatus};
use super::{App, query, reply};
use crate::store::postgres::Cursor;

/// A page of a user's coupons.
#[derive(Serialize, ToSchema)]
struct CouponList {
    /// Newest first.
    coupons: Vec<CouponBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

refusals! {
    ListRefusals = [
        MissingUser, InvalidUser, InvalidCampaign, UnknownCampaign, InvalidInput, Unavailable, TooMany, BodyTooLarge,
    ];
    OneRefusals = [MissingUser, InvalidUser, InvalidCode, UnknownCoupon, Unavailable, TooMany, BodyTooLarge];
}

/// Who asks.
pub(super) fn user(headers: &HeaderMap) -> Result<UserId, Refusal> {
    request::user(headers.get_all(request::USER_HEADER).iter().map(HeaderValue::as_bytes))
}

/// The coupon that a path names.
pub(super) fn code(path: &PathParameters) -> Result<CouponCode, Refusal> {
    CouponCode::parse(path.get("code")).map_err(|_| Refusal::InvalidCode)
}

/// A place is held under this code; its location tells what becomes of it.
pub(super) fn pending(code: CouponCode) -> Response {
    let mut response = reply::json(StatusCode::ACCEPTED, &PendingReply { status: PendingStatus::Pending, code });
    if let Ok(location) = HeaderValue::try_from(format!("/v1/coupons/{code}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The user's own coupons, newest first.
#[utoipa::path(
    get,
    path = "/v1/coupons",
    tag = "clients",
    operation_id = "list_coupons",
    params(
        ("campaign" = Option<CampaignId>, Query, description = "Left out: of all campaigns"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Coupons on a page, 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,17}-[0-9A-HJKMNP-TV-Z]{12}$",
         description = "The `next_cursor` of an earlier page"),
        ("x-user-id" = UserId, Header, description = "The user, set by the authentication in front of the gateway"),
    ),
    responses(
        (status = 200, description = "A page of them", body = CouponList,
         headers(("cache-control" = String, description = "`no-store`"))),
        ListRefusals,
    ),
)]
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    // Here a campaign left out means all of them.
    let campaign = match query::one(query, "campaign") {
        Ok(None) => None,
        _ => Some(request::campaign(query.as_bytes(), None)?),
    };
    let snapshot = app.catalog.snapshot();
    if let Some(id) = &campaign
        && !snapshot.campaigns.contains_key(id)
        && snapshot.absence(id) == Refusal::UnknownCampaign
    {
        return Err(Problem::about(Refusal::UnknownCampaign, id).into());
    }
    let user = user(&headers)?;
    let mut errors = Vec::new();
    let page = query::page(query, &mut errors, parse_cursor);
    Error::check(errors)?;
    let coupons = app.postgres.coupons(&user, campaign.as_ref(), page.after, page.asked()).await?;
    let (coupons, next_cursor) =
        page.cut(coupons, |last| format!("{}-{}", last.issued_at.timestamp_micros(), last.code));
    let coupons = coupons.iter().map(|coupon| CouponBody::new(coupon, &app.catalog)).collect();
    Ok(reply::json(StatusCode::OK, &CouponList { coupons, next_cursor }))
}

/// No page is asked for after the year 3000, Unix microseconds: PostgreSQL's clock ends, and so do schedules.
const LATEST_US: i64 = 32_503_680_000_000_000;

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (issued_us, code) = text.rsplit_once('-')?;
    let issued_us = issued_us.parse().ok().filter(|issued_us| (0..=LATEST_US).contains(issued_us))?;
    Some(Cursor { issued_us, code: CouponCode::parse(code).ok()? })
}

/// One of the user's own coupons.
#[utoipa::path(
    get,
    path = "/v1/coupons/{code}",
    tag = "clients",
    operation_id = "show_coupon",
    params(
        ("code" = CouponCode, Path, description = "In either case; O stands for 0, I and L for 1"),
        ("x-user-id" = UserId, Header, description = "The user, set by the authentication in front of the gateway"),
    ),
    responses(
        (status = 200, description = "The coupon, committed", body = CouponReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        (status = 202, description = "A place is held; it is no promise", body = PendingReply,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("location" = String, description = "Where the coupon will be"))),
        OneRefusals,
    ),
)]
pub(super) async fn one(
    State(app): State<Arc<App>>,
    path: PathParameters,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let user = user(&headers)?;
    let code = code(&path)?;
    // Redis first: what it does not hold as pending any more PostgreSQL has by now, or nobody has.
    let held = app.redis.holds(&user, code).await;
    if matches!(held, Ok(true)) {
        return Ok(pending(code));
    }
    match app.postgres.coupon(&user, code).await? {
        Some(coupon) => {
            Ok(reply::json(StatusCode::OK, &CouponReply { coupon: CouponBody::new(&coupon, &app.catalog) }))
        }
        // Without Redis nobody can tell whether it is pending.
        None => {
            held?;
            Err(Refusal::UnknownCoupon.into())
        }
    }
}
