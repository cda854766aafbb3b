//! Workers that sync, on a host that records their calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::*;
use crate::config::Config;
use crate::host::NotSent;
use crate::host::model::{At, Model, ModelMetrics};
use crate::worker::Worker;

/// 2026-05-01T14:00:00Z.
const NOW: i64 = 1_777_644_000_000;
const TICK_MS: i64 = 50;

/// The host's side of calls and of the log.
#[derive(Default)]
struct Sent {
    calls: RefCell<Vec<String>>,
    log: RefCell<Vec<String>>,
    refuses: bool,
}

impl Callout for Sent {
    fn post(&self, call: &Call<'_>) -> Result<CallId, NotSent> {
        if self.refuses {
            return Err(NotSent);
        }
        let mut calls = self.calls.borrow_mut();
        calls.push(call.server.to_owned());
        CallId::try_from(calls.len()).map_err(|_| NotSent)
    }
}

impl Log for Sent {
    fn info(&self, message: &str) {
        self.log.borrow_mut().push(message.to_owned());
    }
    fn warn(&self, message: &str) {
        self.log.borrow_mut().push(message.to_owned());
    }
}

/// A process with some workers.
struct Process {
    shared: Model,
    now_ms: i64,
    workers: Vec<(Worker, Sent)>,
}

impl Process {
    fn start(config: &str, workers: usize) -> Self {
        let mut process = Self { shared: Model::default(), now_ms: NOW, workers: Vec::new() };
        process.configure(config, workers);
        process
    }

    /// Adds workers with this configuration, as a push does while the old ones drain.
    fn configure(&mut self, config: &str, workers: usize) {
        let config = Rc::new(Config::parse(config.as_bytes(), |_| Some("a token".to_owned())).unwrap());
        for _ in 0..workers {
            let host =
                Drawing { at: At { shared: &self.shared, now_ms: self.now_ms }, seed: self.workers.len() as u64 };
            self.workers.push((Worker::new(Rc::clone(&config), &host), Sent::default()));
        }
    }

    fn tick(&mut self, ms: i64) {
        for _ in 0..ms / TICK_MS {
            self.now_ms += TICK_MS;
            for (worker, sent) in &mut self.workers {
                let host = At { shared: &self.shared, now_ms: self.now_ms };
                worker.tick(&host, sent, sent, &mut ModelMetrics::default());
            }
        }
    }

    fn end(&mut self, worker: usize, call: CallId, ended: CallEnded) {
        let (worker, sent) = &mut self.workers[worker];
        worker.call_ended(call, ended, &At { shared: &self.shared, now_ms: self.now_ms }, sent);
    }

    /// Calls by server, of the workers from `first` on.
    fn calls(&self, first: usize) -> HashMap<String, usize> {
        let mut calls = HashMap::new();
        for server in self.workers[first..].iter().flat_map(|(_, sent)| sent.calls.borrow().clone()) {
            *calls.entry(server).or_default() += 1;
        }
        calls
    }

    fn log(&self) -> Vec<String> {
        self.workers.iter().flat_map(|(_, sent)| sent.log.borrow().clone()).collect()
    }
}

/// A host whose random numbers differ from worker to worker.
struct Drawing<'a> {
    at: At<'a>,
    seed: u64,
}

impl crate::host::SharedData for Drawing<'_> {
    fn get(&self, key: &str) -> Option<crate::host::Versioned> {
        self.at.get(key)
    }
    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), crate::host::Changed> {
        self.at.replace(key, value, seen)
    }
    fn create(&self, key: &str, value: &[u8]) -> Result<(), crate::host::Changed> {
        self.at.create(key, value)
    }
}

impl crate::host::Clock for Drawing<'_> {
    fn now_ms(&self) -> i64 {
        self.at.now_ms
    }
    fn monotonic_ms(&self) -> i64 {
        self.at.now_ms
    }
}

impl crate::host::Random for Drawing<'_> {
    fn random(&self) -> u64 {
        self.seed
    }
}

const SYNC: &str = r#"{"sync": {"cluster": "control"}}"#;
/// The same, pushed with another setting.
const PUSHED: &str = r#"{"sync": {"cluster": "control"}, "answer_count": false}"#;

fn answer(now_ms: i64) -> CallEnded {
    let body = format!(r#"{{"now_ms":{now_ms},"uncertainty_ms":1,"gateways":1,"complete":true,"campaigns":[]}}"#);
    CallEnded::Ok(body.into_bytes())
}

#[test]
fn one_worker_syncs_every_poll() {
    let mut process = Process::start(SYNC, 3);
    for second in 1..=4 {
        process.tick(250);
        let calls = process.calls(0)["control"];
        assert_eq!(calls, second, "one each 250 ms");
        let caller = process.workers.iter().position(|(_, sent)| !sent.calls.borrow().is_empty()).unwrap();
        process.end(caller, CallId::try_from(calls).unwrap(), answer(process.now_ms));
    }
    assert_eq!(process.workers.iter().filter(|(_, sent)| !sent.calls.borrow().is_empty()).count(), 1);
}

#[test]
fn silent_backend_delays_the_next_sync_no_longer_than_a_poll() {
    let mut process = Process::start(SYNC, 1);
    process.tick(550);
    assert!(process.calls(0)["control"] >= 2, "the first one is not answered");
    process.end(0, 2, answer(process.now_ms));
    process.end(0, 1, CallEnded::NoAnswer);
    assert_eq!(process.log(), [""; 0], "a later sync was answered");
    let sent = process.calls(0)["control"];
    process.tick(1_500);
    assert!(process.calls(0)["control"] <= sent + MOST_UNDER_WAY, "no more than {MOST_UNDER_WAY} under way");
}

#[test]
fn pushed_configuration_syncs_within_two_seconds_and_the_old_one_stops() {
    let mut process = Process::start(SYNC, 2);
    process.tick(1_000);
    process.configure(PUSHED, 2);
    process.tick(1_500);
    assert!(process.calls(2).contains_key("control"), "the new configuration syncs");
    let old = process.calls(0)["control"] - process.calls(2)["control"];
    process.tick(5_000);
    assert_eq!(process.calls(0)["control"] - process.calls(2)["control"], old, "the old one does not any more");
    // The new one is withdrawn.
    process.workers.truncate(2);
    process.tick(4_000);
    assert!(process.calls(0)["control"] > old);
}

#[test]
fn worker_whose_sync_fails_leaves_the_lease_to_another() {
    let mut process = Process::start(SYNC, 2);
    process.tick(50);
    let first = process.workers.iter().position(|(_, sent)| !sent.calls.borrow().is_empty()).unwrap();
    process.end(first, 1, CallEnded::Status("503".to_owned()));
    assert_eq!(process.log().len(), 1);
    assert!(process.log()[0].contains("none are known yet: status 503"), "{:?}", process.log());
    process.tick(100);
    assert_eq!(process.workers[1 - first].1.calls.borrow().len(), 1);
}

#[test]
fn call_that_cannot_be_sent_is_named() {
    let mut process = Process::start(SYNC, 1);
    process.workers[0].1.refuses = true;
    process.tick(3_000);
    assert_eq!(process.log().len(), 1, "once");
    assert!(process.log()[0].contains(r#"cannot send to "control""#), "{:?}", process.log());
}

#[test]
fn configurations_of_one_process_keep_apart() {
    let campaign = |id: &str| {
        format!(
            r#"{{"campaigns": [{{"id": "{id}", "quota": 1, "schedule": {{"timezone": "UTC", "first_day": "2026-05-01",
                "last_day": "2026-05-02", "opens": "08:00", "closes": "20:00"}}}}]}}"#
        )
    };
    let mut process = Process::start(SYNC, 1);
    process.configure(r#"{"sync": {"cluster": "other"}}"#, 1);
    process.configure(&campaign("a"), 1);
    process.configure(&campaign("b"), 1);
    process.tick(1_000);
    let calls = process.calls(0);
    assert!(calls["control"] >= 3 && calls["other"] >= 3, "{calls:?}");
}

/// One does not sync and holds no lease that the other one needs.
#[test]
fn configuration_without_a_sync_takes_no_sync_lease_in_a_shared_namespace() {
    let written = r#"{"namespace": "shop", "campaigns": [{"id": "a", "quota": 1, "schedule": {"timezone": "UTC",
        "first_day": "2026-05-01", "last_day": "2026-05-02", "opens": "08:00", "closes": "20:00"}}]}"#;
    let mut process = Process::start(written, 2);
    process.tick(1_000);
    process.configure(r#"{"namespace": "shop", "sync": {"cluster": "control"}}"#, 1);
    process.tick(1_000);
    assert!(process.calls(0)["control"] >= 3);
}
