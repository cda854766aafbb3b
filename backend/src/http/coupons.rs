//! A user's own coupons.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::UserId;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::request;
use serde_json::json;

use super::error::Error;
use super::path::PathParameters;
use super::reply::CouponBody;
use super::{App, query, reply};
use crate::store::postgres::Cursor;

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
    let mut response = reply::json(StatusCode::ACCEPTED, &json!({"status": "pending", "code": code}));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/coupons/{code}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    // Here a campaign left out means all of them.
    let campaign = match query::one(query, "campaign") {
        Ok(None) => None,
        _ => Some(request::campaign(query.as_bytes(), None)?),
    };
    let snapshot = app.catalog.snapshot();
    if let Some(id) = campaign.as_ref().filter(|id| !snapshot.campaigns.contains_key(*id) && snapshot.is_fresh()) {
        return Err(Problem::about(Refusal::UnknownCampaign, id).into());
    }
    let user = user(&headers)?;
    let mut errors = Vec::new();
    let page = query::page(query, &mut errors, parse_cursor);
    Error::check(errors)?;
    let coupons = app.postgres.coupons(&user, campaign.as_ref(), page.after, page.asked()).await?;
    let (coupons, next_cursor) =
        page.cut(coupons, |last| format!("{}-{}", last.issued_at.timestamp_micros(), last.code));
    let coupons: Vec<_> = coupons.iter().map(|coupon| CouponBody::new(coupon, &app.catalog)).collect();
    Ok(reply::json(StatusCode::OK, &json!({"coupons": coupons, "next_cursor": next_cursor})))
}

/// No page is asked for after the year 3000, Unix microseconds: PostgreSQL's clock ends, and so do schedules.
const LATEST_US: i64 = 32_503_680_000_000_000;

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (issued_us, code) = text.rsplit_once('-')?;
    let issued_us = issued_us.parse().ok().filter(|issued_us| (0..=LATEST_US).contains(issued_us))?;
    Some(Cursor { issued_us, code: CouponCode::parse(code).ok()? })
}

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
        Some(coupon) => Ok(reply::json(StatusCode::OK, &json!({"coupon": CouponBody::new(&coupon, &app.catalog)}))),
        // Without Redis nobody can tell whether it is pending.
        None => {
            held?;
            Err(Refusal::UnknownCoupon.into())
        }
    }
}
