//! A gateway without any backend: the filter decides what it can from its own configuration.

use doorbuster_e2e::{Stack, http};
use serde_json::{Value, json};

fn static_campaign(first_day: &str, last_day: &str) -> Value {
    let schedule = json!({
        "timezone": "Asia/Seoul", "first_day": first_day, "last_day": last_day, "opens": "13:00", "closes": "15:00",
    });
    json!({ "sync": null, "campaigns": [{ "id": "spring", "schedule": schedule, "quota": 100 }] })
}

#[test]
fn it_refuses_by_the_schedule() {
    for (first_day, last_day, refusal) in
        [("2020-05-01", "2020-05-05", (410, "ended")), ("2090-05-01", "2090-05-05", (403, "not_started"))]
    {
        let stack = Stack::builder().backends(0).plugin(static_campaign(first_day, last_day)).start().unwrap();
        let reply = stack.issue("spring", "alice").unwrap();
        assert_eq!((reply.status, reply.code().as_str()), refusal, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(stack.admin(0).origin_requests().unwrap(), 0);
    }
}

#[test]
fn it_routes_the_contract_and_nothing_else() {
    let stack = Stack::builder().backends(0).start().unwrap();
    for path in ["/", "/admin/v1/campaigns", "/internal/v1/edge/sync", "/metrics", "/v1/coupon/issue/"] {
        let reply = http::get(&format!("{}{path}", stack.url(0))).unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{path}: {}", reply.body);
    }
}

#[test]
fn a_wrong_filter_configuration_keeps_envoy_from_starting_and_names_the_field() {
    let wrong = json!({ "credits": { "hold_ms": "soon" } });
    let started = Stack::builder().backends(0).plugin(wrong).start();
    let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("gateway-1 ended") && error.contains("credits.hold_ms"), "{error}");
}
