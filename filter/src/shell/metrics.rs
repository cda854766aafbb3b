//! Envoy's statistics. Names carry what labels would; the bootstrap's `stats_tags` take them apart again.

use std::collections::HashMap;

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use super::host::EnvoyShared;
use crate::gate::Gate;

/// Stands for the campaign where a request names none that is known. No campaign can have this id.
const NO_CAMPAIGN: &str = "-";

/// The metrics of one VM. Each is defined once; their number follows from the campaigns, never from the clients.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    ids: HashMap<String, u32>,
}

impl Metrics {
    /// Adds what the worker has counted since the last tick.
    pub(super) fn flush(&mut self, gate: &mut Gate) {
        gate.flush(&EnvoyShared, |campaign, decision, count| {
            let campaign = campaign.map_or(NO_CAMPAIGN, |id| id.as_str());
            self.add(format!("doorbuster.decisions_total.{decision}.{campaign}"), count);
        });
        let retries = gate.drain_cas_retries();
        if retries > 0 {
            self.add("doorbuster.cas_retries".to_owned(), retries);
        }
    }

    /// Sets a gauge. Only the worker that holds the lease may: the last writer wins.
    pub(super) fn set(&mut self, name: &str, value: u64) {
        if let Some(id) = self.id(MetricType::Gauge, name.to_owned()) {
            let _ = hostcalls::record_metric(id, value);
        }
    }

    fn add(&mut self, name: String, count: u64) {
        if let Some(id) = self.id(MetricType::Counter, name) {
            let _ = hostcalls::increment_metric(id, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn id(&mut self, kind: MetricType, name: String) -> Option<u32> {
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        let id = hostcalls::define_metric(kind, &name).ok()?;
        self.ids.insert(name, id);
        Some(id)
    }
}
