//! From errors to replies: the one place where they are logged.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::FieldError;

use super::reply::{self, CouponBody};
use crate::catalog::Catalog;
use crate::changes::ChangeError;
use crate::issuance::{RebuildError, StandingError};
use crate::settlement::SettlementError;
use crate::store::postgres::DatabaseError;
use crate::store::redis::RedisError;

/// Why a handler does not answer as asked.
#[derive(Debug)]
pub(super) struct Error(Box<Problem>);

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Problem::new(refusal).into()
    }
}

impl Error {
    /// `invalid_input`, with what is wrong.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        Problem { errors, ..Problem::new(Refusal::InvalidInput) }.into()
    }

    /// `invalid_input`, if anything is wrong.
    pub(super) fn check(errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::invalid(errors)) }
    }

    /// Why nothing became of a coupon, with the coupon as it stands.
    pub(super) fn about_coupon(error: SettlementError, catalog: &Catalog) -> Self {
        match error {
            SettlementError::Refused(refusal, Some(coupon)) => {
                let about = Problem::about(refusal, &coupon.campaign);
                Problem { coupon: CouponBody::new(&coupon, catalog).into_value(), ..about }.into()
            }
            error => error.into(),
        }
    }
}

impl From<DatabaseError> for Error {
    fn from(error: DatabaseError) -> Self {
        unavailable(&error)
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        unavailable(&error)
    }
}

impl From<StandingError> for Error {
    fn from(error: StandingError) -> Self {
        unavailable(&error)
    }
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Refusal::UnknownCampaign.into(),
            ChangeError::Conflict => Refusal::VersionConflict.into(),
            ChangeError::HasCoupons => Refusal::HasCoupons.into(),
            ChangeError::Invalid(field) => Self::invalid(vec![field]),
            ChangeError::Database(_) | ChangeError::Redis(_) => {
                tracing::warn!(%error, "a change cannot be made, or nobody knows whether it was");
                ask_again()
            }
        }
    }
}

impl From<RebuildError> for Error {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Gone => Refusal::NotFound.into(),
            error => unavailable(&error),
        }
    }
}

impl From<SettlementError> for Error {
    fn from(error: SettlementError) -> Self {
        match error {
            SettlementError::Refused(refusal, _) => refusal.into(),
            SettlementError::Database(_) | SettlementError::Redis(_) => unavailable(&error),
        }
    }
}

/// Not a warning: a crowd asks, and who watches the stores says it once a second.
fn unavailable(error: &impl std::error::Error) -> Error {
    tracing::debug!(%error, "a request cannot be answered");
    ask_again()
}

/// `unavailable`, about nothing in particular.
pub(super) fn ask_again() -> Error {
    Problem::ask_again(Refusal::Unavailable, None, rand::random()).into()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = reply::problem(&self.0);
        if self.0.refusal == Refusal::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer realm=\"doorbuster\""));
        }
        response
    }
}

pub(super) async fn not_found() -> Error {
    Refusal::NotFound.into()
}

/// axum adds `Allow`.
pub(super) async fn method_not_allowed() -> Error {
    Refusal::MethodNotAllowed.into()
}
