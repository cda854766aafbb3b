//! The sync: which worker asks the backend, when, and what becomes of the answer.
//!
//! One worker of a process syncs for all of them, by a lease in shared data. It does not wait for an answer before it asks
//! again, so a backend that is frozen delays a change no longer than a healthy one takes to be asked next. A worker whose
//! sync fails gives the lease up, and so does one whose configuration was replaced: the proxy may let it drain for minutes.

use doorbuster_domain::wire::SYNC_PATH;

use crate::config::{Config, Sync};
use crate::gate::Gate;
use crate::host::{Call, CallEnded, CallId, Callout, Gauge, Host, HostTime, Log, Metrics};
use crate::state::{self, Candidate, Duty, Namespace};
use crate::sync;

/// A sync that takes longer has failed, milliseconds.
const SYNC_TIMEOUT_MS: i64 = 1_000;
/// A worker that stopped renewing its lease is succeeded after this, milliseconds.
const LEASE_MS: i64 = 1_000;
/// Pause between two renewals, milliseconds.
const RENEW_MS: i64 = LEASE_MS / 4;
/// A worker whose sync has failed leaves the lease to others for this long, milliseconds.
const REST_MS: i64 = 500;
/// Syncs under way at once.
const MOST_UNDER_WAY: usize = 4;

/// One worker's part in the sync.
#[derive(Debug, Clone)]
pub(crate) struct Poller {
    names: Namespace,
    sync: Option<Sync>,
    /// Names this worker in the lease.
    holder: u64,
    /// The turn of its configuration.
    turn: u64,
    next_renewal_ms: i64,
    next_sync_ms: i64,
    under_way: Vec<UnderWay>,
    /// The newest sync that was answered.
    answered: u64,
    failing: bool,
}

/// A sync that was sent.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    call: CallId,
    number: u64,
    sent_ms: i64,
}

/// What a poller needs beside the host.
pub(crate) struct Outside<'a> {
    pub(crate) callout: &'a dyn Callout,
    pub(crate) log: &'a dyn Log,
    pub(crate) metrics: &'a mut dyn Metrics,
}

impl Poller {
    pub(crate) fn new(config: &Config, names: Namespace, host: &dyn Host) -> Self {
        Self {
            turn: state::turn(host, &names, config.fingerprint),
            names,
            sync: config.sync.clone(),
            holder: host.random(),
            next_renewal_ms: i64::MIN,
            next_sync_ms: i64::MIN,
            under_way: Vec::new(),
            answered: 0,
            failing: false,
        }
    }

    /// Syncs if it is time to and this worker holds the lease; its holder also reports the process's gauges.
    pub(crate) fn tick(&mut self, gate: &mut Gate, host: &dyn Host, now: HostTime, outside: &mut Outside<'_>) {
        let now_ms = now.host_ms;
        let due_ms = self.sync.as_ref().map_or(self.next_renewal_ms, |_| self.next_renewal_ms.min(self.next_sync_ms));
        if now_ms < due_ms {
            return;
        }
        let duty = if self.sync.is_some() { Duty::Sync } else { Duty::Report };
        let candidate = Candidate {
            holder: self.holder,
            turn: self.turn,
            newest: state::newest_turn(host, &self.names) <= self.turn,
        };
        let taken = state::take_lease(host, &self.names, duty, candidate, now_ms, now_ms + LEASE_MS);
        let Some(number) = taken else { return };
        self.next_renewal_ms = now_ms + RENEW_MS;
        report(gate, host, now, outside.metrics);
        let Some(sync) = self.sync.clone() else { return };
        self.under_way.retain(|sync| now_ms - sync.sent_ms < 2 * SYNC_TIMEOUT_MS);
        if now_ms < self.next_sync_ms || self.under_way.len() >= MOST_UNDER_WAY {
            return;
        }
        self.next_sync_ms = now_ms + sync.poll_ms;
        self.ask(number, gate, &sync, host, now, outside);
    }

    /// Takes in what became of a sync.
    pub(crate) fn call_ended(
        &mut self,
        call: CallId,
        ended: CallEnded,
        gate: &mut Gate,
        host: &dyn Host,
        log: &dyn Log,
    ) {
        let Some(at) = self.under_way.iter().position(|sync| sync.call == call) else { return };
        let UnderWay { number, sent_ms, .. } = self.under_way.swap_remove(at);
        let now = HostTime::read(host);
        let now_ms = now.host_ms;
        let answer = match ended {
            CallEnded::Ok(body) => sync::read_answer(&body, number, sent_ms, now),
            CallEnded::Status(status) => Err(format!("status {status}")),
            CallEnded::NoAnswer => Err("no answer".to_owned()),
        };
        match answer {
            Ok(snapshot) => {
                self.answered = self.answered.max(number);
                gate.accept(snapshot, host);
                if std::mem::take(&mut self.failing) {
                    log.info("doorbuster: the sync works again");
                }
            }
            // One of several backends may fail while the others answer.
            Err(_) if number < self.answered => {}
            Err(error) => self.failed(&error, gate, host, now_ms, log),
        }
    }

    fn ask(
        &mut self,
        number: u64,
        gate: &mut Gate,
        sync: &Sync,
        host: &dyn Host,
        now: HostTime,
        outside: &mut Outside<'_>,
    ) {
        let now_ms = now.host_ms;
        let body = gate.ask(number, sync, host, now);
        let call = Call {
            server: &sync.cluster,
            authority: &sync.authority,
            path: SYNC_PATH,
            token: &sync.token,
            body: &body,
            timeout_ms: SYNC_TIMEOUT_MS,
        };
        match outside.callout.post(&call) {
            Ok(call) => self.under_way.push(UnderWay { call, number, sent_ms: now_ms }),
            Err(_) => {
                let error = format!(
                    "sync.cluster: cannot send to {:?}: the gateway has no such cluster, or none of its hosts is healthy",
                    sync.cluster
                );
                self.failed(&error, gate, host, now_ms, outside.log);
            }
        }
    }

    /// Leaves the lease to another worker, which may have another configuration. Logs the first failure only.
    fn failed(&mut self, error: &str, gate: &Gate, host: &dyn Host, now_ms: i64, log: &dyn Log) {
        state::give_up_lease(host, &self.names, Duty::Sync, self.holder, now_ms);
        self.next_renewal_ms = now_ms + REST_MS;
        self.next_sync_ms = now_ms + REST_MS;
        if !std::mem::replace(&mut self.failing, true) {
            let used =
                if gate.snapshot_age_ms(now_ms).is_some() { "using the last ones" } else { "none are known yet" };
            log.warn(&format!("doorbuster: cannot fetch campaigns; {used}: {error}"));
        }
    }
}

fn report(gate: &mut Gate, host: &dyn Host, now: HostTime, metrics: &mut dyn Metrics) {
    metrics.set_gauge(Gauge::CreditsInFlight, gate.credits_in_flight(host, now));
    if let Some(filled) = gate.survey_duplicates(host) {
        metrics.set_gauge(Gauge::DuplicatesFilled, filled);
    }
    if gate.syncs() {
        let age_ms = gate.snapshot_age_ms(now.host_ms);
        metrics.set_gauge(Gauge::SyncAgeMs, age_ms.unwrap_or_default());
        metrics.set_gauge(Gauge::Warming, u64::from(age_ms.is_none()));
    }
}

#[cfg(test)]
mod tests;
