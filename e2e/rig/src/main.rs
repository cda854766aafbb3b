//! What benchmarks need beside the product. Built with optimisation, unlike `cargo xtask` that runs it.

mod crowd;
mod idle;
mod summary;
mod wire;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Answers every request alike and does nothing
    Idle(idle::Options),
    /// Asks for coupons, each time as another user, and tells in one line of JSON what it heard
    Crowd(crowd::Options),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Idle(options) => idle::run(&options),
        Command::Crowd(options) => crowd::run(options),
    }
}
