//! What a worker tells of its decisions.

use super::Gate;
use crate::host::{HostTime, Metrics, Series, SharedData};
use crate::state;

/// Shards looked at in one go: the whole default table in a quarter of a minute.
const SURVEYED_AT_ONCE: usize = 64;

impl Gate {
    /// Reports the counts since the last call, and adds them to the process's totals.
    pub fn flush(&mut self, shared: &dyn SharedData, metrics: &mut dyn Metrics) {
        for (decision, count) in self.unknown_tally.drain() {
            metrics.count_decisions(decision, Series::NoCampaign, count);
        }
        let now_ms = self.clock(self.ticked).at(self.ticked.host_ms);
        for (id, campaign) in &mut self.campaigns {
            let counts = campaign.tally.drain();
            if counts.is_empty() {
                continue;
            }
            let series = self.named.of(id, self.config.metrics.max_campaigns, shared);
            for (decision, count) in &counts {
                metrics.count_decisions(decision, series, *count);
            }
            // A count belongs to the round that the tick finds; one tick around a boundary it may be the other one.
            if let Some(round) = campaign.round_to_speak_of(now_ms) {
                state::add_totals(shared, &campaign.account, id, round, &counts);
            }
        }
        let lost = std::mem::take(&mut self.cas_retries);
        if lost > 0 {
            metrics.count_lost_swaps(lost);
        }
    }

    /// Looks through some of the table of winners. Once it has seen the whole of it: how many it holds.
    pub fn survey_duplicates(&mut self, shared: &dyn SharedData) -> Option<u64> {
        let (first, found) = self.surveyed;
        let found = found + self.duplicates.filled(shared, first, SURVEYED_AT_ONCE);
        let next = first + SURVEYED_AT_ONCE;
        if next < self.duplicates.shards() {
            self.surveyed = (next, found);
            return None;
        }
        self.surveyed = (0, 0);
        u64::try_from(found).ok()
    }

    /// Requests with the origin, over all campaigns that are open or have just closed.
    pub fn credits_in_flight(&self, shared: &dyn SharedData, now: HostTime) -> u64 {
        let host_ms = now.host_ms;
        let now_ms = self.clock(now).at(host_ms);
        self.campaigns
            .values()
            .filter(|campaign| campaign.is_active(now_ms))
            .filter_map(|campaign| state::account(shared, &campaign.account, campaign.tag))
            .map(|account| account.in_flight(&self.layout, host_ms))
            .sum()
    }
}
