//! What machines ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::{App, reply};
use crate::telemetry::{METRICS_TYPE, Scene};

/// Asks no store and counts against no bound: a busy process is alive.
pub(super) fn livez() -> Router<Arc<App>> {
    Router::new().route("/livez", get(async || reply::json(StatusCode::OK, &json!({"status": "alive"}))))
}

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// Whether both stores answer and Redis keeps what it is given.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let (redis, postgres) = tokio::join!(app.redis.eviction_policy(), app.postgres.ping());
    let redis = match redis {
        Ok(policy) if policy == "noeviction" => Ok(()),
        Ok(policy) => {
            Err(format!("maxmemory-policy is {policy}; set it to noeviction, or reservations may be evicted"))
        }
        Err(error) => Err(error.to_string()),
    };
    let postgres = postgres.map_err(|error| error.to_string());
    let (status, word) = if redis.is_ok() && postgres.is_ok() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let tell = |outcome: Result<(), String>| outcome.err().unwrap_or_else(|| "ok".to_owned());
    reply::json(status, &json!({"status": word, "redis": tell(redis), "postgres": tell(postgres)}))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let in_flight = app.config.max_in_flight.saturating_sub(app.places.available_permits());
    let scene = Scene { in_flight, connections: app.postgres.connections() };
    ([(header::CONTENT_TYPE, METRICS_TYPE)], app.metrics.render(scene)).into_response()
}
