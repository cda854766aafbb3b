//! Bearer tokens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use doorbuster_domain::refusal::Refusal;

use super::App;
use super::error::Error;
use crate::operators::{Area, Deed, Operator, is_same};

/// What a guarded route answers, or why it is not asked.
type Guarded = Result<Response, Error>;

/// Lets pass who may use the routes of cashiers. Handlers learn who it is by the extractor
/// [`Operator`].
pub(super) async fn cashier(State(app): State<Arc<App>>, request: Request, next: Next) -> Guarded {
    pass(Area::Coupons, &app, request, next).await
}

/// The same for all other operators' routes.
pub(super) async fn operator(State(app): State<Arc<App>>, request: Request, next: Next) -> Guarded {
    pass(Area::Administration, &app, request, next).await
}

async fn pass(area: Area, app: &App, mut request: Request, next: Next) -> Result<Response, Error> {
    let identified = bearer(request.headers()).and_then(|token| app.config.operators.identify(token)).cloned();
    let Some(operator) = identified else { return Err(refuse(app, &request)) };
    let deed = if request.method().is_safe() { Deed::Look } else { Deed::Change };
    if !operator.role.may(area, deed) {
        return Err(Refusal::Forbidden.into());
    }
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

/// Lets gateways pass.
pub(super) async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    if bearer(request.headers()).is_some_and(|token| is_same(token, &app.config.edge_token)) {
        Ok(next.run(request).await)
    } else {
        Err(refuse(&app, &request))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        parts.extensions.get().cloned().ok_or_else(|| Error::from(Refusal::Unauthorized).into_response())
    }
}

/// No token that holds. Only one that was given is a try.
fn refuse(app: &App, request: &Request) -> Error {
    if request.headers().contains_key(header::AUTHORIZATION) {
        app.metrics.wrong_tokens.inc();
        let peer = peer(request);
        let now_ms = u64::try_from(app.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        if !app.failed_tries.count(peer, now_ms) {
            return Refusal::TooMany.into();
        }
        tracing::warn!(%peer, "a wrong bearer token");
    }
    Refusal::Unauthorized.into()
}

fn peer(request: &Request) -> IpAddr {
    let info: Option<&ConnectInfo<SocketAddr>> = request.extensions().get();
    info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
