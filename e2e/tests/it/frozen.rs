//! One of two backends is frozen (SIGSTOP): its kernel takes connections, and nothing answers.

use std::time::{Duration, Instant};

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_frozen_backend_delays_neither_changes_nor_issuing_for_long() {
    let mut stack = Stack::builder().backends(2).start().unwrap();
    stack.announce("spring", &open_all_day(10_000)).unwrap();
    stack.freeze("backend-2").unwrap();
    // Requests that the frozen backend swallows are tried again at the other one: none fails.
    for user in 0..12 {
        let reply = stack.issue("spring", &format!("early-{user}")).unwrap();
        assert!(matches!(reply.status, 201 | 202), "{}: {}", reply.status, reply.body);
    }
    let admin = stack.admin(0);
    eventually(PATIENCE, "the gateway leaves the frozen backend out", || {
        admin.stat("cluster.origin.membership_healthy").unwrap() == 1
    });
    let mut slowest = Duration::ZERO;
    for user in 0..60 {
        let began = Instant::now();
        assert_eq!(stack.issue("spring", &format!("late-{user}")).unwrap().status, 201);
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest of 60 after the backend was left out: {slowest:?}");
    // A change reaches the gateway: a sync does not wait for the one that the frozen backend has swallowed.
    let began = Instant::now();
    stack.operator().pause("spring").unwrap();
    eventually(PATIENCE, "paused", || stack.issue("spring", "last").unwrap().code() == "paused");
    println!("paused after {:?}", began.elapsed());
    stack.unfreeze("backend-2").unwrap();
}
