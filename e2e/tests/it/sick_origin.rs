//! An origin that fails everybody at once is not stormed by its own failures.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use doorbuster_e2e::Stack;
use doorbuster_e2e::http;
use doorbuster_e2e::operator::open_all_day;
use serde_json::json;

const QUOTA: u64 = 4;
const HOLD_MS: u64 = 500;

/// Answers every request with 500, at once, and counts them.
fn failing_origin() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            thread::spawn(move || fail(&connection, &counted));
        }
    });
    (port, requests)
}

fn fail(connection: &TcpStream, requests: &AtomicU64) {
    let mut writer = connection;
    let mut asked = false;
    for line in BufReader::new(connection).lines().map_while(Result::ok) {
        if line.starts_with("POST ") {
            requests.fetch_add(1, Ordering::Relaxed);
            asked = true;
        } else if line.is_empty() && std::mem::take(&mut asked) {
            let written = writer.write_all(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
            if written.is_err() {
                return;
            }
        }
    }
}

#[test]
fn it_hears_no_more_than_its_credits_each_half_second() {
    let (port, requests) = failing_origin();
    let campaigns = json!([{"id": "spring", "quota": QUOTA, "schedule": open_all_day(QUOTA)["schedule"]}]);
    let plugin = json!({"sync": null, "campaigns": campaigns, "credits": {"hold_ms": HOLD_MS}});
    let stack = Stack::builder().backends(0).origin(port).plugin(plugin).start().unwrap();
    let url = format!("{}/v1/coupon/issue?campaign=spring", stack.url(0));
    let begun = Instant::now();
    let crowd: Vec<_> = (0..8)
        .map(|client| {
            let url = url.clone();
            thread::spawn(move || {
                let mut answers = BTreeMap::new();
                for n in 0..150 {
                    let user = format!("user-{client}-{n}");
                    let reply = http::send("POST", &url, &[("x-user-id", &user)], None).unwrap();
                    *answers.entry((reply.status, reply.code())).or_insert(0) += 1;
                }
                answers
            })
        })
        .collect();
    let mut answers: BTreeMap<(u16, String), u64> = BTreeMap::new();
    for client in crowd {
        for (answer, count) in client.join().unwrap() {
            *answers.entry(answer).or_default() += count;
        }
    }
    let halves = u64::try_from(begun.elapsed().as_millis()).unwrap() / HOLD_MS;
    let reached = requests.load(Ordering::Relaxed);
    let failed = answers.remove(&(500, String::new())).unwrap_or_default();
    let busy = answers.remove(&(503, "busy".to_owned())).unwrap_or_default();
    assert!(answers.is_empty(), "{answers:?}");
    assert_eq!((failed, failed + busy), (reached, 8 * 150));
    // Static campaigns are probed once a second as well.
    let bound = (halves + 1) * QUOTA + halves / 2 + 1;
    assert!((QUOTA..=bound).contains(&reached), "{reached} reached the origin in {halves} half seconds, bound {bound}");
    assert!(busy > 0);
}
