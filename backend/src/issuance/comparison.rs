//! Whether PostgreSQL still has what it was known to have. After a restore, or a failover with lost
//! commits, it does not.
//!
//! What was known beforehand is compared with what PostgreSQL says now, and both only rise; so no
//! timing makes PostgreSQL appear to be behind. Each sweep compares what it reads anyway.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Issuance, RoundKey};
use crate::store::postgres::{Installation, Mark, RecentRound};

/// Rounds asked about anew where PostgreSQL seems to be behind: one that is behind suffices.
const ASKED_ANEW: usize = 20;

/// What was known before PostgreSQL was asked.
#[derive(Debug)]
pub(super) struct Before {
    installation: Arc<Installation>,
    rounds: HashMap<RoundKey, Mark>,
}

impl Issuance {
    /// What is known now of all rounds: what PostgreSQL returned to this process, and what Redis showed,
    /// which is never ahead of PostgreSQL.
    pub(super) fn known_before(&self) -> Before {
        let installation = self.lineage.current();
        let issued = self.progress.of_all().into_iter();
        let mut rounds: HashMap<RoundKey, Mark> =
            issued.map(|(key, issued)| (key, Mark { epoch: 0, issued })).collect();
        for (key, counts) in self.counts.looks() {
            let known = rounds.entry(key).or_default();
            known.epoch = counts.epoch;
            known.issued = counts.committed.max(known.issued);
        }
        Before { installation, rounds }
    }

    /// Compares with the rounds that PostgreSQL has now. `expected` are rounds that must be among
    /// them if anything is known of them.
    pub(super) async fn compare(&self, before: Before, now: &[RecentRound], expected: &[RoundKey]) {
        let marks: HashMap<RoundKey, Mark> = now
            .iter()
            .map(|recent| (RoundKey { campaign: recent.campaign.clone(), round: recent.round }, recent.mark))
            .collect();
        let seems_behind = |(key, known): &(&RoundKey, &Mark)| match marks.get(*key) {
            Some(mark) => is_behind(*mark, **known),
            None => expected.contains(key) && is_behind(Mark::default(), **known),
        };
        let doubtful: Vec<RoundKey> =
            before.rounds.iter().filter(seems_behind).take(ASKED_ANEW).map(|(key, _)| key.clone()).collect();
        self.ask_anew(&before, &doubtful).await;
    }

    /// Redis has a coupon of the round as committed that PostgreSQL does not have. If more is
    /// missing, the database has another lineage; otherwise this one round is rebuilt.
    pub(super) async fn contradicted(&self, key: &RoundKey) {
        // Others that notice the same have it looked into once.
        let Ok(_comparing) = self.comparing.try_lock() else { return };
        let before = self.known_before();
        if self.ask_anew(&before, std::slice::from_ref(key)).await {
            return;
        }
        tracing::warn!(campaign = %key.campaign, round = %key.round, "Redis has a coupon that PostgreSQL lacks");
        if let Err(error) = self.redis.chill(&[(key.campaign.clone(), key.round)]).await {
            tracing::debug!(%error, campaign = %key.campaign, "a round cannot be marked as cold");
        }
    }

    /// Asks about rounds anew, Redis first. Whether PostgreSQL is behind in one of them.
    pub(super) async fn ask_anew(&self, before: &Before, rounds: &[RoundKey]) -> bool {
        if rounds.is_empty() {
            return false;
        }
        let asked: Vec<_> = rounds.iter().map(|key| (&key.campaign, key.round)).collect();
        let shown = self.redis.counts(&asked).await.unwrap_or_default();
        let marks = match self.postgres.marks(&asked).await {
            Ok(marks) => marks,
            Err(error) => {
                tracing::warn!(%error, "rounds cannot be compared");
                return false;
            }
        };
        for (place, key) in rounds.iter().enumerate() {
            // A campaign that was deleted is no loss.
            let Some(mark) = marks.get(place).copied().flatten() else { continue };
            let returned = before.rounds.get(key).map_or(0, |known| known.issued);
            let shown = shown.get(place).copied().flatten().filter(|counts| counts.warm).unwrap_or_default();
            let known = Mark { epoch: shown.epoch, issued: shown.committed.max(returned) };
            if is_behind(mark, known) {
                tracing::error!(
                    campaign = %key.campaign, round = %key.round, ?known, ?mark,
                    "PostgreSQL lacks what it was known to have"
                );
                self.lineage.report_loss(&before.installation.lineage);
                return true;
            }
        }
        false
    }
}

fn is_behind(mark: Mark, known: Mark) -> bool {
    mark.epoch < known.epoch || mark.issued < known.issued
}
