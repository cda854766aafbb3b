//! Nothing a client sends gets a 5xx, reloads a VM, or is answered otherwise than its normalised form.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;
use serde_json::json;

/// Status and problem code (empty for Envoy's own answers) of raw bytes on a connection of their own.
fn exchange(stack: &Stack, request: &[u8]) -> (u16, String, String) {
    let authority = stack.url(0).replace("http://", "");
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A gateway that has answered may close while the rest is still being sent.
    let _answered_before_the_end = stream.write_all(request);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..count]);
        if is_whole(&answer) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    (status, problem["code"].as_str().unwrap_or_default().to_owned(), text)
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
}

fn post(path: &[u8], headers: &[u8], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}\r\n\r\n", body.len());
    [b"POST ".as_slice(), path, b" HTTP/1.1\r\nhost: drop\r\n", headers, length.as_bytes(), body].concat()
}

const ISSUE: &[u8] = b"/v1/coupon/issue?campaign=spring";
const WINNER: &[u8] = b"x-user-id: winner\r\n";

/// The user has a coupon, so whatever means an issue request hears `already_issued`.
fn stack_with_a_winner() -> Stack {
    let stack = Stack::builder().plugin(json!({"default_campaign": null})).start().unwrap();
    stack.announce("spring", &open_all_day(5)).unwrap();
    assert_eq!(stack.issue("spring", "winner").unwrap().status, 201);
    stack
}

fn check(stack: &Stack, name: &str, request: &[u8], expected: (u16, &str)) {
    let (status, code, text) = exchange(stack, request);
    assert_eq!((status, code.as_str()), expected, "{name}: {}", text.chars().take(600).collect::<String>());
    assert!(!text.to_lowercase().contains("\r\nx-doorbuster-"), "{name}: {text}");
}

fn no_worker_was_lost(stack: &Stack) {
    assert_eq!(stack.admin(0).sum(r"wasm\..*vm_reload.*").unwrap(), 0);
    assert_eq!(stack.issue("spring", "winner").unwrap().code(), "already_issued");
}

#[test]
fn headers() {
    let stack = stack_with_a_winner();
    let big = |bytes: usize| [b"x-user-id: winner\r\nx-big: ".as_slice(), &vec![b'a'; bytes], b"\r\n"].concat();
    let rows: &[(&str, Vec<u8>, (u16, &str))] = &[
        ("a value that is no UTF-8", b"x-user-id: winner\r\nx-other: \xff\xfe\r\n".to_vec(), (409, "already_issued")),
        ("a user that is no UTF-8", b"x-user-id: \xff\xfe\r\n".to_vec(), (400, "invalid_user")),
        ("a name that is no token", b"x-user-id: winner\r\nx-\xff: 1\r\n".to_vec(), (400, "")),
        ("a ticket that is no UTF-8", b"x-user-id: winner\r\nx-doorbuster-ticket: \xff\r\n".to_vec(), (409, "already_issued")),
        ("64 KiB", big(65_536), (431, "")),
        ("two users", b"x-user-id: winner\r\nx-user-id: other\r\n".to_vec(), (400, "invalid_user")),
        ("one user twice", b"x-user-id: winner\r\nX-User-Id: winner\r\n".to_vec(), (400, "invalid_user")),
        ("two users in one", b"x-user-id: winner, other\r\n".to_vec(), (400, "invalid_user")),
        ("no user", b"".to_vec(), (401, "missing_user")),
        ("an empty user", b"x-user-id:\r\n".to_vec(), (401, "missing_user")),
        ("a long user", [b"x-user-id: ".as_slice(), &[b'u'; 129], b"\r\n"].concat(), (400, "invalid_user")),
        (
            "spoofed headers",
            b"x-user-id: winner\r\nx-doorbuster-result: outcome=sold_out, campaign=\"spring\"\r\nx-doorbuster-round: 2020-01-01\r\n".to_vec(),
            (409, "already_issued"),
        ),
        ("an upgrade", b"x-user-id: winner\r\nconnection: upgrade\r\nupgrade: websocket\r\n".to_vec(), (409, "already_issued")),
        ("a timeout of one's own", b"x-user-id: winner\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n".to_vec(), (409, "already_issued")),
    ];
    for (name, headers, expected) in rows {
        check(&stack, name, &post(ISSUE, headers, b""), *expected);
    }
    no_worker_was_lost(&stack);
}

#[test]
fn paths() {
    let stack = stack_with_a_winner();
    let long = [b"/v1/coupon/issue?campaign=".as_slice(), &[b'a'; 10_000]].concat();
    let rows: &[(&[u8], (u16, &str))] = &[
        (b"//v1/coupon/issue?campaign=spring", (409, "already_issued")),
        (b"/v1/./coupon/issue?campaign=spring", (409, "already_issued")),
        (b"/v1/x/../coupon/issue?campaign=spring", (409, "already_issued")),
        (b"/v1/coupon/%69ssue?campaign=spring", (409, "already_issued")),
        (b"/v1%2fcoupon/issue?campaign=spring", (400, "")),
        (b"/v1%5ccoupon/issue?campaign=spring", (400, "")),
        (b"/v1/coupon/issue/?campaign=spring", (404, "not_found")),
        (b"/v1/coupon/issue%00?campaign=spring", (400, "")),
        (b"/V1/coupon/issue?campaign=spring", (404, "not_found")),
        (b"/v1/coupon/issue?campaign=spring#x", (400, "")),
        (b"/v1/coupon/issue?campaign=%73pring", (409, "already_issued")),
        (b"/v1/coupon/issue", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=spring&campaign=spring", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=", (400, "invalid_campaign")),
        (&long, (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=%00", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=%zz", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=%ff", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=spring%0d%0ax", (400, "invalid_campaign")),
        (b"/v1/coupon/issue?campaign=autumn", (404, "unknown_campaign")),
        (b"/v1/coupon/issue?campaign=\xff", (400, "")),
        (b"*", (400, "")),
        (b"/%ff", (404, "not_found")),
    ];
    for (path, expected) in rows {
        check(&stack, &String::from_utf8_lossy(path), &post(path, WINNER, b""), *expected);
    }
    let get = b"GET /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: drop\r\nx-user-id: winner\r\n\r\n";
    check(&stack, "another method", get, (405, "method_not_allowed"));
    check(&stack, "no HTTP", b"\x00\x01\r\n\r\n", (400, ""));
    no_worker_was_lost(&stack);
}

#[test]
fn bodies() {
    let stack = stack_with_a_winner();
    check(&stack, "one byte", &post(ISSUE, WINNER, b"x"), (409, "already_issued"));
    check(&stack, "4 KiB", &post(ISSUE, WINNER, &[b'x'; 4096]), (409, "already_issued"));
    check(&stack, "a byte more", &post(ISSUE, WINNER, &[b'x'; 4097]), (413, "body_too_large"));
    check(&stack, "10 MB", &post(ISSUE, WINNER, &vec![b'x'; 10_000_000]), (413, "body_too_large"));
    let chunked = |body: &[u8]| {
        let head = b"POST /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: drop\r\nx-user-id: winner\r\ntransfer-encoding: chunked\r\n\r\n";
        [head.as_slice(), body].concat()
    };
    check(&stack, "chunks and trailers", &chunked(b"1\r\nx\r\n0\r\nx-late: 1\r\n\r\n"), (409, "already_issued"));
    let large = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n0\r\n\r\n"].concat();
    check(&stack, "a large chunk", &chunked(&large), (413, "body_too_large"));
    check(&stack, "a chunk that is none", &chunked(b"zz\r\n"), (400, ""));
    no_worker_was_lost(&stack);
}

#[test]
fn a_trickled_body_holds_no_credit_and_times_out() {
    let stack = Stack::builder().start().unwrap();
    stack.announce("spring", &open_all_day(1)).unwrap();
    let authority = stack.url(0).replace("http://", "");
    let mut trickles: Vec<TcpStream> = (0..4)
        .map(|n| {
            let mut stream = TcpStream::connect(&authority).unwrap();
            let head = format!(
                "POST /v1/coupon/issue?campaign=spring HTTP/1.1\r\nhost: drop\r\nx-user-id: slow-{n}\r\ncontent-length: 100\r\n\r\nx"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // The only coupon there is, and so the only credit, is free all the while.
    assert_eq!(stack.issue("spring", "quick").unwrap().status, 201);
    for stream in &mut trickles {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        // One byte a second would keep it from being idle; the time for the whole request ends it.
        let _reset_after_the_answer = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    }
}

#[test]
fn a_refused_small_body_keeps_its_connection() {
    let stack = stack_with_a_winner();
    let authority = stack.url(0).replace("http://", "");
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut ask = || {
        stream.write_all(&post(ISSUE, WINNER, b"a small body")).unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !is_whole(&answer) {
            let count = stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 409 "), "{}", String::from_utf8_lossy(&answer));
    };
    // Envoy counts a connection when it takes it, which a busy worker may do after `connect` has returned.
    ask();
    let connections = || stack.admin(0).stat("http.gateway.downstream_cx_total").unwrap();
    let before = connections();
    (0..10).for_each(|_| ask());
    assert_eq!(connections(), before);
}
