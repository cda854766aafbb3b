//! Events that were given up: operators list them, and have them sent again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use doorbuster_domain::refusal::{Refusal, rfc3339};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::{App, query, reply};
use crate::events::Event;
use crate::operators::Operator;
use crate::store::postgres::DeadLetter;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

refusals! {
    ListRefusals = [Unauthorized, Forbidden, TooMany, InvalidInput, Unavailable];
    RetryRefusals = [Unauthorized, Forbidden, TooMany, NotFound, Unavailable];
}

/// An event that a sink did not take, however often it was tried.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct DeadLetterBody {
    id: i64,
    /// `webhook` or `kafka`.
    sink: String,
    event: Event,
    /// How often it was tried.
    attempts: u64,
    /// Why the last attempt failed.
    error: String,
    #[schema(format = DateTime)]
    dead_at: String,
    /// Later events of the same subject, which wait for it.
    behind: u64,
}

/// A page of dead letters.
#[derive(Serialize, ToSchema)]
struct DeadLetterList {
    /// In the order in which they were first tried.
    dead_letters: Vec<DeadLetterBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A dead letter that is sent again.
#[derive(Serialize, ToSchema)]
struct QueuedReply {
    id: i64,
    /// `queued`
    status: &'static str,
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { id, sink, event, attempts, error, dead_at, behind } = letter;
        Self { id, sink, event, attempts, error, dead_at: rfc3339(&dead_at.fixed_offset()), behind }
    }
}

/// Events that were given up.
#[utoipa::path(
    get,
    path = "/admin/v1/events/dead-letters",
    tag = "operators",
    operation_id = "list_dead_letters",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Dead letters on a page, 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$",
         description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "A page of them", body = DeadLetterList,
         headers(("cache-control" = String, description = "`no-store`"))),
        ListRefusals,
    ),
    security(("operator" = [])),
)]
async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let page = query::page(query, &mut errors, query::natural);
    Error::check(errors)?;
    let letters = app.postgres.dead_letters(page.after.unwrap_or(0), page.asked()).await?;
    let (letters, next_cursor) = page.cut(letters, |last| last.id.to_string());
    let dead_letters = letters.into_iter().map(DeadLetterBody::from).collect();
    Ok(reply::json(StatusCode::OK, &DeadLetterList { dead_letters, next_cursor }))
}

/// Has a dead letter sent again, with all its attempts before it.
#[utoipa::path(
    post,
    path = "/admin/v1/events/dead-letters/{id}/retry",
    tag = "operators",
    operation_id = "retry_dead_letter",
    params(("id" = i64, Path, minimum = 1, description = "The dead letter")),
    responses(
        (status = 202, description = "It is sent as soon as its turn comes", body = QueuedReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        RetryRefusals,
    ),
    security(("operator" = [])),
)]
async fn retry(State(app): State<Arc<App>>, operator: Operator, path: PathParameters) -> Result<Response, Error> {
    let id = query::natural(path.get("id")).ok_or(Refusal::NotFound)?;
    if !app.postgres.retry_dead_letter(&operator, id).await? {
        return Err(Refusal::NotFound.into());
    }
    tracing::info!(id, operator = operator.name, "an operator has a dead letter sent again");
    Ok(reply::json(StatusCode::ACCEPTED, &QueuedReply { id, status: "queued" }))
}
