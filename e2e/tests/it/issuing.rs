//! The main job: a win, a refusal, and never one coupon too many.

use std::collections::BTreeSet;
use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;

use crate::support::eventually;

/// A machine that is busy gets more time than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_win_is_committed_and_the_second_try_is_refused() {
    let stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();

    let win = stack.issue("spring", "alice").unwrap();
    let rows = || stack.sql("SELECT user_id, number, code FROM public.issued_coupons").unwrap();
    let code = match win.status {
        201 => {
            assert_eq!(win.json()["coupon"]["number"], 1);
            assert_eq!(rows().len(), 1, "201 means committed");
            win.json()["coupon"]["code"].clone()
        }
        // PostgreSQL did not answer in time: a busy machine.
        202 => win.json()["code"].clone(),
        other => panic!("{other}: {}", win.body),
    };
    eventually(PATIENCE, "committed", || rows() == [["alice", "1", code.as_str().unwrap()]]);
    eventually(PATIENCE, "refused", || stack.issue("spring", "alice").unwrap().code() == "already_issued");
}

#[test]
fn two_gateways_and_two_backends_give_out_exactly_the_quota() {
    const QUOTA: usize = 20;
    let stack = Stack::builder().gateways(2).backends(2).start().unwrap();
    stack.announce("spring", &open_all_day(QUOTA as u64)).unwrap();

    // Every user asks, at either gateway, until the answer is final.
    let winners: BTreeSet<String> = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..8)
            .map(|client| {
                let url = stack.url(client % 2);
                let users = (0..10).map(move |turn| format!("user-{client}-{turn}"));
                scope.spawn(move || users.filter(|user| wins(&url, user)).collect::<Vec<_>>())
            })
            .collect();
        crowd.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });

    let expected: Vec<Vec<String>> = (1..=QUOTA).map(|number| vec![number.to_string()]).collect();
    eventually(PATIENCE, "each number once", || {
        stack.sql("SELECT number FROM public.issued_coupons ORDER BY number").unwrap() == expected
    });
    let rows = stack.sql("SELECT DISTINCT user_id FROM public.issued_coupons").unwrap();
    let holders: BTreeSet<String> = rows.into_iter().flatten().collect();
    assert_eq!(holders.len(), QUOTA, "nobody twice");
    // Who heard 202 first may hear `sold_out` next, but has the coupon.
    assert!(winners.is_subset(&holders), "told of a coupon without one: {winners:?} {holders:?}");
}

fn wins(gateway: &str, user: &str) -> bool {
    let url = format!("{gateway}/v1/coupon/issue?campaign=spring");
    let mut won = false;
    eventually(PATIENCE, "a final answer", || {
        let reply = doorbuster_e2e::http::send("POST", &url, &[("x-user-id", user)], None).unwrap();
        match (reply.status, reply.code().as_str()) {
            (201, _) | (409, "already_issued") => won = true,
            (409, "sold_out") => won = false,
            (202, _) | (503, "busy" | "unavailable") => return false,
            other => panic!("{other:?}: {}", reply.body),
        }
        true
    });
    won
}
