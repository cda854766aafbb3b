//! The table of a run.

use std::fmt::Write;

use super::Options;
use super::scenario::Outcome;

/// How long a failed request goes on counting, by `envoy/envoy.yaml`: `credits.hold_ms`, seconds.
const HOLD_S: f64 = 0.5;

/// Markdown.
pub(super) fn markdown(outcomes: &[Outcome], options: &Options) -> String {
    let mut text = String::from(
        "| origin | gateways | quota | requests | requests/s | reached the origin | of them duplicates | for one coupon | issued | all say sold out after, ms |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for outcome in outcomes {
        let heard = &outcome.heard;
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} | {:.0} | {} | {} | {:.2} | {} | {} |",
            outcome.origin.name(),
            outcome.gateways,
            outcome.quota,
            heard.answers,
            heard.answers as f64 * 1e6 / heard.microseconds.max(1) as f64,
            outcome.reached,
            outcome.duplicates,
            outcome.reached as f64 / outcome.quota as f64,
            outcome.issued,
            outcome.silence_ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
        );
    }
    let wrong: u64 = outcomes.iter().map(|outcome| outcome.heard.wrong).sum();
    let _infallible = write!(
        text,
        "\n{} users, drawn by chance, over {} connections, at all gateways at the same time; two workers each. {wrong} requests \
         got an answer that the contract does not know, or none. Sold out is read off the gateways' counters, which are up to \
         50 ms behind. Envoy's fault filter, behind ours, is what is slow or fails.",
        options.users, options.connections,
    );
    for outcome in outcomes {
        if let Some((reached, seconds)) = outcome.failing {
            let credits = outcome.quota.div_ceil(outcome.gateways as u64) * outcome.gateways as u64;
            let most = credits as f64 * (seconds / HOLD_S).ceil();
            let _infallible = write!(
                text,
                " Failing, {} gateways: {reached} requests reached the origin in {seconds:.1} s, and credits / `hold_ms` allows \
                 {most:.0}; then it was mended, and the row above is what followed.",
                outcome.gateways,
            );
        }
    }
    text
}
