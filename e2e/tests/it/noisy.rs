//! Limits on routes that the filter does not guard are per client.

use std::fs;
use std::path::Path;

use doorbuster_e2e::{Stack, envoy_config, http};
use serde_json::{Value, json};

use crate::support::eventually;

/// Behind a load balancer, which says in `x-forwarded-for` where a request comes from.
fn get_as(stack: &Stack, address: &str) -> u16 {
    let headers = [("x-user-id", "alice"), ("x-forwarded-for", address)];
    http::send("GET", &format!("{}/v1/coupons", stack.url(0)), &headers, None).unwrap().status
}

/// The shipped configuration behind one load balancer, with 5 reads an hour for each address.
fn strict(folder: &Path) -> std::path::PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy.yaml");
    let mut config = envoy_config::load(&shipped).unwrap();
    let manager = config.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config").unwrap();
    manager["xff_num_trusted_hops"] = json!(1);
    let filters = manager["http_filters"].as_array_mut().unwrap();
    let is_limit = |filter: &&mut Value| filter["name"] == "envoy.filters.http.local_ratelimit";
    let limit = filters.iter_mut().find(is_limit).unwrap();
    limit["typed_config"]["descriptors"][0]["token_bucket"] =
        json!({"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": "3600s"});
    let path = folder.join("envoy.strict.json");
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn a_noisy_address_is_refused_and_takes_no_other_ones_share() {
    let folder = std::env::temp_dir().join(format!("doorbuster-noisy-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let stack = Stack::builder().template(strict(&folder)).start().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    eventually(std::time::Duration::from_secs(30), "the origin answers", || get_as(&stack, "192.0.2.1") == 200);
    let answers: Vec<u16> = (0..50).map(|_| get_as(&stack, "203.0.113.7")).collect();
    assert!(answers.iter().filter(|status| **status == 200).count() <= 5, "{answers:?}");
    assert_eq!(answers.last(), Some(&429));
    for other in 8..20 {
        assert_eq!(get_as(&stack, &format!("203.0.113.{other}")), 200);
    }
    // An IPv6 client has a whole /64.
    let answers: Vec<u16> = (0..20).map(|host| get_as(&stack, &format!("2001:db8::{host:x}"))).collect();
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    assert_eq!(get_as(&stack, "2001:db8:0:1::1"), 200);
}
