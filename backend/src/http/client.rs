//! What clients ask: issue and count. Their coupons are in `coupons` and `redemptions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use doorbuster_domain::count::Count;
use doorbuster_domain::id::{CampaignId, UserId};
use doorbuster_domain::notice::RESULT_HEADER;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::request;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Error;
use super::openapi::Routes;
use super::openapi::problems::refusals;
use super::reply::{CouponBody, CouponReply, PendingReply};
use super::{App, bounds, coupons, redemptions, reply, ticket};
use crate::issuance::{Answer, Place, Reply};

static RESULT: HeaderName = HeaderName::from_static(RESULT_HEADER);

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(issue))
        .routes(routes!(count))
        .routes(routes!(coupons::list))
        .routes(routes!(coupons::one))
}

pub(super) fn guarded_routes(app: &Arc<App>) -> Routes {
    // Without a route of its own such a request is `not_found`.
    let redeeming = if app.config.client_redeem { redemptions::client_routes() } else { OpenApiRouter::new() };
    routes().merge(redeeming).route_layer(middleware::from_fn_with_state(Arc::clone(app), bounds::bounded))
}

refusals! {
    IssueRefusals = [
        InvalidCampaign, UnknownCampaign, Ended, Paused, NotStarted, OutsideHours, SoldOut, MissingUser, InvalidUser,
        AlreadyIssued, Busy, Unavailable, Unticketed, BodyTooLarge,
    ];
    CountRefusals = [InvalidCampaign, UnknownCampaign, Unavailable, TooMany, BodyTooLarge];
}

/// The campaign that a request is about.
fn campaign(app: &App, uri: &Uri) -> Result<CampaignId, Refusal> {
    request::campaign(uri.query().unwrap_or_default().as_bytes(), app.config.default_campaign.as_ref())
}

/// Asks for a coupon of the round that is open. 201 means: committed. A body is not needed; up to 4 KiB are ignored.
#[utoipa::path(
    post,
    path = "/v1/coupon/issue",
    tag = "clients",
    operation_id = "issue_coupon",
    params(
        ("campaign" = Option<CampaignId>, Query, description = "Left out: the default campaign, if there is one"),
        ("x-user-id" = UserId, Header, description = "The user, set by the authentication in front of the gateway"),
    ),
    responses(
        (status = 201, description = "The coupon, committed", body = CouponReply,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("x-doorbuster-result" = String, description = "For the gateway, which removes it"))),
        (status = 202, description = "A place is held; it is no promise. Its location tells what becomes of it",
         body = PendingReply,
         headers(("cache-control" = String, description = "`no-store`"),
                 ("location" = String, description = "Where the coupon will be"),
                 ("x-doorbuster-result" = String, description = "For the gateway, which removes it"))),
        IssueRefusals,
    ),
)]
async fn issue(
    State(app): State<Arc<App>>,
    Extension(place): Extension<Place>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    app.metrics.issue_requests.inc();
    let campaign = match campaign(&app, &uri) {
        Ok(campaign) => campaign,
        Err(refusal) => {
            app.metrics.count_refusal(refusal);
            return reply::problem(&Problem::new(refusal));
        }
    };
    let user = request::user(headers.get_all(request::USER_HEADER).iter().map(HeaderValue::as_bytes));
    // Whose ticket it would be is only known of a user; without one the request is refused in any case.
    if let Ok(user) = &user
        && let Err(unticketed) = ticket::check(&app, &headers, &campaign, user).await
    {
        return unticketed.into_response();
    }
    let Reply { answer, notice } = app.issuance.issue(campaign, user, place).await;
    let mut response = match answer {
        Answer::Issued(coupon) => {
            app.metrics.issued.inc();
            reply::json(StatusCode::CREATED, &CouponReply { coupon: CouponBody::new(&coupon, &app.catalog) })
        }
        Answer::Pending(code) => {
            app.metrics.pending.inc();
            coupons::pending(code)
        }
        Answer::Failed(problem) => {
            app.metrics.count_refusal(problem.refusal);
            reply::problem(&problem)
        }
        Answer::Refused(mut problem, coupon) => {
            app.metrics.count_refusal(problem.refusal);
            problem.coupon = coupon.and_then(|coupon| CouponBody::new(&coupon, &app.catalog).into_value());
            reply::problem(&problem)
        }
    };
    if let Some(value) = notice.and_then(|notice| HeaderValue::try_from(notice.to_string()).ok()) {
        response.headers_mut().insert(&RESULT, value);
    }
    response
}

/// Where a campaign stands. The gateway may answer it, and everybody may be told the same for a second.
#[utoipa::path(
    get,
    path = "/v1/coupon/count",
    tag = "clients",
    operation_id = "count_coupons",
    params(("campaign" = Option<CampaignId>, Query, description = "Left out: the default campaign, if there is one")),
    responses(
        (status = 200, description = "Where it stands", body = Count,
         headers(("cache-control" = String, description = "`public, max-age=1`"))),
        CountRefusals,
    ),
)]
async fn count(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let id = campaign(&app, &uri)?;
    let snapshot = app.catalog.snapshot();
    let Some(campaign) = snapshot.campaigns.get(&id) else {
        return Err(match snapshot.absence(&id) {
            Refusal::Unavailable => Problem::ask_again(Refusal::Unavailable, Some(&id), rand::random()).into(),
            absence => Problem::about(absence, &id).into(),
        });
    };
    let body = app.issuance.count(campaign).await?;
    let mut response = reply::json(StatusCode::OK, &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    Ok(response)
}
