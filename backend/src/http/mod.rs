//! The two listeners: `client` for everybody behind the gateway, `operator`, `internal` and `machine` for operations.

mod audit_log;
mod auth;
mod body;
mod bounds;
mod client;
mod coupons;
mod error;
mod events;
mod failures;
mod internal;
mod machine;
mod openapi;
mod operator;
mod path;
mod query;
mod rebuild;
mod redemptions;
mod reply;
mod rounds;
mod ticket;
mod tries;
mod vendors;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use tokio::sync::Semaphore;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::config::Config;
use crate::issuance::Issuance;
use crate::lineage::Lineage;
use crate::settlement::Settlement;
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;
use crate::telemetry::Metrics;
pub use openapi::{document, text as document_text};
pub use tries::FailedTries;

/// Longest id of a request that is logged, characters. Envoy's have 36.
const LONGEST_REQUEST_ID: usize = 64;

/// Largest body of an operator's request.
const LARGEST_BODY: usize = 64 * 1024;

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The campaigns.
    pub catalog: Arc<Catalog>,
    /// The installation and the lineage of its database.
    pub lineage: Arc<Lineage>,
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
    dressed(client::guarded_routes(&app).into()).with_state(app)
}

/// The operations listener. The document that it serves is that of the routes that are served.
pub fn ops_router(app: Arc<App>) -> Router {
    let guard = middleware::from_fn_with_state(Arc::clone(&app), auth::operator);
    let operator = operator_routes().route_layer(guard);
    let guard = middleware::from_fn_with_state(Arc::clone(&app), auth::cashier);
    let cashier = redemptions::cashier_routes().route_layer(guard);
    let operators = operator.merge(cashier).layer(DefaultBodyLimit::max(LARGEST_BODY));
    let bounded = operators
        .merge(internal::guarded_routes(&app))
        .merge(machine::routes())
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), bounds::bounded_ops));
    let (router, operations) = bounded.merge(machine::livez()).merge(openapi::routes()).split_for_parts();
    let document = openapi::assembled(client::guarded_routes(&app).into_openapi(), operations);
    let served = Extension(openapi::Served::new(&document));
    dressed(router.layer(served).merge(openapi::page())).with_state(app)
}

/// Operators' routes that cashiers may not use.
fn operator_routes() -> openapi::Routes {
    operator::routes()
        .merge(audit_log::routes())
        .merge(events::routes())
        .merge(failures::routes())
        .merge(rebuild::routes())
        .merge(redemptions::operator_routes())
        .merge(rounds::routes())
        .merge(vendors::routes())
}

fn dressed(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn(traced))
}

/// Log lines of a request carry the id that the gateway gave it.
async fn traced(request: Request, next: Next) -> Response {
    // The span is there however little is logged: an error without its request's id would help nobody.
    let span = tracing::error_span!(
        "request",
        request_id = request_id(request.headers()),
        method = method(request.method()),
        route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str),
    );
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.set_attribute("http.response.status_code", i64::from(status));
    span.in_scope(|| tracing::debug!(status, "answered"));
    response
}

/// What the gateway calls a request. Somebody else may have written it: only what an id looks like gets into a log.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let valid = (1..=LONGEST_REQUEST_ID).contains(&id.len())
        && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    valid.then_some(id)
}

/// A client may invent methods, as many and as long as it likes.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_an_id_is_logged() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", axum::http::HeaderValue::from_bytes(value).unwrap());
            request_id(&headers).map(ToOwned::to_owned)
        };
        let uuid = "6b0a3f0e-5f0b-9c57-8f4d-3a3f7d2e1c00";
        assert_eq!(of(uuid.as_bytes()).as_deref(), Some(uuid));
        assert_eq!(of(b"a".repeat(LONGEST_REQUEST_ID).as_slice()).map(|id| id.len()), Some(LONGEST_REQUEST_ID));
        for nonsense in [&b""[..], b"a b", b"\"}", b"a\tb", b"\xff", &b"a".repeat(LONGEST_REQUEST_ID + 1)] {
            assert_eq!(of(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
