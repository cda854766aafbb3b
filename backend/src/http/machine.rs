//! What machines ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Routes;
use super::{App, reply};
use crate::config::Durability;
use crate::store::redis::NO_EVICTION;
use crate::telemetry::{METRICS_TYPE, Scene};

/// Asks no store and counts against no bound: a busy process is alive.
pub(super) fn livez() -> Routes {
    OpenApiRouter::new().routes(routes!(live))
}

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(ready)).routes(routes!(metrics))
}

/// That this process answers.
#[derive(Serialize, ToSchema)]
struct Liveness {
    /// `alive`
    status: &'static str,
}

/// Whether this process can do its work.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ready` or `unavailable`
    status: &'static str,
    /// `ok`, or what is wrong with it
    redis: String,
    /// `ok`, or what is wrong with it
    postgres: String,
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "machines",
    responses((status = 200, description = "It does", body = Liveness,
               headers(("cache-control" = String, description = "`no-store`")))),
)]
async fn live() -> Response {
    reply::json(StatusCode::OK, &Liveness { status: "alive" })
}

/// Whether both stores answer and keep what they are given.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "machines",
    responses(
        (status = 200, description = "They do", body = Readiness,
         headers(("cache-control" = String, description = "`no-store`"))),
        (status = 503, description = "One does not", body = Readiness,
         headers(("cache-control" = String, description = "`no-store`"))),
    ),
)]
async fn ready(State(app): State<Arc<App>>) -> Response {
    let (redis, postgres) = tokio::join!(app.redis.eviction_policy(), app.postgres.weakness());
    let redis = match redis {
        Ok(policy) if policy == NO_EVICTION => Ok(()),
        Ok(policy) => {
            Err(format!("maxmemory-policy is {policy}; set it to noeviction, or reservations may be evicted"))
        }
        Err(error) => Err(error.to_string()),
    };
    let postgres = match postgres {
        Ok(Some(weakness)) if app.config.durability == Durability::Require => Err(weakness),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let (code, status) = if redis.is_ok() && postgres.is_ok() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let tell = |outcome: Result<(), String>| outcome.err().unwrap_or_else(|| "ok".to_owned());
    reply::json(code, &Readiness { status, redis: tell(redis), postgres: tell(postgres) })
}

/// Counters, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "machines",
    responses((status = 200, description = "All of them", body = String, content_type = METRICS_TYPE)),
)]
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let in_flight = app.config.max_in_flight.saturating_sub(app.places.available_permits());
    let unreadable = app.catalog.snapshot().unreadable.len();
    let scene = Scene { in_flight, connections: app.postgres.connections(), unreadable };
    ([(header::CONTENT_TYPE, METRICS_TYPE)], app.metrics.render(scene)).into_response()
}
