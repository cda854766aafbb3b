//! Clocks that are wrong by an hour. Redis's decides, and everybody else learns how far away from it they are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::scheduled;
use serde_json::{Value, json};

use crate::support::eventually;

/// Far less than the clocks are wrong by.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_round_opens_by_the_clock_of_redis_wherever_the_others_stand() {
    let secret = "a-secret-for-tickets";
    let stack = Stack::builder()
        .gateway_clock_s(-3600)
        .backend_clock_s(3600)
        // A ticket is 30 s old at most, by clocks that are two hours apart.
        .ticket_secret(secret)
        .plugin(json!({"ticket": {}}))
        .backend_setting("ticket", "require")
        .backend_setting("ticket_secret", secret)
        .start()
        .unwrap();
    // Ten minutes long: over, for the backend's own clock; not begun, for the gateway's.
    // PostgreSQL's clock is right, as Redis's is.
    let opens_s = seconds(&stack, "now()") + 8;
    let schedule = json!({
        "timezone": "UTC", "first_day": day(&stack, opens_s), "last_day": day(&stack, opens_s),
        "opens": time(opens_s), "closes": time(opens_s + 600),
    });
    stack.announce("spring", &scheduled(2, &schedule)).unwrap();
    let mut won = Value::Null;
    eventually(PATIENCE, "the round opens", || {
        let reply = stack.issue("spring", "alice").unwrap();
        // A slow machine hears `unavailable` now and then, or of its coupon later.
        let waits = ["not_started", "busy", "unavailable", "already_issued"].contains(&reply.code().as_str());
        assert!(waits || [201, 202].contains(&reply.status), "{}", reply.body);
        won = reply.json();
        reply.status == 201 || reply.code() == "already_issued"
    });
    let issued_s = seconds(&stack, "(SELECT issued_at FROM issued_coupons)");
    assert!((opens_s..opens_s + 600).contains(&issued_s), "opened at {opens_s}, issued at {issued_s}: {won}");
    eventually(PATIENCE, "the second coupon", || {
        let reply = stack.issue("spring", "bob").unwrap();
        assert!([201, 202, 409, 503].contains(&reply.status), "{}", reply.body);
        reply.status == 201 || reply.code() == "already_issued"
    });
    eventually(PATIENCE, "sold out", || stack.issue("spring", "carol").unwrap().code() == "sold_out");
}

#[test]
fn a_gateway_whose_clock_is_set_goes_on_syncing() {
    let stack = Stack::builder().gateway_clock_s(1).start().unwrap();
    let opens_s = seconds(&stack, "now()") - 600;
    let open_now = |quota: u64| {
        let schedule = json!({
            "timezone": "UTC", "first_day": day(&stack, opens_s), "last_day": day(&stack, opens_s),
            "opens": time(opens_s), "closes": time(opens_s + 1_800),
        });
        scheduled(quota, &schedule)
    };
    for (quota, ahead_s) in (1..).zip([1, -50, -7 * 3_600, 7 * 3_600, 0]) {
        stack.set_clock("gateway-1", ahead_s).unwrap();
        // The gateway hears of each change within ten seconds, or this fails.
        stack.announce("spring", &open_now(quota)).unwrap();
        let (user, late) = (format!("user-{quota}"), format!("late-{quota}"));
        eventually(PATIENCE, "one more coupon", || {
            let reply = stack.issue("spring", &user).unwrap();
            let waits = ["busy", "sold_out", "unavailable", "already_issued"];
            assert!(waits.contains(&reply.code().as_str()) || [201, 202].contains(&reply.status), "{}", reply.body);
            reply.status == 201 || reply.code() == "already_issued"
        });
        eventually(PATIENCE, "sold out", || stack.issue("spring", &late).unwrap().code() == "sold_out");
    }
}

/// Requests wait on connections of both workers while the gateway is stopped.
#[test]
fn a_gateway_that_was_stopped_across_an_opening_refuses_nobody_by_its_last_tick() {
    let mut stack = Stack::builder().start().unwrap();
    let opens_s = seconds(&stack, "now()") + 12;
    let schedule = json!({
        "timezone": "UTC", "first_day": day(&stack, opens_s), "last_day": day(&stack, opens_s),
        "opens": time(opens_s), "closes": time(opens_s + 600),
    });
    stack.announce("spring", &scheduled(100, &schedule)).unwrap();
    let mut connections: Vec<TcpStream> =
        (0..32).map(|_| TcpStream::connect(stack.url(0).trim_start_matches("http://")).unwrap()).collect();
    let before: Vec<String> = connections.iter_mut().map(|connection| ask_on(connection, "early", true)).collect();
    assert!(before.iter().all(|body| body.contains("not_started")), "{before:?}");
    stack.freeze("gateway-1").unwrap();
    assert!(seconds(&stack, "now()") < opens_s - 3, "too slow a machine to stop it in time");
    for (n, connection) in connections.iter_mut().enumerate() {
        ask_on(connection, &format!("user-{n}"), false);
    }
    eventually(PATIENCE, "the round opens", || seconds(&stack, "now()") > opens_s + 1);
    stack.unfreeze("gateway-1").unwrap();
    let answers: Vec<String> = connections.iter_mut().map(read_answer).collect();
    assert!(answers.iter().all(|answer| !answer.contains("not_started")), "{answers:?}");
}

fn ask_on(connection: &mut TcpStream, user: &str, waits: bool) -> String {
    let head = format!("POST /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: drop\r\nx-user-id: {user}\r\n");
    connection.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes()).unwrap();
    if waits { read_answer(connection) } else { String::new() }
}

fn read_answer(connection: &mut TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            bytes = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// An SQL expression for an instant, in whole seconds since 1970.
fn seconds(stack: &Stack, instant: &str) -> i64 {
    stack.sql(&format!("SELECT floor(extract(epoch FROM {instant}))::bigint")).unwrap()[0][0].parse().unwrap()
}

fn day(stack: &Stack, at_s: i64) -> String {
    stack.sql(&format!("SELECT to_char(to_timestamp({at_s}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')")).unwrap()[0][0].clone()
}

fn time(at_s: i64) -> String {
    let second = at_s.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}
