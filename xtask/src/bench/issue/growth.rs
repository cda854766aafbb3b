//! Whether issuing costs more in a large round than in a new one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Stack};

use super::crowd::{Crowd, Heard};
use super::ground::win;
use super::rows::{Rows, number};
use super::script::RedisTools;
use super::table::Grown;
use crate::console::step;

/// How large the round grows.
pub(super) const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// Coupons issued in one turn.
pub(super) const TURN: u64 = 10_000;

/// Turns at each size.
const TURNS: u32 = 3;

const CAMPAIGN: &str = "grown";

/// What growing needs.
pub(super) struct Growth<'a> {
    pub(super) programs: &'a Programs,
    pub(super) crowd: &'a Crowd,
    pub(super) folder: &'a Path,
    pub(super) tools: &'a dyn Fn(&Stack) -> RedisTools,
    pub(super) interrupted: &'a AtomicBool,
}

impl Growth<'_> {
    /// Grows a round on a stack of its own. Each turn in it is followed by one on another stack, which issues the first
    /// coupons of a new round into an empty table.
    pub(super) fn run(&self) -> anyhow::Result<Vec<Grown>> {
        step("starting two more stacks: one round grows, the other is always new");
        let builder = || Stack::builder().programs(self.programs.clone()).own_postgres().gateways(0).start();
        let (large, small) = (builder()?, builder()?);
        let tools = (self.tools)(&large);
        let rows =
            Rows::prepare(&large, &self.programs.postgres_bin, self.folder, SIZES.into_iter().max().unwrap_or(0))?;
        large.announce(CAMPAIGN, &open_all_day(10_000_000))?;
        win(&large, CAMPAIGN, "the-first-winner")?;
        let mut grown = Vec::new();
        for size in SIZES {
            step(&format!("a round of {size}"));
            let highest = number(&large, &format!("SELECT max(number) FROM coupons WHERE campaign = '{CAMPAIGN}'"))?;
            rows.fill(&large, CAMPAIGN, highest + 1, size + 1)?;
            large.sql("VACUUM ANALYZE coupons")?;
            let hydration_seconds = hydrate(&large, &tools)?;
            let (mut first, mut on_top) = (Vec::new(), Vec::new());
            for turn in 0..TURNS {
                ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
                first.push(self.first(&small, &format!("new-{size}-{turn}"))?);
                let before = store_us(&large)?;
                let heard = self.crowd.ask(&large.backend(0), CAMPAIGN, &users(size, turn), TURN, None)?;
                on_top.push((heard, (store_us(&large)? - before) / TURN as f64));
            }
            wait_until_settled(&tools)?;
            let coupons = number(&large, &format!("SELECT count(*) FROM coupons WHERE campaign = '{CAMPAIGN}'"))?;
            let bytes = tools.memory(CAMPAIGN)? as f64 / coupons as f64;
            grown.push(Grown { size, first, on_top, bytes, hydration_seconds });
        }
        Ok(grown)
    }

    /// The first coupons of a round, where no other round has any.
    fn first(&self, small: &Stack, campaign: &str) -> anyhow::Result<(Heard, f64)> {
        // Coupons of earlier turns, and the tables that refer to them: a ledger's triggers would keep its own.
        small.sql("SET session_replication_role = replica; TRUNCATE coupons CASCADE")?;
        small.announce(campaign, &open_all_day(10_000_000))?;
        // The round is filled from nothing before its first coupon; that belongs to no turn.
        win(small, campaign, "the-first-winner")?;
        let before = store_us(small)?;
        let heard = self.crowd.ask(&small.backend(0), campaign, "new-", TURN, None)?;
        Ok((heard, (store_us(small)? - before) / TURN as f64))
    }
}

/// Four characters, and others in each turn.
fn users(size: u64, turn: u32) -> String {
    format!("{turn}{:03}", size / 10_000)
}

/// Time in PostgreSQL's commits so far, microseconds.
fn store_us(stack: &Stack) -> anyhow::Result<f64> {
    Ok(stack.metric("doorbuster_commit_seconds_sum")? * 1e6)
}

/// Empties Redis; how long a backend takes to fill the round again.
fn hydrate(stack: &Stack, tools: &RedisTools) -> anyhow::Result<f64> {
    let (count, sum) = ("doorbuster_hydration_seconds_count", "doorbuster_hydration_seconds_sum");
    let (times, seconds) = (stack.metric(count)?, stack.metric(sum)?);
    tools.ask(&["flushall"])?;
    wait_until("the round is filled again", || Ok(stack.metric(count)? > times))?;
    Ok((stack.metric(sum)? - seconds) / (stack.metric(count)? - times))
}

/// Replies come before Redis hears of the commit. Without pending places their key is gone.
fn wait_until_settled(tools: &RedisTools) -> anyhow::Result<()> {
    let pending = format!("*{{{CAMPAIGN}}}*:pending");
    wait_until("all is settled", || Ok(tools.ask(&["--scan", "--pattern", &pending])?.is_empty()))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds()? {
        ensure!(Instant::now() < deadline, "not within two minutes: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
