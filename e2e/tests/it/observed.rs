//! What an operator sees: labelled statistics, and the access log.

use std::collections::BTreeSet;
use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::http;
use doorbuster_e2e::operator::open_all_day;
use serde_json::{Value, json};

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// The value of one series, by its name and labels in any order.
fn series(exposition: &str, name: &str, labels: &[&str]) -> Option<u64> {
    exposition.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, inside) = series.strip_suffix('}')?.split_once('{')?;
        let all: Vec<&str> = inside.split(',').filter(|label| !label.is_empty()).collect();
        (found == name && all.len() == labels.len() && labels.iter().all(|label| all.contains(label)))
            .then(|| value.parse().ok())
            .flatten()
    })
}

#[test]
fn statistics_have_proper_labels() {
    let stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(stack.issue("spring", "alice").unwrap().status, 201);
    eventually(PATIENCE, "sold out", || stack.issue("spring", "bob").unwrap().code() == "sold_out");
    assert_eq!(stack.issue("no-such-campaign", "bob").unwrap().code(), "unknown_campaign");
    let url = format!("{}/stats/prometheus", stack.admin(0).url());
    let exposition = || http::get(&url).unwrap().body;
    let decisions = |decision: &str, campaign: &str| {
        let labels = [format!("decision=\"{decision}\""), format!("campaign=\"{campaign}\"")];
        series(&exposition(), "doorbuster_decisions_total", &[&labels[0], &labels[1]]).unwrap_or_default()
    };
    eventually(PATIENCE, "decisions by campaign and reason", || {
        decisions("admitted", "spring") >= 1
            && decisions("sold_out", "spring") >= 1
            && decisions("unknown_campaign", "-") >= 1
    });
    for gauge in ["credits_in_flight", "sync_age_ms", "warming", "duplicates_filled"] {
        let name = format!("doorbuster_{gauge}");
        eventually(PATIENCE, &name, || series(&exposition(), &name, &[]).is_some());
    }
    assert_eq!(series(&exposition(), "doorbuster_warming", &[]), Some(0));
    eventually(PATIENCE, "one winner in the table", || {
        series(&exposition(), "doorbuster_duplicates_filled", &[]) == Some(1)
    });
    // Whatever a client asks for, it adds no series.
    let count = || exposition().lines().filter(|line| line.starts_with("doorbuster_")).count();
    let before = count();
    for n in 0..50 {
        assert_eq!(stack.issue(&format!("made-up-{n}"), "bob").unwrap().code(), "unknown_campaign");
    }
    assert_eq!(count(), before);
}

#[test]
fn deleted_campaigns_leave_a_bounded_number_of_series() {
    let limit = json!({"metrics": {"max_campaigns": 2}});
    let stack = Stack::builder().plugin(limit).start().unwrap();
    let admin = stack.admin(0);
    let counted = || admin.sum(r"wasmcustom\.doorbuster\.decisions_total\.missing_user\..*").unwrap();
    for n in 0..6 {
        let (id, before) = (format!("drop-{n}"), counted());
        // It asks without a user until the gateway knows the campaign.
        stack.announce(&id, &open_all_day(1)).unwrap();
        eventually(PATIENCE, "the requests are counted", || counted() > before);
        let deleted = stack.operator().send("DELETE", &format!("/admin/v1/campaigns/{id}"), None).unwrap();
        assert!((200..300).contains(&deleted.status), "{}", deleted.body);
    }
    let url = format!("{}/stats/prometheus", stack.admin(0).url());
    let campaigns = || -> BTreeSet<String> {
        let exposition = http::get(&url).unwrap().body;
        let ours = exposition.lines().filter(|line| line.starts_with("doorbuster_decisions_total{"));
        ours.filter_map(|line| line.split_once("campaign=\"")?.1.split_once('"'))
            .map(|(campaign, _)| campaign.to_owned())
            .filter(|campaign| campaign != "-")
            .collect()
    };
    eventually(PATIENCE, "the others are counted together", || campaigns().contains("_other"));
    assert_eq!(campaigns().len(), 3, "{:?}", campaigns());
}

#[test]
fn the_access_log_tells_decision_and_round() {
    let stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    let won = stack.issue("spring", "alice").unwrap();
    let round = won.json()["coupon"]["round"].clone();
    eventually(PATIENCE, "sold out", || stack.issue("spring", "bob").unwrap().code() == "sold_out");
    stack.admin(0).set_runtime("doorbuster.access_log.sampled", "10000").unwrap();
    assert_eq!(stack.issue("spring", "carol").unwrap().code(), "sold_out");
    let lines = || -> Vec<Value> {
        stack.log("gateway-1").unwrap().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let has = |wanted: &dyn Fn(&Value) -> bool| lines().iter().any(wanted);
    // Envoy writes its log every ten seconds, or when a line more does not fit.
    eventually(PATIENCE, "the admitted request", || {
        has(&|line| {
            line["decision"] == "admitted"
                && line["round"] == round
                && line["campaign"] == "spring"
                && line["status"] == 201
        })
    });
    eventually(PATIENCE, "a sampled refusal", || has(&|line| line["campaign"] == "spring" && line["status"] == 409));
    let log = stack.log("gateway-1").unwrap();
    assert!(!log.contains("alice") && !log.contains("carol"), "users are nobody's business");
}
