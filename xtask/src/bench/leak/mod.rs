//! `cargo xtask bench leak`: how many issue requests reach the origin for one coupon, however large the crowd.

mod crowd;
mod fleet;
mod scenario;
mod table;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::ensure;
use clap::Args;

use super::document::{circumstances, write_section};
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup;
use fleet::{Fleet, Origin};
use scenario::Bench;

/// How large the crowd is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Requests of each scenario; a fifth of it where no filter protects the origin
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: u64,
    /// How many different users ask
    #[arg(long, default_value_t = 30_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// Connections in all: as many requests are under way at the same time
    #[arg(long, default_value_t = 900, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=20_000))]
    connections: u32,
    /// Seconds for which the failing origin fails
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    failing: u32,
    /// Leaves docs/benchmarks.md as it is
    #[arg(long)]
    dry: bool,
}

/// What is tried, in this order: the origin, how many gateways, and the quotas.
const SCENARIOS: [(Origin, u32, &[u64]); 7] = [
    (Origin::Ours, 1, &[10, 100, 1_000]),
    (Origin::Ours, 3, &[10, 100, 1_000]),
    (Origin::Slow, 1, &[100]),
    (Origin::Slow, 3, &[100]),
    (Origin::Failing, 1, &[100]),
    (Origin::Failing, 3, &[100]),
    (Origin::Unprotected, 1, &[100]),
];

/// Measures, prints the table and writes it down; fails if a campaign has issued anything but its quota.
pub(super) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let wrk = setup::wrk(checkout)?;
    let programs = super::programs(checkout)?;
    let interrupted = interrupt_flag()?;
    let command = format!(
        "cargo xtask bench leak --requests {} --users {} --connections {} --failing {}",
        options.requests, options.users, options.connections, options.failing
    );
    let circumstances = circumstances(checkout, &command, &[(&programs.envoy, &["--version"]), (&wrk, &["-v"])]);
    let folder = checkout.private().join("bench");
    std::fs::create_dir_all(&folder)?;
    let mut outcomes = Vec::new();
    for (origin, gateways, quotas) in SCENARIOS {
        // A stack of its own: gateways that are gone would be counted for a while.
        let fleet = Fleet::start(checkout, &programs, &folder, origin, gateways)?;
        for quota in quotas {
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            step(&format!("{}, {gateways} gateways, quota {quota}", origin.name()));
            let bench = Bench { fleet: &fleet, wrk: &wrk, folder: &folder, options };
            outcomes.push(bench.run(*quota)?);
        }
    }
    let text = table::markdown(&outcomes, options);
    println!("\n{text}");
    if !options.dry {
        write_section(checkout, "leak", &format!("## Leak\n\n{circumstances}\n\n{text}"))?;
    }
    let exact = outcomes.iter().all(|outcome| outcome.issued == outcome.quota.min(options.users));
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
