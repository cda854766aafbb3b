//! What gateways ask.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::FieldError;
use doorbuster_domain::wire::{SYNC_PATH, SyncRequest, SyncResponse};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::{App, auth, reply};

/// Longest id of a gateway, characters.
const LONGEST_GATEWAY: usize = 64;

/// The gateways' totals of a round are kept so long after its closing, milliseconds.
const TOTALS_KEPT_MS: i64 = 7 * 24 * 3600 * 1_000;

/// Largest body.
const LARGEST_BODY: usize = 1 << 20;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(sync))
}

pub(super) fn guarded_routes(app: &Arc<App>) -> Routes {
    routes()
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), auth::edge))
}

refusals! {
    SyncRefusals = [Unauthorized, TooMany, BodyTooLarge, MalformedInput, InvalidInput, Unavailable];
}

/// What a gateway asks several times a second: it tells what it decided and hears what to decide by.
#[utoipa::path(
    post,
    path = SYNC_PATH,
    tag = "gateways",
    operation_id = "sync",
    request_body = SyncRequest,
    responses(
        (status = 200, description = "What to decide by", body = SyncResponse,
         headers(("cache-control" = String, description = "`no-store`"))),
        SyncRefusals,
    ),
    security(("edge" = [])),
)]
async fn sync(
    State(app): State<Arc<App>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Error> {
    let body = body.map_err(|_| Refusal::BodyTooLarge)?;
    let request: SyncRequest = serde_json::from_slice(&body).map_err(|error| {
        if error.is_data() { invalid("", &error.to_string()) } else { Refusal::MalformedInput.into() }
    })?;
    let gateway = &request.gateway;
    let valid = (1..=LONGEST_GATEWAY).contains(&gateway.len())
        && gateway.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if !valid {
        return Err(invalid("gateway", "must be 1 to 64 characters of a-z 0-9 -"));
    }
    // Redis adds no larger numbers.
    let mut counts = request.totals.iter().flat_map(|totals| totals.decisions.values());
    if counts.any(|count| i64::try_from(*count).is_err()) {
        return Err(invalid("totals", "must count at most 9223372036854775807 decisions"));
    }
    let now_ms = app.issuance.now().await?.now_ms;
    let gateways = app.redis.gateway_seen(gateway, now_ms).await?;
    add_totals(&app, &request).await?;
    let limit = usize::try_from(request.max_campaigns).unwrap_or(usize::MAX);
    let (campaigns, complete) = app.issuance.sync(limit, now_ms).await?;
    // The clock is read last: it tells when the answer leaves.
    let reading = app.issuance.now().await?;
    let response =
        SyncResponse { now_ms: reading.now_ms, uncertainty_ms: reading.uncertainty_ms, gateways, complete, campaigns };
    Ok(reply::json(StatusCode::OK, &response))
}

/// Takes in what a gateway has decided. Rounds that are not this backend's are passed over: it tells of campaigns as it
/// knows them.
async fn add_totals(app: &App, request: &SyncRequest) -> Result<(), Error> {
    let snapshot = app.catalog.snapshot();
    for totals in &request.totals {
        let known = snapshot.campaigns.get(&totals.campaign).and_then(|campaign| campaign.schedule.round(totals.round));
        let decisions_known = totals.decisions.keys().all(|decision| is_decision(decision));
        if let Some(round) = known.filter(|_| decisions_known) {
            let added = app.redis.add_totals(&request.gateway, totals, round.closes_ms() + TOTALS_KEPT_MS).await;
            match added {
                // The node of one campaign may be away, which is no reason to tell nothing of the others. Totals only rise:
                // the next ones hold these too.
                Err(error) if app.redis.is_cluster() => {
                    tracing::warn!(%error, campaign = %totals.campaign, "a gateway's totals cannot be added");
                }
                added => drop(added?),
            }
        }
    }
    Ok(())
}

fn is_decision(name: &str) -> bool {
    name == "admitted" || Refusal::ALL.iter().any(|refusal| refusal.code() == name)
}

fn invalid(field: &str, message: &str) -> Error {
    Problem { errors: vec![FieldError::new(field, message)], ..Problem::new(Refusal::InvalidInput) }.into()
}
