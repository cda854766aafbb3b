//! An event, as sinks and consumers see it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Media type of [`Event::body`].
pub(super) const CLOUDEVENTS_JSON: &str = "application/cloudevents+json; charset=UTF-8";

/// Something that happened. `docs/events` has a JSON Schema for each type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Tells it from all others: a consumer that has seen it before has seen this event before.
    pub id: String,
    /// Such as `coupon.issued`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it happened to: a coupon's code or a campaign's id. Events of one subject come in order.
    pub subject: String,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// What is to be known about it.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// `CloudEvents` 1.0, JSON format.
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    source: &'static str,
    datacontenttype: &'static str,
    #[serde(flatten)]
    event: &'a Event,
}

impl Event {
    /// The event as a `CloudEvent` of version 1.0 in JSON.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let envelope =
            Envelope { specversion: "1.0", source: "/doorbuster", datacontenttype: "application/json", event: self };
        // Texts, an instant and a JSON value: nothing in it can fail to become JSON.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}
