//! The main job: a win, a refusal, and never one coupon too many.

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;

#[test]
fn a_win_is_committed_and_the_second_try_is_refused() {
    let stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();

    let win = stack.issue("spring", "alice").unwrap();
    assert_eq!(win.status, 201, "{}", win.body);
    let coupon = win.json()["coupon"].clone();
    assert_eq!(coupon["number"], 1);
    let rows = stack.sql("SELECT user_id, number, code FROM public.issued_coupons").unwrap();
    assert_eq!(rows, [["alice", "1", coupon["code"].as_str().unwrap()]]);

    let again = stack.issue("spring", "alice").unwrap();
    assert_eq!((again.status, again.code().as_str()), (409, "already_issued"), "{}", again.body);
}

#[test]
fn two_gateways_and_two_backends_give_out_exactly_the_quota() {
    const QUOTA: usize = 20;
    let stack = Stack::builder().gateways(2).backends(2).start().unwrap();
    stack.announce("spring", &open_all_day(QUOTA as u64)).unwrap();

    // Every user asks, at either gateway, until the answer is final.
    let wins = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..8)
            .map(|client| {
                let url = stack.url(client % 2);
                scope.spawn(move || (0..10).filter(|turn| wins(&url, &format!("user-{client}-{turn}"))).count())
            })
            .collect();
        crowd.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });

    assert_eq!(wins, QUOTA);
    let numbers = stack.sql("SELECT number FROM public.issued_coupons ORDER BY number").unwrap();
    let expected: Vec<Vec<String>> = (1..=QUOTA).map(|number| vec![number.to_string()]).collect();
    assert_eq!(numbers, expected);
}

fn wins(gateway: &str, user: &str) -> bool {
    loop {
        let url = format!("{gateway}/v1/coupon/issue?campaign=spring");
        let reply = doorbuster_e2e::http::send("POST", &url, &[("x-user-id", user)], None).unwrap();
        match (reply.status, reply.code().as_str()) {
            (201, _) => return true,
            (409, "sold_out") => return false,
            (503, "busy") => std::thread::sleep(std::time::Duration::from_millis(20)),
            other => panic!("{other:?}: {}", reply.body),
        }
    }
}
