//! The sync: which worker asks the backend, when, and what becomes of the answer.
//!
//! One worker of a process syncs for all of them, by a lease in shared data.

use doorbuster_domain::wire::SYNC_PATH;

use crate::config::Sync;
use crate::gate::Gate;
use crate::host::{Call, CallEnded, Callout, Gauge, Host, Log, Metrics};
use crate::{state, sync};

/// A sync that takes longer has failed, milliseconds.
const SYNC_TIMEOUT_MS: i64 = 2_000;
/// A worker that stopped renewing its lease is succeeded after this, milliseconds.
const LEASE_MS: i64 = 1_000;

/// One worker's part in the sync.
#[derive(Debug, Clone)]
pub(crate) struct Poller {
    /// Names this worker in the lease.
    holder: u64,
    /// When the sync under way was sent.
    asked_ms: Option<i64>,
    next_sync_ms: i64,
    failing: bool,
}

impl Poller {
    pub(crate) fn new(holder: u64) -> Self {
        Self { holder, asked_ms: None, next_sync_ms: i64::MIN, failing: false }
    }

    /// Syncs if it is time to and this worker holds the lease; its holder also reports the process's gauges.
    pub(crate) fn tick(
        &mut self,
        gate: &mut Gate,
        host: &dyn Host,
        now_ms: i64,
        callout: &dyn Callout,
        log: &dyn Log,
        metrics: &mut dyn Metrics,
    ) {
        if now_ms < self.next_sync_ms && self.next_sync_ms - now_ms < 60_000 {
            return;
        }
        if !state::take_lease(host, self.holder, now_ms, now_ms + LEASE_MS) {
            return;
        }
        metrics.set_gauge(Gauge::CreditsInFlight, gate.credits_in_flight(host, now_ms));
        if let Some(filled) = gate.survey_duplicates(host) {
            metrics.set_gauge(Gauge::DuplicatesFilled, filled);
        }
        let Some(sync) = gate.sync_rule().cloned() else {
            self.next_sync_ms = now_ms + LEASE_MS / 4;
            return;
        };
        // Renewed well before it runs out, however rarely this gateway syncs.
        let age_ms = gate.snapshot_age_ms(now_ms);
        metrics.set_gauge(Gauge::SyncAgeMs, age_ms.unwrap_or_default());
        metrics.set_gauge(Gauge::Warming, u64::from(age_ms.is_none()));
        if self.asked_ms.is_some_and(|asked_ms| now_ms.abs_diff(asked_ms) < SYNC_TIMEOUT_MS.unsigned_abs() * 2) {
            return;
        }
        self.next_sync_ms = now_ms + sync.poll_ms;
        self.ask(gate, &sync, host, now_ms, callout, log);
    }

    /// Takes in what became of the sync under way.
    pub(crate) fn call_ended(&mut self, ended: CallEnded, gate: &mut Gate, host: &dyn Host, log: &dyn Log) {
        let Some(sent_ms) = self.asked_ms.take() else { return };
        let answer = match ended {
            CallEnded::Ok(body) => sync::read_answer(&body, sent_ms, host.now_ms()),
            CallEnded::Status(status) => Err(format!("status {status}")),
            CallEnded::NoAnswer => Err("no answer".to_owned()),
        };
        match answer {
            Ok(snapshot) => {
                gate.accept(snapshot, host);
                if std::mem::take(&mut self.failing) {
                    log.info("doorbuster: the sync works again");
                }
            }
            Err(error) => self.failed(&error, log),
        }
    }

    fn ask(
        &mut self,
        gate: &mut Gate,
        sync: &Sync,
        host: &dyn Host,
        now_ms: i64,
        callout: &dyn Callout,
        log: &dyn Log,
    ) {
        let body = gate.ask(sync, host, now_ms);
        let call = Call {
            server: &sync.cluster,
            authority: &sync.authority,
            path: SYNC_PATH,
            token: &sync.token,
            body: &body,
            timeout_ms: SYNC_TIMEOUT_MS,
        };
        match callout.post(&call) {
            Ok(()) => self.asked_ms = Some(now_ms),
            Err(_) => self.failed(&format!("sync.cluster: Envoy has no cluster {:?} to send to", sync.cluster), log),
        }
    }

    /// Says so once, not four times a second.
    fn failed(&mut self, error: &str, log: &dyn Log) {
        if !std::mem::replace(&mut self.failing, true) {
            log.warn(&format!("doorbuster: the sync fails, the schedule and the latches hold: {error}"));
        }
    }
}
