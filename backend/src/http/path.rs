//! Path parameters, read from bytes that nothing vouches for.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

/// The decoded parameters of a path; none if one is not UTF-8.
#[derive(Debug)]
pub(super) struct PathParameters(Option<RawPathParams>);

impl PathParameters {
    /// A parameter's value. Empty if it cannot be read: no parameter of a route is, otherwise.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().flatten().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(RawPathParams::from_request_parts(parts, state).await.ok()))
    }
}
