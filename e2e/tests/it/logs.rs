//! One id joins a client's complaint, the gateway's access log and the backend's log.

use std::time::Duration;

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Stack, http};
use serde_json::Value;

use crate::support::eventually;

/// Lines of the backend's log that carry this request id.
fn lines(stack: &Stack, id: &str) -> Vec<Value> {
    let log = stack.log("backend-1").unwrap();
    let lines =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}")));
    lines.filter(|line| line.pointer("/span/request_id").is_some_and(|found| found == id)).collect()
}

#[test]
fn the_backend_logs_the_id_that_the_gateway_tells_the_client() {
    let stack = Stack::builder().backend_setting("log", "info,doorbuster_backend=debug").start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();
    let win = stack.issue("spring", "alice").unwrap();
    assert_eq!(win.status, 201, "{}", win.body);
    let id = win.header("x-request-id").expect("the gateway tells no id").to_owned();
    eventually(Duration::from_secs(20), "the request's line", || {
        lines(&stack, &id).iter().any(|line| line["status"] == 201 && line["span"]["route"] == "/v1/coupon/issue")
    });

    // Past the gateway somebody could write anything.
    let url = format!("{}/v1/coupon/issue?campaign=spring", stack.backend(0));
    let nonsense = format!("{}\",\"level\":\"FORGED", "x".repeat(3000));
    let reply = http::send("POST", &url, &[("x-user-id", "bob"), ("x-request-id", &nonsense)], None).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.body);
    let reply = http::send("POST", &url, &[("x-user-id", "carol"), ("x-request-id", "the-last-one")], None).unwrap();
    assert_eq!(reply.code(), "sold_out");
    eventually(Duration::from_secs(20), "the last request's line", || !lines(&stack, "the-last-one").is_empty());
    let log = stack.log("backend-1").unwrap();
    assert!(!log.contains("FORGED") && !log.contains("xxxx"), "{log}");
    assert!(log.lines().all(|line| line.len() < 1000), "{log}");
}
