//! `cargo xtask bench soak`: millions of refusals over campaigns that come and go, while Envoy's memory is watched.

mod plan;
mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::server::Running;
use doorbuster_e2e::{EnvoyAdmin, Stack};
use serde_json::json;

use super::document::{circumstances, write_section};
use super::gateway::{Gateway, shipped};
use super::wrk::{Run, write_script};
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup;
use plan::{AHEAD_S, announce, script};
use report::Report;

/// How long the soak is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Refusals to reach; the crowd goes on after the last campaign until there are as many
    #[arg(long, default_value_t = 3_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    refusals: u64,
    /// How many different users ask
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    users: u64,
    /// How many campaigns, each open once, one after the other
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    campaigns: u32,
    /// Seconds for which each is open
    #[arg(long, default_value_t = 4, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    window: u32,
    /// Leaves docs/benchmarks.md as it is
    #[arg(long)]
    dry: bool,
}

/// Less than the winners of all campaigns need.
const DUPLICATES_BYTES: u64 = 16_384;
/// Memory is compared with what it was after this share of the campaigns: all code paths have run, and all slots are taken.
const WARM_SHARE: u32 = 4;

/// Runs, prints, writes it down; fails if memory grew or a VM trapped.
pub(super) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let wrk = setup::wrk(checkout)?;
    let programs = super::programs(checkout)?;
    let interrupted = interrupt_flag()?;
    let command = format!(
        "cargo xtask bench soak --refusals {} --users {} --campaigns {} --window {}",
        options.refusals, options.users, options.campaigns, options.window
    );
    let circumstances = circumstances(checkout, &command, &[(&programs.envoy, &["--version"]), (&wrk, &["-v"])]);
    let folder = checkout.private().join("bench");
    fs::create_dir_all(&folder)?;
    step("starting a backend and one gateway with two workers");
    let stack = Stack::builder().programs(programs.clone()).own_postgres().gateways(0).start()?;
    let opens_s = announce(&stack, options)?;
    let (port, admin_port) = (free_port()?, free_port()?);
    let plugin = json!({ "sync": { "max_campaigns": 8 }, "duplicates_bytes": DUPLICATES_BYTES });
    let rendering = shipped(checkout.root(), &stack, &programs.filter_wasm, (port, admin_port), plugin)?;
    let gateway = Gateway {
        name: "gateway-soak".to_owned(),
        program: programs.envoy.clone(),
        workers: 2,
        admin_port,
        config: rendering.render()?,
        folder: folder.clone(),
        edge_token: stack.edge_token().to_owned(),
    };
    let admin = gateway.admin();
    let running = Running::start(Box::new(gateway), &checkout.logs())?;
    let script = write_script(&folder, "soak", &script(options, opens_s))?;
    let soak =
        Soak { wrk: &wrk, script: &script, url: format!("http://127.0.0.1:{port}"), admin: &admin, pid: running.pid() };
    let campaigns_s = AHEAD_S + options.campaigns * options.window;
    let report = soak.run(options, campaigns_s, &interrupted)?;
    let issued = stack.sql("SELECT count(*), count(DISTINCT campaign) FROM public.issued_coupons")?;
    let issued = issued.first().map(|row| row.join(" coupons in ")).unwrap_or_default();
    let text = format!("{report}\n| issued | {issued} campaigns |");
    println!("\n{text}\n");
    if !options.dry {
        write_section(checkout, "soak", &format!("## Soak\n\n{circumstances}\n\n{text}"))?;
    }
    let complaints = report.complaints(options);
    for complaint in &complaints {
        println!("BROKEN: {complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Soak<'a> {
    wrk: &'a Path,
    script: &'a Path,
    url: String,
    admin: &'a EnvoyAdmin,
    pid: u32,
}

impl Soak<'_> {
    fn run(&self, options: &Options, campaigns_s: u32, interrupted: &AtomicBool) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let warm_s = AHEAD_S + options.campaigns * options.window / WARM_SHARE;
        step(&format!("{} campaigns: {campaigns_s} s, the first {warm_s} to warm up", options.campaigns));
        for (seconds, warming) in [(warm_s, true), (campaigns_s - warm_s, false)] {
            self.ask(seconds, &mut report, interrupted)?;
            if warming {
                report.warm_kib = self.resident_kib()?;
            }
        }
        while report.refused < options.refusals {
            step(&format!("{} refusals so far", report.refused));
            self.ask(10, &mut report, interrupted)?;
        }
        report.end_kib = self.resident_kib()?;
        report.reloads = self.admin.sum(r".*vm_reload.*")?;
        report.cas_retries = self.admin.sum(r"wasmcustom\.doorbuster\.cas_retries.*")?;
        report.campaigns_seen = self.admin.stats(r"wasmcustom\.doorbuster\.decisions_total\.sold_out\..*")?.len();
        Ok(report)
    }

    fn ask(&self, seconds: u32, report: &mut Report, interrupted: &AtomicBool) -> anyhow::Result<()> {
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        let over = AtomicBool::new(false);
        let (numbers, peak_kib) = thread::scope(|scope| {
            let sampler = scope.spawn(|| self.highest_kib(&over));
            let run = Run { program: self.wrk, url: &self.url, script: self.script, connections: 128, seconds };
            let numbers = run.numbers();
            over.store(true, Ordering::Relaxed);
            (numbers, sampler.join())
        });
        let [refused, other, failed] =
            <[u64; 3]>::try_from(numbers?).ok().context("wrk's script tells something else")?;
        report.refused += refused;
        report.other += other + failed;
        report.peak_kib = report.peak_kib.max(peak_kib.map_err(|_| anyhow!("a thread has panicked"))??);
        Ok(())
    }

    fn highest_kib(&self, over: &AtomicBool) -> anyhow::Result<u64> {
        let mut highest = 0;
        while !over.load(Ordering::Relaxed) {
            highest = highest.max(self.resident_kib()?);
            thread::sleep(Duration::from_millis(250));
        }
        Ok(highest)
    }

    fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("Envoy is gone")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).context("no VmRSS")
    }
}
