//! Events that were given up: operators list them, and have them sent again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, middleware};
use doorbuster_domain::refusal::{Refusal, rfc3339};
use serde::Serialize;
use serde_json::json;

use super::error::Error;
use super::path::PathParameters;
use super::{App, auth, query, reply};
use crate::events::Event;
use crate::operators::Operator;
use crate::store::postgres::DeadLetter;

pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/admin/v1/events/dead-letters", get(list))
        .route("/admin/v1/events/dead-letters/{id}/retry", post(retry))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), auth::operator))
}

#[derive(Serialize)]
struct DeadLetterBody {
    id: i64,
    sink: String,
    event: Event,
    attempts: u64,
    error: String,
    dead_at: String,
    /// Later events of the same subject, which wait for it.
    behind: u64,
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { id, sink, event, attempts, error, dead_at, behind } = letter;
        Self { id, sink, event, attempts, error, dead_at: rfc3339(&dead_at.fixed_offset()), behind }
    }
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let page = query::page(query, &mut errors, query::natural);
    Error::check(errors)?;
    let letters = app.postgres.dead_letters(page.after.unwrap_or(0), page.asked()).await?;
    let (letters, next_cursor) = page.cut(letters, |last| last.id.to_string());
    let letters: Vec<DeadLetterBody> = letters.into_iter().map(DeadLetterBody::from).collect();
    Ok(reply::json(StatusCode::OK, &json!({"dead_letters": letters, "next_cursor": next_cursor})))
}

/// 202: it is sent as soon as its turn comes.
async fn retry(State(app): State<Arc<App>>, operator: Operator, path: PathParameters) -> Result<Response, Error> {
    let id = path.get("id").parse().map_err(|_| Refusal::NotFound)?;
    if !app.postgres.retry_dead_letter(&operator, id).await? {
        return Err(Refusal::NotFound.into());
    }
    tracing::info!(id, operator = operator.name, "an operator has a dead letter sent again");
    Ok(reply::json(StatusCode::ACCEPTED, &json!({"id": id, "status": "queued"})))
}
