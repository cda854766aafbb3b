//! `cargo xtask bench`: measures the product against its promises, and writes what it found to `docs/benchmarks.md`.

mod crowd;
mod document;
mod edge;
mod events;
mod gateway;
mod issue;
mod leak;
mod median;
mod soak;
mod wrk;

use std::process::ExitCode;

use clap::Subcommand;
use doorbuster_e2e::Programs;

use crate::build::{self, Profile};
use crate::checkout::Checkout;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Options {
    /// How fast one worker refuses, beside Envoy's own filters
    Edge(edge::Options),
    /// Whether a sink of events that is away slows issuing
    Events(events::Options),
    /// How fast coupons are issued, beside what issuing is made of, and whether that stays so as a round grows
    Issue(issue::Options),
    /// How many requests reach the origin for one coupon
    Leak(leak::Options),
    /// Whether memory stays flat over millions of refusals
    Soak(soak::Options),
}

/// Measures.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    match options {
        Options::Edge(options) => edge::run(checkout, options),
        Options::Events(options) => events::run(checkout, options),
        Options::Issue(options) => issue::run(checkout, options),
        Options::Leak(options) => leak::run(checkout, options),
        Options::Soak(options) => soak::run(checkout, options),
    }
}

/// Finds the servers and builds our own parts as they ship.
fn programs(checkout: &Checkout) -> anyhow::Result<Programs> {
    build::programs(checkout, Profile::Release)
}
