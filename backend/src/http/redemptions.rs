//! What becomes of a coupon: redeemed by its user or by the shop's server, voided by an operator.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::id::{OrderId, UserId};
use doorbuster_domain::redemption::Order;
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use super::path::PathParameters;
use super::reply::CouponBody;
use super::{App, body, coupons, reply};
use crate::catalog::Catalog;
use crate::fields::{Fields, integer, must_be_text};
use crate::operators::Operator;
use crate::settlement::Redeemed;
use crate::store::postgres::{Coupon, Life, Redemption, Voiding};

/// For users; only where the configuration lets them redeem.
pub(super) fn client_router() -> Router<Arc<App>> {
    Router::new().route("/v1/coupons/{code}/redeem", post(redeem_own))
}

/// For the shop's server and for operators.
pub(super) fn ops_router() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/v1/coupons/{code}", get(show))
        .route("/admin/v1/coupons/{code}/redeem", post(redeem_for_user))
        .route("/admin/v1/coupons/{code}/void", post(void))
}

/// A coupon redeemed for an order.
#[derive(Serialize)]
struct RedemptionBody {
    code: CouponCode,
    order_id: OrderId,
    order_amount: u64,
    discount_amount: u64,
    redeemed_at: String,
}

/// A coupon that was taken back.
#[derive(Serialize)]
struct VoidBody {
    code: CouponCode,
    reason: String,
    reversed: bool,
    voided_at: String,
}

/// A coupon, as operators see it.
#[derive(Serialize)]
struct LifeBody {
    user: UserId,
    vendor: String,
    #[serde(flatten)]
    coupon: CouponBody,
    redemption: Option<RedemptionBody>,
    void: Option<VoidBody>,
}

impl RedemptionBody {
    fn new(coupon: &Coupon, redemption: Redemption, catalog: &Catalog) -> Self {
        Self {
            code: coupon.code,
            order_id: redemption.order.id,
            order_amount: redemption.order.amount,
            discount_amount: redemption.discount_amount,
            redeemed_at: reply::local(catalog, &coupon.campaign, redemption.redeemed_at),
        }
    }
}

impl VoidBody {
    fn new(coupon: &Coupon, voiding: Voiding, catalog: &Catalog) -> Self {
        Self {
            code: coupon.code,
            reason: voiding.reason,
            reversed: voiding.reversed,
            voided_at: reply::local(catalog, &coupon.campaign, voiding.voided_at),
        }
    }
}

async fn show(State(app): State<Arc<App>>, path: PathParameters) -> Result<Response, Error> {
    let life = app.postgres.coupon_life(coupons::code(&path)?).await?.ok_or(Refusal::UnknownCoupon)?;
    let Life { coupon, user, vendor, redemption, voiding } = life;
    let body = LifeBody {
        user,
        vendor,
        redemption: redemption.map(|redemption| RedemptionBody::new(&coupon, redemption, &app.catalog)),
        void: voiding.map(|voiding| VoidBody::new(&coupon, voiding, &app.catalog)),
        coupon: CouponBody::new(&coupon, &app.catalog),
    };
    Ok(reply::json(StatusCode::OK, &json!({"coupon": body})))
}

async fn redeem_own(
    State(app): State<Arc<App>>,
    path: PathParameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let user = coupons::user(&headers)?;
    let code = coupons::code(&path)?;
    let order = read(&body::json(body)?, &["order_id", "order_amount"], order)?;
    redeem(&app, None, code, &user, order).await
}

async fn redeem_for_user(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let code = coupons::code(&path)?;
    let (user, order) = read(&body::json(body)?, &["user", "order_id", "order_amount"], |fields, errors| {
        let user = fields.read("user", errors, |value| parsed(value, UserId::parse));
        let order = order(fields, errors);
        Some((user?, order?))
    })?;
    redeem(&app, Some(&operator), code, &user, order).await
}

async fn redeem(
    app: &App,
    by: Option<&Operator>,
    code: CouponCode,
    user: &UserId,
    order: Order,
) -> Result<Response, Error> {
    let redeemed = app.settlement.redeem(by, code, user, order, app.issuance.now().await).await;
    let (coupon, redemption) = redeemed.map_err(|error| Error::about_coupon(error, &app.catalog))?;
    Ok(reply::json(StatusCode::OK, &RedemptionBody::new(&coupon, redemption, &app.catalog)))
}

async fn void(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let code = coupons::code(&path)?;
    let (reason, redeemed) = read(&body::json(body)?, &["reason", "reverse"], |fields, errors| {
        let reason = fields.text("reason", errors);
        let redeemed = match fields.get("reverse") {
            None | Some(Value::Bool(false)) => Some(Redeemed::Keep),
            Some(Value::Bool(true)) => Some(Redeemed::Reverse),
            Some(_) => {
                errors.push(fields.error("reverse", "must be true or false"));
                None
            }
        };
        Some((reason?, redeemed?))
    })?;
    let voided = app.settlement.void(&operator, code, reason, redeemed, app.issuance.now().await).await;
    let (coupon, voiding) = voided.map_err(|error| Error::about_coupon(error, &app.catalog))?;
    tracing::info!(campaign = %coupon.campaign, %code, operator = operator.name, "an operator voided a coupon");
    Ok(reply::json(StatusCode::OK, &VoidBody::new(&coupon, voiding, &app.catalog)))
}

fn order(fields: &Fields<'_>, errors: &mut Vec<FieldError>) -> Option<Order> {
    let id = fields.read("order_id", errors, |value| parsed(value, OrderId::parse));
    let amount = fields.read("order_amount", errors, |value| integer(value, 0, LARGEST_AMOUNT));
    Some(Order { id: id?, amount: amount? })
}

fn parsed<T, E: std::fmt::Display>(value: &Value, parse: fn(&str) -> Result<T, E>) -> Result<T, String> {
    parse(value.as_str().ok_or_else(must_be_text)?).map_err(|rule| rule.to_string())
}

/// Reads an object of these fields.
fn read<T>(
    value: &Value,
    known: &[&str],
    read: impl FnOnce(&Fields<'_>, &mut Vec<FieldError>) -> Option<T>,
) -> Result<T, Error> {
    let mut errors = Vec::new();
    let read = Fields::of(value, "", known, &mut errors).and_then(|fields| read(&fields, &mut errors));
    match read {
        Some(read) if errors.is_empty() => Ok(read),
        _ => Err(Error::invalid(errors)),
    }
}
