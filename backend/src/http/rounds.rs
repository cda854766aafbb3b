//! A campaign's rounds, as they are and were.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use chrono::{DateTime, FixedOffset};
use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::refusal::{Refusal, rfc3339};
use doorbuster_domain::schedule::Round;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::operator::existing;
use super::path::PathParameters;
use super::{App, query, reply};
use crate::campaign::{Campaign, Stored};
use crate::store::postgres::PastRound;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(all)).routes(routes!(one))
}

refusals! {
    AllRefusals = [Unauthorized, Forbidden, TooMany, UnknownCampaign, InvalidInput, Unavailable];
    OneRefusals = [Unauthorized, Forbidden, TooMany, UnknownCampaign, NotFound, Unavailable];
}

/// A page of a campaign's rounds.
#[derive(Serialize, ToSchema)]
struct RoundList {
    /// Newest first: every round that was ever prepared, which a round is before it opens.
    rounds: Vec<RoundBody>,
    /// Of the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A round. It keeps its window and quota when the campaign's schedule changes after it is over.
#[derive(Serialize, ToSchema)]
#[schema(as = Round)]
struct RoundBody {
    campaign: CampaignId,
    round: RoundId,
    /// When its first window opens or opened.
    #[schema(format = DateTime)]
    opens_at: String,
    /// When its last window closes or closed.
    #[schema(format = DateTime)]
    closes_at: String,
    /// In order.
    windows: Vec<WindowBody>,
    /// Null: no limit.
    #[schema(required)]
    quota: Option<u64>,
    /// Coupons added to the quota for others that were voided.
    restocked: u64,
    /// Committed coupons.
    issued: u64,
    /// Reservations not yet committed; null while Redis cannot be asked.
    #[schema(required)]
    pending: Option<u64>,
    /// Reservations that failed for good, of users who have no coupon.
    failed: u64,
    /// Of those issued, voided.
    void: u64,
}

/// `[opens_at, closes_at)` in which a round issues.
#[derive(Serialize, ToSchema)]
#[schema(as = Window)]
struct WindowBody {
    #[schema(format = DateTime)]
    opens_at: String,
    #[schema(format = DateTime)]
    closes_at: String,
}

/// One round, as far as it has come.
#[derive(Serialize, ToSchema)]
pub(super) struct RoundReply {
    #[serde(flatten)]
    round: RoundBody,
    /// What gateways decided about requests: how many were `admitted`, or refused with a code; null
    /// while Redis cannot be asked.
    #[schema(required)]
    edge: Option<BTreeMap<String, u64>>,
}

impl RoundBody {
    /// Times are in the zone of the campaign, as far as it can be read.
    fn new(stored: &Stored, campaign: &CampaignId, past: &PastRound, pending: Option<u64>) -> Self {
        let local = |instant: DateTime<chrono::Utc>| -> DateTime<FixedOffset> {
            match stored.readable() {
                Some(campaign) => campaign.schedule.local(instant.timestamp_millis()),
                None => instant.fixed_offset(),
            }
        };
        let (opens_at, closes_at) = (rfc3339(&local(past.opens)), rfc3339(&local(past.closes)));
        let window = WindowBody { opens_at: opens_at.clone(), closes_at: closes_at.clone() };
        Self {
            campaign: campaign.clone(),
            round: past.round,
            opens_at,
            closes_at,
            windows: vec![window],
            quota: past.quota,
            restocked: 0,
            issued: past.issued,
            pending,
            failed: past.failed,
            void: past.void,
        }
    }
}

/// A round of the schedule that is not prepared yet.
fn to_come(campaign: &Campaign, round: Round) -> PastRound {
    PastRound {
        round: round.id,
        opens: round.opens.into(),
        closes: round.closes.into(),
        quota: campaign.spec.quota,
        issued: 0,
        void: 0,
        failed: 0,
    }
}

/// Every round of a campaign that was ever prepared.
#[utoipa::path(
    get,
    path = "/admin/v1/campaigns/{id}/rounds",
    tag = "operators",
    operation_id = "list_rounds",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
         description = "Rounds on a page, 20 by default"),
        ("cursor" = Option<RoundId>, Query, description = "The `next_cursor` of an earlier page"),
    ),
    responses(
        (status = 200, description = "A page of them", body = RoundList,
         headers(("cache-control" = String, description = "`no-store`"))),
        AllRefusals,
    ),
    security(("operator" = [])),
)]
async fn all(State(app): State<Arc<App>>, path: PathParameters, uri: Uri) -> Result<Response, Error> {
    let campaign = existing(&path)?;
    let stored = app.postgres.campaign(&campaign).await?.ok_or(Refusal::UnknownCampaign)?;
    let query = uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    query::nothing_but(query, &mut errors, &["limit", "cursor"]);
    let page = query::page(query, &mut errors, |text| text.parse::<RoundId>().ok());
    Error::check(errors)?;
    let rounds = app.postgres.past_rounds(&campaign, page.after, page.asked()).await?;
    let (rounds, next_cursor) = page.cut(rounds, |last| last.round.to_string());
    let asked: Vec<_> = rounds.iter().map(|past| (&campaign, past.round)).collect();
    let counts = app.redis.counts(&asked).await.unwrap_or_else(|error| {
        tracing::debug!(%error, %campaign, "rounds are listed without what is pending");
        vec![None; asked.len()]
    });
    let pending = counts.into_iter().map(|counts| counts.map(|counts| counts.pending));
    let body = |(past, pending)| RoundBody::new(&stored, &campaign, past, pending);
    let rounds = rounds.iter().zip(pending).map(body).collect();
    Ok(reply::json(StatusCode::OK, &RoundList { rounds, next_cursor }))
}

/// The round that a path names, with its campaign.
async fn find(app: &App, path: &PathParameters) -> Result<(Stored, CampaignId, PastRound), Error> {
    let campaign = existing(path)?;
    let stored = app.postgres.campaign(&campaign).await?.ok_or(Refusal::UnknownCampaign)?;
    let round: RoundId = path.get("round").parse().map_err(|_| Refusal::NotFound)?;
    let past = app.postgres.past_round(&campaign, round).await?;
    let scheduled = || {
        let campaign = stored.readable()?;
        campaign.schedule.round(round).map(|round| to_come(campaign, round))
    };
    let past = past.or_else(scheduled).ok_or(Refusal::NotFound)?;
    Ok((stored, campaign, past))
}

/// The ids of the round that a path names, if there is such a round.
pub(super) async fn known(app: &App, path: &PathParameters) -> Result<(CampaignId, RoundId), Error> {
    find(app, path).await.map(|(_, campaign, past)| (campaign, past.round))
}

/// One round: one of the schedule, or one that was ever prepared.
#[utoipa::path(
    get,
    path = "/admin/v1/campaigns/{id}/rounds/{round}",
    tag = "operators",
    operation_id = "show_round",
    params(
        ("id" = CampaignId, Path, description = "The campaign"),
        ("round" = RoundId, Path, description = "The local date on which it opens"),
    ),
    responses(
        (status = 200, description = "The round", body = RoundReply,
         headers(("cache-control" = String, description = "`no-store`"))),
        OneRefusals,
    ),
    security(("operator" = [])),
)]
pub(super) async fn one(State(app): State<Arc<App>>, path: PathParameters) -> Result<Response, Error> {
    let (stored, campaign, past) = find(&app, &path).await?;
    let round = past.round;
    let counting = app.redis.count(&campaign, round);
    let (counts, edge) = tokio::join!(counting, app.redis.edge_totals(&campaign, round));
    if let Some(error) = counts.as_ref().err().or(edge.as_ref().err()) {
        tracing::debug!(%error, %campaign, %round, "a round is shown without what Redis has");
    }
    let round = RoundBody::new(&stored, &campaign, &past, counts.ok().map(|counts| counts.pending));
    Ok(reply::json(StatusCode::OK, &RoundReply { round, edge: edge.ok() }))
}
