//! `cargo xtask chaos`: a storm while servers are killed, paused and cut off from each other; then everything is healed, and
//! the audit must hold.

mod crowd;
mod dice;
mod director;
mod record;
mod schedule;
mod verdict;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::{Programs, Stack};

use crate::audit;
use crate::build::{self, Profile};
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};
use crowd::Crowd;
use director::Director;
use record::Record;
use schedule::Cast;
use verdict::{Totals, Verdict};

const CAMPAIGN: &str = "chaos";

/// Different users of a storm, for each of its seconds: not more than a stack under fire can serve, so that most have
/// asked more than once.
const USERS_PER_SECOND: u64 = 30;

/// One coupon more than there are users in the storm, for so many of them: it cannot take everything.
const LEFT_OVER: u64 = 10;

/// By the contract each reservation is committed or given back within this time of everything being up.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// A machine may be slow; a drop that hangs must be noticed all the same.
const LONGEST_CLAIM: Duration = Duration::from_secs(180);

/// How much goes wrong.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Draws the schedule; the same seed draws the same one again
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many runs, each with a stack of its own and the next seed
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    runs: u64,
    /// How long the storm lasts; with --seconds, that much longer
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(0..=600))]
    minutes: Option<u64>,
    /// The same in seconds [default: 60, unless minutes are given]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=36_000))]
    seconds: Option<u64>,
    /// Requests a second, as far as answers come in time
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// How many gateways
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
    gateways: u16,
    /// Workers of each gateway
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How many backends
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
    backends: u16,
    /// Build the backend with optimisations: a longer build, a quicker backend
    #[arg(long)]
    release: bool,
}

impl Options {
    fn storm(&self) -> Duration {
        let default = if self.minutes.is_some() { 0 } else { 60 };
        Duration::from_secs(self.minutes.unwrap_or(0) * 60 + self.seconds.unwrap_or(default))
    }
}

/// Lets chaos loose on a stack of its own.
pub(crate) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    checkout.create_private()?;
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let programs = build::programs(checkout, profile)?;
    // From here on, Ctrl-C must not end us before the servers are stopped and their files removed.
    let interrupted = interrupt_flag()?;
    let mut totals = Totals::default();
    let mut broken = Vec::new();
    for seed in (options.seed..).take(usize::try_from(options.runs).unwrap_or(usize::MAX)) {
        let plan = Plan {
            seed,
            storm: options.storm(),
            rate: options.rate,
            gateways: options.gateways,
            workers: options.workers,
            backends: options.backends,
            settled_within: SETTLED_WITHIN,
        };
        let verdict = plan.run(programs.clone(), &interrupted)?;
        totals.add(&verdict);
        if !verdict.complaints().is_empty() {
            broken.push(seed);
        }
    }
    if options.runs > 1 {
        println!("\n{} runs in all:", options.runs);
        totals.print();
        println!("\nSeeds with a broken promise: {broken:?}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The short run that is a part of all tests; whether every promise was kept.
pub(crate) fn short(programs: Programs, interrupted: &AtomicBool) -> anyhow::Result<bool> {
    let plan = Plan {
        seed: 1,
        storm: Duration::from_secs(25),
        rate: 80,
        gateways: 1,
        workers: 2,
        backends: 2,
        // How fast a busy machine settles is not what a test is about.
        settled_within: LONGEST_CLAIM,
    };
    Ok(plan.run(programs, interrupted)?.complaints().is_empty())
}

/// One run.
struct Plan {
    seed: u64,
    storm: Duration,
    rate: u64,
    gateways: u16,
    workers: u16,
    backends: u16,
    settled_within: Duration,
}

impl Plan {
    /// Runs, prints what became of it, and keeps the files of a run that broke a promise.
    fn run(&self, programs: Programs, interrupted: &AtomicBool) -> anyhow::Result<Verdict> {
        step(&format!(
            "chaos: seed {}, {} s, {} gateways, {} backends",
            self.seed,
            self.storm.as_secs(),
            self.gateways,
            self.backends
        ));
        let backend = programs.backend.clone();
        let mut stack = Stack::builder()
            .programs(programs)
            .own_postgres()
            .proxied()
            .gateways(self.gateways.into())
            .workers(self.workers.into())
            .backends(self.backends.into())
            .start()?;
        let outcome = self.judge(&mut stack, &backend, interrupted);
        let kept = outcome.as_ref().is_ok_and(|verdict| verdict.complaints().is_empty());
        if let Ok(verdict) = &outcome {
            verdict.print(self.seed);
        }
        if !kept && !interrupted.load(Ordering::Relaxed) {
            println!("seed {}: logs, data and what clients heard are kept in {}", self.seed, stack.keep().display());
        }
        outcome
    }

    fn judge(&self, stack: &mut Stack, backend: &Path, interrupted: &AtomicBool) -> anyhow::Result<Verdict> {
        let users = (USERS_PER_SECOND * self.storm.as_secs()).max(1);
        let quota = users + users / LEFT_OVER + 1;
        stack.announce(CAMPAIGN, &open_all_day(quota))?;
        let gateways: Vec<String> = (0..self.gateways.into()).map(|index| stack.url(index)).collect();
        let record = Record::default();
        let crowd = Crowd { gateways: &gateways, campaign: CAMPAIGN, record: &record, interrupted };

        let storm_ms = u64::try_from(self.storm.as_millis()).unwrap_or(u64::MAX);
        let cast = Cast::new(self.gateways, self.backends, stack.proxies().map(ToOwned::to_owned).collect());
        let faults = schedule::draw(self.seed, storm_ms, &cast);
        let over = AtomicBool::new(false);
        let ended_by_themselves = thread::scope(|scope| {
            let storm = scope.spawn(|| crowd.storm(self.seed, users, self.rate, &over));
            let played = Director::new(stack).play(&faults, self.storm, interrupted);
            over.store(true, Ordering::Relaxed);
            storm.join().map_err(|_| anyhow!("a client has panicked"))?;
            played
        })?;

        step("everything is up again");
        stack.wait_ready()?;
        let settled_in = self.settle(stack, interrupted)?;
        let in_the_storm = issued(stack)?;

        record.may_sell_out();
        // Claimants that find nothing left are a part of it: somebody has to hear `sold_out`.
        let claimants = quota.saturating_sub(in_the_storm) + 50;
        step(&format!("{claimants} fresh users claim the {} coupons left", quota.saturating_sub(in_the_storm)));
        let unanswered = crowd.claim(claimants, Instant::now() + LONGEST_CLAIM);

        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        let audit = audit::with_sightings(backend, stack, CAMPAIGN, &record.sightings())?;
        Ok(Verdict { faults, ended_by_themselves, record, quota, in_the_storm, settled_in, unanswered, audit })
    }

    /// Waits until nothing is pending; how long that took, none if it took too long.
    fn settle(&self, stack: &Stack, interrupted: &AtomicBool) -> anyhow::Result<Option<Duration>> {
        let began = Instant::now();
        while began.elapsed() < self.settled_within {
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            if pending(stack).is_some_and(|pending| pending == 0) {
                return Ok(Some(began.elapsed()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    }
}

/// Places that Redis holds as pending, by what a backend tells operators; none while it cannot.
fn pending(stack: &Stack) -> Option<u64> {
    let rows = stack.sql("SELECT round FROM rounds ORDER BY opens_at").ok()?;
    // A schedule in a zone where midnight is hours away: one round is all there is, beside one that is being prepared.
    let rounds = rows.iter().flatten().map(|round| stack.operator().round(CAMPAIGN, round).ok());
    rounds.map(|reply| reply?.json().get("pending")?.as_u64()).sum()
}

fn issued(stack: &Stack) -> anyhow::Result<u64> {
    let rows = stack.sql("SELECT count(*) FROM public.issued_coupons")?;
    rows.iter().flatten().next().and_then(|count| count.parse().ok()).context("PostgreSQL cannot count")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_storm_lasts_as_long_as_one_says() {
        let seconds = |line: &[&str]| Line::parse_from([&["chaos"], line].concat()).options.storm().as_secs();
        assert_eq!(seconds(&[]), 60);
        assert_eq!(seconds(&["--minutes", "2"]), 120);
        assert_eq!(seconds(&["--seconds", "20"]), 20);
        assert_eq!(seconds(&["--minutes", "1", "--seconds", "5"]), 65);
    }
}
