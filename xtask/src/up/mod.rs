//! `cargo xtask up`: a local stack that stays until Ctrl-C.

mod local;
mod ports;
mod stack;
mod stack_file;
mod supervisor;
mod welcome;

use std::fs;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;

use crate::build::{self, Profile};
use crate::checkout::{Checkout, remove_folder};
use crate::console::step;
use crate::setup;
use local::Local;
use ports::Ports;
use stack::Stack;

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many gateways (Envoy)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    gateways: u16,
    /// How many backends
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    backends: u16,
    /// Workers of each gateway (Envoy's --concurrency) [default: the number of cores, at least 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Port of the first gateway; others take the next ones
    #[arg(long, default_value_t = 8080, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: u16,
    /// Port of the first gateway's Envoy admin interface; others take the next ones
    #[arg(long, default_value_t = 9901, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Port of the first gateway's listener for load balancers (`/healthz`); others take the next ones
    #[arg(long, default_value_t = 9801, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    health_port: u16,
    /// Port of the first backend's public listener, its operations listener on the next one; others are 10 higher each
    #[arg(long, default_value_t = 8000, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    backend_port: u16,
    /// Build the backend with optimisations: a longer build, a quicker backend
    #[arg(long)]
    release: bool,
    /// Forget all data of earlier starts
    #[arg(long)]
    fresh: bool,
}

/// Runs until a signal comes.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    let lock = checkout.lock()?;
    forget_last_run(checkout)?;
    let ports = Ports::of(options)?;
    ports.ensure_free()?;
    if options.fresh {
        step("forgetting the data of earlier starts");
        local::forget(checkout)?;
    }
    let servers = setup::servers(checkout)?;
    let compiler = setup::wasm::compiler(checkout)?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let stack = Stack {
        backend_program: build::backend(checkout, profile)?,
        filter_wasm: build::filter(checkout, compiler)?,
        local: Local::load_or_create(checkout)?,
        workers: options.workers.map_or_else(default_workers, usize::from),
        servers,
        ports,
        checkout,
    };
    let outcome = stack.serve();
    drop(lock);
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// A run that was killed has left its file: a reader must not take it for ours. Logs tell of one run.
fn forget_last_run(checkout: &Checkout) -> anyhow::Result<()> {
    let stack_file = checkout.stack_file();
    if stack_file.exists() {
        fs::remove_file(&stack_file).with_context(|| format!("cannot remove {}", stack_file.display()))?;
    }
    remove_folder(&checkout.logs())?;
    checkout.create_private()
}

fn default_workers() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}
