//! `cargo xtask bench edge`: how fast one worker refuses, beside Envoy's own ways of answering without an origin.

mod listeners;
mod measure;
mod subject;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::ensure;
use clap::Args;
use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::{open_all_day, scheduled};
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::server::Running;
use serde_json::json;

use super::document::{circumstances, write_section};
use super::gateway::{Gateway, shipped};
use super::median::median;
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup;
use listeners::Listeners;
use measure::{Bench, Round};
use subject::{Subject, WINNER, subjects};

/// How long and how often to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each answer is measured, in turn with the others
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Connections that ask at the same time
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Only answers whose name contains this; `direct_response` and Lua are measured in any case
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Measures another build of the filter beside ours; may be given several times
    #[arg(long, value_name = "MODULE")]
    beside: Vec<PathBuf>,
    /// Leaves docs/benchmarks.md as it is
    #[arg(long)]
    dry: bool,
}

/// Measures, prints the table, and writes it down.
pub(super) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let (wrk, h2load) = (setup::wrk(checkout)?, setup::h2load(checkout)?);
    let programs = super::programs(checkout)?;
    let interrupted = interrupt_flag()?;
    let versions: [(&std::path::Path, &[&str]); 3] =
        [(&programs.envoy, &["--version"]), (&wrk, &["-v"]), (&h2load, &["--version"])];
    let circumstances = circumstances(checkout, &options.command(), &versions);
    step("starting a backend and one Envoy with one worker");
    let stack = Stack::builder().programs(programs.clone()).own_postgres().gateways(0).start()?;
    prepare_campaigns(&stack)?;
    let admin_port = free_port()?;
    let plugin = json!({
        "default_campaign": null,
        // Held long after a failure, so that it goes on being busy.
        "credits": { "hold_ms": 60_000 },
        "campaigns": [{ "id": "busy", "schedule": open_all_day(1).get("schedule"), "quota": 1 }],
    });
    let ours = shipped(checkout.root(), &stack, &programs.filter_wasm, (free_port()?, admin_port), plugin)?;
    let sold_out = stack_says_sold_out(&stack)?;
    let listeners = Listeners::new(&ours, &sold_out, &options.beside)?;
    let folder = checkout.private().join("bench");
    std::fs::create_dir_all(&folder)?;
    let gateway = Gateway {
        name: "gateway-edge".to_owned(),
        program: programs.envoy.clone(),
        workers: 1,
        admin_port,
        config: listeners.config.clone(),
        folder: folder.clone(),
        edge_token: stack.edge_token().to_owned(),
    };
    let admin = gateway.admin();
    let running = Running::start(Box::new(gateway), &checkout.logs())?;
    let wanted =
        |subject: &Subject| options.only.as_ref().is_none_or(|only| subject.always || subject.name.contains(only));
    let subjects: Vec<Subject> = subjects(&listeners).into_iter().filter(wanted).collect();
    let bench = Bench { wrk: &wrk, h2load: &h2load, folder: &folder, worker: running.pid(), admin: &admin, options };
    step("waiting until each gives its answer");
    subjects.iter().try_for_each(|subject| subject.wait_until_right())?;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); subjects.len()];
    for number in 0..options.rounds as usize {
        step(&format!("round {} of {}", number + 1, options.rounds));
        // Each round begins with another one, so that nobody is always the first after a pause.
        for turn in 0..subjects.len() {
            let at = (turn + number) % subjects.len();
            if let (Some(subject), Some(rounds)) = (subjects.get(at), rounds.get_mut(at)) {
                ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
                rounds.push(bench.at_full_speed(subject)?);
            }
        }
    }
    step("latency at half speed");
    let mut latencies = Vec::new();
    for (subject, rounds) in subjects.iter().zip(&rounds) {
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        latencies.push(bench.at_half_speed(subject, median(rounds.iter().map(|round| round.per_second)))?);
        subject.wait_until_right()?;
    }
    let text = table::markdown(&subjects, &rounds, &latencies, options);
    println!("\n{text}");
    if !options.dry {
        write_section(checkout, "edge", &format!("## Edge\n\n{circumstances}\n\n{text}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn command(&self) -> String {
        let Self { rounds, seconds, connections, .. } = self;
        format!("cargo xtask bench edge --rounds {rounds} --seconds {seconds} --connections {connections}")
    }
}

fn prepare_campaigns(stack: &Stack) -> anyhow::Result<()> {
    let years_ahead = json!({
        "timezone": "UTC", "first_day": "2090-05-01", "last_day": "2090-05-05", "opens": "13:00", "closes": "15:00",
    });
    stack.announce("sold-out", &open_all_day(1))?;
    stack.announce("closed", &scheduled(100, &years_ahead))?;
    stack.announce("open", &open_all_day(1_000_000))?;
    let win = subject::ask(&stack.backend(0), "POST", "/v1/coupon/issue?campaign=sold-out", WINNER)?;
    ensure!(win.status == 201, "the backend says {} {}", win.status, win.body);
    Ok(())
}

/// What everybody is to answer.
fn stack_says_sold_out(stack: &Stack) -> anyhow::Result<doorbuster_e2e::Reply> {
    let reply = subject::ask(&stack.backend(0), "POST", "/v1/coupon/issue?campaign=sold-out", "u2")?;
    ensure!(reply.code() == "sold_out", "the backend says {} {}", reply.status, reply.body);
    Ok(reply)
}
