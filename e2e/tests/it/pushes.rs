//! A configuration push to a gateway in the middle of a drop.

use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;
use serde_json::json;

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_push_keeps_the_latches_and_takes_effect() {
    let mut stack = Stack::builder().pushes().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(stack.issue("spring", "alice").unwrap().status, 201);
    eventually(PATIENCE, "sold out", || stack.issue("spring", "bob").unwrap().code() == "sold_out");
    let admin = stack.admin(0);
    let updates = || admin.stat("listener_manager.lds.update_success").unwrap();
    let reached = stack.issue_requests().unwrap();

    // The default campaign is what shows that a worker acts by what was pushed. Requests of the crowd go on all the while.
    for default in ["spring", "autumn"] {
        let before = updates();
        stack.push(0, &json!({"default_campaign": default})).unwrap();
        eventually(PATIENCE, "Envoy takes the listener", || {
            assert_eq!(stack.issue("spring", "carol").unwrap().code(), "sold_out");
            updates() > before
        });
        let mut in_a_row = 0;
        eventually(PATIENCE, "every worker acts by it", || {
            assert_eq!(stack.issue("spring", "dave").unwrap().code(), "sold_out", "after {default}");
            let url = format!("{}/v1/coupon/issue", stack.url(0));
            let code = doorbuster_e2e::http::send("POST", &url, &[("x-user-id", "erin")], None).unwrap().code();
            let wanted = if default == "spring" { "sold_out" } else { "unknown_campaign" };
            in_a_row = if code == wanted { in_a_row + 1 } else { 0 };
            in_a_row == 20
        });
    }
    assert_eq!(stack.issue_requests().unwrap(), reached, "sold out does not reopen");
}

#[test]
fn a_push_that_is_wrong_leaves_the_gateway_as_it_was() {
    let mut stack = Stack::builder().pushes().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(stack.issue("spring", "alice").unwrap().status, 201);
    eventually(PATIENCE, "sold out", || stack.issue("spring", "bob").unwrap().code() == "sold_out");
    stack.push(0, &json!({"credits": {"hold_ms": "long"}})).unwrap();
    let admin = stack.admin(0);
    eventually(PATIENCE, "Envoy refuses the listener", || {
        assert_eq!(stack.issue("spring", "bob").unwrap().code(), "sold_out");
        admin.stat("listener_manager.lds.update_rejected").unwrap() > 0
    });
    eventually(PATIENCE, "the log names the field", || stack.log("gateway-1").unwrap().contains("credits.hold_ms"));
    // Mended, it is taken.
    let before = admin.stat("listener_manager.lds.update_success").unwrap();
    stack.push(0, &json!({"credits": {"hold_ms": 400}})).unwrap();
    eventually(PATIENCE, "the mended one is taken", || {
        admin.stat("listener_manager.lds.update_success").unwrap() > before
    });
}
