//! `cargo xtask storm`: a crowd meets a few coupons, and the database is asked whether every promise held.

mod crowd;
pub(crate) mod ledger;
mod verdict;

use std::process::ExitCode;

use clap::Args;
use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;

use crate::audit;
use crate::build::{self, Profile};
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup;
use ledger::Ledger;
use verdict::{Traffic, Verdict};

const CAMPAIGN: &str = "storm";

/// How large the storm is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many different users ask
    #[arg(long, default_value_t = 5_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// How many requests they send in all
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: u64,
    /// How many coupons there are
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    quota: u64,
    /// Requests a second, whatever the answers (an open model)
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Share of requests by users who have asked before, 0 to below 1
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", value_parser = share)]
    repeat_share: f64,
    /// How many gateways
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    gateways: u16,
    /// Workers of each gateway
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How many backends
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    backends: u16,
    /// Build the backend with optimisations: a longer build, a quicker backend
    #[arg(long)]
    release: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("not from 0 to below 1".to_owned()) }
}

/// Starts a private stack, lets the crowd loose, and judges.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    let k6 = setup::k6(checkout)?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let programs = build::programs(checkout, profile)?;
    // From here on, Ctrl-C must not end us before the servers are stopped and their files removed.
    let interrupted = interrupt_flag()?;
    let backend = programs.backend.clone();
    step("starting a stack of its own");
    let stack = Stack::builder()
        .programs(programs)
        .own_postgres()
        .gateways(options.gateways.into())
        .workers(options.workers.into())
        .backends(options.backends.into())
        .start()?;
    stack.announce(CAMPAIGN, &open_all_day(options.quota))?;
    let targets: Vec<String> = (0..options.gateways.into()).map(|index| stack.url(index)).collect();
    let summary = crowd::release(checkout, &k6, &targets, options, &interrupted)?;
    let expected = options.quota.min(summary.users);
    let ledger = Ledger::read(&stack, CAMPAIGN, expected)?;
    let traffic = Traffic::read(&stack, options.gateways.into())?;
    let audit = audit::with_sightings(&backend, &stack, CAMPAIGN, &summary.seen)?;
    let verdict = Verdict { summary, ledger, traffic, audit, expected };
    verdict.print();
    Ok(if verdict.complaints().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
