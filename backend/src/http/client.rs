//! What clients ask: issue and count. Their coupons are in `coupons` and `redemptions`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::notice::RESULT_HEADER;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::request;
use serde::Serialize;

use super::error::Error;
use super::reply::CouponBody;
use super::{App, bounds, coupons, redemptions, reply, ticket};
use crate::issuance::{Answer, Place, Reply};

static RESULT: HeaderName = HeaderName::from_static(RESULT_HEADER);

pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let redeeming = if app.config.client_redeem { redemptions::client_router() } else { Router::new() };
    Router::new()
        .route("/v1/coupon/issue", post(issue))
        .route("/v1/coupon/count", get(count))
        .route("/v1/coupons", get(coupons::list))
        .route("/v1/coupons/{code}", get(coupons::one))
        .merge(redeeming)
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), bounds::bounded))
}

/// What a winner is shown.
#[derive(Serialize)]
struct Won {
    coupon: CouponBody,
}

/// The campaign that a request is about.
fn campaign(app: &App, uri: &Uri) -> Result<CampaignId, Refusal> {
    request::campaign(uri.query().unwrap_or_default().as_bytes(), app.config.default_campaign.as_ref())
}

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
            reply::json(StatusCode::CREATED, &Won { coupon: CouponBody::new(&coupon, &app.catalog) })
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

async fn count(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Error> {
    let id = campaign(&app, &uri)?;
    let snapshot = app.catalog.snapshot();
    let Some(campaign) = snapshot.campaigns.get(&id) else {
        return Err(if snapshot.is_fresh() {
            Problem::about(Refusal::UnknownCampaign, &id).into()
        } else {
            Problem::ask_again(Refusal::Unavailable, Some(&id), rand::random()).into()
        });
    };
    let body = app.issuance.count(campaign).await?;
    let mut response = reply::json(StatusCode::OK, &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    Ok(response)
}
