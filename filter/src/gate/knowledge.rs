//! How a worker comes to know the campaigns: from the configuration, from the snapshot in shared data, and, in the one
//! worker that syncs for the process, from the backend.

use doorbuster_domain::id::CampaignId;
use doorbuster_domain::wire::Totals;

use super::campaign::Campaign;
use super::{Gate, Synced};
use crate::config::{self, StaticCampaign};
use crate::credits::Terms;
use crate::host::{HostTime, SharedData};
use crate::state;
use crate::sync::{self, Snapshot};

/// Accounts beside those of the configured campaigns and of the synced ones: another configuration of the same namespace,
/// such as the one before a push, may have campaigns of its own.
const SPARE_ACCOUNTS: usize = 16;

impl Gate {
    pub(super) fn stored_snapshot(&mut self, shared: &dyn SharedData) -> Option<Snapshot> {
        self.generation = state::generation(shared, &self.names);
        // One of an older layout counts as none; the next sync replaces it.
        state::snapshot(shared, &self.names).and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    pub(super) fn claim_accounts(&self, shared: &dyn SharedData, snapshot: Option<&Snapshot>) {
        let written = self.config.campaigns.iter().map(|campaign| &campaign.id);
        let told = snapshot.iter().flat_map(|snapshot| snapshot.response.campaigns.iter().map(|campaign| &campaign.id));
        let wanted: Vec<&CampaignId> = written.chain(told).collect();
        let most_synced = self.config.sync.as_ref().map_or(0, |sync| sync.max_campaigns as usize);
        let capacity = self.config.campaigns.len() + most_synced + SPARE_ACCOUNTS;
        state::assign_accounts(shared, &self.names, &wanted, capacity);
    }

    /// Rebuilds the campaigns from the configuration and a snapshot; a synced campaign wins over a written one.
    pub(super) fn load(&mut self, shared: &dyn SharedData, snapshot: Option<Snapshot>) {
        let snapshot = snapshot.filter(|_| self.config.sync.is_some());
        let keys = state::account_keys(shared, &self.names);
        let mut before = std::mem::take(&mut self.campaigns);
        self.synced = snapshot.as_ref().map(|snapshot| Synced {
            received_ms: snapshot.received_ms,
            wall_ahead_ms: snapshot.wall_ahead_ms,
            clock: snapshot.clock,
            complete: snapshot.response.complete,
        });
        let now_ms = self.clock(self.ticked).at(self.ticked.host_ms);
        let hash_key = self.process.hash_key;
        let mut placed = 0;
        let mut place = |campaign: Campaign| {
            placed += 1;
            let campaign = match before.remove(&campaign.id) {
                Some(known) => known.succeeded_by(campaign),
                None => campaign,
            };
            self.campaigns.insert(campaign.id.clone(), campaign);
        };
        let told = snapshot.map(|snapshot| snapshot.response.campaigns).unwrap_or_default();
        let only_written = |written: &&StaticCampaign| told.iter().all(|told| told.id != written.id);
        let wanted = told.len() + self.config.campaigns.iter().filter(only_written).count();
        for written in self.config.campaigns.iter().filter(only_written) {
            if let Some(account) = keys.get(written.id.as_str()) {
                place(Campaign::written(written, account.clone(), &hash_key, now_ms));
            }
        }
        for told in told {
            if let Some(account) = keys.get(told.id.as_str()) {
                place(Campaign::told(told, account.clone(), &hash_key));
            }
        }
        self.lacks_accounts = placed < wanted;
        // A backend that lags may tell of a latch that an answer has lifted already.
        for campaign in self.campaigns.values_mut() {
            campaign.look_at_latch(shared);
        }
    }
}

/// The worker that syncs for the process.
impl Gate {
    /// The body of the sync of this number, which is about to be sent. The accounts remember what they hold, so that the
    /// answer can be understood.
    pub fn ask(&mut self, number: u64, sync: &config::Sync, shared: &dyn SharedData, now: HostTime) -> Vec<u8> {
        let host_ms = now.host_ms;
        let now_ms = self.clock(now).at(host_ms);
        let layout = self.layout;
        for campaign in self.campaigns.values().filter(|campaign| campaign.is_active(now_ms)) {
            let _ = state::update_account(shared, &campaign.account, campaign.tag, &mut self.cas_retries, |account| {
                if account.tag == campaign.tag {
                    account.ask(number, &layout, host_ms);
                }
            });
        }
        let totals = self.unreported(shared);
        sync::request_body(&self.process.gateway, sync.max_campaigns, totals)
    }

    /// Totals that have changed since the backend last answered.
    fn unreported(&mut self, shared: &dyn SharedData) -> Vec<Totals> {
        self.reporting.clear();
        let mut changed = Vec::new();
        for campaign in self.campaigns.values() {
            for totals in state::totals(shared, &campaign.account, &campaign.id) {
                let round = (totals.campaign.clone(), totals.round);
                let sum = totals.decisions.values().sum();
                if self.reported.get(&round) != Some(&sum) {
                    self.reporting.push((round, sum));
                    changed.push(totals);
                }
            }
        }
        changed
    }

    /// Takes in the answer to a sync: the accounts first, then the snapshot for the other workers.
    pub fn accept(&mut self, mut snapshot: Snapshot, shared: &dyn SharedData) {
        if let Some(before) = self.stored_snapshot(shared) {
            if before.number >= snapshot.number {
                self.accept_late(&snapshot, before, shared);
                return;
            }
            snapshot.keep_newer(&before);
        }
        self.reported.extend(self.reporting.drain(..));
        self.reported.retain(|(id, _), _| self.campaigns.contains_key(id));
        self.claim_accounts(shared, Some(&snapshot));
        let keys = state::account_keys(shared, &self.names);
        for told in &snapshot.response.campaigns {
            let open = told.round.filter(|round| {
                let current = told.timetable.rounds.first();
                current.is_some_and(|current| current.id == *round && current.contains(snapshot.response.now_ms))
            });
            let (Some(round), Some(account)) = (open, keys.get(told.id.as_str())) else { continue };
            let tag = self.process.hash_key.campaign(&told.id);
            let terms = Terms { tag, version: told.version, quota: told.quota, round, synced: true };
            let _ = state::update_account(shared, account, tag, &mut self.cas_retries, |account| {
                account.answer(snapshot.number, &terms, told.issued, told.reserved, snapshot.response.gateways);
            });
        }
        state::publish_snapshot(shared, &self.names, &serde_json::to_vec(&snapshot).unwrap_or_default());
        self.load(shared, Some(snapshot));
    }

    /// Takes in an answer that was overtaken by the one to a later sync. Its counts are out of date, but the backend that
    /// gave it may know of changes of which the other one does not know yet.
    fn accept_late(&mut self, late: &Snapshot, mut current: Snapshot, shared: &dyn SharedData) {
        if current.keep_newer(late) {
            state::publish_snapshot(shared, &self.names, &serde_json::to_vec(&current).unwrap_or_default());
            self.load(shared, Some(current));
        }
    }

    /// Whether this configuration syncs.
    #[must_use]
    pub fn syncs(&self) -> bool {
        self.config.sync.is_some()
    }

    /// Age of the newest snapshot, milliseconds; none before the first.
    #[must_use]
    pub fn snapshot_age_ms(&self, host_ms: i64) -> Option<u64> {
        self.synced.map(|synced| host_ms.abs_diff(synced.received_ms))
    }
}
