//! Vendors, what they are owed, and paying them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::id::IdempotencyKey;
use doorbuster_domain::refusal::{Refusal, rfc3339};
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use super::path::PathParameters;
use super::{App, body, query, reply};
use crate::fields::{Fields, integer};
use crate::operators::Operator;
use crate::store::postgres::{LedgerEntry, Vendor};

/// The header that names a payout, so that asked for again it is the same one.
const KEY_HEADER: &str = "idempotency-key";

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/v1/vendors", get(all))
        .route("/admin/v1/vendors/{id}", get(one))
        .route("/admin/v1/vendors/{id}/payouts", post(pay_out))
}

#[derive(Serialize)]
struct VendorBody {
    id: String,
    currency: String,
    balance: i64,
}

impl From<Vendor> for VendorBody {
    fn from(vendor: Vendor) -> Self {
        let Vendor { id, currency, balance } = vendor;
        Self { id, currency, balance }
    }
}

/// A change of what a vendor is owed.
#[derive(Serialize)]
struct EntryBody {
    id: i64,
    kind: String,
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    at: String,
}

impl From<LedgerEntry> for EntryBody {
    fn from(entry: LedgerEntry) -> Self {
        let LedgerEntry { id, kind, amount, code, order_id, at } = entry;
        Self { id, kind, amount, code, order_id, at: utc(at) }
    }
}

#[derive(Serialize)]
struct PayoutBody {
    id: i64,
    vendor: String,
    currency: String,
    amount: u64,
    balance: i64,
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

async fn all(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let mut errors = Vec::new();
    let page = query::page(uri.query().unwrap_or_default(), &mut errors, |cursor| {
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        Some(name).filter(|name| can_be_name(name))
    });
    Error::check(errors)?;
    let vendors = app.postgres.vendors(page.after.as_deref().unwrap_or_default(), page.asked()).await?;
    let (vendors, next_cursor) = page.cut(vendors, |last| URL_SAFE_NO_PAD.encode(&last.id));
    let vendors: Vec<_> = vendors.into_iter().map(VendorBody::from).collect();
    Ok(reply::json(StatusCode::OK, &json!({"vendors": vendors, "next_cursor": next_cursor})))
}

async fn one(State(app): State<Arc<App>>, uri: Uri, path: PathParameters) -> Result<Response, Error> {
    let id = existing(&path)?;
    let mut errors = Vec::new();
    let page = query::page(uri.query().unwrap_or_default(), &mut errors, |id| id.parse().ok().filter(|id| *id > 0));
    Error::check(errors)?;
    let (vendor, entries) = app.postgres.vendor(id, page.after, page.asked()).await?.ok_or(Refusal::UnknownVendor)?;
    let (entries, next_cursor) = page.cut(entries, |last| last.id.to_string());
    let VendorBody { id, currency, balance } = vendor.into();
    let entries: Vec<_> = entries.into_iter().map(EntryBody::from).collect();
    let body =
        json!({"id": id, "currency": currency, "balance": balance, "entries": entries, "next_cursor": next_cursor});
    Ok(reply::json(StatusCode::OK, &body))
}

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
