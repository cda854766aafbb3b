//! The table of a run.

use std::fmt::Write;

use super::Options;
use super::measure::{Latency, Round};
use super::subject::Subject;
use crate::bench::median::median;

/// Markdown, with what is promised below it.
pub(super) fn markdown(
    subjects: &[Subject],
    rounds: &[Vec<Round>],
    latencies: &[Latency],
    options: &Options,
) -> String {
    let mut text = String::from(
        "| answer | requests/s (lowest to highest) | of direct_response | of Lua | worker CPU, us (lowest) | of direct_response's CPU | of Lua's CPU | p50, us | p99, us | at requests/s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let none = Vec::new();
    let (direct, lua) = (rounds.first().unwrap_or(&none), rounds.get(1).unwrap_or(&none));
    for ((subject, own), latency) in subjects.iter().zip(rounds).zip(latencies) {
        let speeds = || own.iter().map(|round| round.per_second);
        let lowest = speeds().fold(f64::INFINITY, f64::min);
        let highest = speeds().fold(0.0, f64::max);
        let _infallible = writeln!(
            text,
            "| {} | {:.0} ({lowest:.0} to {highest:.0}) | {:.3} | {:.3} | {:.1} ({:.1}) | {:.3} | {:.3} | {} | {} | {:.0} |",
            subject.name,
            median(speeds()),
            ratio(own, direct, |round| round.per_second),
            ratio(own, lua, |round| round.per_second),
            median(own.iter().map(|round| round.cpu_us)),
            own.iter().map(|round| round.cpu_us).fold(f64::INFINITY, f64::min),
            // Less is better here, so the other way round.
            ratio(direct, own, |round| round.cpu_us),
            ratio(lua, own, |round| round.cpu_us),
            latency.p50_us,
            latency.p99_us,
            latency.per_second,
        );
    }
    let _infallible = write!(
        text,
        "\nOne Envoy worker, {} connections, {} rounds of {} s each in turn. Figures are medians, ratios medians of the rounds' \
         ratios. CPU is the worker thread's time on a processor for one request, which other programs on the machine disturb \
         less than the rate; its ratios say what the rates would be if nothing else ran. Latency is h2load's, at half of each \
         one's own rate, from sending to the last byte. `direct_response`, Lua and the backend give the same 409 as ours when \
         sold out, with the same headers and body; `local_ratelimit` the same status and headers, its body cannot be chosen. \
         The filter that marks requests for the access log is left out with `direct_response`, which nothing precedes.",
        options.connections, options.rounds, options.seconds,
    );
    text
}

/// The median of the ratios of each round.
fn ratio(own: &[Round], other: &[Round], value: fn(&Round) -> f64) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| value(own) / value(other)))
}
