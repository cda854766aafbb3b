//! What became of it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;

use super::record::Record;
use super::schedule::{Fault, Kind};
use crate::audit;

/// Defects printed one by one.
const LISTED: usize = 50;

/// Everything that is known of a run.
pub(super) struct Verdict {
    pub(super) faults: Vec<Fault>,
    /// Servers that ended although nobody had killed them.
    pub(super) ended_by_themselves: Vec<String>,
    pub(super) record: Record,
    pub(super) quota: u64,
    /// Coupons issued before the claims.
    pub(super) in_the_storm: u64,
    /// Until nothing was pending; none if it took too long.
    pub(super) settled_in: Option<Duration>,
    /// Claimants without a final answer.
    pub(super) unanswered: u64,
    /// The audit's report.
    pub(super) audit: Value,
}

impl Verdict {
    /// One of the audit's sums.
    fn sum(&self, name: &str) -> Option<u64> {
        self.audit.get("sums")?.get(name)?.as_u64()
    }

    /// Every promise that was broken.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.record.complaints();
        let issued = self.sum("issued");
        if issued != Some(self.quota) {
            complaints.push(format!("{} coupons are issued, and {} should be", shown(issued), self.quota));
        }
        if self.settled_in.is_none() {
            complaints.push("places were pending for too long after everything was up".to_owned());
        }
        if self.unanswered > 0 {
            complaints.push(format!("{} claimants got no final answer", self.unanswered));
        }
        if self.sum("pending") != Some(0) {
            complaints.push("places are pending at the end".to_owned());
        }
        let ended = self.ended_by_themselves.iter();
        complaints.extend(ended.map(|name| format!("{name} ended although nobody had killed it")));
        complaints.extend(audit::complaints(&self.audit));
        complaints
    }

    pub(super) fn print(&self, seed: u64) {
        println!();
        let mut totals = Totals::default();
        totals.add(self);
        totals.print();
        row("coupons issued in the storm", self.in_the_storm);
        row("quota", self.quota);
        let settled =
            self.settled_in.map_or_else(|| "not in time".to_owned(), |took| format!("{} ms", took.as_millis()));
        row("until nothing was pending", settled);
        println!();
        let complaints = self.complaints();
        if complaints.is_empty() {
            println!("Seed {seed}: every promise was kept. {} coupons, nobody twice, each number once.", self.quota);
        }
        for complaint in complaints.iter().take(LISTED) {
            println!("BROKEN: {complaint}");
        }
        if complaints.len() > LISTED {
            println!("and {} more", complaints.len() - LISTED);
        }
    }
}

/// Sums over one run or several.
#[derive(Debug, Default)]
pub(super) struct Totals {
    faults: BTreeMap<Kind, u64>,
    answers: BTreeMap<String, u64>,
    issued: u64,
}

impl Totals {
    pub(super) fn add(&mut self, verdict: &Verdict) {
        for kind in Kind::ALL {
            let injected = verdict.faults.iter().filter(|fault| fault.kind == kind).count();
            *self.faults.entry(kind).or_default() += u64::try_from(injected).unwrap_or(u64::MAX);
        }
        for (answer, count) in verdict.record.answers() {
            *self.answers.entry(answer).or_default() += count;
        }
        self.issued += verdict.sum("issued").unwrap_or(0);
    }

    pub(super) fn print(&self) {
        for (kind, count) in &self.faults {
            row(&format!("fault: {kind}"), count);
        }
        row("faults in all", self.faults.values().sum::<u64>());
        for (answer, count) in &self.answers {
            row(&format!("answer: {answer}"), count);
        }
        row("coupons issued", self.issued);
    }
}

fn row(what: &str, value: impl Display) {
    println!("  {what:<52} {value:>12}");
}

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept() -> Verdict {
        Verdict {
            faults: Vec::new(),
            ended_by_themselves: Vec::new(),
            record: Record::default(),
            quota: 10,
            in_the_storm: 5,
            settled_in: Some(Duration::from_secs(1)),
            unanswered: 0,
            audit: json!({"clean": true, "sums": {"issued": 10, "pending": 0}, "defects": []}),
        }
    }

    #[test]
    fn a_kept_promise_is_no_complaint() {
        assert_eq!(kept().complaints(), Vec::<String>::new());
    }

    #[test]
    fn every_broken_promise_is_one() {
        let report = |issued, pending, defects: Value| json!({"clean": defects == json!([]), "sums": {"issued": issued, "pending": pending}, "defects": defects});
        for (broken, words) in [
            (Verdict { audit: report(9, 0, json!([])), ..kept() }, "9 coupons are issued"),
            (Verdict { audit: report(10, 1, json!([])), ..kept() }, "pending at the end"),
            (Verdict { audit: report(10, 0, json!([{"kind": "user_twice"}])), ..kept() }, "user_twice"),
            (Verdict { audit: json!({}), ..kept() }, "not clean"),
            (Verdict { settled_in: None, ..kept() }, "too long"),
            (Verdict { unanswered: 2, ..kept() }, "2 claimants"),
            (Verdict { ended_by_themselves: vec!["backend-1 (exit status: 1)".into()], ..kept() }, "backend-1"),
        ] {
            let complaints = broken.complaints();
            assert!(complaints.iter().any(|complaint| complaint.contains(words)), "{words}: {complaints:?}");
        }
    }
}
