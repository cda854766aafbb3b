//! What a soak has shown.

use super::Options;

/// How much memory may grow.
const MOST_GROWTH: f64 = 1.05;
/// A compare-and-swap gives up after this many losses, by the filter's `state.rs`: with fewer in all, none has.
const RETRIES_TO_GIVE_UP: u64 = 1_000;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) refused: u64,
    /// Answers of no kind that the contract has for this, and requests without one.
    pub(super) other: u64,
    pub(super) campaigns_seen: usize,
    pub(super) warm_kib: u64,
    pub(super) peak_kib: u64,
    pub(super) end_kib: u64,
    pub(super) reloads: u64,
    pub(super) cas_retries: u64,
}

impl Report {
    /// What differs from the promise; empty when it was kept.
    pub(super) fn complaints(&self, options: &Options) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.end_kib as f64 > self.warm_kib as f64 * MOST_GROWTH {
            complaints.push(format!("memory grew from {} to {} KiB", self.warm_kib, self.end_kib));
        }
        if self.reloads > 0 {
            complaints.push(format!("{} VM reloads: a VM has trapped", self.reloads));
        }
        if self.cas_retries >= RETRIES_TO_GIVE_UP {
            complaints.push(format!("{} compare-and-swaps lost: one may have given up", self.cas_retries));
        }
        if self.campaigns_seen < options.campaigns as usize {
            complaints.push(format!("{} of {} campaigns were sold out", self.campaigns_seen, options.campaigns));
        }
        complaints
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(f, "| what | |\n| --- | --- |")?;
        writeln!(f, "| refusals | {} |", self.refused)?;
        writeln!(f, "| answers the contract does not know, or none | {} |", self.other)?;
        writeln!(f, "| campaigns that the edge has called sold out | {} |", self.campaigns_seen)?;
        writeln!(f, "| Envoy's resident memory after warming up, MiB | {:.1} |", mib(self.warm_kib))?;
        writeln!(f, "| at its highest, MiB | {:.1} |", mib(self.peak_kib))?;
        let growth = self.end_kib as f64 / self.warm_kib.max(1) as f64 - 1.0;
        writeln!(f, "| at the end, MiB | {:.1} ({:+.1} %) |", mib(self.end_kib), growth * 100.0)?;
        writeln!(f, "| VM reloads | {} |", self.reloads)?;
        write!(
            f,
            "| compare-and-swaps lost, of which {RETRIES_TO_GIVE_UP} in a row would give up | {} |",
            self.cas_retries
        )
    }
}
