//! The tables of a run.

use std::fmt::Write;

use super::Options;
use super::crowd::Heard;
use super::growth::TURN;
use super::script::CONNECTIONS;
use crate::bench::median::median;

/// How fast something went by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) per_second: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

/// What a turn of the crowd brought and cost.
#[derive(Debug, Clone, Default)]
pub(super) struct Spent {
    pub(super) heard: Heard,
    /// Coupons committed together, on average.
    pub(super) batch: f64,
    /// Processor time for one request, microseconds, by who spent it.
    pub(super) cpu_us: Vec<(&'static str, f64)>,
}

/// Each measured once.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    pub(super) straight: Spent,
    pub(super) gateway: Spent,
    pub(super) idle: Spent,
    pub(super) script: Pace,
    pub(super) rows: Pace,
}

/// A round that has grown.
#[derive(Debug, Clone)]
pub(super) struct Grown {
    pub(super) size: u64,
    /// Turns of a new round, and of this one: what the crowd heard, and PostgreSQL's time for one coupon, microseconds.
    pub(super) first: Vec<(Heard, f64)>,
    pub(super) on_top: Vec<(Heard, f64)>,
    /// Redis's memory for one coupon.
    pub(super) bytes: f64,
    pub(super) hydration_seconds: f64,
}

/// What the promises ask for: through the gateway of the handler that does nothing, straight of the script, rows at a
/// time, p99 of p50.
const GATEWAY_OF_IDLE: f64 = 0.40;
const STRAIGHT_OF_SCRIPT: f64 = 0.15;
const LEAST_BATCH: f64 = 20.0;
const MOST_OF_P50: f64 = 10.0;

/// Rates, ratios, batches, latencies, processor time.
pub(super) fn rates(rounds: &[Round], halves: &[Vec<Heard>; 3], options: &Options, batch: u64) -> String {
    let mut text = String::from(
        "| what | coupons/s (lowest to highest) | p50, us | p99, us | coupons in a batch | at half speed: coupons/s | p50, us | p99, us | p99 / p50 |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let [straight, gateway, idle] = halves;
    let crowd = |spent: &Spent| Pace {
        per_second: spent.heard.per_second,
        p50_us: spent.heard.p50_us,
        p99_us: spent.heard.p99_us,
    };
    let paces = |of: &dyn Fn(&Round) -> Pace| rounds.iter().map(of).collect::<Vec<_>>();
    let batches = |of: fn(&Round) -> &Spent| median(rounds.iter().map(|round| of(round).batch));
    let mut row = |name: &str, paces: &[Pace], batch: Option<f64>, half: Option<&Vec<Heard>>| {
        let speeds = || paces.iter().map(|pace| pace.per_second);
        let lowest = speeds().fold(f64::INFINITY, f64::min);
        let highest = speeds().fold(0.0, f64::max);
        let batch = batch.map_or_else(|| "-".to_owned(), |batch| format!("{batch:.1}"));
        let half = half.map_or_else(
            || "- | - | - | -".to_owned(),
            |half| {
                let middle = |of: fn(&Heard) -> f64| median(half.iter().map(of));
                let (rate, p50) = (middle(|heard| heard.per_second), middle(|heard| heard.p50_us as f64));
                format!("{rate:.0} | {p50:.0} | {:.0} | {:.1}", middle(|heard| heard.p99_us as f64), tail(half))
            },
        );
        let _infallible = writeln!(
            text,
            "| {name} | {:.0} ({lowest:.0} to {highest:.0}) | {:.0} | {:.0} | {batch} | {half} |",
            median(speeds()),
            median(paces.iter().map(|pace| pace.p50_us as f64)),
            median(paces.iter().map(|pace| pace.p99_us as f64)),
        );
    };
    row("straight at the backend", &paces(&|r| crowd(&r.straight)), Some(batches(|r| &r.straight)), Some(straight));
    row("through the gateway", &paces(&|r| crowd(&r.gateway)), Some(batches(|r| &r.gateway)), Some(gateway));
    row("a handler that does nothing, through the gateway", &paces(&|r| crowd(&r.idle)), None, Some(idle));
    row("`issue.lua` alone (redis-benchmark)", &paces(&|r| r.script), None, None);
    row("the same rows alone (pgbench; times are a batch's)", &paces(&|r| r.rows), Some(batch as f64), None);

    let of_idle = median(rounds.iter().map(|r| r.gateway.heard.per_second / r.idle.heard.per_second));
    let of_script = median(rounds.iter().map(|r| r.straight.heard.per_second / r.script.per_second));
    let of_rows = median(rounds.iter().map(|r| r.straight.heard.per_second / r.rows.per_second));
    let smallest = batches(|r| &r.straight).min(batches(|r| &r.gateway));
    let longest = tail(straight).max(tail(gateway));
    let _infallible = write!(
        text,
        "\n| promise | asked for | found | |\n| --- | --- | --- | --- |\n\
         | through the gateway, of the handler that does nothing | at least {GATEWAY_OF_IDLE:.2} | {of_idle:.2} | {} |\n\
         | straight at the backend, of `issue.lua` alone | at least {STRAIGHT_OF_SCRIPT:.2} | {of_script:.2} | {} |\n\
         | straight at the backend, of the rows alone | - | {of_rows:.2} | |\n\
         | coupons in a batch under load | at least {LEAST_BATCH:.0} | {smallest:.1} | {} |\n\
         | p99 of a win at half speed, of its p50 | under {MOST_OF_P50:.0} | {longest:.1} | {} |\n\n",
        verdict(of_idle >= GATEWAY_OF_IDLE),
        verdict(of_script >= STRAIGHT_OF_SCRIPT),
        verdict(smallest >= LEAST_BATCH),
        verdict(longest < MOST_OF_P50),
    );
    text.push_str(&processor_time(rounds));
    text.push_str(&bound(rounds));
    let _infallible = write!(
        text,
        "\n{} rounds, each of {} wins by as many users over {} connections, {} calls of the script over {CONNECTIONS} \
         connections, and 2 s of rows over one; every round begins with another one. Figures are medians, ratios medians of \
         the rounds' ratios. The handler that does nothing gives the same 201, with the same headers and body; the gateway \
         admits and settles for it as for the backend. The crowd, and all that it asks, share the machine's processors. At \
         half speed, {} turns each in turn, requests leave at their times, answered or not, and a wait for a free \
         connection counts.\n",
        rounds.len(),
        options.coupons,
        options.connections,
        4 * options.coupons,
        straight.len(),
    );
    text
}

/// What bounds the rate straight at the backend, as far as it was measured.
fn bound(rounds: &[Round]) -> String {
    let of = |name: &str| {
        let own = |round: &Round| round.straight.cpu_us.iter().find(|(who, _)| *who == name).map(|(_, us)| *us);
        median(rounds.iter().filter_map(own))
    };
    let busy = median(rounds.iter().map(|round| {
        let all: f64 = round.straight.cpu_us.iter().map(|(_, us)| us).sum();
        all * round.straight.heard.per_second / 1e6
    }));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let redis_us = of("Redis").max(1.0);
    format!(
        "\nWhat bounds it: straight at the backend, {busy:.1} of {cores} processors are at work for it. Processors of their own \
         for the crowd, the gateway and more backends lift that bound, up to two things that a round does one at a time: \
         Redis's thread, here {redis_us:.0} us for a coupon, so {:.0} coupons/s (campaigns on different masters of a cluster do \
         not share it), and commits under the round's lock, {:.0} coupons/s for rows alone in batches like these (larger \
         batches and a faster disk to sync lift it; different campaigns do not wait for each other).\n",
        1e6 / redis_us,
        median(rounds.iter().map(|round| round.rows.per_second)),
    )
}

/// Chooses one of a round's turns.
type Turn = fn(&Round) -> &Spent;

fn processor_time(rounds: &[Round]) -> String {
    let of: [(&str, Turn); 3] = [
        ("straight at the backend", |round| &round.straight),
        ("through the gateway", |round| &round.gateway),
        ("a handler that does nothing, through the gateway", |round| &round.idle),
    ];
    let names: Vec<&str> =
        rounds.first().map_or_else(Vec::new, |round| round.idle.cpu_us.iter().map(|(n, _)| *n).collect());
    let mut text = format!("| processor time of one request, us | {} | all |\n", names.join(" | "));
    let _infallible = writeln!(text, "| --- |{}", " --- |".repeat(names.len() + 1));
    for (name, of) in of {
        let column = |at: usize| median(rounds.iter().filter_map(|round| of(round).cpu_us.get(at).map(|(_, us)| *us)));
        let columns: Vec<f64> = (0..names.len()).map(column).collect();
        let shown: Vec<String> = columns.iter().map(|us| format!("{us:.0}")).collect();
        let _infallible = writeln!(text, "| {name} | {} | {:.0} |", shown.join(" | "), columns.iter().sum::<f64>());
    }
    text
}

/// The p99 of a turn by its p50.
fn tail(turns: &[Heard]) -> f64 {
    median(turns.iter().map(|heard| heard.p99_us as f64 / heard.p50_us.max(1) as f64))
}

/// How a round's size tells.
pub(super) fn growth(grown: &[Grown]) -> String {
    let mut text = format!(
        "\n### As a round grows\n\n\
         | coupons before | us for one issue (lowest to highest) | of it in PostgreSQL's commits | the first {TURN} of a new round | of it in PostgreSQL's commits | ratio | p99, us | Redis bytes for one coupon | filled from PostgreSQL in, s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    let us = |heard: &Heard| 1e6 / heard.per_second;
    let mut worst: f64 = 0.0;
    for Grown { size, first, on_top, bytes, hydration_seconds } in grown {
        let times = || on_top.iter().map(|(heard, _)| us(heard));
        let ratio = median(on_top.iter().zip(first).map(|((own, _), (other, _))| us(own) / us(other)));
        worst = worst.max(ratio);
        let _infallible = writeln!(
            text,
            "| {size} | {:.0} ({:.0} to {:.0}) | {:.0} | {:.0} | {:.0} | {ratio:.2} | {:.0} | {bytes:.0} | {hydration_seconds:.1} |",
            median(times()),
            times().fold(f64::INFINITY, f64::min),
            times().fold(0.0, f64::max),
            median(on_top.iter().map(|(_, us)| *us)),
            median(first.iter().map(|(heard, _)| us(heard))),
            median(first.iter().map(|(_, us)| *us)),
            median(on_top.iter().map(|(heard, _)| heard.p99_us as f64)),
        );
    }
    let bytes = grown.iter().map(|grown| grown.bytes).fold(0.0, f64::max);
    let seconds = grown.iter().map(|grown| grown.hydration_seconds).fold(0.0, f64::max);
    let _infallible = write!(
        text,
        "\n| promise | asked for | found | |\n| --- | --- | --- | --- |\n\
         | time of an issue, of the first {TURN} | at most 1.20 | {worst:.2} | {} |\n\
         | Redis memory for one committed coupon, bytes | at most 200 | {bytes:.0} | {} |\n\
         | filling a round from PostgreSQL, s | under 30 | {seconds:.1} | {} |\n\n\
         Straight at the backend. {TURN} coupons are issued into the grown round, then {TURN} into a new round on a stack \
         whose table is empty, three times; the rows before were put in by `commit_coupons` alone, then Redis was emptied and \
         a backend filled it. User ids have 16 bytes. Memory is `MEMORY USAGE` of all the round's keys, once all is settled, \
         by its coupons.\n",
        verdict(worst <= 1.2),
        verdict(bytes <= 200.0),
        verdict(seconds < 30.0),
    );
    text
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "missed" }
}
