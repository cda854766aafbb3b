//! Made-up rounds: a clean one, and one for each defect, which must be found and nothing else.

use super::*;
use crate::audit::Sighting;

/// Three coupons, one place pending, one number free; a quota of ten. Everything fits.
fn clean() -> Evidence {
    let row = |user: &str, number, code: &str| Row { user: user.into(), number, code: code.into() };
    Evidence {
        quota: Some(10),
        ledger: Ledger {
            coupons: vec![row("ann", 1, "A"), row("ben:1", 2, "B"), row("cat", 4, "C")],
            counted: Some(3),
            largest_quota: Some(10),
        },
        failed: 0,
        places: Some(Places {
            warm: true,
            next: 5,
            users: [("ann", "A"), ("ben:1", "B:2"), ("cat", "C"), ("dan", "D:5")]
                .map(|(user, entry)| (user.to_owned(), entry.to_owned()))
                .into(),
            // Ben's coupon is committed and not settled yet.
            pending: vec![("B:2:ben:1".into(), 0), ("D:5:dan".into(), 90_000)],
            free: vec![3],
        }),
        now_ms: 95_000,
        edge: [("admitted", 6), ("busy", 2)].map(|(name, count)| (name.to_owned(), count)).into(),
        seen: vec![sighting("ann", Some("A")), sighting("cat", None)],
    }
}

fn sighting(user: &str, code: Option<&str>) -> Sighting {
    Sighting { user: user.into(), code: code.map(Into::into) }
}

/// What is found once one thing is changed.
fn after(change: impl FnOnce(&mut Evidence, &mut Places)) -> Vec<Defect> {
    let mut evidence = clean();
    let mut places = evidence.places.take().unwrap();
    change(&mut evidence, &mut places);
    evidence.places = Some(places);
    judge(&evidence).defects
}

#[test]
fn a_clean_round_adds_up() {
    let report = judge(&clean());
    assert_eq!(report.defects, []);
    assert_eq!(report.unknown, Vec::<String>::new());
    let sums = Sums {
        requests: 8,
        refused_by_gateways: [("busy".to_owned(), 2)].into(),
        admitted: 6,
        issued: 3,
        failed: 0,
        pending: Some(1),
        refused_or_lost: Some(2),
        committed_in_redis: Some(2),
        unsettled: 1,
        highest_number: 5,
        free: 1,
        seen: 2,
    };
    assert_eq!(report.sums, sums);
}

#[test]
fn a_round_that_never_was_is_clean() {
    assert_eq!(judge(&Evidence::default()).defects, []);
}

#[test]
fn too_many_coupons() {
    let found = after(|evidence, _| evidence.ledger.largest_quota = Some(2));
    let outside = Defect::NumberOutside { user: "cat".into(), code: "C".into(), number: 4 };
    assert_eq!(found, [Defect::OverIssued { issued: 3, largest_quota: 2 }, outside]);
}

#[test]
fn a_user_with_two_coupons() {
    let found = after(|evidence, places| {
        evidence.ledger.coupons[2].user = "ann".into();
        places.users.remove("cat");
        evidence.seen.clear();
    });
    assert!(
        found.contains(&Defect::UserTwice { user: "ann".into(), codes: vec!["A".into(), "C".into()] }),
        "{found:?}"
    );
}

#[test]
fn a_number_on_two_coupons_and_one_that_is_none() {
    let found = after(|evidence, places| {
        evidence.ledger.coupons[1].number = 1;
        places.free.push(2);
    });
    assert_eq!(found, [Defect::NumberTwice { number: 1, codes: vec!["A".into(), "B".into()] }]);
    let found = after(|evidence, places| {
        evidence.ledger.coupons[0].number = 0;
        places.free.push(1);
    });
    assert_eq!(found, [Defect::NumberOutside { user: "ann".into(), code: "A".into(), number: 0 }]);
}

#[test]
fn a_counter_that_is_off() {
    let found = after(|evidence, _| evidence.ledger.counted = Some(4));
    assert_eq!(found, [Defect::Miscounted { counted: 4, rows: 3 }]);
    let found = after(|evidence, _| evidence.ledger.counted = None);
    assert_eq!(found, [Defect::Miscounted { counted: 0, rows: 3 }]);
}

#[test]
fn numbers_that_nobody_will_ever_have() {
    let found = after(|_, places| places.free.clear());
    assert_eq!(found, [Defect::NumbersLost { from: 3, to: 3 }]);
    let found = after(|_, places| places.next = 8);
    assert_eq!(found, [Defect::NumbersLost { from: 6, to: 8 }]);
}

#[test]
fn a_number_that_would_be_given_twice() {
    let found = after(|_, places| places.free.push(1));
    assert_eq!(found, [Defect::FreeAndTaken { number: 1, code: "A".into() }]);
    let found = after(|_, places| places.free.push(5));
    assert_eq!(found, [Defect::FreeAndTaken { number: 5, code: "D".into() }]);
    let found = after(|_, places| {
        places.next = 3;
        places.pending.remove(1);
        places.users.remove("dan");
    });
    assert_eq!(found, [Defect::Behind { next: 3, highest: 4 }]);
}

#[test]
fn a_number_held_twice() {
    let found = after(|_, places| {
        places.pending.push(("E:5:eve".into(), 90_000));
        places.users.insert("eve".into(), "E:5".into());
    });
    assert_eq!(found, [Defect::HeldTwice { number: 5, codes: vec!["D".into(), "E".into()] }]);
    let found = after(|_, places| {
        places.pending.push(("E:1:eve".into(), 90_000));
        places.users.insert("eve".into(), "E:1".into());
    });
    assert_eq!(found, [Defect::HeldTwice { number: 1, codes: vec!["E".into(), "A".into()] }]);
}

#[test]
fn a_user_called_served_without_a_row() {
    let lost = |code: &str| Defect::CommittedWithoutRow { user: "eve".into(), code: code.into() };
    let found = after(|_, places| {
        places.users.insert("eve".into(), "E".into());
    });
    assert_eq!(found, [lost("E")]);
    // With another coupon than the one there is.
    let found = after(|_, places| {
        places.users.insert("ann".into(), "Z".into());
    });
    assert_eq!(found, [Defect::CommittedWithoutRow { user: "ann".into(), code: "Z".into() }]);
}

#[test]
fn a_row_that_redis_does_not_know() {
    let unknown =
        |held: Option<&str>| Defect::RowNotInRedis { user: "ann".into(), code: "A".into(), held: held.map(Into::into) };
    let found = after(|_, places| {
        places.users.remove("ann");
    });
    assert_eq!(found, [unknown(None)]);
    let found = after(|_, places| {
        places.users.insert("ann".into(), "Z:6".into());
        places.pending.push(("Z:6:ann".into(), 90_000));
        places.next = 6;
    });
    assert_eq!(found, [unknown(Some("Z:6"))]);
}

#[test]
fn a_place_in_one_of_two_keys() {
    let half = || Defect::HalfHeld { user: "dan".into(), place: "D:5".into() };
    let found = after(|_, places| {
        places.users.remove("dan");
    });
    assert_eq!(found, [half()]);
    let found = after(|_, places| {
        places.pending.remove(1);
        places.free.push(5);
    });
    assert_eq!(found, [half()]);
}

#[test]
fn a_place_pending_for_too_long() {
    let found = after(|evidence, _| evidence.now_ms = 100_001);
    assert_eq!(found, [Defect::Stuck { user: "dan".into(), code: "D".into(), number: 5, since_ms: 90_000 }]);
}

#[test]
fn what_nobody_can_read() {
    let found = after(|_, places| places.pending.push(("D:five:dan".into(), 0)));
    assert!(found.contains(&Defect::Unreadable { user: "a pending place".into(), text: "D:five:dan".into() }));
    let found = after(|_, places| {
        places.users.insert("eve".into(), "E:".into());
    });
    assert_eq!(found, [Defect::Unreadable { user: "eve".into(), text: "E:".into() }]);
}

#[test]
fn a_coupon_seen_that_is_not_there_or_somebody_elses() {
    let found = after(|evidence, _| {
        evidence.seen = vec![
            sighting("ann", Some("Z")),
            sighting("dan", None),
            sighting("dan", Some("D")),
            sighting("eve", Some("A")),
        ];
    });
    let without =
        |user: &str, code: Option<&str>| Defect::SeenWithoutRow { user: user.into(), code: code.map(Into::into) };
    let mut expected = vec![
        without("ann", Some("Z")),
        without("dan", None),
        without("dan", Some("D")),
        Defect::SeenByAnother { user: "eve".into(), code: "A".into(), owner: "ann".into() },
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn sums_that_cannot_be_and_sums_that_are_not_known() {
    let mut evidence = clean();
    evidence.ledger = Ledger { counted: Some(0), largest_quota: Some(10), ..Ledger::default() };
    evidence.places = None;
    evidence.seen.clear();
    evidence.edge.insert("already_issued".into(), 3);
    let report = judge(&evidence);
    assert!(matches!(report.defects.as_slice(), [Defect::Impossible { .. }]), "{report:?}");

    // Fewer admissions than coupons: a gateway was killed before it told of them. Nothing is wrong with that.
    let mut evidence = clean();
    evidence.edge = [("admitted".to_owned(), 1), ("sold_out".to_owned(), 5)].into();
    let report = judge(&evidence);
    assert_eq!((report.defects, report.sums.refused_or_lost), (vec![], None));
    assert!(report.unknown[0].starts_with("at least 3 admissions were never told of"), "{:?}", report.unknown);
    assert!(report.unknown[1].contains("7 coupons are left"), "{:?}", report.unknown);
}

#[test]
fn without_redis_or_with_a_cold_round_only_rows_are_judged() {
    let mut evidence = clean();
    evidence.places = None;
    let report = judge(&evidence);
    assert_eq!((report.defects, report.unknown.len(), report.sums.pending), (vec![], 1, None));
    let found = after(|_, places| {
        places.warm = false;
        places.users.clear();
        places.next = 0;
    });
    assert_eq!(found, []);
}
