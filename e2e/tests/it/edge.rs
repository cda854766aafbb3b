//! The edge and the backend together: who refuses, when the edge hears of a change, and what it does without a backend.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::http::{self, Reply};
use doorbuster_e2e::operator::{open_all_day, scheduled};
use serde_json::{Value, json};

use crate::support::eventually;

/// Every gateway and backend acts by a change within a second; a noisy machine is given some more.
const HEARD: Duration = Duration::from_secs(30);

fn ask(url: &str, user: &str) -> Reply {
    http::send("POST", &format!("{url}/v1/coupon/issue?campaign=spring"), &[("x-user-id", user)], None).unwrap()
}

fn eventually_hears(stack: &Stack, gateway: usize, user: &str, status: u16, code: &str) {
    let url = stack.url(gateway);
    eventually(HEARD, code, || {
        let reply = ask(&url, user);
        (reply.status, reply.code().as_str()) == (status, code)
    });
}

#[test]
fn sold_out_is_said_by_every_gateway_and_nothing_reaches_the_origin() {
    let stack = Stack::builder().gateways(2).start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    for gateway in [0, 1] {
        eventually_hears(&stack, gateway, "bob", 409, "sold_out");
    }
    let before = stack.issue_requests().unwrap();
    for n in 0..200 {
        let reply = ask(&stack.url(n % 2), &format!("user-{n}"));
        assert_eq!((reply.status, reply.code().as_str()), (409, "sold_out"), "{}", reply.body);
        assert_eq!(reply.header("cache-control"), Some("public, max-age=1"));
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(stack.issue_requests().unwrap(), before);
    let counted = stack.admin(0).sum(r"wasmcustom\.doorbuster\.decisions_total\.sold_out\.spring").unwrap();
    assert!(counted > 0);
}

#[test]
fn both_tiers_give_one_body_for_one_refusal() {
    let stack = Stack::builder().start().unwrap();
    let day = |first: &str, last: &str| json!({"timezone": "Asia/Seoul", "first_day": first, "last_day": last, "opens": "13:00", "closes": "15:00"});
    stack.announce("spring", &open_all_day(1)).unwrap();
    stack.announce("past", &scheduled(5, &day("2020-05-01", "2020-05-02"))).unwrap();
    stack.announce("future", &scheduled(5, &day("2090-05-01", "2090-05-02"))).unwrap();
    stack.announce("halted", &open_all_day(5)).unwrap();
    stack.operator().pause("halted").unwrap();
    stack.announce("empty", &open_all_day(0)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    let answers = |origin: &str, query: &str, headers: &[(&str, &str)]| {
        let reply = http::send("POST", &format!("{origin}/v1/coupon/issue{query}"), headers, None).unwrap();
        let told = ["content-type", "cache-control"].map(|name| reply.header(name).map(str::to_owned));
        let mut body = reply.json();
        // Counted from the moment of the answer.
        if body["code"] == "sold_out" {
            body["retry_after_ms"].take();
        }
        (reply.status, told, body, reply.header("content-length").is_some())
    };
    let alice = [("x-user-id", "alice")];
    for (query, headers) in [
        ("?campaign=UPPER", alice.as_slice()),
        ("?campaign=unknown", &alice),
        ("?campaign=past", &alice),
        ("?campaign=future", &alice),
        ("?campaign=halted", &alice),
        ("?campaign=halted", &[]),
        ("?campaign=empty", &alice),
        ("?campaign=spring", &alice),
        ("?campaign=empty", &[]),
    ] {
        let both = || (answers(&stack.url(0), query, headers), answers(&stack.backend(0), query, headers));
        // Only sold out takes the edge a moment to hear of, and a wait may be counted from two different seconds.
        let (mut edge, mut backend) = both();
        for _ in 0..100 {
            if edge == backend {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            (edge, backend) = both();
        }
        assert_eq!(edge, backend, "{query}");
    }
}

#[test]
fn a_change_is_heard_by_every_gateway() {
    let stack = Stack::builder().gateways(2).backends(2).start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    eventually_hears(&stack, 1, "bob", 409, "sold_out");

    stack.operator().put_campaign("spring", &open_all_day(2)).unwrap();
    eventually_hears(&stack, 1, "bob", 201, "");
    eventually_hears(&stack, 0, "carol", 409, "sold_out");

    stack.operator().pause("spring").unwrap();
    eventually_hears(&stack, 0, "carol", 403, "paused");
    eventually_hears(&stack, 1, "carol", 403, "paused");
    stack.operator().resume("spring").unwrap();
    eventually_hears(&stack, 0, "carol", 409, "sold_out");

    stack.operator().put_campaign("autumn", &open_all_day(1)).unwrap();
    for gateway in [0, 1] {
        let url = format!("{}/v1/coupon/issue?campaign=autumn", stack.url(gateway));
        eventually(HEARD, "a new campaign", || {
            http::send("POST", &url, &[("x-user-id", &format!("dave-{gateway}"))], None).unwrap().code()
                != "unknown_campaign"
        });
    }
}

#[test]
fn without_its_backend_a_gateway_keeps_its_latches_and_its_schedule() {
    // Long enough that nothing is probed, however slowly the requests below are sent.
    let mut stack = Stack::builder().plugin(json!({"sync": {"stale_ms": 60_000}})).start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    let schedule = json!({"timezone": "UTC", "first_day": "2090-05-01", "last_day": "2090-05-02", "opens": "13:00", "closes": "15:00"});
    stack.announce("future", &scheduled(5, &schedule)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    eventually_hears(&stack, 0, "bob", 409, "sold_out");
    stack.kill("backend-1").unwrap();
    for _ in 0..50 {
        assert_eq!(ask(&stack.url(0), "bob").code(), "sold_out");
        assert_eq!(stack.issue("future", "bob").unwrap().code(), "not_started");
    }
    stack.restart("backend-1").unwrap();
    stack.operator().put_campaign("spring", &open_all_day(2)).unwrap();
    eventually_hears(&stack, 0, "bob", 201, "");
}

#[test]
fn an_origin_that_is_away_is_unavailable_and_costs_no_coupon() {
    let mut stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(3)).unwrap();
    stack.kill("backend-1").unwrap();
    let mut codes = std::collections::BTreeSet::new();
    for n in 0..20 {
        let reply = ask(&stack.url(0), &format!("user-{n}"));
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert!(reply.header("retry-after").is_some());
        codes.insert(reply.code());
    }
    assert!(
        codes.contains("unavailable") && codes.iter().all(|code| code == "unavailable" || code == "busy"),
        "{codes:?}"
    );
    stack.restart("backend-1").unwrap();
    for user in ["alice", "bob", "carol"] {
        eventually_hears(&stack, 0, user, 201, "");
    }
    eventually_hears(&stack, 0, "dave", 409, "sold_out");
}

#[test]
fn a_restarted_gateway_finds_out_that_the_round_is_sold_out() {
    let mut stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    stack.kill("gateway-1").unwrap();
    stack.restart("gateway-1").unwrap();
    // Warming, it may say busy; it never gives out a second coupon.
    eventually_hears(&stack, 0, "bob", 409, "sold_out");
    assert_eq!(stack.sql("SELECT count(*) FROM issued_coupons").unwrap(), [["1"]]);
}

#[test]
fn clients_that_go_away_cost_no_coupon() {
    let mut stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(3)).unwrap();
    // They leave between their admission and the answer.
    stack.freeze("backend-1").unwrap();
    let authority = stack.url(0).replace("http://", "");
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut stream = TcpStream::connect(&authority).unwrap();
        let request = format!(
            "POST /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: drop\r\nx-user-id: gone-{n}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        clients.push(stream);
    }
    let admin = stack.admin(0);
    eventually(HEARD, "three admitted", || admin.origin_requests().unwrap() >= 3);
    drop(clients);
    stack.unfreeze("backend-1").unwrap();
    // A place they had taken is swept into a coupon of theirs; the others go to whoever asks.
    let mut next = 0;
    eventually(Duration::from_secs(60), "sold out", || {
        next += 1;
        ask(&stack.url(0), &format!("user-{next}")).code() == "sold_out"
    });
    assert_eq!(stack.sql("SELECT count(*), count(DISTINCT user_id) FROM issued_coupons").unwrap(), [["3", "3"]]);
}

#[test]
fn the_count_is_answered_by_the_gateway_while_its_snapshot_is_young() {
    let mut stack = Stack::builder().plugin(json!({"sync": {"stale_ms": 3000}})).start().unwrap();
    stack.announce("spring", &open_all_day(2)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    let count = |origin: &str| http::get(&format!("{origin}/v1/coupon/count?campaign=spring")).unwrap();
    eventually(HEARD, "one count from both tiers", || {
        let strip = |reply: Reply| {
            let mut body = reply.json();
            body["as_of"].take();
            (reply.status, reply.header("cache-control").map(str::to_owned), body)
        };
        strip(count(&stack.url(0))) == strip(count(&stack.backend(0)))
    });
    let before = stack.admin(0).origin_requests().unwrap();
    for _ in 0..50 {
        assert_eq!(count(&stack.url(0)).json()["issued"], 1);
    }
    assert_eq!(stack.admin(0).origin_requests().unwrap(), before);
    stack.kill("backend-1").unwrap();
    let url = stack.url(0);
    eventually(HEARD, "a snapshot too old to tell", || count(&url).code() == "unavailable");
}

#[test]
fn what_the_gateway_admits_carries_a_ticket_that_holds() {
    let secret = "a-secret-for-tickets";
    let stack = Stack::builder()
        .ticket_secret(secret)
        .plugin(json!({"ticket": {}}))
        .backend_setting("ticket", "require")
        .backend_setting("ticket_secret", secret)
        .start()
        .unwrap();
    stack.announce("spring", &open_all_day(5)).unwrap();
    let unticketed = ask(&stack.backend(0), "alice");
    assert_eq!((unticketed.status, unticketed.code().as_str()), (401, "unticketed"));
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    // With a body the ticket is signed when that has ended.
    let url = format!("{}/v1/coupon/issue?campaign=spring", stack.url(0));
    let reply = http::send("POST", &url, &[("x-user-id", "bob")], Some(&json!({"a": "body"}))).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.body);
}

#[test]
fn what_gateways_decide_is_added_up() {
    let stack = Stack::builder().gateways(2).start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    for gateway in [0, 1] {
        eventually_hears(&stack, gateway, "bob", 409, "sold_out");
    }
    for n in 0..20 {
        assert_eq!(ask(&stack.url(n % 2), "carol").code(), "sold_out");
    }
    let rounds = stack.sql("SELECT round FROM rounds WHERE campaign = 'spring'").unwrap();
    let counted = |decision: &str| {
        let pattern = format!(r"wasmcustom\.doorbuster\.decisions_total\.{decision}\.spring");
        [0, 1].map(|gateway| stack.admin(gateway).sum(&pattern).unwrap()).iter().sum::<u64>()
    };
    eventually(HEARD, "the gateways' own counts", || {
        let edge = stack.operator().round("spring", &rounds[0][0]).unwrap().json()["edge"].clone();
        edge["sold_out"].as_u64() == Some(counted("sold_out")) && edge["admitted"].as_u64() == Some(counted("admitted"))
    });
    assert!(counted("sold_out") >= 20);
}

#[test]
fn a_change_may_lift_the_limit_or_go_back_to_an_earlier_round() {
    let stack = Stack::builder().start().unwrap();
    // Where it is already tomorrow, and where it is still yesterday.
    let open_in = |zone: &str, quota: Value| {
        let schedule = json!({"timezone": zone, "first_day": "2020-01-01", "last_day": "2099-12-31", "opens": "00:00", "closes": "24:00"});
        let mut campaign = scheduled(1, &schedule);
        campaign["quota"] = quota;
        campaign
    };
    stack.announce("spring", &open_in("Pacific/Kiritimati", json!(1))).unwrap();
    assert_eq!(ask(&stack.url(0), "alice").status, 201);
    eventually_hears(&stack, 0, "bob", 409, "sold_out");
    stack.operator().put_campaign("spring", &open_in("Pacific/Pago_Pago", json!(1))).unwrap();
    eventually_hears(&stack, 0, "bob", 201, "");
    eventually_hears(&stack, 0, "carol", 409, "sold_out");
    stack.operator().put_campaign("spring", &open_in("Pacific/Pago_Pago", Value::Null)).unwrap();
    for n in 0..20 {
        // The first of them tells the gateway before its sync does.
        eventually_hears(&stack, 0, &format!("user-{n}"), 201, "");
    }
}
