//! The largest count of issued coupons that this process has heard of, round by round: what it says never falls.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{Days, NaiveDate};

use super::RoundKey;

/// Rounds are forgotten so many days after their date.
const KEPT_DAYS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Progress {
    issued: Mutex<HashMap<RoundKey, u64>>,
}

impl Progress {
    /// Hears that `issued` coupons of a round are committed; tells the largest number heard so far.
    pub(super) fn hear(&self, key: &RoundKey, issued: u64) -> u64 {
        let mut heard = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(largest) = heard.get_mut(key) {
            *largest = issued.max(*largest);
            *largest
        } else {
            if issued > 0 {
                heard.insert(key.clone(), issued);
            }
            issued
        }
    }

    /// Forgets rounds long past.
    pub(super) fn forget_before(&self, today: NaiveDate) {
        let Some(oldest) = today.checked_sub_days(Days::new(KEPT_DAYS)) else { return };
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.round.0 >= oldest);
    }
}
