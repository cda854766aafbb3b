//! `doorbuster campaign`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use doorbuster_domain::schedule::FieldError;
use serde_json::{Map, Value};

use crate::answer::{Answer, Failure};
use crate::api::{Api, Reply, escaped};
use crate::table::{card, list, shown, table};

const PATH: &str = "/admin/v1/campaigns";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create or replace a campaign from a file of JSON
    ///
    /// The file holds what the operator API takes, and the campaign's `id`. A `version`, as `get --json` prints it, must
    /// be the campaign's own still, or nothing is replaced. A pause is not changed.
    Apply {
        /// The file; - for the standard input
        file: PathBuf,
    },
    /// Show a campaign
    Get {
        /// Its id
        id: String,
    },
    /// Show all campaigns
    List,
    /// Pause a campaign
    Pause {
        /// Its id
        id: String,
    },
    /// Let a paused campaign go on
    Resume {
        /// Its id
        id: String,
    },
}

impl Command {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        match self {
            Self::Apply { file } => apply(api, &file),
            Self::Get { id } => api.get(&path(&id)).map(one),
            Self::List => api.get(PATH).map(|body| Answer::new(rows(list(&body, "campaigns")), body)),
            Self::Pause { id } => api.post(&format!("{}/pause", path(&id)), None, &[]).map(one),
            Self::Resume { id } => api.post(&format!("{}/resume", path(&id)), None, &[]).map(one),
        }
    }
}

/// A campaign's path.
pub(crate) fn path(id: &str) -> String {
    format!("{PATH}/{}", escaped(id))
}

/// The JSON object in a file.
pub(crate) fn read(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| Failure::no_input(file, &error))?;
    let wrong = |message: String| data(file, vec![FieldError::new("", message)]);
    match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("must be an object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// What does not hold in a file.
pub(crate) fn data(file: &Path, errors: Vec<FieldError>) -> Failure {
    Failure::Data { file: file.display().to_string(), errors }
}

fn apply(api: &Api, file: &Path) -> Result<Answer, Failure> {
    let mut fields = read(file)?;
    let Some(Value::String(id)) = fields.remove("id") else {
        return Err(data(file, vec![FieldError::new("id", "must be there, the campaign's id")]));
    };
    let version = fields.remove("version").map(|version| format!("\"{version}\""));
    fields.remove("paused");
    let headers: Vec<(&str, &str)> = version.iter().map(|version| ("if-match", version.as_str())).collect();
    let Reply { status, body } = api.send("PUT", &path(&id), Some(&Value::Object(fields)), &headers)?;
    let word = if status == 201 { "created" } else { "replaced" };
    Ok(Answer::new(format!("{word}\n{}", one_card(&body)), body))
}

fn one(body: Value) -> Answer {
    Answer::new(one_card(&body), body)
}

fn is_unreadable(campaign: &Value) -> bool {
    campaign.get("state").and_then(Value::as_str) == Some("unreadable")
}

fn one_card(campaign: &Value) -> String {
    let at = |pointer: &str| shown(campaign, pointer);
    if is_unreadable(campaign) {
        return card(&[
            ("id", at("/id")),
            ("version", at("/version")),
            ("paused", at("/paused")),
            ("state", at("/state")),
            ("reason", at("/reason")),
        ]);
    }
    let weekdays = campaign.pointer("/schedule/weekdays").map_or_else(|| "every day".to_owned(), Value::to_string);
    card(&[
        ("id", at("/id")),
        ("title", at("/title")),
        ("version", at("/version")),
        ("paused", at("/paused")),
        ("quota", quota(campaign)),
        ("days", format!("{} to {}, {weekdays}", at("/schedule/first_day"), at("/schedule/last_day"))),
        ("hours", format!("{} to {} {}", at("/schedule/opens"), at("/schedule/closes"), at("/schedule/timezone"))),
        ("vendor", at("/vendor")),
        ("discount", discount(campaign)),
        ("least order", format!("{} {}", at("/min_order_amount"), at("/currency"))),
        (
            "valid",
            format!("{} days from {}, {}", at("/validity/days"), at("/validity/from"), at("/validity/redeemable")),
        ),
    ])
}

fn quota(campaign: &Value) -> String {
    campaign.get("quota").filter(|quota| !quota.is_null()).map_or_else(|| "no limit".to_owned(), Value::to_string)
}

/// The discount of a campaign or of a coupon.
pub(crate) fn discount(of: &Value) -> String {
    let at = |pointer: &str| shown(of, pointer);
    match at("/discount/kind").as_str() {
        "percent" if of.pointer("/discount/max_amount").is_some() => {
            format!("{}%, at most {} {}", at("/discount/value"), at("/discount/max_amount"), at("/currency"))
        }
        "percent" => format!("{}%", at("/discount/value")),
        _ => format!("{} {}", at("/discount/value"), at("/currency")),
    }
}

fn rows(campaigns: &[Value]) -> String {
    let row = |campaign: &Value| {
        let at = |pointer: &str| shown(campaign, pointer);
        if is_unreadable(campaign) {
            let none = || "-".to_owned();
            return [at("/id"), none(), none(), none(), none(), at("/version"), at("/state")];
        }
        let state = if campaign.get("paused") == Some(&Value::Bool(true)) { "paused" } else { "" };
        let days = format!("{} to {}", at("/schedule/first_day"), at("/schedule/last_day"));
        let hours = format!("{}-{} {}", at("/schedule/opens"), at("/schedule/closes"), at("/schedule/timezone"));
        [at("/id"), at("/title"), quota(campaign), days, hours, at("/version"), state.to_owned()]
    };
    let rows: Vec<_> = campaigns.iter().map(row).collect();
    table(["id", "title", "quota", "days", "hours", "version", "state"], &rows)
}
