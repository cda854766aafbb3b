//! Clocks that are wrong by an hour. Redis's decides, and everybody else learns how far away from it they are.

use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::scheduled;
use serde_json::{Value, json};

use crate::support::eventually;

/// Far less than the clocks are wrong by.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_round_opens_by_the_clock_of_redis_wherever_the_others_stand() {
    let secret = "a-secret-for-tickets";
    let stack = Stack::builder()
        .gateway_clock_s(-3600)
        .backend_clock_s(3600)
        // A ticket is 30 s old at most, by clocks that are two hours apart.
        .ticket_secret(secret)
        .plugin(json!({"ticket": {}}))
        .backend_setting("ticket", "require")
        .backend_setting("ticket_secret", secret)
        .start()
        .unwrap();
    // Ten minutes long: over, for the backend's own clock; not begun, for the gateway's.
    // PostgreSQL's clock is right, as Redis's is.
    let opens_s = seconds(&stack, "now()") + 8;
    let schedule = json!({
        "timezone": "UTC", "first_day": day(&stack, opens_s), "last_day": day(&stack, opens_s),
        "opens": time(opens_s), "closes": time(opens_s + 600),
    });
    stack.announce("spring", &scheduled(2, &schedule)).unwrap();
    let mut won = Value::Null;
    eventually(PATIENCE, "the round opens", || {
        let reply = stack.issue("spring", "alice").unwrap();
        // A slow machine hears `unavailable` now and then, or of its coupon later.
        let waits = ["not_started", "busy", "unavailable", "already_issued"].contains(&reply.code().as_str());
        assert!(waits || [201, 202].contains(&reply.status), "{}", reply.body);
        won = reply.json();
        reply.status == 201 || reply.code() == "already_issued"
    });
    let issued_s = seconds(&stack, "(SELECT issued_at FROM issued_coupons)");
    assert!((opens_s..opens_s + 600).contains(&issued_s), "opened at {opens_s}, issued at {issued_s}: {won}");
    eventually(PATIENCE, "the second coupon", || {
        let reply = stack.issue("spring", "bob").unwrap();
        assert!([201, 202, 409, 503].contains(&reply.status), "{}", reply.body);
        reply.status == 201 || reply.code() == "already_issued"
    });
    eventually(PATIENCE, "sold out", || stack.issue("spring", "carol").unwrap().code() == "sold_out");
}

/// An SQL expression for an instant, in whole seconds since 1970.
fn seconds(stack: &Stack, instant: &str) -> i64 {
    stack.sql(&format!("SELECT floor(extract(epoch FROM {instant}))::bigint")).unwrap()[0][0].parse().unwrap()
}

fn day(stack: &Stack, at_s: i64) -> String {
    stack.sql(&format!("SELECT to_char(to_timestamp({at_s}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')")).unwrap()[0][0].clone()
}

fn time(at_s: i64) -> String {
    let second = at_s.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}
