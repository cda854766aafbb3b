//! `envoy/examples/any-origin`: the filter before an origin that knows nothing of it but one response header.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use doorbuster_e2e::http::{self, Reply};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::process::{Launch, Process};
use doorbuster_e2e::{Stack, token};
use serde_json::json;

use crate::support::eventually;

/// A probe goes through once a second; a noisy machine is given some more.
const PROBED: Duration = Duration::from_secs(5);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/examples/any-origin")
}

/// The example's origin with its quota file, both as its README says.
struct Origin {
    process: Process,
    folder: PathBuf,
    port: u16,
}

impl Origin {
    fn start(quota: u64) -> Self {
        let folder = env::temp_dir().join(format!("any-origin-{}", token::random_token().unwrap()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("quota"), quota.to_string()).unwrap();
        let port = free_port().unwrap();
        let launch = Launch::new("python3").args([
            example().join("origin.py").display().to_string(),
            port.to_string(),
            folder.join("quota").display().to_string(),
        ]);
        let process = Process::spawn(&launch, &folder.join("origin.log")).unwrap();
        let origin = Self { process, folder, port };
        eventually(Duration::from_secs(20), "the origin listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        origin
    }

    fn raise_quota(&self, quota: u64) {
        fs::write(self.folder.join("quota"), quota.to_string()).unwrap();
    }

    /// Requests it has answered, from its own log.
    fn requests(&self) -> usize {
        fs::read_to_string(self.folder.join("origin.log")).unwrap().matches("\"POST ").count()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.process.kill();
        if !thread::panicking() {
            let _left_in_the_temporary_folder = fs::remove_dir_all(&self.folder);
        }
    }
}

/// As shipped, but that midnight is hours away.
fn stack_before(origin: &Origin, quota: u64) -> Stack {
    let over = json!({"timezone": "UTC", "first_day": "2025-05-01", "last_day": "2025-05-05", "opens": "13:00", "closes": "15:00"});
    let campaigns = json!([
        {"id": "gift", "quota": quota, "schedule": open_all_day(quota)["schedule"]},
        {"id": "last-year", "quota": quota, "schedule": over},
    ]);
    let stack = Stack::builder().backends(0).workers(2).template(example().join("envoy.yaml")).origin(origin.port);
    stack.plugin(json!({ "campaigns": campaigns })).start().unwrap()
}

fn ask(stack: &Stack, user: &str) -> Reply {
    let reply = http::send("POST", &format!("{}/gift", stack.url(0)), &[("x-user-id", user)], None).unwrap();
    assert!(reply.headers.iter().all(|(name, _)| !name.starts_with("x-doorbuster-")), "{:?}", reply.headers);
    reply
}

fn win(stack: &Stack, user: &str) {
    let reply = ask(stack, user);
    assert_eq!((reply.status, reply.body.as_str()), (201, "issued"), "{user}");
}

#[test]
fn the_schedule_refuses_without_the_origin() {
    let origin = Origin::start(3);
    let stack = stack_before(&origin, 3);
    for (query, expected) in [
        ("?campaign=last-year", (410, "ended")),
        ("?campaign=unknown", (404, "unknown_campaign")),
        ("", (401, "missing_user")),
    ] {
        for _ in 0..50 {
            let reply = http::send("POST", &format!("{}/gift{query}", stack.url(0)), &[], None).unwrap();
            assert_eq!((reply.status, reply.code().as_str()), expected, "{}", reply.body);
        }
    }
    assert_eq!(stack.admin(0).origin_requests().unwrap(), 0);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn who_has_a_gift_is_refused_without_the_origin() {
    let origin = Origin::start(3);
    let stack = stack_before(&origin, 3);
    win(&stack, "alice");
    for _ in 0..50 {
        let reply = ask(&stack, "alice");
        assert_eq!((reply.status, reply.code().as_str()), (409, "already_issued"), "{}", reply.body);
    }
    assert_eq!(origin.requests(), 1);
    // A body is none of the origin's business, however it is sent.
    let url = format!("{}/gift", stack.url(0));
    let with_body = http::send("POST", &url, &[("x-user-id", "bob")], Some(&json!({"please": true}))).unwrap();
    assert_eq!(with_body.status, 201, "{}", with_body.body);
    assert_eq!(chunked(&stack, "carol"), "HTTP/1.1 201 Created");
}

#[test]
fn sold_out_stays_at_the_edge_until_the_origin_has_more() {
    let origin = Origin::start(2);
    let stack = stack_before(&origin, 2);
    let begun = Instant::now();
    win(&stack, "alice");
    win(&stack, "bob");
    let mut by_the_edge = 0;
    for n in 0..300 {
        let reply = ask(&stack, &format!("late-{n}"));
        assert_eq!(reply.status, 409, "{}", reply.body);
        by_the_edge += usize::from(reply.code() == "sold_out");
    }
    // One a second asks the origin, which answers in its own words.
    let probes = begun.elapsed().as_secs() as usize + 1;
    assert!(by_the_edge + probes >= 300, "{by_the_edge} refused by the edge, {probes} probes");
    assert!(origin.requests() <= 2 + probes, "{} requests, {probes} probes", origin.requests());

    // Mid-round; nobody tells the gateway.
    origin.raise_quota(4);
    eventually(PROBED, "a probe wins", || ask(&stack, "dave").status == 201);
    // It has lifted the latch for both workers.
    eventually(PROBED, "the next one wins", || ask(&stack, "erin").status == 201);
    eventually(PROBED, "sold out again", || ask(&stack, "frank").code() == "sold_out");
    let more = begun.elapsed().as_secs() as usize + 1;
    assert!(origin.requests() <= 4 + more, "{} requests, {more} probes", origin.requests());
}

/// The status line of the answer to a chunked body.
fn chunked(stack: &Stack, user: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = TcpStream::connect(stack.url(0).replace("http://", "")).unwrap();
    let head = format!("POST /gift HTTP/1.1\r\nhost: drop\r\nx-user-id: {user}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(format!("{head}1\r\nx\r\n0\r\n\r\n").as_bytes()).unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    status.trim_end().to_owned()
}
