//! Envoy's statistics. Names carry what labels would; the bootstrap's `stats_tags` take them apart again.

use std::collections::HashMap;

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::host::{Gauge, Metrics, Series};

/// The metrics of one VM. Each is defined once; their number follows from the configuration alone.
#[derive(Debug, Default)]
pub(super) struct EnvoyMetrics {
    ids: HashMap<String, u32>,
}

impl Metrics for EnvoyMetrics {
    fn count_decisions(&mut self, decision: &'static str, series: Series<'_>, count: u64) {
        let campaign = series.name();
        self.add(format!("doorbuster.decisions_total.{decision}.{campaign}"), count);
    }

    fn count_lost_swaps(&mut self, count: u64) {
        self.add("doorbuster.cas_retries".to_owned(), count);
    }

    fn set_gauge(&mut self, gauge: Gauge, value: u64) {
        if let Some(id) = self.id(MetricType::Gauge, gauge.name().to_owned()) {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

impl EnvoyMetrics {
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
