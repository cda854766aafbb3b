//! The commands of this repository, run as `cargo xtask COMMAND`. They find or install what they need.

mod audit;
mod bench;
mod build;
mod chaos;
mod checkout;
mod console;
mod contract;
mod exports;
mod lint;
mod setup;
mod storm;
mod test;
mod up;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::checkout::Checkout;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "Doorbuster's commands: each one finds or installs what it needs.")]
enum Command {
    /// Start a local stack and keep it running until Ctrl-C
    Up(up::Options),
    /// Run all tests, with real servers
    Test(test::Options),
    /// Let a crowd loose on a stack of its own and judge the outcome
    Storm(storm::Options),
    /// Kill, pause and cut off servers during a storm, heal them, and judge the outcome
    Chaos(chaos::Options),
    /// Ask whether a round of the running stack adds up
    Audit(audit::Options),
    /// Measure the product against its promises
    #[command(subcommand)]
    Bench(bench::Options),
    /// Check formatting, lints, Envoy configurations and dependencies
    Lint,
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let _closed_output = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    let checkout = Checkout::here();
    let outcome = match command {
        Command::Up(options) => up::run(&checkout, &options),
        Command::Test(options) => test::run(&checkout, &options),
        Command::Storm(options) => storm::run(&checkout, &options),
        Command::Chaos(options) => chaos::run(&checkout, &options),
        Command::Audit(options) => audit::run(&checkout, &options),
        Command::Bench(options) => bench::run(&checkout, &options),
        Command::Lint => lint::run_all(&checkout),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
