//! `cargo xtask bench events`: whether issuing goes as fast with a webhook, and with one that is away, as without.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use doorbuster_e2e::operator::open_all_day;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::process::Launch;
use doorbuster_e2e::server::{Running, Server};
use doorbuster_e2e::{Programs, Stack, http};
use serde_json::json;

use super::crowd::{Crowd, Heard};
use super::document::{circumstances, write_section};
use super::median::median;
use crate::build;
use crate::checkout::Checkout;
use crate::console::{interrupt_flag, step};

/// The campaign whose coupons are counted.
const CAMPAIGN: &str = "events";

/// Issued before anything is measured, so that connections are open and plans are made.
const WARMING: u64 = 2_000;

/// Signs the calls; nobody looks.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Within this the webhook has been told of all that happened in a turn.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

/// How much to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is measured, in turn with the others
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Coupons of one measurement
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=100_000))]
    coupons: u64,
    /// Connections of the crowd
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Leaves docs/benchmarks.md as it is
    #[arg(long)]
    dry: bool,
}

/// Measures, prints the table, and writes it down.
pub(super) fn run(checkout: &Checkout, options: &Options) -> anyhow::Result<ExitCode> {
    let programs = super::programs(checkout)?;
    let rig = build::rig(checkout)?;
    let interrupted = interrupt_flag()?;
    let postgres = programs.postgres_bin.join("postgres");
    let versions: [(&Path, &[&str]); 2] = [(&programs.redis_server, &["--version"]), (&postgres, &["--version"])];
    let circumstances = circumstances(checkout, &options.command(), &versions);
    let crowd = Crowd { rig: rig.clone(), connections: options.connections };

    step("starting a backend, with stores of its own, for each sink");
    let mut subjects = Vec::new();
    for sink in [Sink::None, Sink::Healthy, Sink::Refusing, Sink::Silent] {
        subjects.push(Subject::start(checkout, &programs, &rig, &crowd, sink, options)?);
    }
    for number in 0..options.rounds {
        step(&format!("round {} of {}", number + 1, options.rounds));
        for turn in 0..subjects.len() {
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            // Every round begins with another one.
            let at = (turn + number as usize) % subjects.len();
            let subject = subjects.get_mut(at).context("a subject for every turn")?;
            subject.turn(&crowd, number, options.coupons)?;
        }
    }
    let mut text = table(&subjects);
    for subject in &subjects {
        let _infallible = writeln!(text, "{}", subject.kept(options)?);
    }
    println!("\n{text}");
    if !options.dry {
        write_section(checkout, "events", &format!("## Issuing, and events out\n\n{circumstances}\n\n{text}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn command(&self) -> String {
        let Self { rounds, coupons, connections, .. } = self;
        format!("cargo xtask bench events --rounds {rounds} --coupons {coupons} --connections {connections}")
    }

    /// Coupons that each subject issues in all.
    fn issued(&self) -> u64 {
        WARMING + u64::from(self.rounds) * self.coupons
    }
}

/// What is told of each coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    /// Nobody.
    None,
    /// A webhook that takes everything at once.
    Healthy,
    /// A webhook at a port where nobody listens.
    Refusing,
    /// A webhook that takes calls and answers none.
    Silent,
}

impl Sink {
    fn name(self) -> &'static str {
        match self {
            Self::None => "no sink",
            Self::Healthy => "a webhook that answers",
            Self::Refusing => "a webhook that refuses connections",
            Self::Silent => "a webhook that never answers",
        }
    }
}

/// A backend with its sink.
struct Subject {
    sink: Sink,
    stack: Stack,
    heard: Vec<Heard>,
    _receiver: Option<Running>,
}

impl Subject {
    fn start(
        checkout: &Checkout,
        programs: &Programs,
        rig: &Path,
        crowd: &Crowd,
        sink: Sink,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let receiver = match sink {
            Sink::None | Sink::Refusing => None,
            Sink::Healthy | Sink::Silent => {
                let reply = checkout.private().join("bench/taken.json");
                std::fs::create_dir_all(checkout.private().join("bench"))?;
                std::fs::write(&reply, json!({"status": 204, "headers": [], "body": ""}).to_string())?;
                let mut running =
                    Running::start(Box::new(Receiver { program: rig.to_owned(), port, reply }), &checkout.logs())?;
                if sink == Sink::Silent {
                    // The kernel still takes its connections.
                    running.freeze();
                }
                Some(running)
            }
        };
        let mut builder = Stack::builder().programs(programs.clone()).own_postgres().gateways(0);
        if sink != Sink::None {
            let url = format!("http://127.0.0.1:{port}/events");
            builder = builder.backend_setting("webhook_url", &url).backend_setting("webhook_secret", SECRET);
        }
        let stack = builder.start()?;
        stack.announce(CAMPAIGN, &open_all_day(options.issued()))?;
        crowd.ask(&stack.backend(0), CAMPAIGN, "warm", WARMING, None)?;
        let subject = Self { sink, stack, heard: Vec::new(), _receiver: receiver };
        subject.wait_until_told()?;
        Ok(subject)
    }

    fn turn(&mut self, crowd: &Crowd, number: u32, coupons: u64) -> anyhow::Result<()> {
        self.heard.push(crowd.ask(&self.stack.backend(0), CAMPAIGN, &format!("t{number:03}"), coupons, None)?);
        // What is still to be told would take its time from the next one's turn.
        self.wait_until_told()
    }

    fn wait_until_told(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TOLD_WITHIN;
        while self.sink == Sink::Healthy && self.waiting()? > 0 {
            ensure!(Instant::now() < deadline, "the webhook was not told of everything within {TOLD_WITHIN:?}");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Events that nobody has taken yet.
    fn waiting(&self) -> anyhow::Result<u64> {
        let rows = self
            .stack
            .sql("SELECT (SELECT coalesce(sum(size), 0) FROM outbox) + (SELECT count(*) FROM parked_events)")?;
        rows.iter().flatten().next().and_then(|count| count.parse().ok()).context("no count of what waits")
    }

    /// Where the events are now. Fails if one is missing.
    fn kept(&self, options: &Options) -> anyhow::Result<String> {
        let (waiting, told) = (self.waiting()?, self.stack.metric("doorbuster_events_delivered_total")? as u64);
        // One for each coupon, and one for the campaign.
        let happened = if self.sink == Sink::None { 0 } else { options.issued() + 1 };
        ensure!(waiting + told >= happened, "{}: of {happened} events, {told} told, {waiting} kept", self.sink.name());
        Ok(format!("* {}: {told} events told, {waiting} kept until they can be.", self.sink.name()))
    }
}

/// Rates and latencies, and each as a part of what the same round brought without a sink.
fn table(subjects: &[Subject]) -> String {
    let mut text = String::from(
        "| events go to | wins/s (lowest to highest) | p50, us | p99, us | rate, of no sink's | p50 | p99 |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let alone = subjects.iter().find(|subject| subject.sink == Sink::None).map_or(&[][..], |subject| &subject.heard);
    for Subject { sink, heard, .. } in subjects {
        let speeds = || heard.iter().map(|heard| heard.per_second);
        let of_alone = |figure: fn(&Heard) -> f64| {
            median(heard.iter().zip(alone).map(|(with, without)| figure(with) / figure(without).max(1.0)))
        };
        let _infallible = writeln!(
            text,
            "| {} | {:.0} ({:.0} to {:.0}) | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            sink.name(),
            median(speeds()),
            speeds().fold(f64::INFINITY, f64::min),
            speeds().fold(0.0, f64::max),
            median(heard.iter().map(|heard| heard.p50_us as f64)),
            median(heard.iter().map(|heard| heard.p99_us as f64)),
            of_alone(|heard| heard.per_second),
            of_alone(|heard| heard.p50_us as f64),
            of_alone(|heard| heard.p99_us as f64),
        );
    }
    text.push_str(
        "\nStraight at the backend, as fast as it answers; the ratios are medians over the rounds. A webhook that \
         answers shares the machine with all others: what it costs is the calls' own work.\n\n",
    );
    text
}

/// The webhook's receiver.
struct Receiver {
    program: PathBuf,
    port: u16,
    reply: PathBuf,
}

impl Server for Receiver {
    fn name(&self) -> &str {
        "receiver"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let (port, reply) = (self.port.to_string(), self.reply.display().to_string());
        Ok(Launch::new(&self.program).args(["idle", "--port", &port, "--reply", &reply]))
    }

    fn probe(&self) -> anyhow::Result<()> {
        http::get(&format!("http://127.0.0.1:{}/", self.port)).map(drop)
    }
}
