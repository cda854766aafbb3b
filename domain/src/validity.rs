//! From when until when a coupon can be redeemed.

use chrono::{DateTime, FixedOffset};
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// How long coupons are valid, as an operator states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Validity {
    /// 1 to 3650; counted from `from` to the end of that local day.
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 3650))]
    pub days: u32,
    /// Where counting begins.
    pub from: ValidFrom,
    /// When redeeming begins.
    pub redeemable: Redeemable,
}

/// The instant whose local day is day zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ValidFrom {
    /// The coupon's own issue.
    Issue,
    /// The close of the campaign's last round.
    EventEnd,
}

/// The instant from which a coupon can be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Redeemable {
    /// At once.
    OnIssue,
    /// After the close of the campaign's last round.
    AfterEvent,
}

/// `[from, until)` in which a coupon can be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redeeming {
    /// First instant at which the coupon can be redeemed.
    pub from: DateTime<FixedOffset>,
    /// First instant at which it no longer can.
    pub until: DateTime<FixedOffset>,
}

impl Validity {
    /// The window of a coupon issued at `issued_ms` (Unix milliseconds).
    #[must_use]
    pub fn redeeming(&self, schedule: &Schedule, issued_ms: i64) -> Redeeming {
        let event_end_ms = schedule.last_round().closes_ms();
        let counted_from_ms = match self.from {
            ValidFrom::Issue => issued_ms,
            ValidFrom::EventEnd => event_end_ms,
        };
        let from_ms = match self.redeemable {
            Redeemable::OnIssue => issued_ms,
            Redeemable::AfterEvent => event_end_ms,
        };
        Redeeming { from: schedule.local(from_ms), until: schedule.end_of_day_after(counted_from_ms, self.days) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScheduleSpec;

    fn seoul() -> Schedule {
        let spec = ScheduleSpec {
            timezone: "Asia/Seoul".into(),
            first_day: "2026-05-01".into(),
            last_day: "2026-05-05".into(),
            opens: "13:00".into(),
            closes: "15:00".into(),
            weekdays: None,
        };
        Schedule::compile(&spec).unwrap()
    }

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn days_run_from_the_issue_to_the_end_of_a_local_day() {
        let validity = Validity { days: 30, from: ValidFrom::Issue, redeemable: Redeemable::OnIssue };
        let window = validity.redeeming(&seoul(), ms("2026-05-01T13:00:00.250+09:00"));
        assert_eq!(window.from.to_rfc3339(), "2026-05-01T13:00:00.250+09:00");
        assert_eq!(window.until.to_rfc3339(), "2026-06-01T00:00:00+09:00");
    }

    #[test]
    fn the_end_of_a_local_day_is_found_where_clocks_change() {
        let validity = Validity { days: 1, from: ValidFrom::Issue, redeemable: Redeemable::OnIssue };
        for (timezone, issued, until) in [
            // A day of 25 hours, and one of 23.
            ("Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-26T00:00:00+01:00"),
            ("Europe/Berlin", "2026-03-28T12:00:00+01:00", "2026-03-30T00:00:00+02:00"),
            // Midnight does not exist: the day after begins at one.
            ("Africa/Cairo", "2026-04-22T12:00:00+02:00", "2026-04-24T01:00:00+03:00"),
            // Midnight happens twice: the day has ended the first time.
            ("America/Havana", "2026-10-30T12:00:00-04:00", "2026-11-01T00:00:00-04:00"),
            // Just before and just after a midnight are days apart.
            ("Asia/Seoul", "2026-05-01T23:59:59.999+09:00", "2026-05-03T00:00:00+09:00"),
            ("Asia/Seoul", "2026-05-02T00:00:00+09:00", "2026-05-04T00:00:00+09:00"),
        ] {
            let spec = ScheduleSpec {
                timezone: timezone.into(),
                first_day: "2026-01-01".into(),
                last_day: "2026-12-31".into(),
                opens: "00:00".into(),
                closes: "24:00".into(),
                weekdays: None,
            };
            let window = validity.redeeming(&Schedule::compile(&spec).unwrap(), ms(issued));
            assert_eq!(window.until.to_rfc3339(), until, "{timezone} {issued}");
        }
    }

    #[test]
    fn days_run_from_the_close_of_the_last_round() {
        let validity = Validity { days: 1, from: ValidFrom::EventEnd, redeemable: Redeemable::AfterEvent };
        let window = validity.redeeming(&seoul(), ms("2026-05-01T13:00:00+09:00"));
        assert_eq!(window.from.to_rfc3339(), "2026-05-05T15:00:00+09:00");
        assert_eq!(window.until.to_rfc3339(), "2026-05-07T00:00:00+09:00");
    }
}
