//! The OpenAPI document of both listeners, generated from the handlers: what a route takes and answers is written beside
//! it, and every refusal comes from the one table. `docs/openapi.json` is a copy that `cargo xtask lint` compares.

pub(super) mod problems;

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use doorbuster_domain::id::IdempotencyKey;
use doorbuster_domain::schedule::FieldError;
use utoipa::PartialSchema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{App, client, internal, machine, redemptions};

const DESCRIPTION: &str = "Limited drops, decided exactly. Paths below `/v1` are for clients, through the gateway; all \
others are on the operations listener, which is never published. Every refusal is a problem (RFC 9457) with a `code`.";

const OPERATOR_TOKEN: &str = "The token of an operator. A viewer's is enough for what only looks, \
a cashier's to show and to redeem a coupon; other routes answer `forbidden` to these.";

/// The document of all routes that there may be.
#[must_use]
pub fn document() -> OpenApi {
    let clients = client::routes().merge(redemptions::client_routes());
    let operations = super::operator_routes()
        .merge(redemptions::cashier_routes())
        .merge(internal::routes())
        .merge(machine::routes())
        .merge(machine::livez())
        .merge(routes());
    assembled(clients.into_openapi(), operations.into_openapi())
}

/// One document of what the routes of the two listeners say.
pub(super) fn assembled(mut clients: OpenApi, mut operations: OpenApi) -> OpenApi {
    serve_at(&mut clients, "http://127.0.0.1:8080", "The gateway");
    serve_at(&mut operations, "/", "The operations listener");
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Doorbuster")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build())),
        )
        .components(Some(
            ComponentsBuilder::new()
                .schema("Problem", problems::schema())
                .schema("FieldError", FieldError::schema())
                // Only in a header, where utoipa does not look for schemas.
                .schema("IdempotencyKey", IdempotencyKey::schema())
                .security_scheme("operator", bearer(OPERATOR_TOKEN))
                .security_scheme("edge", bearer("The token of the gateways."))
                .build(),
        ))
        .build();
    document.merge(clients);
    document.merge(operations);
    document
}

fn bearer(description: &str) -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
    SecurityScheme::Http(scheme.build())
}

fn serve_at(document: &mut OpenApi, url: &str, description: &str) {
    let server = ServerBuilder::new().url(url).description(Some(description)).build();
    for item in document.paths.paths.values_mut() {
        item.servers = Some(vec![server.clone()]);
    }
}

/// The document as text, for the repository.
#[must_use]
pub fn text() -> String {
    document().to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

/// A page to try what is in the document. Its scripts are part of this program.
pub(super) fn page() -> Router<Arc<App>> {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json").use_base_layout()).into()
}

pub(super) fn routes() -> Routes {
    OpenApiRouter::new().routes(routes!(serve))
}

/// The document as it is served.
#[derive(Clone)]
pub(super) struct Served(Arc<str>);

impl Served {
    pub(super) fn new(document: &OpenApi) -> Self {
        Self(document.to_json().unwrap_or_default().into())
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "machines",
    operation_id = "show_document",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
async fn serve(Extension(Served(document)): Extension<Served>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// Routes with their part of the document.
pub(super) type Routes = OpenApiRouter<Arc<App>>;
