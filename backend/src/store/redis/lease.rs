//! The lease by which one backend at a time rebuilds a round.

use std::sync::LazyLock;
use std::time::Duration;

use doorbuster_domain::id::{CampaignId, RoundId};
use redis::Script;

use super::{Redis, RedisError};

static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));

/// A wish to rebuild a round, and its fulfilment once [`Redis::take`] has granted it.
#[derive(Debug)]
pub struct Lease {
    campaign: CampaignId,
    key: String,
    holder: String,
}

impl Lease {
    /// After a holder was last heard of, another may take over.
    pub const TERM: Duration = Duration::from_secs(1);
}

impl Redis {
    /// Names a holder, which has nothing yet. One that comes back under its name has what it had.
    #[must_use]
    pub fn lease(&self, campaign: &CampaignId, round: RoundId, holder: &str) -> Lease {
        Lease { campaign: campaign.clone(), key: self.lease_key(campaign, round), holder: holder.to_owned() }
    }

    /// Takes a lease for [`Lease::TERM`], or keeps it for as long from now. False if another has it.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn take(&self, lease: &Lease) -> Result<bool, RedisError> {
        self.lease_for(lease, Lease::TERM.as_millis()).await
    }

    /// Gives a lease back, if it is still held.
    ///
    /// # Errors
    /// If Redis cannot be reached; it ends by itself.
    pub async fn give_back(&self, lease: &Lease) -> Result<(), RedisError> {
        self.lease_for(lease, 0).await.map(drop)
    }

    async fn lease_for(&self, lease: &Lease, ms: u128) -> Result<bool, RedisError> {
        self.invoke(lease.campaign.as_str(), LEASE.key(&lease.key).arg(&lease.holder).arg(ms.to_string())).await
    }
}
