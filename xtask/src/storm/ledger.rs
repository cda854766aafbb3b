//! What the database says after a storm.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use doorbuster_e2e::Stack;

/// By the contract, each reservation is committed or given back within this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// Counts over the rows of one campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) issued: u64,
    pub(crate) users: u64,
    pub(crate) numbers: u64,
    pub(crate) lowest: u64,
    pub(crate) highest: u64,
}

impl Ledger {
    /// Reads them, giving pending reservations their time to be committed.
    pub(crate) fn read(stack: &Stack, campaign: &str, expected: u64) -> anyhow::Result<Self> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let ledger = Self::read_now(stack, campaign)?;
            if ledger.issued >= expected || Instant::now() > deadline {
                return Ok(ledger);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn read_now(stack: &Stack, campaign: &str) -> anyhow::Result<Self> {
        let rows = stack.sql(&format!(
            "SELECT count(*), count(DISTINCT user_id), count(DISTINCT number), coalesce(min(number), 0), coalesce(max(number), 0) \
             FROM public.issued_coupons WHERE campaign = '{campaign}'"
        ))?;
        let counts: Vec<u64> = rows.iter().flatten().filter_map(|value| value.parse().ok()).collect();
        let [issued, users, numbers, lowest, highest] =
            <[u64; 5]>::try_from(counts).ok().context("PostgreSQL answers something else than five counts")?;
        Ok(Self { issued, users, numbers, lowest, highest })
    }

    /// What differs from the promise: `expected` coupons, nobody twice, numbers 1 to `expected` each once.
    pub(crate) fn complaints(&self, expected: u64) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.issued != expected {
            complaints.push(format!("{} coupons are issued, and {expected} should be", self.issued));
        }
        if self.users != self.issued {
            complaints.push(format!("{} coupons went to {} users: somebody has two", self.issued, self.users));
        }
        if self.numbers != self.issued {
            complaints.push(format!("{} coupons carry {} numbers: one is used twice", self.issued, self.numbers));
        }
        if self.issued > 0 && (self.lowest, self.highest) != (1, expected) {
            complaints
                .push(format!("the numbers run from {} to {}, not from 1 to {expected}", self.lowest, self.highest));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Ledger {
        Ledger { issued: 100, users: 100, numbers: 100, lowest: 1, highest: 100 }
    }

    #[test]
    fn a_kept_promise_is_no_complaint() {
        assert_eq!(kept().complaints(100), Vec::<String>::new());
        let nothing = Ledger { issued: 0, users: 0, numbers: 0, lowest: 0, highest: 0 };
        assert_eq!(nothing.complaints(0), Vec::<String>::new());
    }

    #[test]
    fn every_broken_promise_is_named() {
        for (broken, words) in [
            (Ledger { issued: 101, users: 101, numbers: 101, highest: 101, ..kept() }, "100 should be"),
            (Ledger { issued: 99, users: 99, numbers: 99, highest: 99, ..kept() }, "100 should be"),
            (Ledger { users: 99, ..kept() }, "somebody has two"),
            (Ledger { numbers: 99, ..kept() }, "used twice"),
            (Ledger { highest: 101, ..kept() }, "from 1 to 101"),
            (Ledger { lowest: 0, ..kept() }, "from 0 to 100"),
        ] {
            let complaints = broken.complaints(100);
            assert!(complaints.iter().any(|complaint| complaint.contains(words)), "{complaints:?}");
        }
    }
}
