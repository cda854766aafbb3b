//! One per worker: configuration, the tick, and the sync where this worker holds the lease.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Bytes, ContextType, LogLevel};

use super::host::{EnvoyShared, Random, now_ms};
use super::log;
use super::metrics::Metrics;
use super::stream::Stream;
use crate::config::{Config, Sync};
use crate::gate::Gate;
use crate::{state, sync};
use doorbuster_domain::id::CampaignId;
use doorbuster_domain::refusal::Refusal;
use doorbuster_domain::wire::SYNC_PATH;

const TICK: Duration = Duration::from_millis(50);
/// A sync that takes longer has failed, milliseconds.
const SYNC_TIMEOUT_MS: i64 = 2_000;
/// A worker that stopped renewing its lease is succeeded after this, milliseconds.
const LEASE_MS: i64 = 1_000;

/// What the streams of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) config: Rc<Config>,
    pub(super) gate: Gate,
    pub(super) random: Random,
    /// The last guarded path as it was sent, and the campaign it names: a crowd asks for one thing.
    pub(super) understood: Option<(Bytes, Result<CampaignId, Refusal>)>,
    /// Whether the last request needed more than its path, as the next one then will, too.
    pub(super) asks_for_all: bool,
}

#[derive(Debug, Default)]
pub(super) struct Root {
    worker: Option<Rc<RefCell<Worker>>>,
    metrics: Metrics,
    /// Names this VM in the lease.
    holder: u64,
    /// When the sync under way was sent.
    asked_ms: Option<i64>,
    next_sync_ms: i64,
    sync_failing: bool,
}

impl Context for Root {
    fn on_http_call_response(&mut self, _token: u32, headers: usize, body_bytes: usize, _trailers: usize) {
        let Some(sent_ms) = self.asked_ms.take() else { return };
        let answer = if headers == 0 {
            Err("no answer".to_owned())
        } else {
            match self.get_http_call_response_header_bytes(":status").as_deref() {
                Some(b"200") => {
                    let body = self.get_http_call_response_body(0, body_bytes).unwrap_or_default();
                    sync::read_answer(&body, sent_ms, now_ms())
                }
                status => Err(format!("status {}", String::from_utf8_lossy(status.unwrap_or_default()))),
            }
        };
        match (answer, &self.worker) {
            (Ok(snapshot), Some(worker)) => {
                worker.borrow_mut().gate.accept(snapshot, &EnvoyShared);
                if std::mem::take(&mut self.sync_failing) {
                    log(LogLevel::Info, "doorbuster: the sync works again");
                }
            }
            (Err(error), _) => self.sync_failed(&error),
            (Ok(_), None) => {}
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _bytes: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => Rc::new(config),
            Err(error) => {
                log(LogLevel::Error, &format!("doorbuster: the plugin configuration is refused: {error}"));
                return false;
            }
        };
        let mut random = Random::default();
        let drawn = [random.next(), random.next(), random.next(), random.next()];
        self.holder = random.next();
        let process = state::process(&EnvoyShared, drawn);
        let gate = Gate::new(Rc::clone(&config), process, &EnvoyShared, now_ms());
        self.worker =
            Some(Rc::new(RefCell::new(Worker { config, gate, random, understood: None, asks_for_all: false })));
        self.set_tick_period(TICK);
        true
    }

    fn on_tick(&mut self) {
        let Some(worker) = self.worker.clone() else { return };
        let mut worker = worker.borrow_mut();
        let now_ms = now_ms();
        worker.gate.tick(&EnvoyShared, now_ms);
        self.metrics.flush(&mut worker.gate);
        if now_ms < self.next_sync_ms && self.next_sync_ms - now_ms < 60_000 {
            return;
        }
        if !state::take_lease(&EnvoyShared, self.holder, now_ms, now_ms + LEASE_MS) {
            return;
        }
        self.metrics.set("doorbuster.credits_in_flight", worker.gate.credits_in_flight(&EnvoyShared, now_ms));
        if let Some(filled) = worker.gate.survey_duplicates(&EnvoyShared) {
            self.metrics.set("doorbuster.duplicates_filled", filled);
        }
        let Some(sync) = worker.config.sync.clone() else {
            self.next_sync_ms = now_ms + LEASE_MS / 4;
            return;
        };
        // Renewed well before it runs out, however rarely this gateway syncs.
        let age_ms = worker.gate.snapshot_age_ms(now_ms);
        self.metrics.set("doorbuster.sync_age_ms", age_ms.unwrap_or_default());
        self.metrics.set("doorbuster.warming", u64::from(age_ms.is_none()));
        if self.asked_ms.is_some_and(|asked_ms| now_ms.abs_diff(asked_ms) < SYNC_TIMEOUT_MS.unsigned_abs() * 2) {
            return;
        }
        self.next_sync_ms = now_ms + sync.poll_ms;
        self.ask(&mut worker.gate, &sync, now_ms);
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        self.worker.as_ref().map(|worker| Box::new(Stream::new(Rc::clone(worker))) as Box<dyn HttpContext>)
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Root {
    fn ask(&mut self, gate: &mut Gate, sync: &Sync, now_ms: i64) {
        let body = gate.ask(sync, &EnvoyShared, now_ms);
        let authorization = format!("Bearer {}", sync.token);
        let headers = vec![
            (":method", "POST"),
            (":path", SYNC_PATH),
            (":authority", sync.authority.as_str()),
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let timeout = Duration::from_millis(SYNC_TIMEOUT_MS.unsigned_abs());
        match self.dispatch_http_call(&sync.cluster, headers, Some(&body), vec![], timeout) {
            Ok(_) => self.asked_ms = Some(now_ms),
            Err(_) => self.sync_failed(&format!("sync.cluster: Envoy has no cluster {:?} to send to", sync.cluster)),
        }
    }

    /// Says so once, not four times a second.
    fn sync_failed(&mut self, error: &str) {
        if !std::mem::replace(&mut self.sync_failing, true) {
            log(LogLevel::Warn, &format!("doorbuster: the sync fails, the schedule and the latches hold: {error}"));
        }
    }
}
