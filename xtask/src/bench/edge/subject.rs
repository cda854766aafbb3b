//! What is asked, and how the right answer looks.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use doorbuster_e2e::{Reply, http};

use super::listeners::Listeners;

/// A user with a coupon.
pub(super) const WINNER: &str = "winner";

/// One way of answering.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) user: &'static str,
    pub(super) status: u16,
    /// The problem's code, where there is one.
    pub(super) code: &'static str,
    /// What the others are compared with.
    pub(super) always: bool,
}

const SOLD_OUT: &str = "/v1/coupon/issue?campaign=sold-out";
const CLOSED: &str = "/v1/coupon/issue?campaign=closed";
const OPEN: &str = "/v1/coupon/issue?campaign=open";
const BUSY: &str = "/v1/coupon/issue?campaign=busy";
const COUNT: &str = "/v1/coupon/count?campaign=open";

/// All of them. `direct_response` comes first and Lua second: the table divides by them.
pub(super) fn subjects(listeners: &Listeners) -> Vec<Subject> {
    let post = |name: &str, port, path, user, status, code| Subject {
        name: name.to_owned(),
        port,
        method: "POST",
        path,
        user,
        status,
        code,
        always: false,
    };
    let ours = listeners.ours;
    let mut all = vec![
        Subject { always: true, ..post("direct_response", listeners.direct, SOLD_OUT, "u1", 409, "sold_out") },
        Subject { always: true, ..post("Lua filter", listeners.lua, SOLD_OUT, "u1", 409, "sold_out") },
        post("local_ratelimit", listeners.ratelimit, SOLD_OUT, "u1", 409, ""),
        post("ours: sold out", ours, SOLD_OUT, "u1", 409, "sold_out"),
        post("ours: closed", ours, CLOSED, "u1", 403, "not_started"),
        post("ours: duplicate", ours, OPEN, WINNER, 409, "already_issued"),
        post("ours: busy", ours, BUSY, "u1", 503, "busy"),
        Subject { method: "GET", ..post("ours: count", ours, COUNT, "u1", 200, "") },
        post("the backend through Envoy: sold out", listeners.origin, SOLD_OUT, "u1", 409, "sold_out"),
    ];
    for (name, port) in &listeners.beside {
        all.push(post(&format!("{name}: sold out"), *port, SOLD_OUT, "u1", 409, "sold_out"));
        all.push(post(&format!("{name}: closed"), *port, CLOSED, "u1", 403, "not_started"));
        all.push(post(&format!("{name}: duplicate"), *port, OPEN, WINNER, 409, "already_issued"));
        all.push(post(&format!("{name}: busy"), *port, BUSY, "u1", 503, "busy"));
    }
    all
}

impl Subject {
    /// A gateway needs a moment: it hears of campaigns, of a winner, of a failure that keeps it busy.
    pub(super) fn wait_until_right(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        let mut in_a_row = 0;
        while in_a_row < 3 {
            let reply = ask(&format!("http://127.0.0.1:{}", self.port), self.method, self.path, self.user)?;
            // The backend shows the coupon to its holder: then the edge has not answered.
            let from_edge = self.code != "already_issued" || reply.json().get("coupon").is_none();
            let right = reply.status == self.status && reply.code() == self.code && from_edge;
            in_a_row = if right { in_a_row + 1 } else { 0 };
            ensure!(right || Instant::now() < deadline, "{}: {} {}", self.name, reply.status, reply.body);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Asks as a user.
pub(super) fn ask(origin: &str, method: &str, path: &str, user: &str) -> anyhow::Result<Reply> {
    http::send(method, &format!("{origin}{path}"), &[("x-user-id", user)], None)
}
