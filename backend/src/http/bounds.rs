//! What a client may cost: a small body, and one of a bounded number of places.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use doorbuster_domain::refusal::Refusal;
use tokio::sync::Semaphore;

use super::App;
use super::error::{self, Error};
use crate::issuance::Place;

/// No client request needs more.
const LARGEST_BODY: usize = 4_096;

/// A body that has not ended by then is not waited for. Gateways are stricter.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// Reads the body before anything is held for the request, then serves it if there is a place.
pub(super) async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > LARGEST_BODY as u64) {
        return Err(Refusal::BodyTooLarge.into());
    }
    // Most requests have none, and need no deadline for it.
    let body = if body.is_end_stream() { body } else { Body::from(read(body).await?) };
    let place = take_place(&app.places)?;
    let mut request = Request::from_parts(parts, body);
    // Handlers that leave work behind hand it on.
    request.extensions_mut().insert(place.clone());
    Ok(next.run(request).await)
}

/// The whole body, if it comes in time and is small.
async fn read(body: Body) -> Result<Bytes, Error> {
    // One that breaks off midway has no client any more to be told so.
    let body = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, LARGEST_BODY))
        .await
        .map_err(|_| error::ask_again())?;
    Ok(body.map_err(|_| Refusal::BodyTooLarge)?)
}

/// The same for the operations listener, whose clients are trusted not to trickle.
pub(super) async fn bounded_ops(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    let _place = take_place(&app.ops_places)?;
    Ok(next.run(request).await)
}

fn take_place(places: &Arc<Semaphore>) -> Result<Place, Error> {
    let permit = Arc::clone(places).try_acquire_owned().map_err(|_| error::ask_again())?;
    Ok(Place::new(permit))
}
