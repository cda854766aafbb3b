//! Vendors, what they are owed, and paying them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::id::IdempotencyKey;
use doorbuster_domain::refusal::{Refusal, rfc3339};
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
use super::{App, body, query, reply};
use crate::fields::{Fields, integer};
use crate::operators::Operator;
use crate::store::postgres::{LedgerEntry, Vendor};

/// The header that names a payout, so that asked for again it is the same one.
const KEY_HEADER: &str = "idempotency-key";

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(all)).routes(routes!(one)).routes(routes!(pay_out))
}

refusals! {
    AllRefusals = [Unauthorized, Forbidden, TooMany, InvalidInput, Unavailable];
    OneRefusals = [Unauthorized, Forbidden, TooMany, UnknownVendor, InvalidInput, Unavailable];
    PayoutRefusals = [
        Unauthorized, Forbidden, TooMany, UnknownVendor, InsufficientBalance, KeyReused, MalformedInput, InvalidInput,
        BodyTooLarge, Unavailable,
    ];
}

#[derive(Serialize, ToSchema)]
#[schema(as = Vendor)]
struct VendorBody {
    id: String,
    currency: String,
    /// Positive when owed to the vendor.
    balance: i64,
}

/// A page of vendors.
#[derive(Serialize, ToSchema)]
struct VendorList {
    vendors: Vec<VendorBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A vendor with a page of what changed its balance.
#[derive(Serialize, ToSchema)]
struct VendorReply {
    id: String,
    currency: String,
    /// Positive when owed to the vendor.
    balance: i64,
    entries: Vec<EntryBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What is to be paid out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read field by field")]
struct PayoutInput {
    /// In the currency's minor unit; left out: all that is owed.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    amount: Option<u64>,
}

impl From<Vendor> for VendorBody {
    fn from(vendor: Vendor) -> Self {
        let Vendor { id, currency, balance } = vendor;
        Self { id, currency, balance }
    }
}

/// A change of what a vendor is owed.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
struct EntryBody {
    id: i64,
    kind: String,
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order_id: Option<String>,
    #[schema(format = DateTime)]
    at: String,
}

impl From<LedgerEntry> for EntryBody {
    fn from(entry: LedgerEntry) -> Self {
        let LedgerEntry { id, kind, amount, code, order_id, at } = entry;
        Self { id, kind, amount, code, order_id, at: utc(at) }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Payout)]
struct PayoutBody {
    id: i64,
    vendor: String,
    currency: String,
    amount: u64,
    balance: i64,
    #[schema(format = DateTime)]
    paid_at: String,
}

/// A vendor has campaigns in many zones.
fn utc(instant: DateTime<Utc>) -> String {
    rfc3339(&instant.fixed_offset())
}

/// Campaigns give no vendor a name with a control character.
fn can_be_name(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn existing(path: &PathParameters) -> Result<&str, Refusal> {
    Some(path.get("id")).filter(|id| can_be_name(id)).ok_or(Refusal::UnknownVendor)
}

/// Every vendor.
#[utoipa::path(
    get,
    path = "/admin/v1/vendors",
    tag = "operators",
    operation_id = "list_vendors",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Items on a page, 20 by default"),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "A page of them", body = VendorList,
         headers(("cache-control" = String, description = "`no-store`"))),
        AllRefusals,
    ),
    security(("operator" = [])),
)]
async fn all(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let mut errors = Vec::new();
    let page = query::page(uri.query().unwrap_or_default(), &mut errors, |cursor| {
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        Some(name).filter(|name| can_be_name(name))
    });
    Error::check(errors)?;
    let vendors = app.postgres.vendors(page.after.as_deref().unwrap_or_default(), page.asked()).await?;
    let (vendors, next_cursor) = page.cut(vendors, |last| URL_SAFE_NO_PAD.encode(&last.id));
    let vendors = vendors.into_iter().map(VendorBody::from).collect();
    Ok(reply::json(StatusCode::OK, &VendorList { vendors, next_cursor }))
}

/// A vendor, its balance, and what changed it, newest first.
#[utoipa::path(
    get,
    path = "/admin/v1/vendors/{id}",
    tag = "operators",
    operation_id = "show_vendor",
    params(
        ("id" = String, Path, description = "The vendor's name"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Items on a page, 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[1-9][0-9]{0,17}$",
         description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "The vendor", body = VendorReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        OneRefusals,
    ),
    security(("operator" = [])),
)]
async fn one(State(app): State<Arc<App>>, uri: Uri, path: PathParameters) -> Result<Response, Error> {
    let id = existing(&path)?;
    let mut errors = Vec::new();
    let page = query::page(uri.query().unwrap_or_default(), &mut errors, |id| id.parse().ok().filter(|id| *id > 0));
    Error::check(errors)?;
    let (vendor, entries) = app.postgres.vendor(id, page.after, page.asked()).await?.ok_or(Refusal::UnknownVendor)?;
    let (entries, next_cursor) = page.cut(entries, |last| last.id.to_string());
    let VendorBody { id, currency, balance } = vendor.into();
    let entries = entries.into_iter().map(EntryBody::from).collect();
    Ok(reply::json(StatusCode::OK, &VendorReply { id, currency, balance, entries, next_cursor }))
}

/// Pays out what is owed to a vendor. The same key again gets the same answer.
#[utoipa::path(
    post,
    path = "/admin/v1/vendors/{id}/payouts",
    tag = "operators",
    operation_id = "pay_out",
    params(
        ("id" = String, Path, description = "The vendor's name"),
        ("idempotency-key" = IdempotencyKey, Header, description = "Names the payout"),
    ),
    request_body = PayoutInput,
    responses(
        (status = 201, description = "Paid out", body = PayoutBody,
         headers(("cache-control" = String, description = "`no-store`"))),
        PayoutRefusals,
    ),
    security(("operator" = [])),
)]
async fn pay_out(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let id = existing(&path)?;
    let (key, asked) = read_payout(&headers, &body::json(body)?)?;
    let (vendor, payout) = app.settlement.pay_out(&operator, id, &key, asked, app.issuance.now().await).await?;
    tracing::info!(vendor = vendor.id, payout = payout.id, operator = operator.name, "an operator paid a vendor");
    let body = PayoutBody {
        id: payout.id,
        vendor: vendor.id,
        currency: vendor.currency,
        amount: payout.amount,
        balance: payout.balance,
        paid_at: utc(payout.paid_at),
    };
    Ok(reply::json(StatusCode::CREATED, &body))
}

/// The payout's key and amount; no amount means all that is owed.
fn read_payout(headers: &HeaderMap, value: &Value) -> Result<(IdempotencyKey, Option<u64>), Error> {
    let mut errors = Vec::new();
    let mut values = headers.get_all(KEY_HEADER).iter().map(HeaderValue::as_bytes);
    let key = match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value).ok().and_then(|key| IdempotencyKey::parse(key).ok()),
        _ => None,
    };
    if key.is_none() {
        errors.push(FieldError::new(KEY_HEADER, "must be sent once, a header of 1 to 128 visible ASCII characters"));
    }
    let amount = Fields::of(value, "", &["amount"], &mut errors).and_then(|fields| match fields.get("amount") {
        None | Some(Value::Null) => Some(None),
        Some(amount) => match integer(amount, 1, LARGEST_AMOUNT) {
            Ok(amount) => Some(Some(amount)),
            Err(rule) => {
                errors.push(fields.error("amount", format!("{rule}, or left out for all that is owed")));
                None
            }
        },
    });
    match (key, amount) {
        (Some(key), Some(amount)) if errors.is_empty() => Ok((key, amount)),
        _ => Err(Error::invalid(errors)),
    }
}
