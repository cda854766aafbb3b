//! `doorbuster round`.

use clap::Subcommand;
use doorbuster_domain::schedule::{Phase, Schedule, ScheduleSpec};
use serde_json::Value;

use crate::answer::{Answer, Failure};
use crate::api::{Api, escaped};
use crate::campaign;
use crate::page::{Page, more};
use crate::schedule::now;
use crate::table::{card, list, shown, table};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List a campaign's rounds, newest first, with their windows and quotas as they were
    List {
        /// The campaign
        campaign: String,
        #[command(flatten)]
        page: Page,
    },
    /// Show how far a round has come
    Show {
        /// Its campaign
        campaign: String,
        /// The local date on which it opens [default: the current round, else the next, else the last]
        round: Option<String>,
    },
    /// Rebuild a round in Redis from PostgreSQL, and show it
    Rebuild {
        /// Its campaign
        campaign: String,
        /// The local date on which it opens [default: the current round, else the next, else the
        /// last]
        round: Option<String>,
    },
}

impl Command {
    pub(crate) fn run(self, api: &Api) -> Result<Answer, Failure> {
        match self {
            Self::List { campaign, page } => {
                api.get(&format!("{}/rounds?{}", campaign::path(&campaign), page.query())).map(all)
            }
            Self::Show { campaign, round } => api.get(&path(api, &campaign, round)?).map(one),
            Self::Rebuild { campaign, round } => {
                api.post(&format!("{}/rebuild", path(api, &campaign, round)?), None, &[]).map(one)
            }
        }
    }
}

/// A round's path; without a date, that of the current round, else the next, else the last.
fn path(api: &Api, campaign: &str, round: Option<String>) -> Result<String, Failure> {
    let path = campaign::path(campaign);
    let round = match round {
        Some(round) => round,
        None => current(&api.get(&path)?)?,
    };
    Ok(format!("{path}/rounds/{}", escaped(&round)))
}

fn quota(round: &Value) -> String {
    round.get("quota").filter(|quota| !quota.is_null()).map_or("no limit".to_owned(), Value::to_string)
}

fn all(body: Value) -> Answer {
    let row = |round: &Value| {
        let at = |pointer: &str| shown(round, pointer);
        let counts = ["/issued", "/pending", "/failed", "/void"].map(at);
        let [issued, pending, failed, void] = counts;
        [at("/round"), at("/opens_at"), at("/closes_at"), quota(round), issued, pending, failed, void]
    };
    let rows: Vec<_> = list(&body, "rounds").iter().map(row).collect();
    let headings = ["round", "opens", "closes", "quota", "issued", "pending", "failed", "void"];
    Answer::new(table(headings, &rows) + &more(&body), body)
}

fn one(body: Value) -> Answer {
    let at = |pointer: &str| shown(&body, pointer);
    let edge = body.get("edge").and_then(Value::as_object).into_iter().flatten();
    let gateways: Vec<_> = edge.map(|(decision, count)| format!("{count} {decision}")).collect();
    let text = card(&[
        ("campaign", at("/campaign")),
        ("round", at("/round")),
        ("opens", at("/opens_at")),
        ("closes", at("/closes_at")),
        ("quota", quota(&body)),
        ("issued", at("/issued")),
        ("pending", at("/pending")),
        ("failed", at("/failed")),
        ("void", at("/void")),
        ("gateways", if gateways.is_empty() { "-".to_owned() } else { gateways.join(", ") }),
    ]);
    Answer::new(text, body)
}

fn current(campaign: &Value) -> Result<String, Failure> {
    let spec: Option<ScheduleSpec> =
        campaign.get("schedule").and_then(|schedule| serde_json::from_value(schedule.clone()).ok());
    let schedule = spec.and_then(|spec| Schedule::compile(&spec).ok());
    let schedule =
        schedule.ok_or_else(|| Failure::Unavailable("the answer is no campaign that this program knows".to_owned()))?;
    let (Phase::NotStarted { next: round }
    | Phase::Open { round }
    | Phase::OutsideHours { next: round }
    | Phase::Ended { last: round }) = schedule.phase(now().timestamp_millis());
    Ok(round.id.to_string())
}
