//! Bodies, read as JSON.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use doorbuster_domain::refusal::{Problem, Refusal};
use doorbuster_domain::schedule::FieldError;
use serde_json::Value;

use super::error::Error;

/// The JSON that a body holds.
///
/// # Errors
/// `body_too_large`, or `invalid_input` if it is not JSON.
pub(super) fn json(body: Result<Bytes, BytesRejection>) -> Result<Value, Error> {
    let body = body.map_err(|_| Refusal::BodyTooLarge)?;
    Ok(serde_json::from_slice(&body).map_err(|error| unreadable(&error))?)
}

/// A number like 1e400 is JSON all the same, but nothing that any field could hold.
fn unreadable(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    if message.starts_with("number out of range") {
        Problem { errors: vec![FieldError::new("", message)], ..Problem::new(Refusal::InvalidInput) }
    } else {
        Problem::new(Refusal::MalformedInput)
    }
}
