//! What the gateways have decided, added up.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use doorbuster_domain::id::{CampaignId, RoundId};
use doorbuster_domain::wire::Totals;
use redis::Script;

use super::{Redis, RedisError};

static TOTALS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("totals.lua")));

impl Redis {
    /// Takes in a gateway's totals of a round; the keys may go at `expires_ms` (Unix milliseconds).
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn add_totals(&self, gateway: &str, totals: &Totals, expires_ms: i64) -> Result<u64, RedisError> {
        let mut invocation = TOTALS.prepare_invoke();
        invocation
            .key(self.told_key(&totals.campaign, totals.round, gateway))
            .key(self.sums_key(&totals.campaign, totals.round))
            .arg(expires_ms);
        for (decision, total) in &totals.decisions {
            invocation.arg(decision).arg(*total);
        }
        self.invoke(totals.campaign.as_str(), &invocation).await
    }

    /// Requests of a round that all gateways have admitted, or refused with a code.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn edge_totals(
        &self,
        campaign: &CampaignId,
        round: RoundId,
    ) -> Result<BTreeMap<String, u64>, RedisError> {
        self.command(campaign.as_str(), redis::cmd("HGETALL").arg(self.sums_key(campaign, round))).await
    }
}
