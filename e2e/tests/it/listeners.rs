//! Two listeners in one Envoy, each with the filter: equal configurations share what they know, others keep apart.

use std::time::Duration;

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Reply, Stack, http};
use serde_json::json;

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

fn issue(url: &str, campaign: &str, user: &str) -> Reply {
    http::send("POST", &format!("{url}/v1/coupon/issue?campaign={campaign}"), &[("x-user-id", user)], None).unwrap()
}

#[test]
fn equal_configurations_share_winners_and_latches() {
    let stack = Stack::builder().second_listener(json!({})).start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();
    let (first, second) = (stack.url(0), stack.second_url(0));
    eventually(PATIENCE, "a coupon", || issue(&first, "spring", "alice").status == 201);
    let reached = stack.issue_requests().unwrap();
    assert_eq!(issue(&second, "spring", "alice").code(), "already_issued");
    assert_eq!(stack.issue_requests().unwrap(), reached, "the other listener's filter knows");
    assert_eq!(issue(&second, "spring", "bob").status, 201);
    eventually(PATIENCE, "sold out at both", || {
        [&first, &second].iter().all(|url| issue(url, "spring", "carol").code() == "sold_out")
    });
}

/// Each of them syncs as a gateway of its own.
#[test]
fn different_sync_targets_keep_apart() {
    let stack = Stack::builder().second_listener(json!({"sync": {"authority": "other"}})).start().unwrap();
    stack.announce("spring", &open_all_day(3)).unwrap();
    let urls = [stack.url(0), stack.second_url(0)];
    for (url, user) in urls.iter().zip(["alice", "bob"]) {
        eventually(PATIENCE, "a coupon", || issue(url, "spring", user).status == 201);
    }
    for url in &urls {
        eventually(PATIENCE, "the campaign is known here", || {
            http::get(&format!("{url}/v1/coupon/count?campaign=spring")).unwrap().status == 200
        });
        assert_eq!(issue(url, "nothing", "carol").code(), "unknown_campaign");
    }
}

#[test]
fn different_campaigns_keep_apart() {
    let campaign = |id: &str, opens: &str| {
        let (first_day, last_day) =
            if opens == "past" { ("2020-05-01", "2020-05-02") } else { ("2090-05-01", "2090-05-02") };
        json!({ "sync": null, "campaigns": [{ "id": id, "quota": 1, "schedule": {
            "timezone": "UTC", "first_day": first_day, "last_day": last_day, "opens": "13:00", "closes": "15:00" } }] })
    };
    let stack = Stack::builder()
        .backends(0)
        .plugin(campaign("spring", "past"))
        .second_listener(campaign("autumn", "future"))
        .start()
        .unwrap();
    // On every worker, and for longer than a lease and some ticks last.
    for round in 0..60 {
        let user = format!("u{round}");
        assert_eq!(issue(&stack.url(0), "spring", &user).code(), "ended");
        assert_eq!(issue(&stack.url(0), "autumn", &user).code(), "unknown_campaign");
        assert_eq!(issue(&stack.second_url(0), "autumn", &user).code(), "not_started");
        assert_eq!(issue(&stack.second_url(0), "spring", &user).code(), "unknown_campaign");
    }
}
