//! `cargo xtask bench issue`: how fast coupons are issued, beside what issuing is made of, and whether that stays so.

mod ground;
mod growth;
mod rows;
mod script;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, ensure};
use clap::Args;
use doorbuster_e2e::Stack;
use doorbuster_e2e::operator::open_all_day;

use super::crowd;
use super::document::{circumstances, write_section};
use super::median::median;
use crate::build;
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crate::setup;
use crowd::{Crowd, Heard};
use ground::{CAMPAIGN, Ground};
use growth::Growth;
use rows::Rows;
use script::{Call, RedisTools};
use table::{Round, Spent};

/// Coupons of the campaign.
const QUOTA: u64 = 200_000;

/// Issued before anything is measured, so that connections are open and plans are made.
const WARMING: u64 = 5_000;

/// Most coupons of one measurement at half speed, and its seconds.
const HALF_SPEED: (u64, f64) = (12_000, 3.0);

/// Turns at half speed: one moment in which something else keeps the disk busy is the p99 of a single one.
const HALF_SPEED_TURNS: u64 = 3;

/// Campaigns for the script and for the rows.
const SCRIPT: &str = "script";
const ROWS: &str = "rows";

/// Places that are prepared for the rows.
const PLACES: u64 = 1_000_000;

/// How much to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured, in turn with the others
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Coupons of one measurement
    #[arg(long, default_value_t = 12_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    coupons: u64,
    /// Connections of the crowd; redis-benchmark has 50
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Leaves out the round that grows to a million
    #[arg(long)]
    no_growth: bool,
    /// Leaves docs/benchmarks.md as it is
    #[arg(long)]
    dry: bool,
}

/// Measures, prints the tables, and writes them down.
pub(super) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let (cli, benchmark) = setup::redis_tools(checkout)?;
    let programs = super::programs(checkout)?;
    let rig = build::rig(checkout)?;
    let interrupted = interrupt_flag()?;
    let pgbench = programs.postgres_bin.join("pgbench");
    let versions: [(&Path, &[&str]); 3] =
        [(&programs.envoy, &["--version"]), (&programs.redis_server, &["--version"]), (&pgbench, &["--version"])];
    let circumstances = circumstances(checkout, &options.command(), &versions);
    let folder = checkout.private().join("bench");
    std::fs::create_dir_all(&folder)?;
    let crowd = Crowd { rig: rig.clone(), connections: options.connections };
    let tools = |stack: &Stack| script::tools((&cli, &benchmark), stack.redis_url());

    step("starting a backend, a gateway, and a handler that does nothing");
    let quota = QUOTA.max(options.coupons_needed());
    let ground = Ground::start(checkout, &programs, &rig, &folder, quota)?;
    let bench = Bench::prepare(&ground, &crowd, tools(&ground.stack), &programs.postgres_bin, &folder, options)?;
    let mut rounds = Vec::new();
    for number in 0..options.rounds {
        step(&format!("round {} of {}", number + 1, options.rounds));
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        rounds.push(bench.round(number)?);
    }
    step("latency at half speed");
    let halves = bench.half_speeds(&rounds)?;
    let issued = bench.issued()?;
    let mut text = table::rates(&rounds, &halves, options, bench.batch);
    drop(bench);
    drop(ground);
    if !options.no_growth {
        let growth =
            Growth { programs: &programs, crowd: &crowd, folder: &folder, tools: &tools, interrupted: &interrupted };
        text.push_str(&table::growth(&growth.run()?));
    }
    println!("\n{text}");
    if !options.dry {
        write_section(checkout, "issue", &format!("## Issuing\n\n{circumstances} {issued}\n\n{text}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn command(&self) -> String {
        let Self { rounds, coupons, connections, .. } = self;
        format!("cargo xtask bench issue --rounds {rounds} --coupons {coupons} --connections {connections}")
    }

    fn coupons_needed(&self) -> u64 {
        1 + WARMING + 2 * u64::from(self.rounds) * self.coupons + 2 * HALF_SPEED_TURNS * HALF_SPEED.0
    }
}

struct Bench<'a> {
    ground: &'a Ground,
    crowd: &'a Crowd,
    tools: RedisTools,
    call: Call,
    rows: Rows,
    /// Rows that pgbench commits at a time: as many as the backend does.
    batch: u64,
    options: &'a Options,
}

impl<'a> Bench<'a> {
    fn prepare(
        ground: &'a Ground,
        crowd: &'a Crowd,
        tools: RedisTools,
        postgres_bin: &Path,
        folder: &Path,
        options: &'a Options,
    ) -> anyhow::Result<Self> {
        let stack = &ground.stack;
        stack.announce(SCRIPT, &open_all_day(QUOTA))?;
        stack.announce(ROWS, &open_all_day(10_000_000))?;
        ground::win(stack, ROWS, "the-first-winner")?;
        // One win first, so that the script is known to Redis and called by its hash.
        ground::win(stack, SCRIPT, "the-first-winner")?;
        let call = tools.watch(|| {
            let user = "watch-0000000001";
            let win = ground::win(stack, SCRIPT, user)?;
            let code = win.json().pointer("/coupon/code").and_then(|code| code.as_str().map(ToOwned::to_owned));
            Ok((user.to_owned(), code.context("a win without a code")?))
        })?;
        let rows = Rows::prepare(stack, postgres_bin, folder, PLACES)?;
        step("warming up");
        let (rows_before, batches_before) = batches(stack)?;
        crowd.ask(&stack.backend(0), CAMPAIGN, "warm", WARMING, None)?;
        let (rows_after, batches_after) = batches(stack)?;
        let batch = ((rows_after - rows_before) / (batches_after - batches_before).max(1.0)).round().max(1.0) as u64;
        Ok(Self { ground, crowd, tools, call, rows, batch, options })
    }

    /// Each once; every round begins with another one.
    fn round(&self, number: u32) -> anyhow::Result<Round> {
        let mut round = Round::default();
        for turn in 0..5 {
            match (turn + number) % 5 {
                0 => round.straight = self.turn(&self.ground.stack.backend(0), &format!("s{number:03}"))?,
                1 => round.gateway = self.turn(&self.ground.gateway_url, &format!("g{number:03}"))?,
                2 => round.idle = self.turn(&self.ground.idle_url, &format!("i{number:03}"))?,
                3 => round.script = self.tools.measure(&self.call, SCRIPT, 4 * self.options.coupons)?,
                _ => round.rows = self.rows.measure(&self.ground.stack, ROWS, self.batch, 2)?,
            }
        }
        Ok(round)
    }

    fn turn(&self, url: &str, users: &str) -> anyhow::Result<Spent> {
        let stack = &self.ground.stack;
        let (rows_before, batches_before) = batches(stack)?;
        let cpu_before = self.ground.cpu_us()?;
        let heard = self.crowd.ask(url, CAMPAIGN, users, self.options.coupons, None)?;
        let cpu_after = self.ground.cpu_us()?;
        let (rows_after, batches_after) = batches(stack)?;
        let each = |us: u64| us as f64 / self.options.coupons as f64;
        let mut cpu_us = vec![("crowd", each(heard.cpu_us))];
        cpu_us
            .extend(cpu_after.iter().zip(cpu_before).map(|((name, after), (_, before))| (*name, each(after - before))));
        Ok(Spent { heard, batch: (rows_after - rows_before) / (batches_after - batches_before).max(1.0), cpu_us })
    }

    /// Straight, through the gateway, and the handler that does nothing, each at half of its own median, in turn.
    fn half_speeds(&self, rounds: &[Round]) -> anyhow::Result<[Vec<Heard>; 3]> {
        let (most, seconds) = HALF_SPEED;
        let half = |of: fn(&Round) -> &Spent, url: &str, users: &str| {
            let rate = median(rounds.iter().map(|round| of(round).heard.per_second)) / 2.0;
            let requests = ((rate * seconds) as u64).clamp(1, most);
            self.crowd.ask(url, CAMPAIGN, users, requests, Some(rate))
        };
        let mut halves = [const { Vec::new() }; 3];
        for turn in 0..HALF_SPEED_TURNS {
            let [straight, gateway, idle] = &mut halves;
            straight.push(half(|round| &round.straight, &self.ground.stack.backend(0), &format!("S{turn:03}"))?);
            gateway.push(half(|round| &round.gateway, &self.ground.gateway_url, &format!("G{turn:03}"))?);
            idle.push(half(|round| &round.idle, &self.ground.idle_url, &format!("I{turn:03}"))?);
        }
        Ok(halves)
    }

    /// Fails if the database does not hold exactly the coupons that clients were told of.
    fn issued(&self) -> anyhow::Result<String> {
        let rows = self.ground.stack.sql(&format!(
            "SELECT count(*), count(DISTINCT user_id), count(DISTINCT number), max(number) FROM coupons WHERE campaign = '{CAMPAIGN}'"
        ))?;
        let counts: Vec<u64> = rows.iter().flatten().filter_map(|value| value.parse().ok()).collect();
        let issued = counts.first().copied().unwrap_or_default();
        ensure!(
            counts.len() == 4 && counts.iter().all(|count| *count == issued),
            "coupons, users, numbers: {counts:?}"
        );
        let told = self.ground.stack.metric("doorbuster_issued_total")?;
        Ok(format!(
            "{issued} coupons of a quota of {QUOTA} were issued, to as many users; the backend counts {told} wins."
        ))
    }
}

/// Rows and batches committed so far.
fn batches(stack: &Stack) -> anyhow::Result<(f64, f64)> {
    Ok((stack.metric("doorbuster_commit_batch_size_sum")?, stack.metric("doorbuster_commit_batch_size_count")?))
}
