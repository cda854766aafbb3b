//! What operators changed, for operators to read.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use doorbuster_domain::refusal::rfc3339;
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use super::{App, query, reply};
use crate::store::postgres::Entry;

/// An entry, as it is told.
#[derive(Serialize)]
struct EntryBody {
    id: i64,
    at: String,
    operator: String,
    action: String,
    subject: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl From<Entry> for EntryBody {
    fn from(Entry { id, at, operator, action, subject, before, after }: Entry) -> Self {
        Self { id, at: rfc3339(&at.fixed_offset()), operator, action, subject, before, after }
    }
}

pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
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
    let entries: Vec<EntryBody> = entries.into_iter().map(EntryBody::from).collect();
    Ok(reply::json(StatusCode::OK, &json!({"entries": entries, "next_cursor": next_cursor})))
}
