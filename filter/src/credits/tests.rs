use doorbuster_domain::id::CampaignId;
use proptest::prelude::*;

use super::*;
use crate::config::CreditRule;

const NOW: i64 = 1_777_600_000_000;
/// A sync's number.
const SYNC: u64 = 1;

fn round(day: &str) -> RoundId {
    day.parse().unwrap()
}

fn terms(version: u64, quota: Option<u64>) -> Terms {
    Terms { tag: 7, version, quota, round: round("2026-05-01"), synced: true }
}

/// A user who has not asked before.
fn anyone() -> UserMark {
    use std::sync::atomic::{AtomicU32, Ordering};
    static USERS: AtomicU32 = AtomicU32::new(0);
    UserMark(USERS.fetch_add(1, Ordering::Relaxed))
}

fn layout() -> SlotLayout {
    SlotLayout::new(&CreditRule::default())
}

fn told(outcome: Outcome, issued: u64, quota: u64, version: u64) -> Ending {
    Ending::Told(Notice {
        outcome,
        campaign: CampaignId::parse("spring").unwrap(),
        round: Some(round("2026-05-01")),
        issued,
        quota: Some(quota),
        version,
        hold: true,
    })
}

fn grant(account: &mut CreditAccount, terms: &Terms, now_ms: i64) -> Permit {
    grant_to(account, terms, anyone(), now_ms)
}

fn grant_to(account: &mut CreditAccount, terms: &Terms, user: UserMark, now_ms: i64) -> Permit {
    match account.admit(terms, user, &layout(), now_ms) {
        Admission::Granted(permit) => permit,
        refused => panic!("{refused:?}"),
    }
}

fn settle(account: &mut CreditAccount, permit: &Permit, ending: &Ending, now_ms: i64) -> bool {
    account.settle(permit, ending, &[round("2026-05-01"), round("2026-05-02")], &layout(), now_ms, true)
}

#[test]
fn as_many_are_admitted_as_coupons_remain() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(3));
    let permits: Vec<_> = (0..3).map(|_| grant(&mut account, &terms, NOW)).collect();
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW), Admission::Busy);
    // One is issued: its credit is free, but a coupon is gone as well.
    assert!(settle(&mut account, &permits[0], &told(Outcome::Issued, 1, 3, 1), NOW));
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW), Admission::Busy);
    // One turns out to be a repeat: its coupon is still there.
    assert!(settle(&mut account, &permits[1], &told(Outcome::AlreadyIssued, 1, 3, 1), NOW));
    grant(&mut account, &terms, NOW);
}

#[test]
fn the_last_coupon_latches_and_a_newer_version_lifts() {
    let mut account = CreditAccount::new(7);
    let permit = grant(&mut account, &terms(1, Some(1)), NOW);
    settle(&mut account, &permit, &told(Outcome::Issued, 1, 1, 1), NOW);
    assert_eq!(account.admit(&terms(1, Some(1)), anyone(), &layout(), NOW), Admission::SoldOut);
    assert!(matches!(account.admit(&terms(2, Some(2)), anyone(), &layout(), NOW), Admission::Granted(_)));
}

#[test]
fn an_older_notice_and_another_round_change_nothing() {
    let mut account = CreditAccount::new(7);
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
            hold: true,
        }),
    ] {
        let permit = grant(&mut account, &terms, NOW);
        assert!(settle(&mut account, &permit, &ending, NOW));
        assert!(!account.sold_out);
        assert_eq!(account.issued, 0);
    }
}

#[test]
fn a_limit_that_an_operator_has_lifted_is_gone_with_the_first_notice_of_it() {
    let mut account = CreditAccount::new(7);
    let limited = terms(1, Some(3));
    for issued in 1..=2 {
        let permit = grant(&mut account, &limited, NOW);
        settle(&mut account, &permit, &told(Outcome::Issued, issued, 3, 1), NOW);
    }
    let permit = grant(&mut account, &limited, NOW);
    let Ending::Told(notice) = told(Outcome::Issued, 3, 3, 2) else { unreachable!() };
    settle(&mut account, &permit, &Ending::Told(Notice { quota: None, ..notice }), NOW);
    assert!(!account.sold_out);
    // The worker that has not heard of the change yet, and the one that has.
    grant(&mut account, &limited, NOW);
    grant(&mut account, &terms(2, None), NOW);
}

#[test]
fn a_newer_schedule_may_go_back_to_an_earlier_round() {
    let earlier = Terms { round: round("2026-04-30"), ..terms(2, Some(1)) };
    let sold_out = || {
        let mut account = CreditAccount::new(7);
        let permit = grant(&mut account, &terms(1, Some(1)), NOW);
        settle(&mut account, &permit, &told(Outcome::Issued, 1, 1, 1), NOW);
        assert_eq!(account.admit(&terms(1, Some(1)), anyone(), &layout(), NOW), Admission::SoldOut);
        account
    };
    // Heard by a sync or by a worker's new snapshot,
    grant(&mut sold_out(), &earlier, NOW);
    let mut account = sold_out();
    account.answer(SYNC, &earlier, 0, 0, 1);
    grant(&mut account, &earlier, NOW);
    // or from the origin itself.
    let mut account = sold_out();
    let probe = account.probe(&terms(1, Some(1)), anyone(), &layout(), NOW).unwrap();
    let Ending::Told(notice) = told(Outcome::Refused, 0, 1, 2) else { unreachable!() };
    settle(&mut account, &probe, &Ending::Told(Notice { round: Some(earlier.round), ..notice }), NOW);
    assert_eq!((account.round, account.issued, account.sold_out), (Some(earlier.round), 0, false));
    // A worker that still has the old snapshot takes nothing back.
    account.align(&terms(1, Some(1)));
    assert_eq!(account.round, Some(earlier.round));
}

#[test]
fn rounds_of_a_written_campaign_go_on_whatever_version_its_origin_has_reached() {
    let written = Terms { synced: false, ..terms(0, Some(1)) };
    let mut account = CreditAccount::new(7);
    let permit = grant(&mut account, &written, NOW);
    settle(&mut account, &permit, &told(Outcome::Issued, 1, 1, 9), NOW);
    assert_eq!(account.admit(&written, anyone(), &layout(), NOW), Admission::SoldOut);
    grant(&mut account, &Terms { round: round("2026-05-02"), ..written }, NOW);
}

#[test]
fn a_failure_keeps_its_credit_for_a_while() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(1));
    let permit = grant(&mut account, &terms, NOW);
    assert!(settle(&mut account, &permit, &Ending::Silent, NOW));
    for wait_ms in [0, 100, 499] {
        assert_eq!(account.admit(&terms, anyone(), &layout(), NOW + wait_ms), Admission::Busy, "{wait_ms}");
    }
    grant(&mut account, &terms, NOW + 750);
}

#[test]
fn a_credit_that_nobody_settles_heals_and_is_not_given_back_twice() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(1));
    let lost = grant(&mut account, &terms, NOW);
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW + 9_999), Admission::Busy);
    let later = NOW + 11_000;
    let second = grant(&mut account, &terms, later);
    assert!(!settle(&mut account, &lost, &Ending::Silent, later), "its slot was dropped or reused");
    assert_eq!(account.in_flight(&layout(), later), 1);
    assert!(settle(&mut account, &second, &told(Outcome::Refused, 0, 1, 1), later));
}

#[test]
fn pending_keeps_its_credit_until_the_answer_to_a_later_sync() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(1));
    let permit = grant(&mut account, &terms, NOW);
    account.ask(1, &layout(), NOW);
    settle(&mut account, &permit, &told(Outcome::Pending, 0, 1, 1), NOW);
    account.ask(2, &layout(), NOW);
    account.answer(1, &terms, 0, 1, 1);
    assert_eq!(account.in_flight(&layout(), NOW), 1, "that sync was sent before");
    account.answer(2, &terms, 0, 1, 1);
    assert_eq!(account.in_flight(&layout(), NOW), 0);
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW), Admission::Busy, "the place is still reserved");
    account.ask(3, &layout(), NOW);
    account.answer(3, &terms, 0, 0, 1);
    grant(&mut account, &terms, NOW);
}

#[test]
fn each_answer_is_compared_with_what_was_held_when_its_sync_was_sent() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(10));
    account.ask(1, &layout(), NOW);
    grant(&mut account, &terms, NOW);
    account.ask(2, &layout(), NOW);
    // The first sync's answer counts a place of another gateway; the second one's also the one that was taken here.
    account.answer(1, &terms, 0, 1, 1);
    assert_eq!(account.reserved_by_others, 1);
    account.answer(2, &terms, 0, 2, 1);
    assert_eq!(account.reserved_by_others, 1);
}

#[test]
fn gateways_share_what_remains_and_one_always_gets_through() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(10));
    account.answer(SYNC, &terms, 0, 0, 3);
    for _ in 0..4 {
        grant(&mut account, &terms, NOW);
    }
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW), Admission::Busy);
    let mut last = CreditAccount::new(7);
    last.answer(SYNC, &terms, 9, 9, 3);
    grant(&mut last, &terms, NOW);
    assert_eq!(last.admit(&terms, anyone(), &layout(), NOW), Admission::Busy);
}

#[test]
fn places_reserved_through_other_gateways_are_not_asked_for() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(3));
    grant(&mut account, &terms, NOW);
    account.ask(SYNC, &layout(), NOW);
    // Our own one is among the three reserved.
    account.answer(SYNC, &terms, 0, 3, 1);
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW), Admission::Busy);
    assert!(!account.sold_out, "reserved is not sold");
}

#[test]
fn one_probe_a_second_passes_the_latch_and_only_its_answer_lifts_it() {
    let mut account = CreditAccount::new(7);
    let terms = terms(0, Some(1));
    let permit = grant(&mut account, &terms, NOW);
    settle(&mut account, &permit, &told(Outcome::SoldOut, 1, 1, 0), NOW);
    let probe = account.probe(&terms, anyone(), &layout(), NOW).unwrap();
    assert_eq!(account.probe(&terms, anyone(), &layout(), NOW + 999), None);
    settle(&mut account, &probe, &told(Outcome::Issued, 2, 5, 0), NOW);
    assert!(!account.sold_out);
    assert_eq!((account.quota, account.issued), (Some(5), 2));
    let probe = account.probe(&terms, anyone(), &layout(), NOW + 1_000).unwrap();
    settle(&mut account, &probe, &told(Outcome::SoldOut, 5, 5, 0), NOW);
    assert!(account.sold_out);
}

#[test]
fn a_boundary_admits_its_cap_and_the_new_round_s_first_answer_begins_it() {
    let mut account = CreditAccount::new(7);
    account.align(&terms(1, Some(2)));
    account.sold_out = true;
    let mut permits = Vec::new();
    while let Admission::Granted(permit) = account.admit_unclear(7, NOW, 4, anyone(), &layout(), NOW) {
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
        hold: true,
    };
    settle(&mut account, &permits[0], &Ending::Told(notice), NOW);
    assert_eq!((account.round, account.issued, account.sold_out), (Some(round("2026-05-02")), 1, false));
}

#[test]
fn client_that_resets_holds_one_credit_and_only_briefly() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(2));
    let user = anyone();
    let permit = grant_to(&mut account, &terms, user, NOW);
    assert_eq!(account.admit(&terms, user, &layout(), NOW), Admission::Busy, "one request in flight per user");
    assert!(settle(&mut account, &permit, &Ending::Abandoned, NOW));
    assert_eq!(account.admit(&terms, user, &layout(), NOW + 61), Admission::Busy, "the origin may be at work on it");
    assert_eq!(account.in_flight(&layout(), NOW + 61), 1);
    assert_eq!(account.in_flight(&layout(), NOW + 200), 0);
    assert!(matches!(account.admit(&terms, user, &layout(), NOW + 200), Admission::Granted(_)));
}

#[test]
fn answer_frees_its_user_and_a_failure_keeps_it() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(5));
    let user = anyone();
    for (ending, asks_again) in [
        (told(Outcome::AlreadyIssued, 1, 5, 1), true),
        (told(Outcome::Refused, 1, 5, 1), false),
        (told(Outcome::Pending, 1, 5, 1), false),
        (Ending::Silent, false),
    ] {
        let mut account = account.clone();
        let permit = grant_to(&mut account, &terms, user, NOW);
        settle(&mut account, &permit, &ending, NOW);
        let again = account.admit(&terms, user, &layout(), NOW);
        assert_eq!(matches!(again, Admission::Granted(_)), asks_again, "{ending:?}");
        if !asks_again {
            grant_to(&mut account, &terms, user, NOW + 1_000);
        }
    }
    assert!(account.probe(&terms, user, &layout(), NOW).is_some());
    assert_eq!(account.probe(&terms, user, &layout(), NOW + 1_000), None);
}

#[test]
fn refusal_that_took_nothing_holds_nothing() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(1));
    let permit = grant(&mut account, &terms, NOW);
    let Ending::Told(notice) = told(Outcome::Refused, 0, 1, 1) else { unreachable!() };
    settle(&mut account, &permit, &Ending::Told(Notice { hold: false, ..notice }), NOW);
    grant(&mut account, &terms, NOW);
}

#[test]
fn pending_credits_expire_without_a_sync() {
    let mut account = CreditAccount::new(7);
    let terms = terms(1, Some(2));
    for asked in [false, true] {
        let permit = grant(&mut account, &terms, NOW);
        settle(&mut account, &permit, &told(Outcome::Pending, 0, 2, 1), NOW);
        if asked {
            account.ask(SYNC, &layout(), NOW);
        }
    }
    assert_eq!(account.admit(&terms, anyone(), &layout(), NOW + 9_999), Admission::Busy);
    grant(&mut account, &terms, NOW + 10_000);
    grant(&mut account, &terms, NOW + 10_000);
}

#[test]
fn campaigns_without_known_terms_are_limited_at_once_and_per_second() {
    let mut account = CreditAccount::new(0);
    let limit = BlindLimit { at_once: 2, per_second: 5 };
    let mut admitted = 0;
    for ms in 0..1_000 {
        if let Admission::Granted(permit) = account.admit_blind(0, limit, anyone(), &layout(), NOW + ms) {
            admitted += 1;
            // An origin that answers at once.
            account.release(&permit, &told(Outcome::AlreadyIssued, 0, 1, 1), &layout(), NOW + ms, false);
        }
    }
    assert_eq!(admitted, 5);
    let next = NOW + 1_000;
    let granted =
        (0..5).filter(|_| matches!(account.admit_blind(0, limit, anyone(), &layout(), next), Admission::Granted(_)));
    assert_eq!(granted.count(), 2, "at once");
}

#[test]
fn no_quota_needs_no_credits() {
    let mut account = CreditAccount::new(7);
    for _ in 0..10_000 {
        grant(&mut account, &terms(1, None), NOW);
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
        let layout = layout();
        let terms = terms(1, Some(quota));
        let mut account = CreditAccount::new(7);
        let (mut now_ms, mut issued) = (NOW, 0_u64);
        let mut out: Vec<(Permit, i64)> = Vec::new();
        for step in steps {
            match step {
                Step::Admit => {
                    if let Admission::Granted(permit) = account.admit(&terms, anyone(), &layout, now_ms) {
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
                    prop_assert!(settle(&mut account, &permit, &ending, now_ms));
                }
                Step::Lose(which) if !out.is_empty() => { out.swap_remove(which.index(out.len())); }
                Step::Settle(..) | Step::Lose(_) => {}
                Step::Wait(ms) => {
                    now_ms += i64::from(ms);
                    // No request outlives the time to live.
                    out.retain(|(_, since)| now_ms - since < 5_000);
                }
                Step::Sync => {
                    account.ask(SYNC, &layout, now_ms);
                    account.answer(SYNC, &terms, issued, issued, 1);
                }
            }
        }
        now_ms += 20_000;
        account.ask(SYNC, &layout, now_ms);
        account.answer(SYNC, &terms, issued, issued, 1);
        prop_assert_eq!(account.in_flight(&layout, now_ms), 0);
        prop_assert_eq!(account.sold_out, issued == quota);
        prop_assert_eq!(matches!(account.admit(&terms, anyone(), &layout, now_ms), Admission::Granted(_)), issued < quota);
    }
}
