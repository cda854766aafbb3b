//! `cargo xtask bench soak`: millions of refusals over campaigns that come and go, while Envoy's memory is watched.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use doorbuster_e2e::operator::scheduled;
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

/// Coupons of each campaign: together more winners than the table of duplicates holds.
const QUOTA: u64 = 100;
const DUPLICATES_BYTES: u64 = 16_384;
/// Seconds from the announcement to the first opening.
const AHEAD_S: u32 = 15;
/// Memory is compared with what it was after this share of the campaigns: all code paths have run, and all slots are taken.
const WARM_SHARE: u32 = 4;
const MOST_GROWTH: f64 = 1.05;
/// A compare-and-swap gives up after this many losses, by the filter's `state.rs`: with fewer in all, none has.
const RETRIES_TO_GIVE_UP: u64 = 1_000;

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

/// Campaigns that open one after the other on one day, in a zone in which it is not midnight soon. Returns when the
/// first one opens, Unix seconds.
fn announce(stack: &Stack, options: &Options) -> anyhow::Result<u64> {
    let now = stack.sql("SELECT extract(epoch FROM now())::bigint")?;
    let now: u64 = now.first().and_then(|row| row.first()).and_then(|text| text.parse().ok()).context("no time")?;
    let opens_s = now + u64::from(AHEAD_S);
    // POSIX counts the other way round: this is UTC+12.
    let (zone, zone_s) = if (6..18).contains(&(now / 3600 % 24)) { ("UTC", 0) } else { ("Etc/GMT-12", 12 * 3600) };
    let local = |unix_s: u64| {
        let second = (unix_s + zone_s) % 86_400;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    };
    let days = stack.sql(&format!("SELECT (to_timestamp({opens_s}) AT TIME ZONE '{zone}')::date"));
    // PostgreSQL reads "Etc/GMT-12" as the zone of that name, as the backend does.
    let day = days?.first().and_then(|row| row.first()).cloned().context("no date")?;
    for number in 0..u64::from(options.campaigns) {
        let opens = opens_s + number * u64::from(options.window);
        let schedule = json!({
            "timezone": zone, "first_day": day, "last_day": day,
            "opens": local(opens), "closes": local(opens + u64::from(options.window)),
        });
        stack.operator().put_campaign(&format!("soak-{number}"), &scheduled(QUOTA, &schedule))?;
    }
    Ok(opens_s)
}

/// Nine of ten ask for the campaign that is open; the others for those before and after it. Users come in turn.
fn script(options: &Options, opens_s: u64) -> String {
    format!(
        r#"refused, other = 0, 0
local thread_of_it
function setup(thread) thread_of_it = thread end
local user, at = 0, 0
function request()
  user = (user + 1) % {users}
  local current = math.floor((os.time() - {opens_s}) / {window})
  local turn = user % 20
  if turn == 0 then current = current - 1 elseif turn == 1 then current = current + 1 end
  if current < 0 then current = 0 elseif current >= {campaigns} then current = {campaigns} - 1 end
  return "POST /v1/coupon/issue?campaign=soak-" .. current .. " HTTP/1.1\r\nHost: gateway\r\nx-user-id: u" .. user .. "\r\n\r\n"
end
function response(status)
  if status == 403 or status == 409 or status == 410 or status == 503 then refused = refused + 1
  elseif status ~= 201 and status ~= 202 then other = other + 1 end
end
function done(summary)
  local errors = summary.errors
  io.write(string.format("doorbuster %d %d %d\n", thread_of_it:get("refused"), thread_of_it:get("other"),
    errors.connect + errors.read + errors.write + errors.timeout))
end
"#,
        users = options.users,
        window = options.window,
        campaigns = options.campaigns,
    )
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

/// What was seen.
#[derive(Debug, Default)]
struct Report {
    refused: u64,
    /// Answers of no kind that the contract has for this, and requests without one.
    other: u64,
    campaigns_seen: usize,
    warm_kib: u64,
    peak_kib: u64,
    end_kib: u64,
    reloads: u64,
    cas_retries: u64,
}

impl Report {
    fn complaints(&self, options: &Options) -> Vec<String> {
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
