//! A rolling restart of gateways as their containers do it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Stack, http};

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 8;

/// Clients do what a load balancer does: they send to a gateway whose health listener answers 200.
#[test]
fn a_rolling_restart_loses_no_answer_of_an_admitted_request() {
    let mut stack = Stack::builder().gateways(2).drains().start().unwrap();
    stack.announce("spring", &open_all_day(1_000_000)).unwrap();
    let gateways = [0, 1].map(|index| (stack.url(index), stack.health_url(index)));
    let (stop, users) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (answered, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let user = users.fetch_add(1, Ordering::Relaxed);
                    let healthy = |(_, health): &&(String, String)| {
                        http::get(&format!("{health}/healthz")).is_ok_and(|reply| reply.status == 200)
                    };
                    let (first, second) = (&gateways[user % 2], &gateways[1 - user % 2]);
                    let Some((url, _)) = [first, second].into_iter().find(healthy) else { continue };
                    let url = format!("{url}/v1/coupon/issue?campaign=spring");
                    match http::send("POST", &url, &[("x-user-id", &format!("u{user}"))], None) {
                        Ok(reply) if matches!(reply.status, 201 | 202) => answered.fetch_add(1, Ordering::Relaxed),
                        Ok(_) => continue,
                        Err(_) => lost.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
        let more = |than: usize| {
            eventually(PATIENCE, "more winners", || answered.load(Ordering::Relaxed) >= than + 100);
        };
        more(0);
        for name in ["gateway-1", "gateway-2"] {
            stack.restart(name).unwrap();
            more(answered.load(Ordering::Relaxed));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let answered = answered.load(Ordering::Relaxed);
    assert_eq!(lost.load(Ordering::Relaxed), 0, "connections cut, of {answered} answered");
    eventually(PATIENCE, "each coupon's winner has had an answer", || {
        stack.sql("SELECT count(*) FROM issued_coupons").unwrap() == [[answered.to_string()]]
    });
}

#[test]
fn the_health_listener_follows_the_drain_and_shows_nothing_else() {
    let stack = Stack::builder().backends(0).start().unwrap();
    let health = stack.health_url(0);
    assert_eq!(http::get(&format!("{health}/healthz")).unwrap().status, 200);
    for path in ["/", "/v1/coupon/issue", "/stats", "/healthz/x"] {
        assert_eq!(http::get(&format!("{health}{path}")).unwrap().status, 404, "{path}");
    }
    http::send("POST", &format!("{}/healthcheck/fail", stack.admin(0).url()), &[], None).unwrap();
    assert_eq!(http::get(&format!("{health}/healthz")).unwrap().status, 503);
}
