//! What becomes of a coupon: redeemed by its user or by the shop's server, voided by an operator.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::id::{OrderId, UserId};
use doorbuster_domain::redemption::Order;
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::reply::CouponBody;
use super::{App, body, coupons, reply};
use crate::catalog::Catalog;
use crate::fields::{Fields, integer, must_be_text};
use crate::operators::Operator;
use crate::settlement::Redeemed;
use crate::store::postgres::{Coupon, Life, Redemption, Voiding};

/// For users; only where the configuration lets them redeem.
pub(super) fn client_routes() -> Routes {
    OpenApiRouter::new().routes(routes!(redeem_own))
}

/// For the shop's server: what its role `cashier` may do.
pub(super) fn cashier_routes() -> Routes {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(redeem_for_user))
}

/// For operators.
pub(super) fn operator_routes() -> Routes {
    OpenApiRouter::new().routes(routes!(void))
}

refusals! {
    ShowRefusals = [Unauthorized, Forbidden, TooMany, InvalidCode, UnknownCoupon, Unavailable];
    RedeemOwnRefusals = [
        MissingUser, InvalidUser, InvalidCode, UnknownCoupon, OrderMismatch, AlreadyRedeemed, NotRedeemableYet,
        Expired, Voided, BelowMinimum, MalformedInput, InvalidInput, BodyTooLarge, TooMany, NotFound, Unavailable,
    ];
    RedeemForUserRefusals = [
        Unauthorized, Forbidden, TooMany, InvalidCode, UnknownCoupon, OrderMismatch, AlreadyRedeemed,
        NotRedeemableYet, Expired, Voided, BelowMinimum, MalformedInput, InvalidInput, BodyTooLarge, Unavailable,
    ];
    VoidRefusals = [
        Unauthorized, Forbidden, TooMany, InvalidCode, UnknownCoupon, AlreadyRedeemed, MalformedInput, InvalidInput,
        BodyTooLarge, Unavailable,
    ];
}

/// An order to redeem a coupon for.
#[derive(ToSchema)]
#[schema(as = Order)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read field by field")]
struct OrderInput {
    order_id: OrderId,
    /// In the currency's minor unit.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    order_amount: u64,
}

/// An order of a user to redeem a coupon for.
#[derive(ToSchema)]
#[schema(as = UserOrder)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read field by field")]
struct UserOrderInput {
    user: UserId,
    order_id: OrderId,
    /// In the currency's minor unit.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    order_amount: u64,
}

/// Why a coupon is taken back.
#[derive(ToSchema)]
#[schema(as = VoidInput)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read field by field")]
struct VoidInput {
    /// For people.
    #[schema(
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    reason: String,
    /// A redeemed coupon, too, whose settlement is reversed.
    #[serde(default)]
    reverse: bool,
}

/// A coupon redeemed for an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Redemption)]
struct RedemptionBody {
    code: CouponCode,
    order_id: OrderId,
    order_amount: u64,
    discount_amount: u64,
    #[schema(format = DateTime)]
    redeemed_at: String,
}

/// A coupon that was taken back.
#[derive(Serialize, ToSchema)]
#[schema(as = Voiding)]
struct VoidBody {
    code: CouponCode,
    reason: String,
    reversed: bool,
    #[schema(format = DateTime)]
    voided_at: String,
}

/// A coupon, as operators see it.
#[derive(Serialize, ToSchema)]
#[schema(as = CouponLife)]
struct LifeBody {
    user: UserId,
    vendor: String,
    #[serde(flatten)]
    coupon: CouponBody,
    #[schema(required)]
    redemption: Option<RedemptionBody>,
    #[schema(required)]
    void: Option<VoidBody>,
}

/// One coupon, as operators see it.
#[derive(Serialize, ToSchema)]
struct LifeReply {
    coupon: LifeBody,
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

/// Any user's coupon, for operators and cashiers.
#[utoipa::path(
    get,
    path = "/admin/v1/coupons/{code}",
    tag = "operators",
    operation_id = "show_users_coupon",
    params(("code" = CouponCode, Path, description = "In either case; O stands for 0, I and L for 1")),
    responses(
        (status = 200, description = "The coupon, committed", body = LifeReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        ShowRefusals,
    ),
    security(("operator" = [])),
)]
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
    Ok(reply::json(StatusCode::OK, &LifeReply { coupon: body }))
}

/// Redeems one of the user's own coupons for an order. The same order again gets the same answer.
#[utoipa::path(
    post,
    path = "/v1/coupons/{code}/redeem",
    tag = "clients",
    operation_id = "redeem_own_coupon",
    params(
        ("code" = CouponCode, Path, description = "In either case; O stands for 0, I and L for 1"),
        ("x-user-id" = UserId, Header, description = "The user, set by the authentication in front of the gateway"),
    ),
    request_body = OrderInput,
    responses(
        (status = 200, description = "Redeemed for this order", body = RedemptionBody,
         headers(("cache-control" = String, description = "`no-store`"))),
        RedeemOwnRefusals,
    ),
)]
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

/// Redeems a user's coupon for an order: the shop's server asks, with a cashier's token. The same
/// order again gets the same answer.
#[utoipa::path(
    post,
    path = "/admin/v1/coupons/{code}/redeem",
    tag = "operators",
    operation_id = "redeem_coupon",
    params(
        ("code" = CouponCode, Path, description = "In either case; O stands for 0, I and L for 1"),
    ),
    request_body = UserOrderInput,
    responses(
        (status = 200, description = "Redeemed for this order", body = RedemptionBody,
         headers(("cache-control" = String, description = "`no-store`"))),
        RedeemForUserRefusals,
    ),
    security(("operator" = [])),
)]
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

/// Takes a coupon back. Its number is not issued again.
#[utoipa::path(
    post,
    path = "/admin/v1/coupons/{code}/void",
    tag = "operators",
    operation_id = "void_coupon",
    params(
        ("code" = CouponCode, Path, description = "In either case; O stands for 0, I and L for 1"),
    ),
    request_body = VoidInput,
    responses(
        (status = 200, description = "It is void", body = VoidBody,
         headers(("cache-control" = String, description = "`no-store`"))),
        VoidRefusals,
    ),
    security(("operator" = [])),
)]
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
