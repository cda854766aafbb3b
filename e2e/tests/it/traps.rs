//! A worker's VM traps, which the shipped module never does: these tests give it a reason to. Their module is the shipped one, but
//! that a request with very many headers ends the VM.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use doorbuster_e2e::http::{self, Reply};
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Stack};
use serde_json::json;
use walrus::ir::{BinaryOp, Value};
use walrus::{ExportItem, FunctionKind, Module};

use crate::support::eventually;

/// More headers than a request of these tests has, and fewer than `max_headers_count`.
const DEADLY_HEADERS: i32 = 60;

/// A machine that is busy gets more time than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shipped module, with a trap put before its `proxy_on_request_headers(context, count, end_of_stream)`.
fn with_a_trap(shipped: &Path) -> PathBuf {
    let mut module = Module::from_file(shipped).unwrap();
    let callback = module.exports.iter().find(|export| export.name == "proxy_on_request_headers").unwrap();
    let ExportItem::Function(id) = callback.item else { panic!("no function") };
    let FunctionKind::Local(function) = &mut module.funcs.get_mut(id).kind else { panic!("not its own function") };
    let count = function.args[1];
    let mut body = function.builder_mut().func_body();
    body.instr_at(0, walrus::ir::LocalGet { local: count });
    body.instr_at(1, walrus::ir::Const { value: Value::I32(DEADLY_HEADERS) });
    body.instr_at(2, walrus::ir::Binop { op: BinaryOp::I32GtU });
    body.if_else_at(
        3,
        None,
        |then| {
            then.unreachable();
        },
        |_| {},
    );
    let place = std::env::temp_dir().join(format!("trapping-{}.wasm", doorbuster_e2e::token::random_token().unwrap()));
    module.emit_wasm_file(&place).unwrap();
    place
}

struct Trapped {
    stack: Stack,
    module: PathBuf,
}

impl Trapped {
    fn start() -> Self {
        let mut programs = Programs::from_env().unwrap();
        let module = with_a_trap(&programs.filter_wasm);
        programs.filter_wasm.clone_from(&module);
        let credits = json!({"credits": {"request_timeout_ms": 4000, "ttl_ms": 4500}});
        let stack = Stack::builder().workers(2).plugin(credits).programs(programs).start().unwrap();
        Self { stack, module }
    }

    fn ask(&self, user: &str) -> anyhow::Result<Reply> {
        self.stack.issue("spring", user)
    }

    /// Ends the VMs of both workers: asks on new connections until each worker has had some.
    fn trap_every_worker(&self) {
        let names: Vec<String> = (0..=DEADLY_HEADERS).map(|n| format!("x-many-{n}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let url = format!("{}/v1/coupon/issue?campaign=spring", self.stack.url(0));
        let url_of_gateway = self.stack.url(0);
        let port = url_of_gateway.rsplit(':').next().unwrap();
        let pattern = format!(r"listener\.127\.0\.0\.1_{port}\.worker_\d+\.downstream_cx_total");
        let connections = || self.stack.admin(0).stats(&pattern).unwrap();
        let before = connections();
        assert_eq!(before.len(), 2);
        eventually(PATIENCE, "each worker has had a deadly request", || {
            // That stream fails, however Envoy puts it.
            let failed = http::send("POST", &url, &headers, None).map_or(true, |reply| reply.status == 503);
            assert!(failed);
            connections().iter().zip(&before).all(|((_, now), (_, before))| now > before)
        });
    }

    fn serves_again(&self) {
        let mut in_a_row = 0;
        eventually(PATIENCE, "both workers serve again", || {
            let answered =
                self.ask("").is_ok_and(|reply| ["missing_user", "sold_out"].contains(&reply.code().as_str()));
            in_a_row = if answered { in_a_row + 1 } else { 0 };
            in_a_row == 20
        });
    }
}

impl Drop for Trapped {
    fn drop(&mut self) {
        let _left_in_the_temporary_folder = std::fs::remove_file(&self.module);
    }
}

#[test]
fn a_trap_costs_no_coupon_and_its_credits_heal() {
    let mut trapped = Trapped::start();
    trapped.stack.announce("spring", &open_all_day(4)).unwrap();
    // Three of four credits are with an origin that does not answer when the VMs that count them end.
    trapped.stack.freeze("backend-1").unwrap();
    let url = format!("{}/v1/coupon/issue?campaign=spring", trapped.stack.url(0));
    let admitted: Vec<_> = ["alice", "bob", "carol"]
        .map(|user| {
            let url = url.clone();
            thread::spawn(move || http::send("POST", &url, &[("x-user-id", user)], None).map(|reply| reply.status))
        })
        .into();
    let admin = trapped.stack.admin(0);
    let in_flight = || admin.stat("wasmcustom.doorbuster.credits_in_flight").unwrap();
    eventually(PATIENCE, "three with the origin", || admin.origin_requests().unwrap() >= 3);
    eventually(PATIENCE, "three credits", || in_flight() == 3);
    trapped.trap_every_worker();
    for client in admitted {
        // Nobody was told of a coupon by a worker that had forgotten the request.
        assert!(client.join().unwrap().map_or(true, |status| status == 503));
    }
    trapped.stack.unfreeze("backend-1").unwrap();
    trapped.serves_again();
    assert!(admin.sum(r"wasm\..*vm_reload_success").unwrap() >= 2);
    eventually(PATIENCE, "credits that nobody settles heal", || in_flight() == 0);
    let mut next = 0;
    eventually(PATIENCE, "sold out", || {
        next += 1;
        trapped.ask(&format!("user-{next}")).is_ok_and(|reply| reply.code() == "sold_out")
    });
    let rows = trapped.stack.sql("SELECT number FROM issued_coupons ORDER BY number").unwrap();
    assert_eq!(rows, [["1"], ["2"], ["3"], ["4"]]);
}

#[test]
fn what_all_workers_know_outlives_their_traps() {
    let trapped = Trapped::start();
    trapped.stack.announce("spring", &open_all_day(1)).unwrap();
    assert_eq!(trapped.ask("alice").unwrap().status, 201);
    eventually(PATIENCE, "sold out", || trapped.ask("bob").is_ok_and(|reply| reply.code() == "sold_out"));
    let reached = trapped.stack.issue_requests().unwrap();
    trapped.trap_every_worker();
    trapped.serves_again();
    // Within the pause after a reload, the second trap fails that worker's requests until it ends.
    trapped.trap_every_worker();
    let mut heard = BTreeSet::new();
    eventually(PATIENCE, "the pause after the second trap ends", || {
        let code = trapped.ask("carol").map(|reply| reply.code()).unwrap_or_default();
        let sold_out = code == "sold_out";
        heard.insert(code);
        sold_out
    });
    trapped.serves_again();
    assert!(heard.iter().all(|code| ["", "unavailable", "sold_out"].contains(&code.as_str())), "{heard:?}");
    assert_eq!(trapped.stack.issue_requests().unwrap(), reached);
}
