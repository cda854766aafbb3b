//! What a crowd heard.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Answers by status, and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    answers: BTreeMap<u16, u64>,
    taken_us: Vec<u64>,
}

impl Summary {
    pub(crate) fn note(&mut self, status: u16, taken: Duration) {
        *self.answers.entry(status).or_default() += 1;
        self.taken_us.push(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
    }

    /// `{"answers": {"201": 10}, "seconds": 1.5, "cpu_us": 300, "p50_us": 900, "p99_us": 4000, "max_us": 9000}`
    pub(crate) fn told(&mut self, took: Duration, cpu_us: u64) -> Value {
        self.taken_us.sort_unstable();
        json!({
            "answers": self.answers,
            "seconds": took.as_secs_f64(),
            "cpu_us": cpu_us,
            "p50_us": self.at(50),
            "p99_us": self.at(99),
            "max_us": self.at(100),
        })
    }

    /// The time within which so many of a hundred were answered.
    fn at(&self, percent: usize) -> u64 {
        let rank = (self.taken_us.len() * percent).div_ceil(100).saturating_sub(1);
        self.taken_us.get(rank).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_times_ranked() {
        let mut summary = Summary::default();
        for us in (1..=200).rev() {
            summary.note(if us == 7 { 503 } else { 201 }, Duration::from_micros(us));
        }
        let told = summary.told(Duration::from_secs(2), 7);
        assert_eq!(told["answers"], json!({"201": 199, "503": 1}));
        assert_eq!((&told["p50_us"], &told["p99_us"], &told["max_us"]), (&json!(100), &json!(198), &json!(200)));
        assert_eq!(told["seconds"], json!(2.0));
    }
}
