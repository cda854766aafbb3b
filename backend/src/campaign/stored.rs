//! A campaign's row as it is stored: one that this release can read, or one that it cannot.
//!
//! A later release may have written fields that this one does not know. Serving such a campaign
//! without them could issue what the operator did not want, so it is not served at all, and all
//! others are.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::{FieldError, Schedule};
use serde::Serialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;

use super::{Campaign, Shown, Spec};

/// A campaign's row.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// It can be served.
    Readable(Arc<Campaign>),
    /// It cannot.
    Unreadable(Arc<Unreadable>),
}

/// What is known of a campaign that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id, however it is spelled.
    pub id: String,
    /// Its version.
    pub version: i64,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Why it cannot be read.
    pub reason: String,
}

/// A campaign as operators and the audit log see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredCampaign)]
#[serde(untagged)]
pub enum ShownStored<'a> {
    /// One that is served.
    Readable(Shown<'a>),
    /// One that is not.
    Unreadable(ShownUnreadable<'a>),
}

/// A campaign that this release cannot read: requests for it are answered with `unavailable`, and
/// other campaigns go on. Replace it, or serve it with the release that wrote it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadableCampaign)]
pub struct ShownUnreadable<'a> {
    id: &'a str,
    version: i64,
    paused: bool,
    state: UnreadableState,
    /// Why it cannot be read.
    reason: &'a str,
}

/// The only one.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum UnreadableState {
    Unreadable,
}

impl Stored {
    /// Reads a row; `spec` is what the operator wrote, as JSON.
    #[must_use]
    pub fn read(id: String, version: i64, paused: bool, spec: &str) -> Self {
        match read(&id, spec) {
            Ok((id, spec, schedule)) => Self::Readable(Arc::new(Campaign { id, version, paused, spec, schedule })),
            Err(reason) => Self::Unreadable(Arc::new(Unreadable { id, version, paused, reason })),
        }
    }

    /// Its id, however it is spelled.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Readable(campaign) => campaign.id.as_str(),
            Self::Unreadable(campaign) => &campaign.id,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> i64 {
        match self {
            Self::Readable(campaign) => campaign.version,
            Self::Unreadable(campaign) => campaign.version,
        }
    }

    /// Whether an operator paused it.
    #[must_use]
    pub fn paused(&self) -> bool {
        match self {
            Self::Readable(campaign) => campaign.paused,
            Self::Unreadable(campaign) => campaign.paused,
        }
    }

    /// The campaign, if this release can read it.
    #[must_use]
    pub fn readable(&self) -> Option<&Arc<Campaign>> {
        match self {
            Self::Readable(campaign) => Some(campaign),
            Self::Unreadable(_) => None,
        }
    }

    /// The same under another version, paused or not.
    #[must_use]
    pub fn with(&self, version: i64, paused: bool) -> Self {
        match self {
            Self::Readable(campaign) => {
                Self::Readable(Arc::new(Campaign { version, paused, ..Campaign::clone(campaign) }))
            }
            Self::Unreadable(campaign) => {
                Self::Unreadable(Arc::new(Unreadable { version, paused, ..Unreadable::clone(campaign) }))
            }
        }
    }

    /// The campaign as operators see it.
    #[must_use]
    pub fn shown(&self) -> ShownStored<'_> {
        match self {
            Self::Readable(campaign) => ShownStored::Readable(campaign.shown()),
            Self::Unreadable(campaign) => ShownStored::Unreadable(campaign.shown()),
        }
    }
}

impl From<Campaign> for Stored {
    fn from(campaign: Campaign) -> Self {
        Self::Readable(Arc::new(campaign))
    }
}

impl Unreadable {
    /// The campaign as operators see it.
    #[must_use]
    pub fn shown(&self) -> ShownUnreadable<'_> {
        let Self { id, version, paused, reason } = self;
        let state = UnreadableState::Unreadable;
        ShownUnreadable { id, version: *version, paused: *paused, state, reason }
    }
}

/// The parts of a campaign, or why they cannot be read.
fn read(id: &str, spec: &str) -> Result<(CampaignId, Spec, Schedule), String> {
    let id = CampaignId::parse(id).map_err(|rule| format!("id {rule}"))?;
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_str(spec).map_err(|error| error.to_string())?;
    if let Some(unknown) = fields.keys().find(|name| !Spec::FIELDS.contains(&name.as_str())) {
        return Err(format!("{unknown}: a field that this release does not know"));
    }
    let spec: Spec = serde_json::from_str(spec).map_err(|error| error.to_string())?;
    let listed = |errors: Vec<FieldError>| {
        let errors = errors.into_iter().map(|error| error.within("schedule"));
        errors.map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>().join("; ")
    };
    let schedule = Schedule::compile(&spec.schedule).map_err(listed)?;
    Ok((id, spec, schedule))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spring() -> Value {
        json!({"title": "Spring 50%", "vendor": "acme", "currency": "KRW",
            "schedule": {"timezone": "Asia/Seoul", "first_day": "2026-05-01", "last_day": "2026-05-05",
                         "opens": "13:00", "closes": "15:00"},
            "quota": 100, "discount": {"kind": "percent", "value": 50}, "min_order_amount": 20000,
            "validity": {"days": 30, "from": "event_end", "redeemable": "on_issue"}})
    }

    fn reason(change: impl FnOnce(&mut Value)) -> String {
        let mut spec = spring();
        change(&mut spec);
        match Stored::read("spring".to_owned(), 7, true, &spec.to_string()) {
            Stored::Readable(campaign) => format!("{campaign:?}"),
            Stored::Unreadable(campaign) => campaign.reason.clone(),
        }
    }

    #[test]
    fn what_this_release_does_not_know_is_named() {
        for (said, change) in [
            ("stackable: a field that", (|spec| spec["stackable"] = json!(true)) as fn(&mut Value)),
            ("windows", |spec| spec["schedule"]["windows"] = json!([])),
            ("schedule.timezone: ", |spec| spec["schedule"]["timezone"] = json!("Mars/Olympus")),
            ("quota", |spec| drop(spec.as_object_mut().unwrap().remove("quota"))),
            ("gift", |spec| spec["discount"]["kind"] = json!("gift")),
            ("invalid type", |spec| *spec = json!([])),
            ("invalid type", |spec| spec["title"] = json!(7)),
        ] {
            let reason = reason(change);
            assert!(reason.contains(said), "{reason} does not contain {said}");
        }
        let misspelled = Stored::read("Spring".to_owned(), 7, true, &spring().to_string());
        let shown = serde_json::to_value(misspelled.shown()).unwrap();
        assert_eq!((&shown["id"], &shown["state"]), (&json!("Spring"), &json!("unreadable")));
    }

    #[test]
    fn what_was_written_is_read() {
        let stored = Stored::read("spring".to_owned(), 7, true, &spring().to_string());
        assert_eq!((stored.version(), stored.paused()), (7, true));
        let spec = serde_json::to_value(&stored.readable().unwrap().spec).unwrap();
        let fields: Vec<_> = spec.as_object().unwrap().keys().collect();
        let mut known = Spec::FIELDS;
        known.sort_unstable();
        assert_eq!(fields, known, "every field is known");
    }
}
