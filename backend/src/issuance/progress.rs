//! The largest count of issued coupons that this process has learnt of, round by round: what it
//! tells never falls while the database has one lineage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{Days, NaiveDate};

use super::RoundKey;
use crate::lineage::{Generation, Lineage};

/// Rounds are forgotten so many days after their date.
const KEPT_DAYS: u64 = 4;

#[derive(Debug)]
pub(super) struct Progress {
    lineage: Arc<Lineage>,
    learnt: Mutex<Learnt>,
}

#[derive(Debug, Default)]
struct Learnt {
    generation: Generation,
    issued: HashMap<RoundKey, u64>,
}

impl Progress {
    pub(super) fn new(lineage: Arc<Lineage>) -> Self {
        Self { lineage, learnt: Mutex::default() }
    }

    /// What was learnt under the current lineage.
    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.lineage.generation();
        if learnt.generation != generation {
            *learnt = Learnt { generation, issued: HashMap::new() };
        }
        learnt
    }

    /// Learns that `issued` coupons of a round are committed, and returns the largest number learnt
    /// so far. The stores were asked under the generation `since`: of an earlier lineage nothing is
    /// learnt.
    pub(super) fn hear(&self, key: &RoundKey, issued: u64, since: Generation) -> u64 {
        let mut learnt = self.learnt();
        let issued = if learnt.generation == since { issued } else { 0 };
        if let Some(largest) = learnt.issued.get_mut(key) {
            *largest = issued.max(*largest);
            *largest
        } else {
            if issued > 0 {
                learnt.issued.insert(key.clone(), issued);
            }
            issued
        }
    }

    /// The largest number learnt so far of a round.
    pub(super) fn of(&self, key: &RoundKey) -> u64 {
        self.learnt().issued.get(key).copied().unwrap_or(0)
    }

    /// The same of every round.
    pub(super) fn of_all(&self) -> HashMap<RoundKey, u64> {
        self.learnt().issued.clone()
    }

    /// Forgets rounds long past.
    pub(super) fn forget_before(&self, today: NaiveDate) {
        let Some(oldest) = today.checked_sub_days(Days::new(KEPT_DAYS)) else { return };
        self.learnt().issued.retain(|key, _| key.round.0 >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use doorbuster_domain::id::CampaignId;

    use super::*;
    use crate::store::postgres::Installation;

    #[test]
    fn counts_never_fall_and_a_new_lineage_begins_anew() {
        let installation = |lineage: &str| Installation { id: "i".to_owned(), lineage: lineage.to_owned() };
        let lineage = Arc::new(Lineage::new(installation("a")));
        let progress = Progress::new(Arc::clone(&lineage));
        let key = RoundKey { campaign: CampaignId::parse("spring").unwrap(), round: "2026-05-01".parse().unwrap() };
        let before = lineage.generation();
        assert_eq!((progress.hear(&key, 20, before), progress.hear(&key, 8, before)), (20, 20));
        lineage.adopt(installation("b"));
        assert_eq!(progress.of(&key), 0);
        // An answer that was asked for before.
        assert_eq!(progress.hear(&key, 20, before), 0);
        assert_eq!((progress.hear(&key, 12, lineage.generation()), progress.of(&key)), (12, 12));
    }
}
