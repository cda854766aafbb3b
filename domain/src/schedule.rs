//! When a campaign's rounds open and close: a zone, a date range, weekdays and wall times, compiled into instants.
//!
//! A round is worked out from its date alone, so a schedule of any length costs nothing to keep. Zones and calendars
//! are for configuration and sync; whoever decides per request compares the instants of a
//! [`Timetable`](crate::timetable::Timetable).

use chrono::{DateTime, Datelike, Days, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::id::{RoundId, parse_date};
use crate::timetable::Timetable;

/// A schedule as an operator writes it; see the contract for the meaning of each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ScheduleSpec {
    /// IANA name, as `Asia/Seoul`.
    #[cfg_attr(feature = "schema", schema(value_type = Timezone))]
    pub timezone: String,
    /// First local date on which a round may open, `YYYY-MM-DD`.
    #[cfg_attr(feature = "schema", schema(format = Date))]
    pub first_day: String,
    /// Last such date, included.
    #[cfg_attr(feature = "schema", schema(format = Date))]
    pub last_day: String,
    /// Local wall time `HH:MM[:SS]`.
    #[cfg_attr(feature = "schema", schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"))]
    pub opens: String,
    /// Local wall time up to `24:00`; not after `opens` means on the following day.
    #[cfg_attr(feature = "schema", schema(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?|24:00(:00)?)$"))]
    pub closes: String,
    /// `mon` to `sun`; left out: every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Weekday>, min_items = 1))]
    pub weekdays: Option<Vec<String>>,
}

/// The names that [`ScheduleSpec::timezone`] may have.
#[cfg(feature = "schema")]
struct Timezone;

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Timezone {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A name of the IANA time zone database."))
            .enum_values(Some(names))
            .into()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Timezone {}

/// The names that [`ScheduleSpec::weekdays`] may have.
#[cfg(feature = "schema")]
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes what is kept as text")]
enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// What is wrong with one field of a specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Path of the field, as `schedule.closes`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FieldError {
    /// An error at `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same error seen from one level up: `closes` becomes `schedule.closes`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), message: self.message }
    }
}

/// One occurrence of the daily window: `[opens, closes)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Round {
    /// The local date on which it opens.
    #[serde(rename = "round")]
    pub id: RoundId,
    /// The first instant in it.
    #[serde(rename = "opens_at")]
    pub opens: DateTime<FixedOffset>,
    /// The first instant after it.
    #[serde(rename = "closes_at")]
    pub closes: DateTime<FixedOffset>,
}

impl Round {
    /// Opening instant, Unix milliseconds.
    #[must_use]
    pub fn opens_ms(&self) -> i64 {
        self.opens.timestamp_millis()
    }

    /// Closing instant, Unix milliseconds; not in the round.
    #[must_use]
    pub fn closes_ms(&self) -> i64 {
        self.closes.timestamp_millis()
    }

    /// Whether the instant `now_ms` lies in the round.
    #[must_use]
    pub fn contains(&self, now_ms: i64) -> bool {
        (self.opens_ms()..self.closes_ms()).contains(&now_ms)
    }
}

/// Where an instant stands in a schedule. Each instant has exactly one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the first round.
    NotStarted {
        /// The first round.
        next: Round,
    },
    /// In a round.
    Open {
        /// That round.
        round: Round,
    },
    /// Between two rounds.
    OutsideHours {
        /// The next one.
        next: Round,
    },
    /// After the last round.
    Ended {
        /// The last round.
        last: Round,
    },
}

/// A valid schedule: it has at least one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    rule: Rule,
    first: Round,
    last: Round,
}

impl Schedule {
    /// Compiles a specification.
    ///
    /// # Errors
    /// Every field that is wrong, all at once. Fields are named relative to the schedule.
    pub fn compile(spec: &ScheduleSpec) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let zone = field(&mut errors, "timezone", parse_zone(&spec.timezone));
        let first_day = field(&mut errors, "first_day", parse_day(&spec.first_day));
        let last_day = field(&mut errors, "last_day", parse_day(&spec.last_day));
        let opens_s = field(&mut errors, "opens", parse_wall_time(&spec.opens, DAY_S - 1));
        let closes_s = field(&mut errors, "closes", parse_wall_time(&spec.closes, DAY_S));
        let weekdays = field(&mut errors, "weekdays", parse_weekdays(spec.weekdays.as_deref()));
        if let (Some(first), Some(last)) = (first_day, last_day)
            && last < first
        {
            errors.push(FieldError::new("last_day", format!("{last} is before first_day {first}")));
        }
        let (true, Some(zone), Some(first_day), Some(last_day), Some(opens_s), Some(closes_s), Some(weekdays)) =
            (errors.is_empty(), zone, first_day, last_day, opens_s, closes_s, weekdays)
        else {
            return Err(errors);
        };
        let rule = Rule { zone, first_day, last_day, opens_s, closes_s, weekdays };
        match (rule.first_round_from(first_day), rule.last_round()) {
            (Some(first), Some(last)) => Ok(Self { rule, first, last }),
            _ => Err(vec![FieldError::new(
                "last_day",
                "no day in the range has a round; widen first_day, last_day or weekdays",
            )]),
        }
    }

    /// The first round.
    #[must_use]
    pub fn first_round(&self) -> Round {
        self.first
    }

    /// The last round.
    #[must_use]
    pub fn last_round(&self) -> Round {
        self.last
    }

    /// The round of that name, if the schedule has it.
    #[must_use]
    pub fn round(&self, id: RoundId) -> Option<Round> {
        self.rule.round_on(id.0)
    }

    /// The round that opens next after `round` has opened.
    #[must_use]
    pub fn round_after(&self, round: RoundId) -> Option<Round> {
        self.rule.first_round_from(round.0.succ_opt()?)
    }

    /// Where the instant `now_ms` (Unix milliseconds) stands.
    #[must_use]
    pub fn phase(&self, now_ms: i64) -> Phase {
        if now_ms < self.first.opens_ms() {
            return Phase::NotStarted { next: self.first };
        }
        match self.current_or_next(now_ms) {
            Some(round) if round.contains(now_ms) => Phase::Open { round },
            Some(next) => Phase::OutsideHours { next },
            None => Phase::Ended { last: self.last },
        }
    }

    /// What somebody who only compares instants needs around `now_ms`: the round before, the current or next one and
    /// the one after that.
    #[must_use]
    pub fn timetable(&self, now_ms: i64) -> Timetable {
        let current = self.current_or_next(now_ms);
        let following = current.and_then(|round| self.round_after(round.id));
        let previous = match current {
            Some(round) => self.rule.last_round_until(round.id.0.pred_opt()),
            None => Some(self.last),
        };
        let last_told = following.or(current);
        Timetable {
            previous,
            rounds: current.into_iter().chain(following).collect(),
            more: last_told.is_some_and(|told| told.id < self.last.id),
        }
    }

    /// The end of the local day that lies `days` after the local day of `instant_ms`.
    #[must_use]
    pub fn end_of_day_after(&self, instant_ms: i64, days: u32) -> DateTime<FixedOffset> {
        let local = self.local(instant_ms);
        local
            .date_naive()
            .checked_add_days(Days::new(u64::from(days) + 1))
            .map_or(local, |date| fixed(&self.rule.first_instant(date.and_time(chrono::NaiveTime::MIN))))
    }

    /// An instant (Unix milliseconds) in the schedule's zone.
    #[must_use]
    pub fn local(&self, instant_ms: i64) -> DateTime<FixedOffset> {
        let instant = DateTime::from_timestamp_millis(instant_ms).unwrap_or_default();
        fixed(&instant.with_timezone(&self.rule.zone))
    }

    /// The round that is open at `now_ms`, else the next one to open.
    fn current_or_next(&self, now_ms: i64) -> Option<Round> {
        // A round closes on the day after its date at the latest, and a clock change moves that by a day at most.
        let yesterday = self.local(now_ms).date_naive().checked_sub_days(Days::new(3))?;
        let mut round = self.rule.first_round_from(yesterday)?;
        while round.closes_ms() <= now_ms {
            round = self.round_after(round.id)?;
        }
        Some(round)
    }
}

/// The arithmetic of a schedule, before it is known to have a round.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    zone: Tz,
    first_day: NaiveDate,
    last_day: NaiveDate,
    /// Seconds after local midnight.
    opens_s: u32,
    /// Seconds after local midnight; not above `opens_s` means on the following day.
    closes_s: u32,
    /// From Monday on.
    weekdays: [bool; 7],
}

impl Rule {
    fn has_day(&self, date: NaiveDate) -> bool {
        let weekday = usize::try_from(date.weekday().num_days_from_monday()).unwrap_or_default();
        (self.first_day..=self.last_day).contains(&date) && self.weekdays.get(weekday).copied().unwrap_or_default()
    }

    fn round_on(&self, date: NaiveDate) -> Option<Round> {
        let (opens, closes) = self.window_on(date)?;
        // The next round's opening ends this one. A window is at most a day long before clock changes, so only the
        // next two dates can reach into it.
        let next_opens =
            date.iter_days().skip(1).take(2).find_map(|later| self.window_on(later).map(|(next_opens, _)| next_opens));
        let closes = next_opens.map_or(closes, |next| closes.min(next));
        (opens < closes).then(|| Round { id: RoundId(date), opens: fixed(&opens), closes: fixed(&closes) })
    }

    /// The window of a date before the next round cuts it short; none if a clock change swallows it whole.
    fn window_on(&self, date: NaiveDate) -> Option<(DateTime<Tz>, DateTime<Tz>)> {
        if !self.has_day(date) {
            return None;
        }
        let closing_date = if self.closes_s <= self.opens_s { date.succ_opt()? } else { date };
        let opens = self.first_instant(at_wall_time(date, self.opens_s));
        let closes = self.last_instant(at_wall_time(closing_date, self.closes_s));
        (opens < closes).then_some((opens, closes))
    }

    fn first_round_from(&self, date: NaiveDate) -> Option<Round> {
        let start = date.max(self.first_day);
        start.iter_days().take_while(|day| *day <= self.last_day).find_map(|day| self.round_on(day))
    }

    fn last_round(&self) -> Option<Round> {
        self.last_round_until(Some(self.last_day))
    }

    fn last_round_until(&self, date: Option<NaiveDate>) -> Option<Round> {
        let mut day = date?.min(self.last_day);
        while day >= self.first_day {
            if let Some(round) = self.round_on(day) {
                return Some(round);
            }
            day = day.pred_opt()?;
        }
        None
    }

    /// The first instant at which the local clock shows `local`, or, if it never does, the first after the gap.
    fn first_instant(&self, local: NaiveDateTime) -> DateTime<Tz> {
        match self.zone.from_local_datetime(&local) {
            LocalResult::Single(instant) => instant,
            LocalResult::Ambiguous(one, other) => one.min(other),
            LocalResult::None => self.end_of_gap(local),
        }
    }

    /// The last instant at which the local clock shows `local`, or, if it never does, the first after the gap.
    fn last_instant(&self, local: NaiveDateTime) -> DateTime<Tz> {
        match self.zone.from_local_datetime(&local) {
            LocalResult::Single(instant) => instant,
            LocalResult::Ambiguous(one, other) => one.max(other),
            LocalResult::None => self.end_of_gap(local),
        }
    }

    /// The first instant whose local time is not before `local`, which lies in a gap. Found by bisection: chrono-tz
    /// does not tell when its transitions happen.
    fn end_of_gap(&self, local: NaiveDateTime) -> DateTime<Tz> {
        // Offsets span 26 hours and the longest gap on record is a day.
        let reach = TimeDelta::hours(48);
        let (mut before, mut after) = (local - reach, local + reach);
        let local_at = |utc: NaiveDateTime| self.zone.from_utc_datetime(&utc).naive_local();
        while after - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if local_at(middle) < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        self.zone.from_utc_datetime(&after)
    }
}

const DAY_S: u32 = 86_400;

fn at_wall_time(date: NaiveDate, seconds: u32) -> NaiveDateTime {
    date.and_time(chrono::NaiveTime::MIN) + TimeDelta::seconds(i64::from(seconds))
}

fn fixed(instant: &DateTime<Tz>) -> DateTime<FixedOffset> {
    instant.fixed_offset()
}

fn field<T>(errors: &mut Vec<FieldError>, name: &str, parsed: Result<T, String>) -> Option<T> {
    parsed.map_err(|message| errors.push(FieldError::new(name, message))).ok()
}

fn parse_zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IANA time zone such as \"Asia/Seoul\""))
}

fn parse_day(text: &str) -> Result<NaiveDate, String> {
    // Beyond these years RFC 3339 has no room for a validity's end, and Unix time is negative.
    parse_date(text)
        .filter(|date| (1970..=2999).contains(&date.year()))
        .ok_or_else(|| format!("{text:?} is not a date YYYY-MM-DD between 1970 and 2999"))
}

fn parse_wall_time(text: &str, latest_s: u32) -> Result<u32, String> {
    let malformed = || {
        let latest = if latest_s == DAY_S { "24:00" } else { "23:59:59" };
        format!("{text:?} is not a time HH:MM or HH:MM:SS up to {latest}")
    };
    let mut parts = [0_u32; 3];
    let texts: Vec<&str> = text.split(':').collect();
    if !(2..=3).contains(&texts.len()) {
        return Err(malformed());
    }
    for (part, text) in parts.iter_mut().zip(texts) {
        if text.len() != 2 || !text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(malformed());
        }
        *part = text.parse().map_err(|_| malformed())?;
    }
    let [hours, minutes, seconds] = parts;
    let total_s = hours * 3600 + minutes * 60 + seconds;
    if minutes < 60 && seconds < 60 && total_s <= latest_s { Ok(total_s) } else { Err(malformed()) }
}

fn parse_weekdays(names: Option<&[String]>) -> Result<[bool; 7], String> {
    let Some(names) = names else { return Ok([true; 7]) };
    let mut weekdays = [false; 7];
    for name in names {
        let place = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].iter().position(|known| known == name);
        match place.and_then(|place| weekdays.get_mut(place)) {
            Some(day) => *day = true,
            None => return Err(format!("{name:?} is none of mon, tue, wed, thu, fri, sat, sun")),
        }
    }
    if weekdays.contains(&true) { Ok(weekdays) } else { Err("names no day; leave it out for every day".to_owned()) }
}

#[cfg(test)]
mod tests;
