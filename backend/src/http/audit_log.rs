//! What operators changed, for operators to read.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use doorbuster_domain::refusal::rfc3339;
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::{App, query, reply};
use crate::store::postgres::Entry;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(list))
}

/// An entry, as it is told.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditLogEntry)]
struct EntryBody {
    /// Later entries have larger ones.
    id: i64,
    #[schema(format = DateTime)]
    at: String,
    /// The name of the token that was used.
    operator: String,
    /// What was done, such as `campaign.paused`.
    action: String,
    /// What it was done to, such as `campaign/spring`.
    subject: String,
    /// How that was before; null if it was not there.
    #[schema(required, value_type = Option<Object>)]
    before: Option<Value>,
    /// How it was then; null if it was gone.
    #[schema(required, value_type = Option<Object>)]
    after: Option<Value>,
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
struct AuditLog {
    /// Newest first.
    entries: Vec<EntryBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

refusals! {
    ListRefusals = [Unauthorized, Forbidden, TooMany, InvalidInput, Unavailable];
}

impl From<Entry> for EntryBody {
    fn from(Entry { id, at, operator, action, subject, before, after }: Entry) -> Self {
        Self { id, at: rfc3339(&at.fixed_offset()), operator, action, subject, before, after }
    }
}

/// What operators changed, newest first.
#[utoipa::path(
    get,
    path = "/admin/v1/audit-log",
    tag = "operators",
    operation_id = "list_audit_log",
    params(
        ("subject" = Option<String>, Query, description = "Only of this, such as `campaign/spring`"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Entries on a page, 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[1-9][0-9]{0,17}$",
         description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "A page of it", body = AuditLog,
         headers(("cache-control" = String, description = "`no-store`"))),
        ListRefusals,
    ),
    security(("operator" = [])),
)]
async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let subject = query::one(query, "subject").and_then(|subject| match subject {
        Some(text) if text.contains('\0') => Err("contains a NUL"),
        subject => Ok(subject),
    });
    let subject = subject.unwrap_or_else(|rule| {
        errors.push(FieldError::new("subject", rule));
        None
    });
    let page = query::page(query, &mut errors, |text| text.parse().ok().filter(|id| *id > 0));
    Error::check(errors)?;
    let entries = app.postgres.audit_log(subject.as_deref(), page.after, page.asked()).await?;
    let (entries, next_cursor) = page.cut(entries, |last| last.id.to_string());
    let entries = entries.into_iter().map(EntryBody::from).collect();
    Ok(reply::json(StatusCode::OK, &AuditLog { entries, next_cursor }))
}
