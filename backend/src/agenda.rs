//! Where every campaign stands in time: worked out when that changes, not whenever it is asked.
//!
//! A campaign that has ended costs nothing but its place in the list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::schedule::Round;
use doorbuster_domain::timetable::Timetable;

use crate::campaign::Campaign;
use crate::catalog::Catalog;

/// A round is prepared when it opens within this, milliseconds.
pub const NEAR_MS: i64 = 60_000;

/// The crowd is largest so long before and after an opening, milliseconds.
const RUSH_MS: i64 = 3_600_000;

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its round opens later.
    Waiting,
    /// Its round is about to open.
    Near,
    /// Its round is open.
    Open,
    /// Its last round has closed.
    Ended,
}

/// One campaign and where it stands, valid for a span of time.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// Where it stands.
    pub stage: Stage,
    /// The current round, else the next, else the last.
    pub round: Round,
    /// Its rounds around now.
    pub timetable: Timetable,
    rank: Rank,
    /// `[from, until)`, Unix milliseconds.
    valid_ms: (i64, i64),
}

/// Which campaigns gateways need first: shorter ones around their opening, then what is open,
/// then what opens next, then those that are over. A crowd comes for a short drop, also when
/// thousands of campaigns have been open all day.
type Rank = (u8, i64, i64);

impl Entry {
    fn new(campaign: &Arc<Campaign>, now_ms: i64) -> Self {
        let timetable = campaign.schedule.timetable(now_ms);
        let round = timetable.rounds.first().copied().unwrap_or_else(|| campaign.schedule.last_round());
        let (opens_ms, closes_ms) = (round.opens_ms(), round.closes_ms());
        let stage = if closes_ms <= now_ms {
            Stage::Ended
        } else if opens_ms <= now_ms {
            Stage::Open
        } else if opens_ms - NEAR_MS <= now_ms {
            Stage::Near
        } else {
            Stage::Waiting
        };
        let length_ms = closes_ms - opens_ms;
        let rank = if stage == Stage::Ended {
            (3, -closes_ms, 0)
        } else if (opens_ms - RUSH_MS..opens_ms + RUSH_MS).contains(&now_ms) {
            (0, length_ms, opens_ms)
        } else if stage == Stage::Open {
            (1, length_ms, opens_ms)
        } else {
            (2, opens_ms, 0)
        };
        let mut changes_ms = vec![opens_ms - RUSH_MS, opens_ms - NEAR_MS, opens_ms, opens_ms + RUSH_MS, closes_ms];
        changes_ms.extend(timetable.previous.map(|previous| previous.closes_ms()));
        let from_ms = changes_ms.iter().copied().filter(|at_ms| *at_ms <= now_ms).max();
        let until_ms = changes_ms.iter().copied().filter(|at_ms| *at_ms > now_ms).min();
        let valid_ms = (from_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
        Self { campaign: Arc::clone(campaign), stage, round, timetable, rank, valid_ms }
    }

    fn holds_at(&self, now_ms: i64) -> bool {
        (self.valid_ms.0..self.valid_ms.1).contains(&now_ms)
    }
}

/// All campaigns, those first that gateways need first.
#[derive(Debug)]
pub struct Sheet {
    campaigns: Arc<HashMap<CampaignId, Arc<Campaign>>>,
    /// In the order in which gateways need them.
    pub entries: Vec<Arc<Entry>>,
    /// `[from, until)`, Unix milliseconds.
    valid_ms: (i64, i64),
}

impl Sheet {
    fn holds_at(&self, now_ms: i64) -> bool {
        (self.valid_ms.0..self.valid_ms.1).contains(&now_ms)
    }

    /// Keeps of this sheet what still holds.
    fn succeeded_by(&self, campaigns: &Arc<HashMap<CampaignId, Arc<Campaign>>>, now_ms: i64) -> Self {
        let known: HashMap<&CampaignId, &Arc<Entry>> =
            self.entries.iter().map(|entry| (&entry.campaign.id, entry)).collect();
        let still = |campaign: &Arc<Campaign>| {
            let entry = known.get(&campaign.id)?;
            let same = Arc::ptr_eq(&entry.campaign, campaign) && entry.holds_at(now_ms);
            same.then(|| Arc::clone(entry))
        };
        let mut entries: Vec<Arc<Entry>> = campaigns
            .values()
            .map(|campaign| still(campaign).unwrap_or_else(|| Arc::new(Entry::new(campaign, now_ms))))
            .collect();
        entries.sort_by(|one, other| one.rank.cmp(&other.rank).then_with(|| one.campaign.id.cmp(&other.campaign.id)));
        let from_ms = entries.iter().map(|entry| entry.valid_ms.0).max().unwrap_or(i64::MIN);
        let until_ms = entries.iter().map(|entry| entry.valid_ms.1).min().unwrap_or(i64::MAX);
        Self { campaigns: Arc::clone(campaigns), entries, valid_ms: (from_ms, until_ms) }
    }
}

/// Keeps the last sheet.
#[derive(Debug)]
pub struct Agenda {
    catalog: Arc<Catalog>,
    sheet: Mutex<Arc<Sheet>>,
}

impl Agenda {
    /// The agenda of a catalog's campaigns.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let sheet = Sheet { campaigns: Arc::default(), entries: Vec::new(), valid_ms: (0, 0) };
        Self { catalog, sheet: Mutex::new(Arc::new(sheet)) }
    }

    /// Where every campaign stands at `now_ms`, Unix milliseconds.
    #[must_use]
    pub fn at(&self, now_ms: i64) -> Arc<Sheet> {
        let snapshot = self.catalog.snapshot();
        let mut sheet = self.sheet.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&sheet.campaigns, &snapshot.campaigns) || !sheet.holds_at(now_ms) {
            *sheet = Arc::new(sheet.succeeded_by(&snapshot.campaigns, now_ms));
        }
        Arc::clone(&sheet)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::campaign::Spec;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * MINUTE_MS;
    /// 2026-05-01T00:00:00Z.
    const DAY_MS: i64 = 1_777_593_600_000;

    fn campaign(id: &str, days: [&str; 2], opens: &str, closes: &str) -> (CampaignId, Arc<Campaign>) {
        let id = CampaignId::parse(id).unwrap();
        let schedule = json!({"timezone": "UTC", "first_day": days[0], "last_day": days[1], "opens": opens,
            "closes": closes});
        let (spec, schedule) = Spec::from_json(&json!({"title": "t", "vendor": "v", "currency": "KRW",
            "schedule": schedule, "quota": 5, "discount": {"kind": "percent", "value": 50},
            "min_order_amount": 0, "validity": {"days": 30, "from": "event_end", "redeemable": "on_issue"}}))
        .unwrap();
        (id.clone(), Arc::new(Campaign { id, version: 1, paused: false, spec, schedule }))
    }

    fn sheet(campaigns: impl IntoIterator<Item = (CampaignId, Arc<Campaign>)>, now_ms: i64) -> Sheet {
        let none = Sheet { campaigns: Arc::default(), entries: Vec::new(), valid_ms: (0, 0) };
        none.succeeded_by(&Arc::new(campaigns.into_iter().collect()), now_ms)
    }

    fn order(sheet: &Sheet) -> Vec<&str> {
        sheet.entries.iter().map(|entry| entry.campaign.id.as_str()).collect()
    }

    #[test]
    fn a_flash_drop_comes_before_all_that_has_been_open_for_long() {
        let today = ["2026-05-01", "2026-05-01"];
        let campaigns = || {
            [
                campaign("all-day", today, "00:00", "24:00"),
                campaign("evening", today, "18:00", "20:00"),
                campaign("flash", today, "12:00", "12:10"),
                campaign("monday", ["2026-05-04", "2026-05-04"], "00:00", "24:00"),
                campaign("over", ["2026-04-01", "2026-04-30"], "00:00", "24:00"),
                campaign("spring", ["2026-04-01", "2026-05-20"], "11:30", "13:30"),
            ]
        };
        let before = sheet(campaigns(), DAY_MS + 11 * HOUR_MS);
        assert_eq!(order(&before), ["flash", "spring", "all-day", "evening", "monday", "over"]);
        let at_six = sheet(campaigns(), DAY_MS + 18 * HOUR_MS);
        assert_eq!(order(&at_six), ["evening", "all-day", "spring", "monday", "flash", "over"]);
    }

    #[test]
    fn a_stage_holds_until_the_next_instant_that_changes_it() {
        let spring = || [campaign("spring", ["2026-05-01", "2026-05-02"], "13:00", "15:00")];
        let opens_ms = DAY_MS + 13 * HOUR_MS;
        for (now_ms, stage, until_ms) in [
            (DAY_MS, Stage::Waiting, opens_ms - HOUR_MS),
            (opens_ms - HOUR_MS, Stage::Waiting, opens_ms - MINUTE_MS),
            (opens_ms - MINUTE_MS, Stage::Near, opens_ms),
            (opens_ms, Stage::Open, opens_ms + HOUR_MS),
            (opens_ms + HOUR_MS, Stage::Open, opens_ms + 2 * HOUR_MS),
            (opens_ms + 2 * HOUR_MS, Stage::Waiting, opens_ms + 23 * HOUR_MS),
            (opens_ms + 26 * HOUR_MS, Stage::Ended, i64::MAX),
        ] {
            let sheet = sheet(spring(), now_ms);
            assert_eq!((sheet.entries[0].stage, sheet.valid_ms.1), (stage, until_ms), "{now_ms}");
            assert!(sheet.holds_at(now_ms) && sheet.holds_at(until_ms - 1) && !sheet.holds_at(until_ms));
        }
    }

    #[test]
    fn what_still_holds_is_not_worked_out_again() {
        let campaigns = [
            campaign("spring", ["2026-05-01", "2026-05-02"], "13:00", "15:00"),
            campaign("winter", ["2026-12-01", "2026-12-02"], "13:00", "15:00"),
        ];
        let before = sheet(campaigns.clone(), DAY_MS);
        let after = before.succeeded_by(&Arc::new(campaigns.into_iter().collect()), DAY_MS + 13 * HOUR_MS);
        assert_eq!(order(&after), ["spring", "winter"]);
        assert!(!Arc::ptr_eq(&before.entries[0], &after.entries[0]));
        assert!(Arc::ptr_eq(&before.entries[1], &after.entries[1]));
    }
}
