//! A coupon's life, from the win to the vendor's payout.

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Stack, http};
use serde_json::json;

#[test]
fn a_coupon_won_at_the_gateway_is_redeemed_there_and_settled_with_the_vendor() {
    let stack = Stack::builder().backend_setting("client_redeem", "on").start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();
    let win = stack.issue("spring", "alice").unwrap();
    assert_eq!(win.status, 201, "{}", win.body);
    let code = win.json()["coupon"]["code"].as_str().unwrap().to_owned();

    let url = format!("{}/v1/coupons/{code}/redeem", stack.url(0));
    let redeem = |user: &str, order: &str| {
        let body = json!({"order_id": order, "order_amount": 30_000});
        http::send("POST", &url, &[("x-user-id", user)], Some(&body)).unwrap()
    };
    assert_eq!(redeem("mallory", "A-1").code(), "unknown_coupon");
    let redeemed = redeem("alice", "A-1");
    assert_eq!((redeemed.status, &redeemed.json()["discount_amount"]), (200, &json!(10_000)), "{}", redeemed.body);
    assert_eq!(redeem("alice", "A-1").json(), redeemed.json());
    assert_eq!(redeem("alice", "A-2").code(), "already_redeemed");
    let other_method = http::send("GET", &url, &[("x-user-id", "alice")], None).unwrap();
    assert_eq!((other_method.status, other_method.header("allow")), (405, Some("POST")));
    // The shop's door is not at the gateway.
    let admin = http::send("POST", &format!("{}/admin/v1/coupons/{code}/redeem", stack.url(0)), &[], None).unwrap();
    assert_eq!(admin.status, 404);

    let vendor = stack.operator().send("GET", "/admin/v1/vendors/acme", None).unwrap().json();
    assert_eq!((&vendor["balance"], &vendor["entries"][0]["code"]), (&json!(10_000), &json!(code)));
    let token = format!("Bearer {}", stack.admin_token());
    let headers = [("authorization", token.as_str()), ("idempotency-key", "2026-05")];
    let payouts = format!("{}/admin/v1/vendors/acme/payouts", stack.ops(0));
    let paid = http::send("POST", &payouts, &headers, Some(&json!({}))).unwrap();
    assert_eq!((paid.status, &paid.json()["amount"]), (201, &json!(10_000)), "{}", paid.body);
    let entries = stack.sql("SELECT sum(amount) FROM ledger_entries").unwrap();
    assert_eq!(entries, [["0"]]);
}
