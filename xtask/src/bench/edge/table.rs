//! The table of a run.

use std::fmt::Write;

use super::Options;
use super::measure::{Latency, Round};
use super::subject::Subject;

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

/// Of an even number, the mean of the middle two; 0 of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_of_the_values() {
        for (values, middle) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0, 2.0], 2.0), (vec![1.0, 4.0, 2.0, 8.0], 3.0)]
        {
            assert!((median(values.into_iter()) - middle).abs() < 1e-9);
        }
    }
}
