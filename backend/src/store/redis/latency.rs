//! How long Redis takes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::telemetry::STORE_SECONDS;

/// Times by what was sent: a `script`, a `command`, or a `pipeline` of them.
pub type Latency = Family<Exchange, Histogram, fn() -> Histogram>;

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Exchange {
    exchange: &'static str,
}

pub(super) const SCRIPT: Exchange = Exchange { exchange: "script" };
pub(super) const COMMAND: Exchange = Exchange { exchange: "command" };
pub(super) const PIPELINE: Exchange = Exchange { exchange: "pipeline" };

pub(super) fn new() -> Latency {
    Family::new_with_constructor(|| Histogram::new(STORE_SECONDS))
}

/// Notes how long `work` took, whatever came of it.
pub(super) async fn timed<T>(latency: &Latency, exchange: Exchange, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let outcome = work.await;
    latency.get_or_create(&exchange).observe(began.elapsed().as_secs_f64());
    outcome
}
