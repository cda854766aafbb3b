use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn spec(timezone: &str, days: (&str, &str), window: (&str, &str)) -> ScheduleSpec {
    ScheduleSpec {
        timezone: timezone.into(),
        first_day: days.0.into(),
        last_day: days.1.into(),
        opens: window.0.into(),
        closes: window.1.into(),
        weekdays: None,
    }
}

fn compile(spec: &ScheduleSpec) -> Schedule {
    Schedule::compile(spec).unwrap_or_else(|errors| panic!("{spec:?}: {errors:?}"))
}

fn ms(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

fn rounds(schedule: &Schedule) -> Vec<Round> {
    std::iter::successors(Some(schedule.first_round()), |round| schedule.round_after(round.id)).collect()
}

/// `round: opens .. closes` of every round.
fn written(spec: &ScheduleSpec) -> Vec<String> {
    rounds(&compile(spec))
        .iter()
        .map(|round| format!("{}: {} .. {}", round.id, round.opens.to_rfc3339(), round.closes.to_rfc3339()))
        .collect()
}

#[test]
fn a_daily_window_opens_and_closes_on_its_day() {
    let spec = spec("Asia/Seoul", ("2026-05-01", "2026-05-02"), ("13:00", "15:00:30"));
    assert_eq!(
        written(&spec),
        [
            "2026-05-01: 2026-05-01T13:00:00+09:00 .. 2026-05-01T15:00:30+09:00",
            "2026-05-02: 2026-05-02T13:00:00+09:00 .. 2026-05-02T15:00:30+09:00",
        ]
    );
}

#[test]
fn opening_is_in_and_closing_is_out() {
    let schedule = compile(&spec("Asia/Seoul", ("2026-05-01", "2026-05-02"), ("13:00", "15:00")));
    let (first, last) = (schedule.first_round(), schedule.last_round());
    let (opens, closes) = (ms("2026-05-01T13:00:00+09:00"), ms("2026-05-01T15:00:00+09:00"));
    assert_eq!(schedule.phase(opens - 1), Phase::NotStarted { next: first });
    assert_eq!(schedule.phase(opens), Phase::Open { round: first });
    assert_eq!(schedule.phase(closes - 1), Phase::Open { round: first });
    assert_eq!(schedule.phase(closes), Phase::OutsideHours { next: last });
    assert_eq!(schedule.phase(last.closes_ms() - 1), Phase::Open { round: last });
    assert_eq!(schedule.phase(last.closes_ms()), Phase::Ended { last });
}

#[test]
fn a_window_crosses_midnight_and_a_day_ends_at_24() {
    assert_eq!(
        written(&spec("UTC", ("2026-05-01", "2026-05-01"), ("22:00", "02:00"))),
        ["2026-05-01: 2026-05-01T22:00:00+00:00 .. 2026-05-02T02:00:00+00:00"]
    );
    assert_eq!(
        written(&spec("UTC", ("2026-12-31", "2026-12-31"), ("00:00", "24:00"))),
        ["2026-12-31: 2026-12-31T00:00:00+00:00 .. 2027-01-01T00:00:00+00:00"]
    );
    assert_eq!(
        written(&spec("UTC", ("2026-05-01", "2026-05-01"), ("00:00", "00:00"))),
        ["2026-05-01: 2026-05-01T00:00:00+00:00 .. 2026-05-02T00:00:00+00:00"]
    );
}

#[test]
fn weekdays_and_leap_days_count() {
    let mut weekend = spec("UTC", ("2028-02-25", "2028-03-05"), ("10:00", "11:00"));
    weekend.weekdays = Some(vec!["sat".into(), "tue".into()]);
    let names: Vec<_> = rounds(&compile(&weekend)).iter().map(|round| round.id.to_string()).collect();
    assert_eq!(names, ["2028-02-26", "2028-02-29", "2028-03-04"]);
}

#[test]
fn a_time_in_a_gap_means_the_first_instant_after_it() {
    // New York, 2026-03-08: 02:00 to 03:00 does not exist.
    assert_eq!(
        written(&spec("America/New_York", ("2026-03-08", "2026-03-08"), ("02:30", "04:00"))),
        ["2026-03-08: 2026-03-08T03:00:00-04:00 .. 2026-03-08T04:00:00-04:00"]
    );
    assert_eq!(
        written(&spec("America/New_York", ("2026-03-08", "2026-03-08"), ("01:00", "02:30"))),
        ["2026-03-08: 2026-03-08T01:00:00-05:00 .. 2026-03-08T03:00:00-04:00"]
    );
}

#[test]
fn a_time_that_happens_twice_opens_first_and_closes_second() {
    // New York, 2026-11-01: 01:00 to 02:00 happens twice.
    assert_eq!(
        written(&spec("America/New_York", ("2026-11-01", "2026-11-01"), ("01:30", "01:45"))),
        ["2026-11-01: 2026-11-01T01:30:00-04:00 .. 2026-11-01T01:45:00-05:00"]
    );
}

#[test]
fn a_round_closes_no_later_than_the_next_one_opens() {
    assert_eq!(
        written(&spec("America/New_York", ("2026-10-31", "2026-11-01"), ("01:30", "01:30"))),
        [
            "2026-10-31: 2026-10-31T01:30:00-04:00 .. 2026-11-01T01:30:00-04:00",
            "2026-11-01: 2026-11-01T01:30:00-04:00 .. 2026-11-02T01:30:00-05:00",
        ]
    );
    // Havana, 2026-11-01: 00:00 to 01:00 happens twice.
    assert_eq!(
        written(&spec("America/Havana", ("2026-10-31", "2026-11-01"), ("00:00", "24:00"))),
        [
            "2026-10-31: 2026-10-31T00:00:00-04:00 .. 2026-11-01T00:00:00-04:00",
            "2026-11-01: 2026-11-01T00:00:00-04:00 .. 2026-11-02T00:00:00-05:00",
        ]
    );
}

#[test]
fn a_window_that_falls_whole_into_a_gap_makes_no_round() {
    let spec_over_gap = spec("America/New_York", ("2026-03-07", "2026-03-09"), ("02:10", "02:50"));
    let names: Vec<_> = rounds(&compile(&spec_over_gap)).iter().map(|round| round.id.to_string()).collect();
    assert_eq!(names, ["2026-03-07", "2026-03-09"]);
    let only_gap = spec("America/New_York", ("2026-03-08", "2026-03-08"), ("02:10", "02:50"));
    assert_eq!(Schedule::compile(&only_gap).unwrap_err()[0].field, "last_day");
    // Apia had no 2011-12-30 at all.
    let apia = spec("Pacific/Apia", ("2011-12-29", "2011-12-31"), ("00:00", "24:00"));
    let names: Vec<_> = rounds(&compile(&apia)).iter().map(|round| round.id.to_string()).collect();
    assert_eq!(names, ["2011-12-29", "2011-12-31"]);
}

#[test]
fn all_wrong_fields_are_named_at_once() {
    let mut wrong = spec("Mars/Olympus", ("2026-02-30", "26-05-05"), ("24:00", "24:01"));
    wrong.weekdays = Some(vec!["monday".into()]);
    let fields: Vec<_> = Schedule::compile(&wrong).unwrap_err().into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["timezone", "first_day", "last_day", "opens", "closes", "weekdays"]);
    for time in ["1:00", "01:0", "01", "01:00:00:00", "+1:00", "01:60", "01:00:60", "aa:bb", "", "25:00"] {
        let wrong = spec("UTC", ("2026-05-01", "2026-05-01"), (time, "24:00"));
        assert_eq!(Schedule::compile(&wrong).unwrap_err()[0].field, "opens", "{time}");
    }
    let backwards = spec("UTC", ("2026-05-02", "2026-05-01"), ("10:00", "11:00"));
    assert_eq!(Schedule::compile(&backwards).unwrap_err()[0].field, "last_day");
}

#[test]
fn a_long_schedule_is_as_quick_as_a_short_one() {
    let schedule = compile(&spec("Europe/Berlin", ("1970-01-01", "2999-12-31"), ("13:00", "15:00")));
    assert!(matches!(schedule.phase(ms("2500-06-01T13:30:00+02:00")), Phase::Open { .. } | Phase::OutsideHours { .. }));
    assert_eq!(schedule.last_round().id.to_string(), "2999-12-31");
}

const ZONES: [&str; 12] = [
    "UTC",
    "Asia/Seoul",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "Europe/Lisbon",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Tehran",
    "Antarctica/Troll",
];

fn wall_time(seconds: u32) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

prop_compose! {
    fn any_spec()(
        zone in select(&ZONES[..]),
        start in 0_u64..9_000,
        length in 0_u64..400,
        opens_s in (0_u32..96).prop_map(|quarter| quarter * 900),
        closes_s in (0_u32..=96).prop_map(|quarter| quarter * 900),
        days in proptest::option::of(proptest::collection::vec(
            select(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"][..]), 1..4)),
    ) -> ScheduleSpec {
        let first = NaiveDate::from_ymd_opt(2008, 1, 1).unwrap() + Days::new(start);
        ScheduleSpec {
            timezone: zone.into(),
            first_day: first.to_string(),
            last_day: (first + Days::new(length)).to_string(),
            opens: wall_time(opens_s),
            closes: wall_time(closes_s),
            weekdays: days.map(|days| days.into_iter().map(String::from).collect()),
        }
    }
}

proptest! {
    #[test]
    fn rounds_never_overlap_and_have_length(spec in any_spec()) {
        let Ok(schedule) = Schedule::compile(&spec) else { return Ok(()) };
        let rounds = rounds(&schedule);
        prop_assert_eq!(rounds.last().copied(), Some(schedule.last_round()));
        for round in &rounds {
            prop_assert!(round.opens < round.closes, "{:?}", round);
        }
        for pair in rounds.windows(2) {
            prop_assert!(pair[0].closes <= pair[1].opens, "{:?}", pair);
            prop_assert!(pair[0].id < pair[1].id);
        }
    }

    #[test]
    fn each_instant_has_the_phase_that_a_scan_of_all_rounds_gives(spec in any_spec(), picks: Vec<(prop::sample::Index, i64)>) {
        let Ok(schedule) = Schedule::compile(&spec) else { return Ok(()) };
        let rounds = rounds(&schedule);
        let edges: Vec<i64> = rounds.iter().flat_map(|round| [round.opens_ms(), round.closes_ms()]).collect();
        for (pick, shift) in picks {
            let edge = *pick.get(&edges);
            for now_ms in [edge - 1, edge, edge + 1, edge + shift % (3 * 86_400_000)] {
                let open: Vec<_> = rounds.iter().filter(|round| round.contains(now_ms)).collect();
                let next = rounds.iter().find(|round| round.opens_ms() > now_ms);
                prop_assert!(open.len() <= 1);
                let phase = schedule.phase(now_ms);
                let expected = match (open.first(), next) {
                    (Some(round), _) => Phase::Open { round: **round },
                    (None, Some(next)) if next.id == rounds[0].id => Phase::NotStarted { next: *next },
                    (None, Some(next)) => Phase::OutsideHours { next: *next },
                    (None, None) => Phase::Ended { last: *rounds.last().unwrap() },
                };
                prop_assert_eq!(phase, expected);
                if let Phase::NotStarted { next } | Phase::OutsideHours { next } = phase {
                    prop_assert!(next.opens_ms() > now_ms);
                }
                // The edge compares a timetable where the backend asks the schedule: the two must agree, also when
                // the timetable was made some time ago.
                for age_ms in [0, 250, 3_600_000] {
                    if let Some(told) = schedule.timetable(now_ms - age_ms).phase(now_ms) {
                        prop_assert_eq!(told, phase);
                    }
                }
                prop_assert!(schedule.timetable(now_ms).phase(now_ms).is_some());
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(texts: [String; 6]) {
        let [timezone, first_day, last_day, opens, closes, weekday] = texts;
        let _ = Schedule::compile(&ScheduleSpec {
            timezone, first_day, last_day, opens, closes, weekdays: Some(vec![weekday]),
        });
    }
}
