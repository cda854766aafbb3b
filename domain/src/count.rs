//! The body of `GET /v1/coupon/count`, for both tiers.

use chrono::{DateTime, FixedOffset};
use serde::Serialize;

use crate::id::{CampaignId, RoundId};
use crate::refusal::{serialize_instant, serialize_optional_instant};
use crate::schedule::{Phase, Round};
use crate::timetable::Timetable;

/// What the contract calls a campaign's state; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum State {
    /// After the last round.
    Ended,
    /// An operator paused it.
    Paused,
    /// Before the first round.
    Scheduled,
    /// Between rounds.
    Closed,
    /// The round's quota is committed.
    SoldOut,
    /// None of these.
    Open,
}

/// Where a campaign stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Count {
    campaign: CampaignId,
    round: RoundId,
    state: State,
    #[cfg_attr(feature = "schema", schema(required))]
    quota: Option<u64>,
    issued: u64,
    #[cfg_attr(feature = "schema", schema(required))]
    remaining: Option<u64>,
    #[serde(serialize_with = "serialize_instant")]
    opens_at: DateTime<FixedOffset>,
    #[serde(serialize_with = "serialize_instant")]
    closes_at: DateTime<FixedOffset>,
    #[serde(serialize_with = "serialize_optional_instant")]
    #[cfg_attr(feature = "schema", schema(required))]
    next_opens_at: Option<DateTime<FixedOffset>>,
    #[serde(serialize_with = "serialize_instant")]
    as_of: DateTime<FixedOffset>,
}

/// The rounds to speak of at a moment: the current one, else the next, else the last, and the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// Where the moment stands.
    pub phase: Phase,
    /// The current round, else the next, else the last.
    pub round: Round,
    /// The round after that.
    pub next: Option<Round>,
}

impl Timetable {
    /// The rounds to speak of at `now_ms` (Unix milliseconds). None where the timetable does not reach far enough.
    #[must_use]
    pub fn rounds_to_speak_of(&self, now_ms: i64) -> Option<Rounds> {
        let phase = self.phase(now_ms)?;
        let (Phase::NotStarted { next: round }
        | Phase::Open { round }
        | Phase::OutsideHours { next: round }
        | Phase::Ended { last: round }) = phase;
        let next = self.rounds.iter().find(|later| later.id > round.id).copied();
        if next.is_none() && self.more {
            return None;
        }
        Some(Rounds { phase, round, next })
    }
}

impl Count {
    /// What is known of `rounds.round` at `as_of`.
    #[must_use]
    pub fn new(
        campaign: &CampaignId,
        rounds: &Rounds,
        paused: bool,
        quota: Option<u64>,
        issued: u64,
        as_of: DateTime<FixedOffset>,
    ) -> Self {
        let state = match rounds.phase {
            Phase::Ended { .. } => State::Ended,
            _ if paused => State::Paused,
            Phase::NotStarted { .. } => State::Scheduled,
            Phase::OutsideHours { .. } => State::Closed,
            Phase::Open { .. } if quota.is_some_and(|quota| issued >= quota) => State::SoldOut,
            Phase::Open { .. } => State::Open,
        };
        Self {
            campaign: campaign.clone(),
            round: rounds.round.id,
            state,
            quota,
            issued,
            remaining: quota.map(|quota| quota.saturating_sub(issued)),
            opens_at: rounds.round.opens,
            closes_at: rounds.round.closes,
            next_opens_at: rounds.next.map(|next| next.opens),
            as_of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Schedule, ScheduleSpec};

    /// `state round opens next_opens` of a campaign with a quota of 2 on two days.
    fn told(at: &str, paused: bool, issued: u64) -> String {
        let schedule = Schedule::compile(&ScheduleSpec {
            timezone: "Asia/Seoul".into(),
            first_day: "2026-05-01".into(),
            last_day: "2026-05-02".into(),
            opens: "13:00".into(),
            closes: "15:00".into(),
            weekdays: None,
        })
        .unwrap();
        let as_of = DateTime::parse_from_rfc3339(at).unwrap();
        let now_ms = as_of.timestamp_millis();
        let rounds = schedule.timetable(now_ms).rounds_to_speak_of(now_ms).unwrap();
        let campaign = CampaignId::parse("spring").unwrap();
        let count = Count::new(&campaign, &rounds, paused, Some(2), issued, as_of);
        let body = serde_json::to_value(&count).unwrap();
        assert_eq!(body["as_of"], at);
        assert_eq!(body["remaining"], 2_u64.saturating_sub(issued));
        let text = |name: &str| body[name].as_str().unwrap_or("null").replace(":00:00+09:00", "");
        format!("{} {} {} {}", text("state"), text("round"), text("opens_at"), text("next_opens_at"))
    }

    #[test]
    fn the_first_state_that_holds_is_told() {
        let first = "2026-05-01 2026-05-01T13 2026-05-02T13";
        let last = "2026-05-02 2026-05-02T13 null";
        assert_eq!(told("2026-05-01T12:59:59+09:00", false, 0), format!("scheduled {first}"));
        assert_eq!(told("2026-05-01T12:59:59+09:00", true, 0), format!("paused {first}"));
        assert_eq!(told("2026-05-01T13:00:00+09:00", false, 1), format!("open {first}"));
        assert_eq!(told("2026-05-01T14:59:59.999+09:00", false, 2), format!("sold_out {first}"));
        assert_eq!(told("2026-05-01T15:00:00+09:00", false, 0), format!("closed {last}"));
        assert_eq!(told("2026-05-02T13:00:00+09:00", false, 3), format!("sold_out {last}"));
        assert_eq!(told("2026-05-02T15:00:00+09:00", true, 2), format!("ended {last}"));
    }
}
