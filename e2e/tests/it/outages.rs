//! What becomes of reservations when real processes die or stand still between reserving and committing.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Reply, Stack, http};
use serde_json::Value;

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two backends without a gateway, and a campaign with one coupon given out.
fn started(own_postgres: bool) -> Stack {
    let builder = Stack::builder().gateways(0).backends(2);
    let stack = if own_postgres { builder.own_postgres() } else { builder }.start().unwrap();
    stack.announce("spring", &open_all_day(1_000)).unwrap();
    eventually(PATIENCE, "the first coupon", || {
        [201, 409].contains(&issue(&stack.backend(0), "first").unwrap().status)
    });
    stack
}

fn issue(backend: &str, user: &str) -> anyhow::Result<Reply> {
    http::send("POST", &format!("{backend}/v1/coupon/issue?campaign=spring"), &[("x-user-id", user)], None)
}

fn issued(stack: &Stack) -> Vec<(String, String)> {
    let rows = stack.sql("SELECT user_id, code FROM public.issued_coupons ORDER BY number").unwrap();
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

fn pending(stack: &Stack) -> u64 {
    let round = &stack.sql("SELECT round FROM rounds").unwrap()[0][0];
    let told = stack.operator().send("GET", &format!("/admin/v1/campaigns/spring/rounds/{round}"), None).unwrap();
    told.json()["pending"].as_u64().unwrap_or(0)
}

/// A session that holds the round's row: nothing is committed meanwhile.
struct Held(Child);

impl Held {
    fn new(stack: &Stack) -> Self {
        let psql = Programs::from_env().unwrap().postgres_bin.join("psql");
        let hold = "BEGIN; SELECT 1 FROM rounds FOR UPDATE; SELECT pg_sleep(600)";
        let child = Command::new(psql)
            .args(["-X", "-q", "-d", stack.database_url(), "-c", hold])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually(PATIENCE, "the round's row", || {
            let taken = stack.sql("SELECT 1 FROM rounds FOR UPDATE SKIP LOCKED").unwrap();
            taken.is_empty()
        });
        Self(child)
    }

    fn release(mut self, stack: &Stack) {
        stack
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND datname = current_database()")
            .unwrap();
        self.0.wait().unwrap();
    }
}

/// Asks again at another backend: the user has the one coupon, whatever became of the first request.
fn assert_has(stack: &Stack, backend: usize, user: &str) -> String {
    let mut coupon = Value::Null;
    eventually(PATIENCE, "the coupon again", || {
        let again = issue(&stack.backend(backend), user).unwrap();
        coupon = again.json()["coupon"].clone();
        again.status == 409 && !coupon.is_null()
    });
    let code = coupon["code"].as_str().unwrap().to_owned();
    let rows = issued(stack);
    assert_eq!(rows.iter().filter(|(holder, _)| holder == user).count(), 1, "{rows:?}");
    assert!(rows.contains(&(user.to_owned(), code.clone())), "{rows:?}");
    code
}

#[test]
fn a_backend_killed_between_reserving_and_committing_loses_no_coupon() {
    let mut stack = started(false);
    let held = Held::new(&stack);
    // The first is being committed when the backend dies, the second waits behind it and nobody knows of it.
    let asked: Vec<_> = ["ann", "bob"]
        .into_iter()
        .map(|user| {
            let backend = stack.backend(0);
            let asked = thread::spawn(move || issue(&backend, user));
            eventually(PATIENCE, "the place", || pending(&stack) == if user == "ann" { 1 } else { 2 });
            asked
        })
        .collect();
    stack.kill("backend-1").unwrap();
    held.release(&stack);
    for answer in asked {
        // Killed, or 202 a moment before.
        assert!(answer.join().unwrap().map_or(true, |reply| reply.status == 202));
    }
    for user in ["ann", "bob"] {
        assert_has(&stack, 1, user);
    }
    assert_eq!(issued(&stack).len(), 3);
}

#[test]
fn a_backend_paused_between_reserving_and_committing_tells_of_the_same_coupon() {
    let mut stack = started(false);
    let held = Held::new(&stack);
    let backend = stack.backend(0);
    let ann = thread::spawn(move || issue(&backend, "ann"));
    eventually(PATIENCE, "the place", || pending(&stack) == 1);
    let backend = stack.backend(0);
    let bob = thread::spawn(move || issue(&backend, "bob"));
    eventually(PATIENCE, "both places", || pending(&stack) == 2);
    stack.freeze("backend-1").unwrap();
    held.release(&stack);
    // The other backend sweeps them.
    eventually(PATIENCE, "the sweep", || issued(&stack).len() == 3);
    stack.unfreeze("backend-1").unwrap();
    for (user, answer) in [("ann", ann), ("bob", bob)] {
        let reply = answer.join().unwrap().unwrap();
        let told = reply.json();
        let code = match reply.status {
            201 => &told["coupon"]["code"],
            // Its time was over when it went on.
            202 => &told["code"],
            _ => panic!("{} {}", reply.status, reply.body),
        };
        assert_eq!(*code, assert_has(&stack, 1, user));
    }
    assert_eq!(issued(&stack).len(), 3);
}

#[test]
fn postgresql_killed_and_restarted_in_the_rush_loses_no_place() {
    let mut stack = started(true);
    let backends = [stack.backend(0), stack.backend(1)];
    let asked: Vec<_> = (0..8_usize)
        .map(|client| {
            let backend = backends[client % 2].clone();
            thread::spawn(move || {
                let ask = |turn| issue(&backend, &format!("user-{client}-{turn}")).unwrap().status;
                (0..40).map(ask).collect::<Vec<_>>()
            })
        })
        .collect();
    eventually(PATIENCE, "the rush", || issued(&stack).len() > 20);
    stack.crash("postgres").unwrap();
    let refused = issue(&backends[0], "while-away").unwrap();
    stack.restart("postgres").unwrap();
    let mut statuses: Vec<u16> = asked.into_iter().flat_map(|client| client.join().unwrap()).collect();
    statuses.push(refused.status);
    assert!(statuses.iter().all(|status| [201, 202, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&202), "{statuses:?}");
    let places = statuses.iter().filter(|status| **status != 503).count();
    eventually(PATIENCE, "every pending one's commit", || pending(&stack) == 0);
    let rows = issued(&stack);
    // A place whose answer was 503, since Redis was slow to tell of it, is a coupon all the same.
    assert!(rows.len() > places && rows.len() <= statuses.len() + 1, "{} rows, {places} places", rows.len());
    let numbers =
        stack.sql("SELECT count(*), max(number), count(DISTINCT user_id) FROM public.issued_coupons").unwrap();
    let count = rows.len().to_string();
    assert_eq!(numbers, [[count.clone(), count.clone(), count]]);
}
