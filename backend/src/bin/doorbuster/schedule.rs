//! `doorbuster schedule`: when rounds open, worked out here.

use std::path::PathBuf;

use chrono::{DateTime, Datelike, FixedOffset, TimeDelta, Utc};
use clap::Subcommand;
use doorbuster_domain::refusal::rfc3339;
use doorbuster_domain::schedule::{FieldError, Phase, Round, Schedule, ScheduleSpec};
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::campaign::{data, read};
use crate::table::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the rounds that are open now or open within the next days, in local and UTC time
    Preview {
        /// A campaign as for `campaign apply`, or its schedule alone; - for the standard input
        file: PathBuf,
        /// How many days to look ahead
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3660))]
        days: u16,
        /// Look ahead from here [default: now]
        #[arg(long, value_name = "RFC 3339")]
        from: Option<DateTime<FixedOffset>>,
    },
}

impl Command {
    pub(crate) fn run(self) -> Result<Answer, Failure> {
        let Self::Preview { file, days, from } = self;
        let mut fields = read(&file)?;
        let (place, spec) = match fields.remove("schedule") {
            Some(schedule) => ("schedule", schedule),
            None => ("", Value::Object(fields)),
        };
        let within = |error: FieldError| if place.is_empty() { error } else { error.within(place) };
        let spec: ScheduleSpec = serde_json::from_value(spec)
            .map_err(|error| data(&file, vec![FieldError::new(place, error.to_string())]))?;
        let schedule =
            Schedule::compile(&spec).map_err(|errors| data(&file, errors.into_iter().map(within).collect()))?;
        let from = from.map_or_else(now, |from| from.to_utc());
        Ok(preview(&schedule, from, from + TimeDelta::days(i64::from(days))))
    }
}

#[expect(clippy::disallowed_methods, reason = "an outermost shell: the default of an argument")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

fn preview(schedule: &Schedule, from: DateTime<Utc>, until: DateTime<Utc>) -> Answer {
    let first = match schedule.phase(from.timestamp_millis()) {
        Phase::NotStarted { next } | Phase::OutsideHours { next } => Some(next),
        Phase::Open { round } => Some(round),
        Phase::Ended { .. } => None,
    };
    let rounds: Vec<Round> = std::iter::successors(first, |round| schedule.round_after(round.id))
        .take_while(|round| round.opens < until)
        .collect();
    let row = |round: &Round| {
        let local = |instant: DateTime<FixedOffset>| instant.format("%Y-%m-%d %H:%M:%S %:z").to_string();
        let utc = |instant: DateTime<FixedOffset>| instant.to_utc().format("%Y-%m-%d %H:%M:%S").to_string();
        [
            round.id.to_string(),
            round.id.0.weekday().to_string(),
            local(round.opens),
            local(round.closes),
            utc(round.opens),
            utc(round.closes),
        ]
    };
    let rows: Vec<_> = rounds.iter().map(row).collect();
    let headings = ["round", "day", "opens (local)", "closes (local)", "opens (UTC)", "closes (UTC)"];
    let machine = |round: &Round| {
        let utc = |instant: DateTime<FixedOffset>| rfc3339(&instant.to_utc().fixed_offset());
        json!({"round": round.id, "opens_at": rfc3339(&round.opens), "closes_at": rfc3339(&round.closes),
            "opens_at_utc": utc(round.opens), "closes_at_utc": utc(round.closes)})
    };
    let machines = json!({"rounds": rounds.iter().map(machine).collect::<Vec<_>>()});
    let people = if rows.is_empty() { "no round opens in that time\n".to_owned() } else { table(headings, &rows) };
    Answer::new(people, machines)
}
