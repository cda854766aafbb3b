//! The table at the end of a storm.

use doorbuster_e2e::Stack;
use serde_json::Value;

use super::crowd::{Percentiles, Summary};
use super::ledger::Ledger;
use crate::audit;

/// Everything that is known about a storm.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) summary: Summary,
    pub(super) ledger: Ledger,
    pub(super) traffic: Traffic,
    /// The audit's report.
    pub(super) audit: Value,
    /// How many coupons the promise allows and demands.
    pub(super) expected: u64,
}

/// What passed the gateways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    /// Issue requests that the backends counted.
    pub(super) backend: u64,
    /// Requests of any kind that Envoy sent to the cluster `origin`.
    pub(super) origin: u64,
}

impl Traffic {
    pub(super) fn read(stack: &Stack, gateways: usize) -> anyhow::Result<Self> {
        let origin = (0..gateways).map(|index| stack.admin(index).origin_requests()).sum::<anyhow::Result<u64>>()?;
        Ok(Self { backend: stack.issue_requests()?, origin })
    }
}

impl Verdict {
    /// What differs from the promise; empty when it was kept.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.ledger.complaints(self.expected);
        complaints.extend(audit::complaints(&self.audit));
        if self.summary.unexpected > 0 {
            let count = self.summary.unexpected;
            complaints
                .push(format!("{count} answers were none that the contract knows: see .doorbuster/logs/storm-k6.log"));
        }
        complaints
    }

    pub(super) fn print(&self) {
        println!();
        row("requests", self.summary.requests);
        row("users who asked", self.summary.users);
        row("coupons issued (rows in PostgreSQL)", self.ledger.issued);
        // More `issued` than coupons is no fault: whoever asks again during the commit hears of the same coupon.
        for (outcome, count) in &self.summary.outcomes {
            row(&format!("answered {outcome}"), count);
        }
        row("issue requests that reached a backend", self.traffic.backend);
        row("requests that Envoy sent to the origin", self.traffic.origin);
        row("wins, ms (p50 / p95 / p99)", milliseconds(self.summary.wins_ms));
        row("refusals, ms (p50 / p95 / p99)", milliseconds(self.summary.refusals_ms));
        println!();
        let complaints = self.complaints();
        if complaints.is_empty() {
            println!("The promise was kept: {} coupons, nobody twice, each number once.", self.expected);
        }
        for complaint in complaints {
            println!("BROKEN: {complaint}");
        }
    }
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<40} {value:>24}");
}

fn milliseconds(percentiles: Percentiles) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    format!("{} / {} / {}", shown(percentiles.p50), shown(percentiles.p95), shown(percentiles.p99))
}
