//! Bearer tokens.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use doorbuster_domain::refusal::Refusal;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::App;
use super::error::Error;
use crate::config::Secret;

/// Lets operators pass.
pub(super) async fn operator(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    check(request.headers(), &app.config.admin_token)?;
    Ok(next.run(request).await)
}

/// Lets gateways pass.
pub(super) async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    check(request.headers(), &app.config.edge_token)?;
    Ok(next.run(request).await)
}

fn check(headers: &HeaderMap, token: &Secret) -> Result<(), Refusal> {
    let given = bearer(headers).ok_or(Refusal::Unauthorized)?;
    // Digests are of one length, so that the comparison tells nothing about the token, its length included.
    let matches = Sha256::digest(given).ct_eq(&Sha256::digest(token.expose()));
    if bool::from(matches) { Ok(()) } else { Err(Refusal::Unauthorized) }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
