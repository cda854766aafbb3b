//! What operators do.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::schedule::FieldError;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::{App, body, reply};
use crate::campaign::{CampaignInput, Shown, ShownStored, Spec, Stored};
use crate::changes::{Expected, Pause, Put};
use crate::operators::Operator;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(all))
        .routes(routes!(one, put, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// Every campaign.
#[derive(Serialize, ToSchema)]
struct CampaignList<'a> {
    /// By id.
    campaigns: Vec<ShownStored<'a>>,
}

refusals! {
    AllRefusals = [Unauthorized, Forbidden, TooMany, Unavailable];
    OneRefusals = [Unauthorized, Forbidden, TooMany, UnknownCampaign, Unavailable];
    PutRefusals = [
        Unauthorized, Forbidden, TooMany, MalformedInput, InvalidInput, VersionConflict, BodyTooLarge, Unavailable,
    ];
    PauseRefusals = [Unauthorized, Forbidden, TooMany, UnknownCampaign, VersionConflict, Unavailable];
    DeleteRefusals = [
        Unauthorized, Forbidden, TooMany, UnknownCampaign, VersionConflict, HasCoupons, Unavailable,
    ];
}

fn with_etag(status: StatusCode, stored: &Stored) -> Response {
    let mut response = reply::json(status, &stored.shown());
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", stored.version())) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// No campaign has a malformed id.
pub(super) fn existing(path: &PathParameters) -> Result<CampaignId, Refusal> {
    CampaignId::parse(path.get("id")).map_err(|_| Refusal::UnknownCampaign)
}

/// A list of entity tags, or `*`. Weak tags match nothing, and neither do texts that are no version.
fn expected(headers: &HeaderMap) -> Expected {
    let values: Vec<&[u8]> = headers.get_all(header::IF_MATCH).iter().map(HeaderValue::as_bytes).collect();
    match values.as_slice() {
        [] => Expected::Anything,
        [value] if value.trim_ascii() == b"*" => Expected::Existing,
        values => {
            let tags = values.iter().flat_map(|value| value.split(|c| *c == b','));
            let versions = tags.filter_map(|tag| {
                let inner = tag.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
                std::str::from_utf8(inner).ok()?.parse().ok()
            });
            Expected::Versions(versions.collect())
        }
    }
}

/// Every campaign.
#[utoipa::path(
    get,
    path = "/admin/v1/campaigns",
    tag = "operators",
    operation_id = "list_campaigns",
    responses(
        (status = 200, description = "All of them", body = CampaignList<'_>,
         headers(("cache-control" = String, description = "`no-store`"))),
        AllRefusals,
    ),
    security(("operator" = [])),
)]
async fn all(State(app): State<Arc<App>>) -> Result<Response, Error> {
    app.catalog.refresh().await?;
    let snapshot = app.catalog.snapshot();
    let readable = snapshot.campaigns.values().cloned().map(Stored::Readable);
    let unreadable = snapshot.unreadable.values().cloned().map(Stored::Unreadable);
    let mut campaigns: Vec<Stored> = readable.chain(unreadable).collect();
    campaigns.sort_by(|one, other| one.id().cmp(other.id()));
    let campaigns = campaigns.iter().map(Stored::shown).collect();
    Ok(reply::json(StatusCode::OK, &CampaignList { campaigns }))
}

/// One campaign.
#[utoipa::path(
    get,
    path = "/admin/v1/campaigns/{id}",
    tag = "operators",
    operation_id = "show_campaign",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
    ),
    responses(
        (status = 200, description = "The campaign", body = ShownStored<'_>,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("etag" = String, description = "The version, as an entity tag"))),
        OneRefusals,
    ),
    security(("operator" = [])),
)]
async fn one(State(app): State<Arc<App>>, path: PathParameters) -> Result<Response, Error> {
    let campaign = app.postgres.campaign(&existing(&path)?).await?.ok_or(Refusal::UnknownCampaign)?;
    Ok(with_etag(StatusCode::OK, &campaign))
}

/// Creates or replaces a campaign. Once answered, this backend acts by it, and every other one and all gateways within a
/// second.
#[utoipa::path(
    put,
    path = "/admin/v1/campaigns/{id}",
    tag = "operators",
    operation_id = "put_campaign",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("if-match" = Option<String>, Header, description = "Versions that may be changed, as entity tags, or `*`"),
    ),
    request_body = CampaignInput,
    responses(
        (status = 200, description = "It was replaced", body = Shown<'_>,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("etag" = String, description = "The version, as an entity tag"))),
        (status = 201, description = "It was created", body = Shown<'_>,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("etag" = String, description = "The version, as an entity tag"))),
        PutRefusals,
    ),
    security(("operator" = [])),
)]
async fn put(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let value = body::json(body)?;
    let id = CampaignId::parse(path.get("id")).map_err(|rule| vec![FieldError::new("id", rule.to_string())]);
    let (id, (spec, schedule)) = match (id, Spec::from_json(&value)) {
        (Ok(id), Ok(read)) => (id, read),
        (id, read) => {
            let errors = id.err().into_iter().chain(read.err()).flatten().collect();
            return Err(Error::invalid(errors));
        }
    };
    let (campaign, put) = app.changes.put(&operator, &id, spec, schedule, &expected(&headers)).await?;
    tracing::info!(campaign = %id, version = campaign.version(), operator = operator.name, "an operator wrote a campaign");
    let status = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(with_etag(status, &campaign))
}

/// Deletes a campaign that has no coupon yet.
#[utoipa::path(
    delete,
    path = "/admin/v1/campaigns/{id}",
    tag = "operators",
    operation_id = "delete_campaign",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("if-match" = Option<String>, Header, description = "Versions that may be changed, as entity tags, or `*`"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        DeleteRefusals,
    ),
    security(("operator" = [])),
)]
async fn delete(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let id = existing(&path)?;
    app.changes.delete(&operator, &id, &expected(&headers)).await?;
    tracing::info!(campaign = %id, operator = operator.name, "an operator deleted a campaign");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Pauses a campaign.
#[utoipa::path(
    post,
    path = "/admin/v1/campaigns/{id}/pause",
    tag = "operators",
    operation_id = "pause_campaign",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("if-match" = Option<String>, Header, description = "Versions that may be changed, as entity tags, or `*`"),
    ),
    responses(
        (status = 200, description = "It is paused", body = ShownStored<'_>,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("etag" = String, description = "The version, as an entity tag"))),
        PauseRefusals,
    ),
    security(("operator" = [])),
)]
async fn pause(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
) -> Result<Response, Error> {
    set_paused(&app, &operator, &path, &headers, Pause::On).await
}

/// Lets a paused campaign go on.
#[utoipa::path(
    post,
    path = "/admin/v1/campaigns/{id}/resume",
    tag = "operators",
    operation_id = "resume_campaign",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("if-match" = Option<String>, Header, description = "Versions that may be changed, as entity tags, or `*`"),
    ),
    responses(
        (status = 200, description = "It goes on", body = ShownStored<'_>,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("etag" = String, description = "The version, as an entity tag"))),
        PauseRefusals,
    ),
    security(("operator" = [])),
)]
async fn resume(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
) -> Result<Response, Error> {
    set_paused(&app, &operator, &path, &headers, Pause::Off).await
}

async fn set_paused(
    app: &App,
    operator: &Operator,
    path: &PathParameters,
    headers: &HeaderMap,
    pause: Pause,
) -> Result<Response, Error> {
    let campaign = app.changes.set_paused(operator, &existing(path)?, pause, &expected(headers)).await?;
    let (campaign_id, version) = (campaign.id(), campaign.version());
    tracing::info!(
        campaign = campaign_id,
        version,
        ?pause,
        operator = operator.name,
        "an operator set a campaign's pause"
    );
    Ok(with_etag(StatusCode::OK, &campaign))
}
