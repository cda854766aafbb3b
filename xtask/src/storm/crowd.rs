//! Runs k6 and reads what it saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use doorbuster_e2e::process::{Launch, Process};
use doorbuster_e2e::server::{last_words, log_path};
use serde::Deserialize;

use super::{CAMPAIGN, Options};
use crate::checkout::Checkout;
use crate::console::step;

/// k6's exit code when an answer was not as the script wants it; the verdict says so in its own words.
const THRESHOLDS_CROSSED: i32 = 99;

/// The summary that `k6/flash-sale.js` writes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Summary {
    /// Requests that were sent.
    pub(super) requests: u64,
    /// Different users that asked.
    pub(super) users: u64,
    /// How often each answer came: `issued`, `pending`, or the code of a refusal.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Answers, or failures to answer, that the contract does not know.
    pub(super) unexpected: u64,
    /// How long wins took.
    pub(super) wins_ms: Percentiles,
    /// How long refusals took.
    pub(super) refusals_ms: Percentiles,
    /// Who was told of which coupon: `USER CODE` in each line.
    #[serde(skip)]
    pub(super) seen: String,
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
    interrupted: &AtomicBool,
) -> anyhow::Result<Summary> {
    let seconds = options.requests.div_ceil(options.rate);
    step(&format!("{} requests by {} users at {}/s: about {seconds} s", options.requests, options.users, options.rate));
    let summary = checkout.private().join("storm.json");
    let script = checkout.root().join("k6/flash-sale.js").display().to_string();
    let launch = Launch::new(k6)
        .args(["run", "--quiet", "--no-usage-report", "--log-format", "raw", &script])
        .env("TARGETS", targets.join(","))
        .env("CAMPAIGN", CAMPAIGN)
        .env("USERS", options.users.to_string())
        .env("REQUESTS", options.requests.to_string())
        .env("RATE", options.rate.to_string())
        .env("REPEAT_SHARE", options.repeat_share.to_string())
        .env("SEEN", "1")
        .env("SUMMARY", summary.display().to_string());
    let log = log_path(&checkout.logs(), "storm-k6");
    let _first_time = fs::remove_file(&log);
    let mut crowd = Process::spawn(&launch, &log)?;
    let status = loop {
        if let Some(status) = crowd.try_wait().context("cannot wait for k6")? {
            break status;
        }
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        thread::sleep(Duration::from_millis(50));
    };
    ensure!(
        status.success() || status.code() == Some(THRESHOLDS_CROSSED),
        "k6 failed ({status}); {}",
        last_words(&log)
    );
    let text = fs::read_to_string(&summary).with_context(|| format!("k6 has not written {}", summary.display()))?;
    let summary: Summary = serde_json::from_str(&text)
        .with_context(|| format!("{} is not the summary that was agreed", summary.display()))?;
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let seen = said.lines().filter_map(|line| line.strip_prefix("seen ")).map(|line| format!("{line}\n")).collect();
    Ok(Summary { seen, ..summary })
}
