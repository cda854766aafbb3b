//! The two listeners: `client` for everybody behind the gateway, `operator`, `internal` and `machine` for operations.

mod audit_log;
mod auth;
mod body;
mod bounds;
mod client;
mod coupons;
mod error;
mod failures;
mod internal;
mod machine;
mod operator;
mod path;
mod query;
mod redemptions;
mod reply;
mod ticket;
mod tries;
mod vendors;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::config::Config;
use crate::issuance::Issuance;
use crate::settlement::Settlement;
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;
use crate::telemetry::Metrics;
pub use tries::FailedTries;

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The campaigns.
    pub catalog: Arc<Catalog>,
    /// For operators.
    pub changes: Arc<Changes>,
    /// For clients and gateways.
    pub issuance: Arc<Issuance>,
    /// For whoever redeems, and for operators.
    pub settlement: Settlement,
    /// Redis.
    pub redis: Arc<Redis>,
    /// PostgreSQL.
    pub postgres: Postgres,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Places for requests on the public listener.
    pub places: Arc<Semaphore>,
    /// Places for requests on the operations listener.
    pub ops_places: Arc<Semaphore>,
    /// Tries at a token of the operations listener.
    pub failed_tries: FailedTries,
    /// When this process began to serve.
    pub started: Instant,
}

/// The public listener: only `/v1`.
pub fn public_router(app: Arc<App>) -> Router {
    dressed(client::router(&app)).with_state(app)
}

/// The operations listener.
pub fn ops_router(app: Arc<App>) -> Router {
    let routers =
        operator::router(&app).merge(failures::router(&app)).merge(internal::router(&app)).merge(machine::router());
    let bounded = routers.route_layer(middleware::from_fn_with_state(Arc::clone(&app), bounds::bounded_ops));
    dressed(bounded.merge(machine::livez())).with_state(app)
}

fn dressed(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn(traced))
}

/// Log lines of a request carry the id that the gateway gave it.
async fn traced(request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    next.run(request).instrument(span).await
}
