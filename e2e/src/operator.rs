//! The operator API of one backend.

use std::time::SystemTime;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::http::{self, Reply};

/// Speaks to the operations listener with the operator's token.
#[derive(Debug, Clone)]
pub struct Operator {
    ops_url: String,
    admin_token: String,
}

impl Operator {
    /// Speaks to the listener at `ops_url` (no trailing slash).
    #[must_use]
    pub fn new(ops_url: String, admin_token: String) -> Self {
        Self { ops_url, admin_token }
    }

    /// Sends any operator request, such as `("POST", "/admin/v1/campaigns/spring/pause", None)`.
    ///
    /// # Errors
    /// When there is no HTTP answer; every status is an answer.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Reply> {
        let authorization = format!("Bearer {}", self.admin_token);
        http::send(method, &format!("{}{path}", self.ops_url), &[("authorization", &authorization)], body)
    }

    /// Creates or replaces a campaign.
    ///
    /// # Errors
    /// When the backend does not accept it.
    pub fn put_campaign(&self, id: &str, campaign: &Value) -> anyhow::Result<Reply> {
        accepted(self.send("PUT", &format!("/admin/v1/campaigns/{id}"), Some(campaign))?)
    }

    /// One campaign as the backend has it; 404 when it does not.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn campaign(&self, id: &str) -> anyhow::Result<Reply> {
        self.send("GET", &format!("/admin/v1/campaigns/{id}"), None)
    }

    /// Pauses a campaign.
    ///
    /// # Errors
    /// When the backend does not accept it.
    pub fn pause(&self, id: &str) -> anyhow::Result<Reply> {
        accepted(self.send("POST", &format!("/admin/v1/campaigns/{id}/pause"), None)?)
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// When the backend does not accept it.
    pub fn resume(&self, id: &str) -> anyhow::Result<Reply> {
        accepted(self.send("POST", &format!("/admin/v1/campaigns/{id}/resume"), None)?)
    }

    /// Counts of one round: issued, quota, pending, failed.
    ///
    /// # Errors
    /// When the backend does not know it.
    pub fn round(&self, id: &str, round: &str) -> anyhow::Result<Reply> {
        accepted(self.send("GET", &format!("/admin/v1/campaigns/{id}/rounds/{round}"), None)?)
    }
}

fn accepted(reply: Reply) -> anyhow::Result<Reply> {
    ensure!((200..300).contains(&reply.status), "the operator API says {}: {}", reply.status, reply.body);
    Ok(reply)
}

/// A campaign that is open all day, every day, in a zone where midnight is hours away: a test sees one round only.
#[must_use]
pub fn open_all_day(quota: u64) -> Value {
    scheduled(
        quota,
        &json!({
            "timezone": zone_far_from_midnight(),
            "first_day": "2020-01-01", "last_day": "2099-12-31", "opens": "00:00", "closes": "24:00",
        }),
    )
}

#[expect(clippy::disallowed_methods, reason = "only chooses a zone; no decision depends on this clock")]
fn zone_far_from_midnight() -> &'static str {
    const HOUR: u64 = 3600;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match now.as_secs() / HOUR % 24 {
        6..18 => "UTC",
        // POSIX counts the other way round: this is UTC+12.
        _ => "Etc/GMT-12",
    }
}

/// A campaign with a schedule of its own, in the operator API's form.
#[must_use]
pub fn scheduled(quota: u64, schedule: &Value) -> Value {
    json!({
        "title": "Welcome", "vendor": "acme", "currency": "KRW",
        "schedule": schedule,
        "quota": quota,
        "discount": { "kind": "percent", "value": 50, "max_amount": 10000 },
        "min_order_amount": 20000,
        "validity": { "days": 30, "from": "issue", "redeemable": "on_issue" },
    })
}
