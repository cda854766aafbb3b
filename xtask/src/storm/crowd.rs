//! Runs k6 and reads what it saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::{CAMPAIGN, Options};
use crate::checkout::Checkout;
use crate::console::{run_logged, step};

/// The summary that `k6/flash-sale.js` writes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Summary {
    /// Requests that were sent.
    pub(super) requests: u64,
    /// How often each answer came: `issued`, `pending`, or the code of a refusal.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// How long wins took.
    pub(super) wins_ms: Percentiles,
    /// How long refusals took.
    pub(super) refusals_ms: Percentiles,
}

/// In milliseconds; null when nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// Lets the crowd loose on the gateways and waits until it is gone.
pub(super) fn release(
    checkout: &Checkout,
    k6: &Path,
    targets: &[String],
    options: &Options,
) -> anyhow::Result<Summary> {
    let seconds = options.requests.div_ceil(options.rate);
    step(&format!("{} requests by {} users at {}/s: about {seconds} s", options.requests, options.users, options.rate));
    let summary = checkout.private().join("storm.json");
    let mut command = Command::new(k6);
    command
        .current_dir(checkout.root())
        .args(["run", "--quiet", "--no-usage-report", "k6/flash-sale.js"])
        .env("TARGETS", targets.join(","))
        .env("CAMPAIGN", CAMPAIGN)
        .env("USERS", options.users.to_string())
        .env("REQUESTS", options.requests.to_string())
        .env("RATE", options.rate.to_string())
        .env("REPEAT_SHARE", options.repeat_share.to_string())
        .env("SUMMARY", &summary);
    run_logged(&mut command, &checkout.logs().join("storm-k6.log"))?;
    let text = fs::read_to_string(&summary).with_context(|| format!("k6 has not written {}", summary.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not the summary that was agreed", summary.display()))
}
