use doorbuster_domain::id::CampaignId;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_777_600_000_000;

fn round(day: &str) -> RoundId {
    day.parse().unwrap()
}

fn terms(version: u64, quota: Option<u64>) -> Terms {
    Terms { tag: 7, version, quota, round: round("2026-05-01"), synced: true }
}

fn clockwork() -> Clockwork {
    Clockwork::new(&CreditRule::default())
}

fn told(outcome: Outcome, issued: u64, quota: u64, version: u64) -> Ending {
    Ending::Told(Notice {
        outcome,
        campaign: CampaignId::parse("spring").unwrap(),
        round: Some(round("2026-05-01")),
        issued,
        quota: Some(quota),
        version,
    })
}

fn grant(ledger: &mut Ledger, terms: &Terms, now_ms: i64) -> Permit {
    match ledger.admit(terms, &clockwork(), now_ms) {
        Admission::Granted(permit) => permit,
        refused => panic!("{refused:?}"),
    }
}

fn settle(ledger: &mut Ledger, permit: &Permit, ending: &Ending, now_ms: i64) -> bool {
    ledger.settle(permit, ending, &[round("2026-05-01"), round("2026-05-02")], &clockwork(), now_ms, true)
}

#[test]
fn as_many_are_admitted_as_coupons_remain() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(3));
    let permits: Vec<_> = (0..3).map(|_| grant(&mut ledger, &terms, NOW)).collect();
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy);
    // One is issued: its credit is free, but a coupon is gone as well.
    assert!(settle(&mut ledger, &permits[0], &told(Outcome::Issued, 1, 3, 1), NOW));
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy);
    // One turns out to be a repeat: its coupon is still there.
    assert!(settle(&mut ledger, &permits[1], &told(Outcome::AlreadyIssued, 1, 3, 1), NOW));
    grant(&mut ledger, &terms, NOW);
}

#[test]
fn the_last_coupon_latches_and_a_newer_version_lifts() {
    let mut ledger = Ledger::new(7);
    let permit = grant(&mut ledger, &terms(1, Some(1)), NOW);
    settle(&mut ledger, &permit, &told(Outcome::Issued, 1, 1, 1), NOW);
    assert_eq!(ledger.admit(&terms(1, Some(1)), &clockwork(), NOW), Admission::SoldOut);
    assert!(matches!(ledger.admit(&terms(2, Some(2)), &clockwork(), NOW), Admission::Granted(_)));
}

#[test]
fn an_older_notice_and_another_round_change_nothing() {
    let mut ledger = Ledger::new(7);
    let terms = terms(5, Some(10));
    for ending in [
        told(Outcome::SoldOut, 10, 10, 4),
        Ending::Told(Notice {
            outcome: Outcome::SoldOut,
            campaign: CampaignId::parse("spring").unwrap(),
            round: Some(round("2026-04-30")),
            issued: 10,
            quota: Some(10),
            version: 5,
        }),
    ] {
        let permit = grant(&mut ledger, &terms, NOW);
        assert!(settle(&mut ledger, &permit, &ending, NOW));
        assert!(!ledger.sold_out);
        assert_eq!(ledger.issued, 0);
    }
}

#[test]
fn a_limit_that_an_operator_has_lifted_is_gone_with_the_first_notice_of_it() {
    let mut ledger = Ledger::new(7);
    let limited = terms(1, Some(3));
    for issued in 1..=2 {
        let permit = grant(&mut ledger, &limited, NOW);
        settle(&mut ledger, &permit, &told(Outcome::Issued, issued, 3, 1), NOW);
    }
    let permit = grant(&mut ledger, &limited, NOW);
    let Ending::Told(notice) = told(Outcome::Issued, 3, 3, 2) else { unreachable!() };
    settle(&mut ledger, &permit, &Ending::Told(Notice { quota: None, ..notice }), NOW);
    assert!(!ledger.sold_out);
    // The worker that has not heard of the change yet, and the one that has.
    grant(&mut ledger, &limited, NOW);
    grant(&mut ledger, &terms(2, None), NOW);
}

#[test]
fn a_newer_schedule_may_go_back_to_an_earlier_round() {
    let earlier = Terms { round: round("2026-04-30"), ..terms(2, Some(1)) };
    let sold_out = || {
        let mut ledger = Ledger::new(7);
        let permit = grant(&mut ledger, &terms(1, Some(1)), NOW);
        settle(&mut ledger, &permit, &told(Outcome::Issued, 1, 1, 1), NOW);
        assert_eq!(ledger.admit(&terms(1, Some(1)), &clockwork(), NOW), Admission::SoldOut);
        ledger
    };
    // Heard by a sync or by a worker's new snapshot,
    grant(&mut sold_out(), &earlier, NOW);
    let mut ledger = sold_out();
    ledger.answer(&earlier, 0, 0, 1);
    grant(&mut ledger, &earlier, NOW);
    // or from the origin itself.
    let mut ledger = sold_out();
    let probe = ledger.probe(&terms(1, Some(1)), &clockwork(), NOW).unwrap();
    let Ending::Told(notice) = told(Outcome::Refused, 0, 1, 2) else { unreachable!() };
    settle(&mut ledger, &probe, &Ending::Told(Notice { round: Some(earlier.round), ..notice }), NOW);
    assert_eq!((ledger.round, ledger.issued, ledger.sold_out), (Some(earlier.round), 0, false));
    // A worker that still has the old snapshot takes nothing back.
    ledger.align(&terms(1, Some(1)));
    assert_eq!(ledger.round, Some(earlier.round));
}

#[test]
fn rounds_of_a_written_campaign_go_on_whatever_version_its_origin_has_reached() {
    let written = Terms { synced: false, ..terms(0, Some(1)) };
    let mut ledger = Ledger::new(7);
    let permit = grant(&mut ledger, &written, NOW);
    settle(&mut ledger, &permit, &told(Outcome::Issued, 1, 1, 9), NOW);
    assert_eq!(ledger.admit(&written, &clockwork(), NOW), Admission::SoldOut);
    grant(&mut ledger, &Terms { round: round("2026-05-02"), ..written }, NOW);
}

#[test]
fn a_failure_keeps_its_credit_for_a_while() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(1));
    let permit = grant(&mut ledger, &terms, NOW);
    assert!(settle(&mut ledger, &permit, &Ending::Silent, NOW));
    for wait_ms in [0, 100, 499] {
        assert_eq!(ledger.admit(&terms, &clockwork(), NOW + wait_ms), Admission::Busy, "{wait_ms}");
    }
    grant(&mut ledger, &terms, NOW + 750);
}

#[test]
fn a_credit_that_nobody_settles_heals_and_is_not_given_back_twice() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(1));
    let lost = grant(&mut ledger, &terms, NOW);
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW + 9_999), Admission::Busy);
    let later = NOW + 11_000;
    let second = grant(&mut ledger, &terms, later);
    assert!(!settle(&mut ledger, &lost, &Ending::Silent, later), "its slot was dropped or reused");
    assert_eq!(ledger.in_flight(&clockwork(), later), 1);
    assert!(settle(&mut ledger, &second, &told(Outcome::Refused, 0, 1, 1), later));
}

#[test]
fn pending_keeps_its_credit_until_the_answer_to_a_later_sync() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(1));
    let permit = grant(&mut ledger, &terms, NOW);
    ledger.ask(&clockwork(), NOW);
    settle(&mut ledger, &permit, &told(Outcome::Pending, 0, 1, 1), NOW);
    ledger.answer(&terms, 0, 1, 1);
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy, "that sync was sent before");
    ledger.ask(&clockwork(), NOW);
    ledger.answer(&terms, 0, 1, 1);
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy, "the place is still reserved");
    ledger.ask(&clockwork(), NOW);
    ledger.answer(&terms, 0, 0, 1);
    grant(&mut ledger, &terms, NOW);
}

#[test]
fn gateways_share_what_remains_and_one_always_gets_through() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(10));
    ledger.answer(&terms, 0, 0, 3);
    for _ in 0..4 {
        grant(&mut ledger, &terms, NOW);
    }
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy);
    let mut last = Ledger::new(7);
    last.answer(&terms, 9, 9, 3);
    grant(&mut last, &terms, NOW);
    assert_eq!(last.admit(&terms, &clockwork(), NOW), Admission::Busy);
}

#[test]
fn places_reserved_through_other_gateways_are_not_asked_for() {
    let mut ledger = Ledger::new(7);
    let terms = terms(1, Some(3));
    grant(&mut ledger, &terms, NOW);
    ledger.ask(&clockwork(), NOW);
    // Our own one is among the three reserved.
    ledger.answer(&terms, 0, 3, 1);
    assert_eq!(ledger.admit(&terms, &clockwork(), NOW), Admission::Busy);
    assert!(!ledger.sold_out, "reserved is not sold");
}

#[test]
fn one_probe_a_second_passes_the_latch_and_only_its_answer_lifts_it() {
    let mut ledger = Ledger::new(7);
    let terms = terms(0, Some(1));
    let permit = grant(&mut ledger, &terms, NOW);
    settle(&mut ledger, &permit, &told(Outcome::SoldOut, 1, 1, 0), NOW);
    let probe = ledger.probe(&terms, &clockwork(), NOW).unwrap();
    assert_eq!(ledger.probe(&terms, &clockwork(), NOW + 999), None);
    settle(&mut ledger, &probe, &told(Outcome::Issued, 2, 5, 0), NOW);
    assert!(!ledger.sold_out);
    assert_eq!((ledger.quota, ledger.issued), (Some(5), 2));
    let probe = ledger.probe(&terms, &clockwork(), NOW + 1_000).unwrap();
    settle(&mut ledger, &probe, &told(Outcome::SoldOut, 5, 5, 0), NOW);
    assert!(ledger.sold_out);
}

#[test]
fn a_boundary_admits_its_cap_and_the_new_round_s_first_answer_begins_it() {
    let mut ledger = Ledger::new(7);
    ledger.align(&terms(1, Some(2)));
    ledger.sold_out = true;
    let mut permits = Vec::new();
    while let Admission::Granted(permit) = ledger.admit_unclear(7, NOW, 4, &clockwork(), NOW) {
        permits.push(permit);
    }
    assert_eq!(permits.len(), 4);
    let notice = Notice {
        outcome: Outcome::Issued,
        campaign: CampaignId::parse("spring").unwrap(),
        round: Some(round("2026-05-02")),
        issued: 1,
        quota: Some(2),
        version: 1,
    };
    settle(&mut ledger, &permits[0], &Ending::Told(notice), NOW);
    assert_eq!((ledger.round, ledger.issued, ledger.sold_out), (Some(round("2026-05-02")), 1, false));
}

#[test]
fn no_quota_needs_no_credits() {
    let mut ledger = Ledger::new(7);
    for _ in 0..10_000 {
        grant(&mut ledger, &terms(1, None), NOW);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    Settle(prop::sample::Index, u8),
    Lose(prop::sample::Index),
    Wait(u16),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Admit),
        4 => (any::<prop::sample::Index>(), 0_u8..6).prop_map(|(which, how)| Step::Settle(which, how)),
        1 => any::<prop::sample::Index>().prop_map(Step::Lose),
        1 => (0_u16..2_000).prop_map(Step::Wait),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    /// Whatever happens, no more requests are with the origin than coupons remained when the last one was admitted,
    /// and once everything is settled or aged, the account is empty.
    #[test]
    fn requests_with_the_origin_never_exceed_what_remains(quota in 1_u64..20, steps in prop::collection::vec(step(), 1..200)) {
        let clockwork = clockwork();
        let terms = terms(1, Some(quota));
        let mut ledger = Ledger::new(7);
        let (mut now_ms, mut issued) = (NOW, 0_u64);
        let mut out: Vec<(Permit, i64)> = Vec::new();
        for step in steps {
            match step {
                Step::Admit => {
                    if let Admission::Granted(permit) = ledger.admit(&terms, &clockwork, now_ms) {
                        out.push((permit, now_ms));
                        prop_assert!(out.len() as u64 <= quota - issued.min(quota), "{} out, {issued} issued", out.len());
                    }
                }
                Step::Settle(which, how) if !out.is_empty() => {
                    let (permit, _) = out.swap_remove(which.index(out.len()));
                    let ending = match how {
                        0 | 1 if issued < quota => { issued += 1; told(Outcome::Issued, issued, quota, 1) }
                        0 | 1 => told(Outcome::SoldOut, issued, quota, 1),
                        2 => told(Outcome::AlreadyIssued, issued, quota, 1),
                        3 => told(Outcome::Pending, issued, quota, 1),
                        4 => told(Outcome::Refused, issued, quota, 1),
                        _ => Ending::Silent,
                    };
                    prop_assert!(settle(&mut ledger, &permit, &ending, now_ms));
                }
                Step::Lose(which) if !out.is_empty() => { out.swap_remove(which.index(out.len())); }
                Step::Settle(..) | Step::Lose(_) => {}
                Step::Wait(ms) => {
                    now_ms += i64::from(ms);
                    // No request outlives the time to live.
                    out.retain(|(_, since)| now_ms - since < 5_000);
                }
                Step::Sync => {
                    ledger.ask(&clockwork, now_ms);
                    ledger.answer(&terms, issued, issued, 1);
                }
            }
        }
        now_ms += 20_000;
        ledger.ask(&clockwork, now_ms);
        ledger.answer(&terms, issued, issued, 1);
        prop_assert_eq!(ledger.in_flight(&clockwork, now_ms), 0);
        prop_assert_eq!(ledger.sold_out, issued == quota);
        prop_assert_eq!(matches!(ledger.admit(&terms, &clockwork, now_ms), Admission::Granted(_)), issued < quota);
    }
}
