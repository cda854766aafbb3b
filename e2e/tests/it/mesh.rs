//! The filter in the configurations that meshes generate: Istio's `WasmPlugin`, Envoy Gateway's `EnvoyExtensionPolicy`.

use std::time::Duration;

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Reply, Stack, http};

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// A request with a body, as shops send it.
fn issue_with_body(stack: &Stack, user: &str) -> Reply {
    let url = format!("{}/v1/coupon/issue?campaign=spring", stack.url(0));
    http::send("POST", &url, &[("x-user-id", user)], Some(&serde_json::json!({}))).unwrap()
}

#[test]
fn requests_with_bodies_win_and_are_refused_where_headers_cannot_be_stopped_alone() {
    for vm_id in ["", "envoyextensionpolicy/shop/doorbuster/wasm/0"] {
        let stack = Stack::builder().mesh(vm_id).start().unwrap();
        stack.announce("spring", &open_all_day(2)).unwrap();
        eventually(PATIENCE, "the gateway has synced", || {
            stack.log("gateway-1").is_ok() && {
                let count = http::get(&format!("{}/v1/coupon/count?campaign=spring", stack.url(0))).unwrap();
                count.status == 200
            }
        });
        let won = issue_with_body(&stack, "alice");
        assert_eq!(won.status, 201, "{vm_id:?}: {}", won.body);
        assert_eq!(issue_with_body(&stack, "alice").code(), "already_issued");
        assert_eq!(stack.issue("spring", "bob").unwrap().status, 201);
        eventually(PATIENCE, "sold out", || issue_with_body(&stack, "carol").code() == "sold_out");
        let reached = stack.issue_requests().unwrap();
        for user in 0..40 {
            assert_eq!(issue_with_body(&stack, &format!("u{user}")).code(), "sold_out");
        }
        assert_eq!(stack.issue_requests().unwrap(), reached, "the edge refuses");
    }
}
