//! An operator has a round rebuilt.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use doorbuster_domain::id::{CampaignId, RoundId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::path::PathParameters;
use super::rounds::{self, RoundReply};
use crate::operators::Operator;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(rebuild))
}

refusals! {
    RebuildRefusals = [Unauthorized, Forbidden, TooMany, UnknownCampaign, NotFound, Unavailable];
}

/// Rebuilds a round in Redis from PostgreSQL, which has the last word about it. Reservations that
/// are pending stay. It may be repeated, and while the round is open. Backends rebuild rounds by
/// themselves where they notice that Redis and PostgreSQL disagree.
#[utoipa::path(
    post,
    path = "/admin/v1/campaigns/{id}/rounds/{round}/rebuild",
    tag = "operators",
    operation_id = "rebuild_round",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("round" = RoundId, Path, description = "The local date on which it opens"),
    ),
    responses(
        (status = 200, description = "The round, rebuilt", body = RoundReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        RebuildRefusals,
    ),
    security(("operator" = [])),
)]
async fn rebuild(State(app): State<Arc<App>>, operator: Operator, path: PathParameters) -> Result<Response, Error> {
    let (campaign, round) = rounds::known(&app, &path).await?;
    app.issuance.rebuild(&operator, &campaign, round).await?;
    tracing::info!(%campaign, %round, operator = operator.name, "an operator had a round rebuilt");
    rounds::one(State(app), path).await
}
