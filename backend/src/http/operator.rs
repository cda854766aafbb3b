//! What operators do.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::refusal::{Refusal, rfc3339};
use doorbuster_domain::schedule::FieldError;
use serde_json::json;

use super::error::Error;
use super::path::PathParameters;
use super::{App, audit_log, auth, body, redemptions, reply, vendors};
use crate::campaign::{Campaign, Spec};
use crate::changes::{Expected, Pause, Put};
use crate::operators::Operator;

/// Largest body.
const LARGEST_BODY: usize = 64 * 1024;

pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/admin/v1/campaigns", get(all))
        .route("/admin/v1/campaigns/{id}", get(one).put(put).delete(delete))
        .route("/admin/v1/campaigns/{id}/pause", post(pause))
        .route("/admin/v1/campaigns/{id}/resume", post(resume))
        .route("/admin/v1/campaigns/{id}/rounds/{round}", get(round))
        .route("/admin/v1/audit-log", get(audit_log::list))
        .merge(redemptions::ops_router())
        .merge(vendors::router())
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), auth::operator))
}

fn with_etag(status: StatusCode, campaign: &Campaign) -> Response {
    let mut response = reply::json(status, &campaign.shown());
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", campaign.version)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// No campaign has a malformed id.
fn existing(path: &PathParameters) -> Result<CampaignId, Refusal> {
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

async fn all(State(app): State<Arc<App>>) -> Result<Response, Error> {
    app.catalog.refresh().await?;
    let snapshot = app.catalog.snapshot();
    let mut campaigns: Vec<_> = snapshot.campaigns.values().collect();
    campaigns.sort_by_key(|campaign| &campaign.id);
    let campaigns: Vec<_> = campaigns.into_iter().map(|campaign| campaign.shown()).collect();
    Ok(reply::json(StatusCode::OK, &json!({"campaigns": campaigns})))
}

async fn one(State(app): State<Arc<App>>, path: PathParameters) -> Result<Response, Error> {
    let campaign = app.postgres.campaign(&existing(&path)?).await?.ok_or(Refusal::UnknownCampaign)?;
    Ok(with_etag(StatusCode::OK, &campaign))
}

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
    tracing::info!(campaign = %id, version = campaign.version, operator = operator.name, "an operator wrote a campaign");
    let status = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(with_etag(status, &campaign))
}

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

async fn pause(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: PathParameters,
    headers: HeaderMap,
) -> Result<Response, Error> {
    set_paused(&app, &operator, &path, &headers, Pause::On).await
}

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
    let (campaign_id, version) = (&campaign.id, campaign.version);
    tracing::info!(campaign = %campaign_id, version, ?pause, operator = operator.name, "an operator set a campaign's pause");
    Ok(with_etag(StatusCode::OK, &campaign))
}

async fn round(State(app): State<Arc<App>>, path: PathParameters) -> Result<Response, Error> {
    let campaign = app.postgres.campaign(&existing(&path)?).await?.ok_or(Refusal::UnknownCampaign)?;
    let name: Option<RoundId> = path.get("round").parse().ok();
    let round = name.and_then(|name| campaign.schedule.round(name)).ok_or(Refusal::NotFound)?;
    let asked = [(&campaign.id, round.id)];
    let issued = app.postgres.issued(&asked).await?.first().copied().unwrap_or(0);
    let edge = app.redis.edge_totals(&campaign.id, round.id).await?;
    let failed = app.postgres.failed(&campaign.id, round.id).await?;
    let pending = app.redis.counts(&asked).await?.first().map_or(0, |counts| counts.pending);
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "campaign": campaign.id, "round": round.id,
            "opens_at": rfc3339(&round.opens), "closes_at": rfc3339(&round.closes),
            "quota": campaign.spec.quota, "issued": issued, "pending": pending, "failed": failed, "edge": edge,
        }),
    ))
}
