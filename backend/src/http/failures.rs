//! Failed issuances: looking at them, and having them tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use chrono::{DateTime, Utc};
use doorbuster_domain::code::CouponCode;
use doorbuster_domain::id::{CampaignId, RoundId, UserId};
use doorbuster_domain::refusal::{Problem, Refusal, rfc3339};
use doorbuster_domain::schedule::FieldError;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::reply::CouponBody;
use super::{App, query, reply};
use crate::issuance::Retried;
use crate::operators::Operator;
use crate::store::postgres::{Failure, FailureFilter};

/// A request to try all again begins nothing new after so long.
const RETRY_DEADLINE: Duration = Duration::from_secs(20);

/// Failures looked up at a time to be tried again.
const PAGE: u32 = 100;

/// Failures tried again at once.
const RETRIED_AT_ONCE: usize = 16;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry_all)).routes(routes!(retry))
}

refusals! {
    ListRefusals = [Unauthorized, Forbidden, TooMany, InvalidInput, Unavailable];
    RetryRefusals = [Unauthorized, Forbidden, TooMany, NotFound, Unavailable];
}

/// A failure, as operators see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureBody {
    id: i64,
    campaign: CampaignId,
    round: RoundId,
    user: UserId,
    #[schema(value_type = CouponCode)]
    code: String,
    number: u64,
    /// How often it was tried.
    attempts: u64,
    /// Why it failed in the end.
    cause: String,
    #[schema(format = DateTime)]
    first_failed_at: String,
    #[schema(format = DateTime)]
    last_failed_at: String,
    #[schema(required, format = DateTime)]
    retried_at: Option<String>,
}

/// A page of failed issuances.
#[derive(Serialize, ToSchema)]
struct FailureList {
    failures: Vec<FailureBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What became of a failure that was tried again.
#[derive(Serialize, ToSchema)]
struct RetryReply {
    id: i64,
    /// `issued`, `pending`, `failed`, or the code of a refusal.
    outcome: &'static str,
    /// The coupon, if one was issued.
    #[schema(required)]
    coupon: Option<CouponBody>,
}

/// What became of all failures that were tried again.
#[derive(Serialize, ToSchema)]
struct RetryAllReply {
    /// How many came to each outcome.
    outcomes: BTreeMap<&'static str, u64>,
    /// Where to go on, if there was no time for all.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl From<Failure> for FailureBody {
    fn from(failure: Failure) -> Self {
        let time = |instant: DateTime<Utc>| rfc3339(&instant.fixed_offset());
        Self {
            id: failure.id,
            campaign: failure.campaign,
            round: failure.round,
            user: failure.user,
            code: failure.code.to_string(),
            number: failure.number,
            attempts: failure.attempts,
            cause: failure.cause,
            first_failed_at: time(failure.first_failed_at),
            last_failed_at: time(failure.last_failed_at),
            retried_at: failure.retried_at.map(time),
        }
    }
}

impl FailureFilter {
    fn read(query: &str, errors: &mut Vec<FieldError>) -> Self {
        let campaign =
            query::optional(query, errors, ("campaign", "a campaign's id"), |text| CampaignId::parse(text).ok());
        let round =
            query::optional(query, errors, ("round", "a round's date such as 2026-05-01"), |text| text.parse().ok());
        Self { campaign, round }
    }
}

/// Issuances that failed for good and were not tried again since, newest first.
#[utoipa::path(
    get,
    path = "/admin/v1/failures",
    tag = "operators",
    operation_id = "list_failures",
    params(
        ("campaign" = Option<CampaignId>, Query, description = "Only of this campaign"),
        ("round" = Option<RoundId>, Query, description = "Only of this round"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Failures on a page, 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$",
         description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "A page of them", body = FailureList,
         headers(("cache-control" = String, description = "`no-store`"))),
        ListRefusals,
    ),
    security(("operator" = [])),
)]
async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let filter = FailureFilter::read(query, &mut errors);
    let page = query::page(query, &mut errors, query::natural);
    Error::check(errors)?;
    let failures = app.postgres.open_failures(&filter, page.after, page.asked()).await?;
    let (failures, next_cursor) = page.cut(failures, |last| last.id.to_string());
    let failures = failures.into_iter().map(FailureBody::from).collect();
    Ok(reply::json(StatusCode::OK, &FailureList { failures, next_cursor }))
}

/// Tries one failed issuance again.
#[utoipa::path(
    post,
    path = "/admin/v1/failures/{id}/retry",
    tag = "operators",
    operation_id = "retry_failure",
    params(("id" = i64, Path, minimum = 1, description = "The failure")),
    responses(
        (status = 200, description = "What became of it", body = RetryReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        RetryRefusals,
    ),
    security(("operator" = [])),
)]
async fn retry(State(app): State<Arc<App>>, operator: Operator, path: PathParameters) -> Result<Response, Error> {
    let id = query::natural(path.get("id")).ok_or(Refusal::NotFound)?;
    let (failure, retried) = app.issuance.retry(&operator, id).await?.ok_or(Refusal::NotFound)?;
    let (campaign, round) = (&failure.campaign, failure.round);
    tracing::info!(id, %campaign, %round, operator = operator.name, outcome = retried.name(), "an operator retried a failure");
    let outcome = retried.name();
    let coupon = match retried {
        Retried::Refused(Refusal::Unavailable) => {
            return Err(Problem::ask_again(Refusal::Unavailable, Some(&failure.campaign), rand::random()).into());
        }
        Retried::Issued(coupon) => Some(CouponBody::new(&coupon, &app.catalog)),
        Retried::Pending | Retried::Failed | Retried::Refused(_) => None,
    };
    Ok(reply::json(StatusCode::OK, &RetryReply { id, outcome, coupon }))
}

/// Oldest first: where the quota does not suffice for all, who came first is served. Each is tried once. A request that
/// runs out of time says from where to go on; one that broke off midway can be sent again. A parameter that it does not
/// know is refused: mistyped, it would have more tried than was meant.
#[utoipa::path(
    post,
    path = "/admin/v1/failures/retry",
    tag = "operators",
    operation_id = "retry_failures",
    params(
        ("campaign" = Option<CampaignId>, Query, description = "Only of this campaign"),
        ("round" = Option<RoundId>, Query, description = "Only of this round"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$",
         description = "The `next_cursor` of an earlier reply"),
    ),
    responses(
        (status = 200, description = "What became of them", body = RetryAllReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        ListRefusals,
    ),
    security(("operator" = [])),
)]
async fn retry_all(State(app): State<Arc<App>>, operator: Operator, uri: Uri) -> Result<Response, Error> {
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let filter = FailureFilter::read(query, &mut errors);
    let mut after = query::cursor(query, &mut errors, query::natural);
    query::nothing_but(query, &mut errors, &["campaign", "round", "cursor"]);
    Error::check(errors)?;
    let until = Instant::now() + RETRY_DEADLINE;
    let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
    let next_cursor = loop {
        let ids = app.postgres.open_failures_after(&filter, after, PAGE).await?;
        let Some(last) = ids.last() else { break None };
        after = Some(*last);
        let mut retries = stream::iter(ids).map(|id| app.issuance.retry(&operator, id)).buffered(RETRIED_AT_ONCE);
        while let Some(retried) = retries.next().await {
            // One that is not found any more went with its campaign.
            let name = retried?.map_or(Refusal::UnknownCampaign.code(), |(_, retried)| retried.name());
            *outcomes.entry(name).or_default() += 1;
        }
        if Instant::now() >= until {
            break after.map(|id| id.to_string());
        }
    };
    tracing::info!(?outcomes, operator = operator.name, "an operator retried failures");
    Ok(reply::json(StatusCode::OK, &RetryAllReply { outcomes, next_cursor }))
}
